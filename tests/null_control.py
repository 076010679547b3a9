"""Of networks that leak nothing, how many claims of a whole notebook are decided? The membership is redrawn, not the networks.

    python tests/null_control.py [--redraws 20] [NOTEBOOK ...]        default: all that claim who is found out, on digits

Runs each notebook's code once for every redraw: the same networks (from MIALIB_CACHE, or trained in the first one) and attacks,
but who counts as a member of a target is drawn anew among its candidates. Then no setting leaks more than another, and a verdict
other than "inconclusive" on such a claim is a mistake. Such claims are found, not listed: orderings with a boundary of 0 whose
result moves with the redraw, but for those of `NO_LEAK`. (Others do not rest on who is scored as a member: accuracies, sizes.)

Prints, for each claim, how often it was decided each way, and for each notebook and all together the share of decided verdicts
with a 95 % interval over the redraws, since the claims of one redraw share their data. Not a test: its long form takes an hour.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout's own package, as pytest has it

import mialib  # noqa: E402
from mialib import streams  # noqa: E402
from mialib.asking import answers  # noqa: E402
from mialib.measures import metrics  # noqa: E402
from mialib.reporting import claims  # noqa: E402
from mialib.reporting.claims import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED  # noqa: E402
from mialib.study import Study  # noqa: E402

DECIDED = (REPRODUCED, NOT_REPRODUCED)
OFTEN, ALONE = "how often an attacker says member, of whomever", "of the members alone, whoever they are"
ALLOWED, TIME = "a change that is allowed, less the change", "seconds, which differ from run to run"
# claims that move with the redraw, and whose true difference is not 0 where nothing leaks
NO_LEAK = {
    "tpr": OFTEN,
    "f1": OFTEN,
    "knowing_tpr": OFTEN,
    "knowing_tpr_fewest": OFTEN,
    "fewer_fit_less": ALONE,
    "entropy_rises": ALONE,
    "gap_stays": ALLOWED,
    "labels_stay": ALLOWED,
    "detector": ALLOWED,
    "purifier_time": TIME,
    "memguard_time": TIME,
}


# the notebooks none of whose claims are about who is a member: what is redrawn of inputs is redrawn of members and of others
NO_MEMBERSHIP = {"yang2020_inversion", "wang2020_compression"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    every = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - NO_MEMBERSHIP
    parser.add_argument("notebooks", nargs="*", default=sorted(every))
    parser.add_argument("--redraws", type=int, default=20)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(redrawn(options.notebooks[0], options.redraws)))
        return
    shares = []
    for name in options.notebooks:
        command = [sys.executable, __file__, name, "--redraws", str(options.redraws), "--one"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        shares.append(report(name, json.loads(done.stdout.splitlines()[-1])))
    if len(shares) > 1:
        decided, judged = np.sum(shares, axis=0)
        print(f"\nall notebooks: {_share(decided, judged)}")


def redrawn(notebook: str, redraws: int) -> list[dict[str, list]]:
    """For each redraw: key of each ordering with boundary 0 -> [claim, what was found, verdict]."""
    source = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in source["cells"] if cell["cell_type"] == "code"]
    sys.modules["mialib.figures"] = mialib.figures = mock.MagicMock()  # pictures would take half of the time
    answers._of_each = _remembering(answers._of_each)
    found = []
    for number in range(redraws):
        began = time.perf_counter()
        with scored_by(number), _judged() as tables:
            # once all is known, workers cost more than they do
            _execute(cells, {"n_jobs": 1} if number else {})
        found.append(
            {
                key: [row["claim"], row["ours"], row["verdict"]]
                for paper, table in tables
                for key, row in table.iterrows()
                if paper[key].is_ordering and paper[key].boundary == 0
            }
        )
        print(f"{notebook} {number + 1}/{redraws}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def report(notebook: str, found: list[dict[str, list]]) -> np.ndarray:
    """Prints a notebook's table; (2, redraws): decided and judged verdicts on claims that move with the redraw."""
    print(f"\n{notebook}, {len(found)} redraws")
    counts = np.zeros((2, len(found)), dtype=int)
    for key in dict.fromkeys(key for one in found for key in one):
        results = [one.get(key) for one in found]
        text = next(one[0] for one in results if one)
        if key in NO_LEAK or len({one[1] for one in results if one}) < 2:
            continue  # it does not rest on who is scored as a member
        verdicts = [one[2] if one else "" for one in results]
        decided = np.isin(verdicts, DECIDED)
        counts += np.stack([decided, decided | np.isin(verdicts, [INCONCLUSIVE])])
        number = collections.Counter(verdicts)
        print(f"  {number[REPRODUCED]:3} up {number[NOT_REPRODUCED]:3} down of {len(found)}  {text}")
    print(f"  {_share(*counts)}")
    return counts


def _share(decided: np.ndarray, judged: np.ndarray) -> str:
    if not judged.all():
        return "no claim is about who is a member"
    each = metrics.over_targets(decided / judged)
    return (
        f"{decided.sum()} of {judged.sum()} verdicts are decided, {decided.sum() / judged.sum():.1%}; over the redraws "
        f"{each.value:.1%} [{each.low:.1%}, {each.high:.1%}]"
    )


@contextlib.contextmanager
def scored_by(number: int):
    """Every study's targets have the members of this redraw, the same ones in all studies of the same targets."""
    begin = Study.__init__

    def redrawing(self, pool, split, *args, member=None, **options):
        begin(self, pool, split, *args, member=member, **options)
        if member is not None:
            return
        roles = self.roles
        rows = []
        for target, index, truth in zip(roles.targets, roles.index[roles.targets], roles.truth, strict=True):
            generator = streams.generator(number, int(roles.split.seeds[target]), "null control")
            drawn = torch.rand(len(pool), generator=generator)[index]
            rows.append(drawn.argsort().argsort() < truth.sum())
        self.roles = replace(roles, truth=torch.stack(rows))

    with mock.patch.object(Study, "__init__", redrawing):
        yield


@contextlib.contextmanager
def _judged():
    """The tables of verdicts that are made meanwhile, with what they were made from."""
    made, compare = [], claims.compare

    def noted(paper, *args, **options):
        table = compare(paper, *args, **options)
        made.append((paper, table))
        return table

    with mock.patch.object(claims, "compare", noted):
        yield made


def _remembering(ask):
    """The same networks are asked the same in every redraw."""
    known = {}

    def asked(question, population, data, index, *options):
        key = joblib.hash((question.__name__, population, data.fingerprint, index, options))
        if key not in known:
            known[key] = ask(question, population, data, index, *options)
        return known[key]

    return asked


def _execute(cells: list[str], parameters: dict) -> None:
    """The first cell has the parameters' defaults."""
    names = {"__name__": "notebook", "display": lambda *_: None}
    for i, cell in enumerate(cells):
        names |= parameters if i else {}
        code = "\n".join(line for line in cell.splitlines() if not line.startswith("%"))  # %matplotlib inline
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)


if __name__ == "__main__":
    os.chdir(ROOT / "notebooks")
    os.environ.setdefault("MIALIB_CACHE", tempfile.mkdtemp(prefix="mialib-"))
    os.environ.setdefault("MIALIB_OUTPUTS", tempfile.mkdtemp(prefix="mialib-"))
    os.environ.setdefault("MIALIB_PROGRESS", os.devnull)
    main()
