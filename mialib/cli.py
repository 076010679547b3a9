"""The command `mialib`: run notebooks with parameters, list what can be run, build data sets.

`mialib run` is a thin door to papermill: it checks the parameters, executes the notebook with a progress bar, leaves
`outputs/.local/<notebook>/<run>/` behind and prints the headline table, or the message of the cell that failed.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from mialib import REPO_ROOT, environment, outputs_root, params, places, reporting, store
from mialib.data import faces, own
from mialib.reporting import overview, tables

_ANOTHER = "a folder that you can write to"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 1 a run failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="mialib", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute a notebook with the parameters of a YAML file")
    run.add_argument("files", nargs="+", type=Path, metavar="params/<notebook>/<run>.yaml")
    run.add_argument(
        "--jobs", type=int, metavar="N", help="processes for training (default: the file's n_jobs)"
    )
    run.add_argument(
        "--keep",
        action="store_true",
        help="write into outputs/ itself, over the results that are stored there",
    )
    commands.add_parser("list", help="the runs in params/, and which have results in outputs/")
    commands.add_parser("overview", help="write outputs/README.md: the results of all runs on one page")
    build = commands.add_parser("faces", help="build a face data set from its original archive")
    build.add_argument("kind", choices=faces.FILES, help="att: AT&T (ORL) faces; lfw: aligned Labeled Faces")
    build.add_argument("archive", type=Path, help="the original folder, .zip or .tar archive")
    build.add_argument("root", type=Path, help="data root to write faces/ into (MIALIB_DATA)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            return _list()
        if options.command == "overview":
            stored = places.at(os.environ.get("MIALIB_OUTPUTS") or REPO_ROOT / "outputs", "MIALIB_OUTPUTS")
            places.writable(stored, f"set MIALIB_OUTPUTS to {_ANOTHER}")
            page = stored / "README.md"
            store.write(page, overview.results_page(stored).encode())
            print(page)
            return 0
        if options.command == "faces":
            places.writable(
                options.root / "faces", f"give {_ANOTHER} as the data root, and as MIALIB_DATA later"
            )
            print(faces.build(options.kind, options.archive, options.root / "faces"))
            return 0
        checked, problems = _checked(options.files, options.jobs)
        for problem in problems:  # all of all files, before the first of them runs for hours
            print(f"mialib: {problem}", file=sys.stderr)
        if problems:
            return 2
        root = REPO_ROOT / "outputs" if options.keep else outputs_root()
        for _, notebook, parameters in checked:
            places.writable(
                root / notebook.stem / parameters["run"],
                f"{'leave out --keep and ' if options.keep else ''}set MIALIB_OUTPUTS to {_ANOTHER}",
            )
        store.Store().ready()
    except (ValueError, OSError) as error:
        print(f"mialib: {error}", file=sys.stderr)
        return 2
    statuses = []
    for path, notebook, parameters in checked:
        with own.beside(path.parent), environment(MIALIB_OUTPUTS=str(root)):
            statuses.append(execute(notebook, parameters))
    return max(statuses)


def execute(notebook: Path, parameters: dict) -> int:
    """Run one notebook; 0, or 1 after printing the failing cell's error."""
    folder = outputs_root() / notebook.stem / parameters["run"]
    executed, cache = folder / "executed.ipynb", store.Store()
    folder.mkdir(parents=True, exist_ok=True)
    store.sweep(folder)
    before = cache.entries()
    print(f"{notebook.stem}, run {parameters['run']!r} -> {folder}", flush=True)
    try:
        with _progress():
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                kernel_name="python3",
                log_output=False,
                progress_bar=True,
            )
    except PapermillExecutionError as error:
        print(
            f"\nmialib: cell {error.exec_count} of {notebook.name} failed: {error.ename}: {error.evalue}\n"
            f"The notebook up to there: {executed}. {_gained(cache, before)}",
            file=sys.stderr,
        )
        return 1
    except DeadKernelError:
        print(
            f"\nmialib: the notebook's kernel died, most likely for want of memory; see {executed}.\n"
            f"{_gained(cache, before)} Fewer processes (--jobs 1) need less memory.",
            file=sys.stderr,
        )
        return 1
    finally:
        if executed.exists():
            _discreet(executed)
    print(tables.headline(reporting.load(folder / "metrics.json")))
    print(
        f"\nexecuted notebook  {executed}\nmetrics            {folder / 'metrics.json'}\nfigures            {folder / 'figures'}"
    )
    return 0


def _gained(cache: store.Store, before: dict[str, int]) -> str:
    """What a run that failed leaves to the next one, as it is seen in the cache."""
    count = len(cache.entries().items() - before.items())
    if not count:
        return f"It put nothing into the cache, {cache.root}."
    entries = "one entry" if count == 1 else f"{count} entries"
    return f"It put {entries} into the cache, {cache.root}: start again to go on from there."


def _discreet(executed: Path) -> None:
    """Where somebody's checkout, cache and home lie is nobody's business: not in tracebacks and warnings either."""
    notebook = nbformat.read(executed, as_version=4)
    noted = notebook.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):  # papermill notes them as it was given them
        if (path := Path(noted.get(name) or "")).is_relative_to(REPO_ROOT):
            noted[name] = str(path.relative_to(REPO_ROOT))
    notebook = nbformat.from_dict(reporting.without_places(notebook))
    store.write(executed, nbformat.writes(notebook).encode())


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


def _checked(paths: list[Path], jobs: int | None) -> tuple[Checked, list[str]]:
    """What is to be run, and all that is wrong with it, one line each."""
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
            checked.append((path, notebook, _parameters(path, notebook, instead)))
        except (ValueError, OSError) as error:
            problems += error.problems if isinstance(error, params.Refused) else [f"{path}: {error}"]
    return checked, problems


def _parameters(path: Path, notebook: Path, instead: dict) -> dict:
    """The file's parameters and its run, which is named after it."""
    wrong: list[str] = []
    try:
        params.validate({"run": path.stem}, "the file's name")
    except params.Refused as error:
        wrong += error.problems
    try:
        values = {"run": path.stem} | params.read(path, notebook, fitting=True, instead=instead)
    except params.Refused as error:
        error.problems += [f"{path}: {problem}" for problem in wrong]
        raise
    if not wrong and values["run"] != path.stem:
        wrong = [f"run is {values['run']!r}; it must be the file's name, {path.stem!r}"]
    if wrong:
        raise params.Refused(str(path), wrong)
    return values


def _list() -> int:
    print("* has results in outputs/, or of your own in outputs/.local/; the note is the file's first line")
    roots = REPO_ROOT / "outputs", outputs_root()
    for path in sorted((REPO_ROOT / "params").glob("*/*.yaml")):
        done = any((root / path.parent.name / path.stem / "metrics.json").exists() for root in roots)
        note = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].lstrip("# ")
        print(f"{'*' if done else ' '} {str(path.relative_to(REPO_ROOT)):48} {note}")
    return 0


@contextmanager
def _progress() -> Iterator[None]:
    """Show on the terminal what the notebook's kernel writes to the progress file."""
    over = threading.Event()

    def follow(path: str):
        with open(path) as file:
            while not over.is_set():
                sys.stderr.write(file.read())
                sys.stderr.flush()
                time.sleep(0.3)

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "progress")
        Path(path).touch()
        thread = threading.Thread(target=follow, args=(path,), daemon=True)
        thread.start()
        try:
            # the kernel's connection file lies in the home folder otherwise, and there may be none
            runtime = os.environ.get("JUPYTER_RUNTIME_DIR") or folder
            with environment(MIALIB_PROGRESS=path, JUPYTER_RUNTIME_DIR=runtime):
                yield
        finally:
            over.set()
            thread.join()
