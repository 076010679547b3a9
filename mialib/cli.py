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

from mialib import REPO_ROOT, environment, outputs_root, params, reporting, store
from mialib.data import faces, own
from mialib.reporting import overview, tables


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
            stored = Path(os.environ.get("MIALIB_OUTPUTS") or REPO_ROOT / "outputs")
            page = stored / "README.md"
            store.write(page, overview.results_page(stored).encode())
            print(page)
            return 0
        if options.command == "faces":
            print(faces.build(options.kind, options.archive, options.root / "faces"))
            return 0
    except (ValueError, OSError) as error:
        print(f"mialib: {error}", file=sys.stderr)
        return 2
    checked, problems = _checked(options.files, options.jobs)
    for problem in problems:  # all of all files, before the first of them runs for hours
        print(f"mialib: {problem}", file=sys.stderr)
    if problems:
        return 2
    statuses = []
    root = REPO_ROOT / "outputs" if options.keep else outputs_root()
    for path, notebook, parameters in checked:
        with own.beside(path.parent), environment(MIALIB_OUTPUTS=str(root)):
            statuses.append(execute(notebook, parameters))
    return max(statuses)


def execute(notebook: Path, parameters: dict) -> int:
    """Run one notebook; 0, or 1 after printing the failing cell's error."""
    folder = outputs_root() / notebook.stem / parameters["run"]
    executed = folder / "executed.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
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
            f"\nmialib: cell {error.exec_count} of {notebook.name} failed: {error.ename}: {error.evalue}",
            file=sys.stderr,
        )
        print(
            f"The notebook up to there: {executed}. What was trained is cached: start again to go on.",
            file=sys.stderr,
        )
        return 1
    except DeadKernelError:
        print(
            f"\nmialib: the notebook's kernel died, most likely for want of memory; see {executed}.",
            file=sys.stderr,
        )
        print(
            "What was trained is cached: start again to go on, with fewer processes (--jobs 1).",
            file=sys.stderr,
        )
        return 1
    _without_home(executed)
    print(tables.headline(reporting.load(folder / "metrics.json")))
    print(
        f"\nexecuted notebook  {executed}\nmetrics            {folder / 'metrics.json'}\nfigures            {folder / 'figures'}"
    )
    return 0


def _without_home(executed: Path) -> None:
    """papermill notes both paths as it was given them; where somebody's checkout lies is nobody's business."""
    notebook = nbformat.read(executed, as_version=4)
    for name in ("input_path", "output_path"):
        notebook.metadata.papermill[name] = os.path.relpath(notebook.metadata.papermill[name], REPO_ROOT)
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
    places: dict[tuple[Path, str], Path] = {}
    for path in paths:
        try:
            notebook = _notebook(path)
        except (ValueError, OSError) as error:
            problems.append(f"{path}: {error}")
            continue
        if (first := places.setdefault((notebook, path.stem), path)) is not path:
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
            with environment(MIALIB_PROGRESS=path):
                yield
        finally:
            over.set()
            thread.join()
