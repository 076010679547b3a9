"""Do two commits compute the same? Runs the notebooks of both on this machine and compares their rows to the last digit.

    python tests/same_rows.py BEFORE [AFTER]        AFTER: a commit, or the working tree (the default)
    python tests/same_rows.py BEFORE [AFTER] --z    where random numbers changed: how far means over targets moved

With --z, (mean after - mean before) / pooled standard error over the targets, of each setting and metric. If nothing but
chance is behind it, about 5 % lie beyond 1.96 of a normal distribution, a few more with as few targets as here (Student's t:
8 % with five on each side, 12 % with three), and fewer where a metric hardly depends on chance.

Not a test: another processor rounds otherwise, so both sides have to be run on one. Timings are left out. Results of a
commit are kept below --keep and not computed again; those of the working tree always are.
"""

import argparse
import collections
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mialib import reporting
from mialib.study import COLUMNS
from mialib.study.rows import WITHIN_A_SETTING

ROOT = Path(__file__).resolve().parents[1]
TIMINGS = {"search_seconds"}  # metrics that differ from run to run
RUN = (
    "import sys, papermill; name = sys.argv[1]; papermill.execute_notebook("
    "f'notebooks/{name}.ipynb', f'{sys.argv[2]}/{name}.ipynb', kernel_name='python3', progress_bar=False)"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default=".")
    parser.add_argument(
        "--notebooks",
        nargs="*",
        help="names, or BEFORE=AFTER where they differ, one+another for two together; default: all that both sides have",
    )
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "mialib-same-rows")
    parser.add_argument("--z", action="store_true", help="z-values instead of equality")
    options = parser.parse_args()
    sides = [_tree(name, options.keep) for name in (options.before, options.after)]
    names = options.notebooks or sorted(
        set.intersection(*({path.stem for path in (tree / "notebooks").glob("*.ipynb")} for tree, _ in sides))
    )
    differ = False
    for name in names:
        pair = (name.split("=") * 2)[:2]
        found = [_rows(one, *side) for one, side in zip(pair, sides, strict=True)]
        if options.z:
            _print_z(name, *map(_by_setting, found))
            continue
        before, after = map(_as_text, found)
        lost, new = before - after, after - before
        differ |= bool(lost or new)
        print(
            f"{name}: {before.total()} and {after.total()} rows, {lost.total()} only before, {new.total()} only after"
        )
        for sign, rows in (("-", lost), ("+", new)):
            for row in list(rows)[:3]:
                print(f"  {sign} { ({k: v for k, v in json.loads(row).items() if v is not None}) }")
    return int(differ)


def _tree(name: str, keep: Path) -> tuple[Path, Path]:
    """The folder with a side's sources, and the one for its results."""
    if name == ".":
        outputs = keep / "working-tree"
        shutil.rmtree(outputs, ignore_errors=True)
        return ROOT, outputs
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", name], check=True, capture_output=True, text=True
    ).stdout.strip()
    tree = keep / commit / "tree"
    if not tree.exists():
        tree.mkdir(parents=True)
        archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    return tree, keep / commit / "outputs"


def _rows(names: str, tree: Path, outputs: Path) -> list[dict]:
    """The rows of the default runs of notebooks, "one+another"; all numbers as floats."""
    rows = []
    for name in names.split("+"):
        metrics = outputs / name / "digits" / "metrics.json"
        if not metrics.exists():
            _run(name, tree, outputs)
        rows += reporting.load(metrics)["rows"]
    rows = [row for row in rows if row["metric"] not in TIMINGS]
    return [{k: float(v) if isinstance(v, int) else v for k, v in row.items()} for row in rows]


def _as_text(rows: list[dict]) -> collections.Counter:
    return collections.Counter(map(json.dumps, rows))


def _by_setting(rows: list[dict]) -> dict[tuple, np.ndarray]:
    """All columns that say what was measured -> values of the targets, (targets,), trainings averaged."""
    values: dict = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        if row["target"] is not None:
            setting = tuple((k, row[k]) for k in COLUMNS if k not in WITHIN_A_SETTING)
            values[setting][row["target"]].append(math.nan if row["value"] is None else row["value"])
    return {one: np.array([np.mean(of) for of in targets.values()]) for one, targets in values.items()}


def _print_z(name: str, before: dict, after: dict) -> None:
    z, unlike = collections.defaultdict(list), []
    for setting in before.keys() & after.keys():
        a, b = before[setting], after[setting]
        error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)) if min(len(a), len(b)) > 1 else 0
        if error > 0 and math.isfinite(error):
            z[dict(setting)["metric"]].append((b.mean() - a.mean()) / error)
        elif not np.array_equal(a, b, equal_nan=True):
            unlike.append(setting)
    every = np.array(sum(z.values(), []))
    lost, new = len(before.keys() - after.keys()), len(after.keys() - before.keys())
    print(
        f"{name}: {len(every)} z-values, {np.mean(np.abs(every) > 1.96):.1%} beyond 1.96, sd {every.std():.2f}; "
        f"{lost} settings only before, {new} only after, {len(unlike)} without spread differ"
    )
    for metric, values in sorted(z.items(), key=lambda one: -np.mean(np.abs(one[1]) > 1.96)):
        values = np.array(values)
        print(
            f"  {metric:28} {len(values):5} {np.mean(np.abs(values) > 1.96):6.1%}  mean {values.mean():+.2f} sd {values.std():.2f}"
        )


def _run(name: str, tree: Path, outputs: Path) -> None:
    outputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "PYTHONPATH": str(tree),
            "MIALIB_CACHE": os.environ.get("MIALIB_CACHE", cache),
            "MIALIB_OUTPUTS": str(outputs),
            "MIALIB_PROGRESS": os.devnull,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", RUN, name, str(outputs)]
        subprocess.run(command, cwd=tree, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
