"""The command `mialib`: run notebooks with parameters, plan or list what can be run, audit networks, build data sets, tidy
the cache.

`mialib run` is a thin door to papermill: it checks the parameters, executes the notebook with a progress bar, leaves
`outputs/.local/<notebook>/<run>/` behind and prints the headline table, or the message of the cell that failed. Several
files run side by side, see `sweeping`.

What takes seconds to import is imported where it is used, so that a signal meets `_stoppable` from the start.
"""

import argparse
import difflib
import itertools
import json
import logging
import os
import platform
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mialib import REPO_ROOT, environment, outputs_root, params, stored_root, version

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not known everywhere
_LOGGERS = ("asyncio", "papermill")  # they report the end of a kernel that was ended
_PATIENCE = 8.0  # seconds for a kernel to end by itself; jupyter_client kills it after five
_WITHOUT_INFLUENCE = ("data_root", "device", "n_jobs")  # parameters that tell where a run computes, not what


class Stopped(KeyboardInterrupt):
    """A signal asked the command to stop; asyncio lets no other exception but this kind through at once."""

    def __init__(self, number: int):
        super().__init__()
        self.status = 128 + number


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        The exit status: 0 done, 1 a run failed, 2 bad input or a place that cannot be used, 3 an audit's gate is not
        passed, 4 it cannot tell, 130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP, 141 nobody reads what it prints.
    """
    try:
        with _stoppable():
            return _command(arguments)
    except Stopped as stopped:
        _say_stopped()
        return stopped.status


def _command(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    word = next(
        (one for one in arguments if not one.startswith("-")), None
    )  # no option before it has a value
    if word is not None and word not in COMMANDS:
        nearest = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.0)[0]
        parser.error(
            f"unknown command {word!r}, did you mean {nearest!r}? There are {', '.join(COMMANDS)}; "
            "'mialib --help' says what each does"
        )
    options = vars(parser.parse_args(arguments))
    command = COMMANDS[options.pop("command")]
    try:
        status = command(**options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads it has seen enough, as in `mialib list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still has to write
        return 128 + 13
    except (ValueError, OSError) as error:
        print(f"mialib: {error}", file=sys.stderr)
        return 2


class _Schema(argparse.Action):
    def __call__(self, parser, *_):
        from mialib.auditing import contents

        print(contents.schema(), end="")
        parser.exit()


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        from importlib import metadata  # only who asks needs it

        print(f"mialib {version()}, Python {platform.python_version()}, torch {metadata.version('torch')}")
        parser.exit()


_EXAMPLES = {
    "": """\
  mialib list                                                what can be run
  mialib plan params/yuan2022_pruning/location.yaml          how long it would take here
  mialib run params/yuan2022_pruning/digits.yaml             half a minute to a few, on two cores
  mialib COMMAND --help                                      more about one of them""",
    "run": """\
  mialib run params/yuan2022_pruning/digits.yaml
  mialib run params/yuan2022_pruning/*.yaml --jobs 4         side by side, in four processes together
  mialib run params/*/location.yaml --at-once 1              one after the other
  mialib run params/yuan2022_pruning/location.yaml --backend dask --address tcp://host:8786
  nohup mialib run params/wang2020_mcmia/digits.yaml 2> progress.log &
                                                             a line every 30 seconds""",
    "train": """\
  mialib train --shard 1/2 params/yuan2022_pruning/location.yaml
  mialib train --shard 2/2 params/yuan2022_pruning/location.yaml
                                                             each a job of its own, one MIALIB_CACHE for all;
                                                             'mialib run' then finds everything trained""",
    "plan": """\
  mialib plan params/yuan2022_pruning/location.yaml
  mialib plan params/*/cifar10_small.yaml --jobs 8""",
    "list": """\
  mialib list
  mialib list | grep location""",
    "init": """\
  mialib init my_audit && cd my_audit && mialib list""",
    "overview": """\
  mialib overview
  MIALIB_OUTPUTS=results mialib overview                     of another folder, into its README.md""",
    "site": """\
  mialib site                                                then open outputs/.site/index.html
  mialib site public                                         for a server""",
    "audit": """\
  mialib audit audit.yaml

  audit.yaml:
    networks:
      original: {factory: "mine:network", weights: original.pt}
      pruned: {factory: "mine:network", weights: pruned.pt}
      int8: int8.onnx
    members: members.npz          # x and y; or a folder of pictures, or module:function
    nonmembers: others.npz
    control: longer.onnx          # changed as long as the compressed ones, but not compressed;
                                  # or one for each: {int8: longer.onnx, pruned: longest.onnx}
    gate: auc_increase > 0.02
    html: audit.html
    shadows: {train: "mine:train", compress: "mine:compress", n: 8, folder: shadows}
                                  # optional: an attacker who imitates the networks by your recipe""",
    "audit-answers": """\
  mialib audit-answers answers.npz --html audit.html
  mialib audit-answers answers.npz --control longer --gate "auc_increase over control > 0.02"
  mialib audit-answers answers.npz --control pruned=longer --control purified=longest

in Python, to save answers:
  numpy.savez("answers.npz", labels=..., member=..., original=..., pruned=...)
  labels (n,) and member (n,), 1 = was trained on; each network's logits or posteriors (n, classes)
  of s imitations of each network, if you have some: shadow_original, shadow_pruned (s, n, classes), and
  shadow_member (s, n), 1 = it has learned the example""",
    "cache": """\
  mialib cache size                                          what the cache holds, by kind and last use
  mialib cache list --run params/yuan2022_pruning/digits.yaml
                                                             what a run uses
  mialib cache clear --older-than 30d                        not used for that long; asks first
  mialib cache clear --unused --yes                          what no run in params/ needs""",
    "faces": """\
  mialib faces att att_faces.zip ~/data
  mialib faces lfw lfw-funneled.tgz ~/data""",
}
_STATUSES = """\
exit status: 0 done, 1 a run failed, 2 bad input or a place that cannot be used; 130, 143 or 129 stopped by
SIGINT (Ctrl-C), SIGTERM or SIGHUP: start again to go on, what was trained is kept. Of several runs
the highest counts"""


_GATE_STATUSES = """\
exit status: 0 done, 2 bad input, 3 the gate is not passed, 4 it cannot tell"""


def _parser() -> argparse.ArgumentParser:
    def described(name: str, about: str, end: str = "") -> dict:
        examples = f"examples:\n{_EXAMPLES[name]}"
        return {
            "description": about,
            "epilog": "\n\n".join(filter(None, (examples, end))),
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }

    parser = argparse.ArgumentParser(
        prog="mialib",
        **described(
            "", "Run notebooks with parameters, plan or list what can be run, build data sets.", _STATUSES
        ),
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="of mialib, Python and torch"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, about: str, end: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=about, **described(name, about[0].upper() + about[1:] + ".", end)
        )

    run = add("run", "execute a notebook with the parameters of a YAML file", _STATUSES)
    run.add_argument("files", nargs="+", type=Path, metavar="params/<notebook>/<run>.yaml")
    run.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes for training, of all files together (default: the file's n_jobs, of several the largest)",
    )
    run.add_argument(
        "--at-once",
        type=int,
        metavar="M",
        help="notebooks side by side, each with an equal part of the N processes; they need the memory of M runs "
        "(default: as many as files, at most N; with CUDA, one for each GPU)",
    )
    run.add_argument(
        "--backend",
        metavar="WHERE",
        help="where networks are trained: local (processes of this machine, the default), dask (its workers) or slurm (job "
        "arrays); all need the same MIALIB_CACHE. What is left out of this and the next two, MIALIB_BACKEND, MIALIB_ADDRESS "
        "and MIALIB_WORKERS say",
    )
    run.add_argument(
        "--address",
        help="dask: the scheduler's, as tcp://host:8786 (default: workers on this machine); slurm: what sbatch is told, as "
        "slurm:partition=gpu,timeout_min=600",
    )
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="workers of dask, or jobs of slurm at a time (default: the file's n_jobs; of a scheduler, all there are)",
    )
    run.add_argument(
        "--keep",
        action="store_true",
        help="write into outputs/ itself, over the results that are stored there",
    )
    train = add("train", "train one share of what runs need, for batch systems", _STATUSES)
    train.add_argument("files", nargs="+", type=Path, metavar="params/<notebook>/<run>.yaml")
    train.add_argument(
        "--shard",
        required=True,
        type=_share,
        metavar="i/n",
        help="share i of n. It trains its own networks first and then helps with others; where nobody can see who has begun with "
        "what (a disk without locks) it waits for them",
    )
    train.add_argument("--jobs", type=int, metavar="N", help="processes for training, as of run")
    plan = add("plan", "count what a run would train and ask, and how long it would take")
    plan.add_argument("files", nargs="+", type=Path, metavar="params/<notebook>/<run>.yaml")
    plan.add_argument("--jobs", type=int, metavar="N", help="processes that it would train in, as of run")
    add("list", "the runs in params/, and which have results in outputs/")
    init = add("init", "copy notebooks/ and params/ into a folder of your own")
    init.add_argument("folder", type=Path)
    add("overview", "write outputs/README.md: the results of all runs on one page")
    build = add("faces", "build a face data set from its original archive")
    build.add_argument("kind", type=_face_set, help="att: AT&T (ORL) faces; lfw: aligned Labeled Faces")
    build.add_argument("archive", type=Path, help="the original folder, .zip or .tar archive")
    build.add_argument("root", type=Path, help="data root to write faces/ into (MIALIB_DATA)")
    audit = add("audit", "say whether compressed networks leak more than the original", _GATE_STATUSES)
    audit.add_argument("file", type=Path, metavar="audit.yaml")
    saved = add("audit-answers", "the same from saved answers alone", _GATE_STATUSES)
    saved.add_argument("file", type=Path, metavar="answers.npz")
    saved.add_argument(
        "--baseline", metavar="NAME", help="the network that others are compared with (original)"
    )
    saved.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="[NETWORK=]NAME",
        help="a network changed as long, but not compressed; with NETWORK= for that one alone, and once for each",
    )
    saved.add_argument(
        "--accuracy",
        type=float,
        metavar="SHARE",
        help="what the networks should reach on unseen examples, 0 to 1",
    )
    for one in (audit, saved):
        one.add_argument(
            "--gate",
            metavar="CONDITION",
            help='what must not be: "auc_increase > 0.02" (over the baseline), "auc_increase over control > 0.02" (over each '
            "network's control, or another network by its name); also tpr_at_0.01_increase and tpr_at_0.001_increase",
        )
        one.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
        one.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
        one.add_argument(
            "--schema", action=_Schema, nargs=0, dest=argparse.SUPPRESS, help="print the JSON's schema"
        )
    _add_cache(add("cache", "say what the cache of trained networks holds, and remove what can go"))
    pages = add("site", "build a site of all executed notebooks, for a browser")
    pages.add_argument("folder", nargs="?", type=Path, help="gets the site (default: outputs/.site)")
    return parser


def _add_cache(cache: argparse.ArgumentParser) -> None:
    """The actions of `mialib cache`, and their options."""
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("size", help="entries and bytes, by kind and by the time of the last use")
    entries = actions.add_parser("list", help="a line for each entry, those last used first")
    clear = actions.add_parser("clear", help="remove entries, after asking; all conditions must hold")
    file = "params/<notebook>/<run>.yaml"
    for one in (entries, clear):
        one.add_argument("--run", nargs="+", type=Path, metavar=file, help="what these runs use")
    entries.add_argument("--json", action="store_true", help="as JSON, with whole keys and exact numbers")
    clear.add_argument(
        "--older-than", type=_span, metavar="30d", help="last used that long ago: h, d, w or y"
    )
    clear.add_argument(
        "--unused",
        nargs="*",
        type=Path,
        metavar=file,
        help="entries that no run in params/ needs, or none of these; what is not known to be needless stays",
    )
    clear.add_argument("--all", action="store_true", help="everything")
    clear.add_argument("--yes", action="store_true", help="do not ask")


def _share(text: str):
    from mialib.training import shares

    try:
        return shares.share(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _span(text: str) -> float:
    """Seconds of a span like 30d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy])", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no span; give a number and h, d, w or y, as 12h or 30d"
        )
    return float(found[1]) * {"h": 1, "d": 24, "w": 168, "y": 8766}[found[2]] * 3600


def _found(path: Path) -> Path:
    """A parameter file as `mialib list` names it, from whichever folder."""
    named = REPO_ROOT / path
    return named if named.is_file() and not os.path.lexists(path) else path


def _face_set(name: str) -> str:
    from mialib.data import faces

    if name not in faces.FILES:
        raise argparse.ArgumentTypeError(f"unknown faces {name!r}; there are {', '.join(faces.FILES)}")
    return name


def _notebook(path: Path) -> Path:
    """The notebook that a parameter file is for: the one named like the folder it stands in.

    The folder as it is written, since mounted configurations are links to folders of other names; else the one that a
    link leads to.
    """
    params.yaml_files.check_file(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError("it is not a .yaml file; 'mialib list' shows the runs, params/<notebook>/<run>.yaml")
    notebooks = REPO_ROOT / "notebooks"
    for place in (Path(os.path.abspath(path)), path.resolve()):
        if (notebook := notebooks / f"{place.parent.name}.ipynb").is_file():
            return notebook
    names = ", ".join(sorted(found.stem for found in notebooks.glob("*.ipynb")))
    raise ValueError(f"its folder must be named after a notebook, one of {names}")


Checked = list[tuple[Path, Path, dict]]  # parameter file, its notebook, its parameters


def _checked(paths: list[Path], jobs: int | None, fitting: bool) -> tuple[Checked, list[str]]:
    """What is to be run, and all that is wrong with it, one line each; `fitting`: see `params.read`."""
    checked: Checked = []
    problems: list[str] = []
    instead = {} if jobs is None else {"n_jobs": jobs}
    try:
        params.validate(instead, "--jobs")
    except params.Refused as error:
        problems += error.problems
        instead = {}
    written: dict[tuple[Path, str], Path] = {}  # notebook and run -> the file that asks for it
    for path in paths:
        try:
            notebook = _notebook(path)
        except (ValueError, OSError) as error:
            problems.append(f"{path}: {error}")
            continue
        if (first := written.setdefault((notebook, path.stem), path)) is not path:
            problems.append(f"{path}: its results would replace those of {first}: both are run {path.stem!r}")
        try:
            checked.append((path, notebook, _parameters(path, notebook, instead, fitting)))
        except (ValueError, OSError) as error:
            problems += error.problems if isinstance(error, params.Refused) else [f"{path}: {error}"]
    return checked, problems


def _parameters(path: Path, notebook: Path, instead: dict, fitting: bool) -> dict:
    """The file's parameters and its run, which is named after it."""
    wrong: list[str] = []
    try:
        params.validate({"run": path.stem}, "the file's name")
    except params.Refused as error:
        wrong += error.problems
    try:
        values = {"run": path.stem} | params.read(path, notebook, fitting=fitting, instead=instead)
    except params.Refused as error:
        error.problems += [f"{path}: {problem}" for problem in wrong]
        raise
    if not wrong and values["run"] != path.stem:
        wrong = [f"run is {values['run']!r}; it must be the file's name, {path.stem!r}"]
    if wrong:
        raise params.Refused(str(path), wrong)
    return values


def _list() -> int:
    print(
        "* has results in outputs/ of the parameters that the file has now, - of others only.\n"
        "Run one with 'mialib run params/<notebook>/<run>.yaml'."
    )
    for folder in sorted((REPO_ROOT / "params").iterdir()) if (REPO_ROOT / "params").is_dir() else ():
        files = sorted(folder.glob("*.yaml"))
        if not files:
            continue
        print(f"\nparams/{folder.name}/")
        wide = max(len(path.name) for path in files) + 4
        narrow = min(wide, _NAMES)
        for path in files:
            name, room = path.name, _COLUMNS - narrow
            notes = textwrap.wrap(_note(path), room, max_lines=3, placeholder=" ...")
            first = [] if len(name) + 4 > narrow else notes[:1]  # a long name stands on a line of its own
            print(f"{_mark(path)} {name:{narrow - 2}}{''.join(first)}".rstrip())
            for note in notes[len(first) :]:
                print(" " * narrow + note)
    return 0


_COLUMNS, _NAMES = 100, 40  # of a line of the list, and at most of its first column


def _note(path: Path) -> str:
    """What a parameter file's first line says, to the end of its last sentence."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    first, *others = [line.lstrip("# ") for line in comment] or [""]
    rest = " ".join(others)
    if first.endswith((".", "!", "?")) or not rest:
        return first
    end = re.split(r"(?<=[.!?])\s+(?=[A-Z])", rest)[0]
    return f"{first} {end}"


_NO_RESULTS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # no file, or one of something else


def _results(notebook: str, run: str) -> list[dict]:
    """What was stored of a run, and what the user's own was, where there is any."""
    found = []
    for root in {stored_root(), outputs_root()}:
        try:
            content = json.loads((root / notebook / run / "metrics.json").read_bytes())
            found.append(
                {"parameters": _influential(content["parameters"]), "cost": content.get("provenance")}
            )
        except _NO_RESULTS:
            pass
    return found


def _mark(path: Path) -> str:
    """What results a parameter file has: * current, - of other parameters only, else blank."""
    found = _results(path.parent.name, path.stem)
    if not found:
        return " "
    try:
        values = params.declared(_notebook(path)) | params.yaml_files.read(path)[0]
    except (OSError, ValueError):  # the file has become one that cannot be run
        return "-"
    wanted = _influential(values | {"run": path.stem})
    return "*" if wanted in [one["parameters"] for one in found] else "-"


def _cost(path: Path, notebook: Path, parameters: dict) -> str:
    """What the run will take, as far as that is known without counting: what it took the last time."""
    wanted = _influential(params.declared(notebook) | parameters)
    for one in _results(notebook.stem, parameters["run"]):
        cost = one["cost"] or {}
        if one["parameters"] == wanted and cost.get("seconds"):
            trained = (
                ""
                if cost.get("trained") is None
                else (
                    f"; it trained {cost['trained']} networks and found {cost.get('found') or 0} in the cache"
                )
            )
            return (
                f"It took {cost['seconds'] / 60:.1f} minutes when these parameters were last run "
                f"({cost.get('device') or 'device unknown'}{trained})."
            )
    return f"How long it takes is not known; 'mialib plan {path}' counts it."


def _influential(parameters: dict) -> dict:
    return {name: value for name, value in parameters.items() if name not in _WITHOUT_INFLUENCE}


def _run(
    files: list[Path],
    jobs: int | None,
    at_once: int | None,
    keep: bool,
    backend: str | None,
    address: str | None,
    workers: int | None,
) -> int:
    from mialib.training import elsewhere

    checked, problems = _checked([_found(path) for path in files], jobs, fitting=True)
    if at_once is not None and at_once < 1:
        problems.append(f"--at-once is {at_once}: how many notebooks run side by side; take at least 1")
    try:
        place = elsewhere.chosen(backend, address, workers)
    except (ValueError, ImportError) as error:
        problems.append(str(error))
    if _said(problems):
        return 2
    from mialib import sweeping  # after the checks: these take seconds to import

    root = stored_root() if keep else outputs_root()
    folders = _folders(checked, root, "leave out --keep and " if keep else "")
    with environment(**place.variables()):
        if len(checked) == 1:
            return _executed(*checked[0], root)
        runs = [
            sweeping.Run(path, notebook.stem, params.declared(notebook) | parameters, folder)
            for (path, notebook, parameters), folder in zip(checked, folders, strict=True)
        ]
        return sweeping.sweep(runs, jobs, at_once, ["--keep"] if keep else [])


def _train(files: list[Path], jobs: int | None, shard) -> int:
    from mialib.training import shares

    checked, problems = _checked([_found(path) for path in files], jobs, fitting=True)
    if _said(problems):
        return 2
    root = outputs_root() / ".shares" / f"{shard.number}_of_{shard.of}"
    _folders(checked, root)
    statuses = []
    with environment(**{shares.VARIABLE: str(shard)}):
        for one in checked:
            statuses.append(_executed(*one, root))
    again = "mialib run " + " ".join(str(path) for path, *_ in checked)
    print(
        f"\nShare {shard} is done with what it could do. '{again}' finds in the cache what all shares have trained."
    )
    return max(statuses)


def _said(problems: list[str]) -> bool:
    """Say all problems of all files, before the first of them runs for hours; whether there are any."""
    for problem in problems:
        print(f"mialib: {problem}", file=sys.stderr)
    return bool(problems)


def _folders(checked: Checked, root: Path, first: str = "") -> list[Path]:
    """Where the runs write their results.

    Args:
        first: what to do first where that is not possible.

    Raises:
        OSError: one of them cannot be written to, or there can be no cache.
    """
    from mialib import places, store

    folders = [root / notebook.stem / parameters["run"] for _, notebook, parameters in checked]
    for folder in folders:
        places.writable(folder, first + places.elsewhere("MIALIB_OUTPUTS"))
    store.Store().ready()
    return folders


def _executed(path: Path, notebook: Path, parameters: dict, root: Path) -> int:
    """Execute one run in this process, with its results below `root`."""
    from mialib import running
    from mialib.data import own

    print(_cost(path, notebook, parameters))
    with own.beside(path.parent), environment(MIALIB_OUTPUTS=str(root)):
        return running.execute(notebook, parameters)


def _plan(files: list[Path], jobs: int | None) -> int:
    # the machine that plans need not be the one that runs; what does not fit the data is found when they are loaded
    checked, problems = _checked([_found(path) for path in files], jobs, fitting=False)
    if _said(problems):
        return 2
    from mialib import planning  # after the checks, as for `run`
    from mialib.data import own

    statuses = []
    for path, notebook, parameters in checked:
        print(f"{notebook.stem}, run {parameters['run']!r}", flush=True)
        try:
            with own.beside(path.parent):
                made = planning.plan(notebook, parameters)
        except (ValueError, OSError) as error:
            print(f"mialib: {path}: {error}", file=sys.stderr)
            statuses.append(2)
            continue
        print(f"{made}\n")
        statuses.append(0 if made.ended is None else 1)
    return max(statuses)


def _overview() -> int:
    from mialib import places, store
    from mialib.reporting import overview

    stored = outputs_root(stored_root())
    places.writable(stored, places.elsewhere("MIALIB_OUTPUTS"))
    page = stored / "README.md"
    store.write(page, overview.results_page(stored).encode())
    print(page)
    return 0


def _faces(kind: str, archive: Path, root: Path) -> int:
    from mialib import places
    from mialib.data import faces

    places.writable(
        root / "faces", "give a folder that you can write to as the data root, and as MIALIB_DATA later"
    )
    print(faces.build(kind, archive, root / "faces"))
    return 0


def _audit(file: Path, gate: str | None, html: Path | None, json: Path | None) -> int:
    from mialib.auditing import audit, audit_files, yardsticks
    from mialib.auditing import gate as gates

    written = audit_files.read(file)
    condition = written.gate if gate is None else gates.condition(gate)
    asked = written.arguments
    names, control = yardsticks.with_controls(asked["networks"], asked.get("control"))
    _check_gate(condition, names, asked.get("baseline"), control)
    return _audited(audit(**asked), condition, html or written.html, json or written.json)


def _audit_answers(
    file: Path, gate: str | None, html: Path | None, json: Path | None, control: list[str], **options
) -> int:
    from mialib.auditing import audit_answers, saved, yardsticks
    from mialib.auditing import gate as gates

    condition = None if gate is None else gates.condition(gate)
    found = saved.read(file)
    options["control"] = yardsticks.of_words(control, found.answers)
    _check_gate(condition, found.answers, options["baseline"], options["control"])
    return _audited(audit_answers(*found[:3], shadows=found.shadows, **options), condition, html, json)


def _check_gate(condition, names, baseline: str | None, control) -> None:
    """Raises ValueError, before any work, where there is nothing that a gate could compare with."""
    from mialib.auditing import yardsticks

    baseline, control = yardsticks.resolved(names, baseline, control)
    if condition:
        yardsticks.over(condition.than, names, baseline, control)


def _audited(report, condition, html: Path | None, json: Path | None) -> int:
    """Print and write a report, and what its gate says."""
    from mialib.auditing import gate as gates

    print(report)
    if html:
        report.to_html(html, gate=condition)
    if json:
        report.to_json(json, gate=condition)
    if condition is None:
        return 0
    outcome = report.outcome(condition)
    if outcome.outcome == gates.PASSED:
        print(f"gate passed: {outcome.text}")
    else:
        print(f"mialib: {outcome.text}", file=sys.stderr)
    return gates.STATUSES[outcome.outcome]


def _cache(action: str, **options) -> int:
    from mialib import housekeeping

    for name in ("run", "unused"):
        if options.get(name) is not None:
            options[name] = [(Path(os.path.abspath(path)).parent.name, path.stem) for path in options[name]]
    housekeeping.ACTIONS[action](**options)
    return 0


def _site(folder: Path | None) -> int:
    from mialib import places, site

    results = outputs_root(stored_root()).absolute()
    folder = (folder or results / ".site").absolute()
    places.writable(folder, "name a folder that you can write to")
    for problem in (wrong := site.build(results, folder)):
        print(f"mialib: {problem}", file=sys.stderr)
    print(folder / "index.html")
    return 1 if wrong else 0


def _init(folder: Path) -> int:
    """Copy the notebooks and their parameters into a folder, where they can be changed and run."""
    names = "notebooks", "params"
    for path in (folder / name for name in names):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is there already; name a folder without it")
    for name in names:
        leave = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(REPO_ROOT / name, folder / name, ignore=leave, copy_function=shutil.copyfile)
    print(f"{folder} has notebooks/ and params/ now; in it, 'mialib list' shows what can be run")
    return 0


COMMANDS = {
    "run": _run,
    "train": _train,
    "plan": _plan,
    "list": _list,
    "init": _init,
    "overview": _overview,
    "audit": _audit,
    "audit-answers": _audit_answers,
    "site": _site,
    "cache": _cache,
    "faces": _faces,
}


def _say_stopped() -> None:
    print("mialib: stopped; start again to go on", file=sys.stderr, flush=True)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Signals that end a command raise `Stopped`, once, so that the kernel is ended too; the next ends it at once.

    A signal that is ignored (nohup) stays so. What does not end in time is left: a kernel ends when its command is gone,
    and workers end with their kernel.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    leaving = []

    def leave(status: int) -> None:
        _say_stopped()
        os._exit(status)

    def stop(number: int, frame) -> None:
        stopped = Stopped(number)
        if leaving:
            leave(stopped.status)
        leaving.append(threading.Timer(_PATIENCE, leave, [stopped.status]))
        leaving[0].daemon = True
        leaving[0].start()
        for name in _LOGGERS:
            logging.getLogger(name).disabled = True
        raise stopped

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for timer in leaving:
            timer.cancel()
        for number in heard:
            signal.signal(number, before[number])
