"""Execute a notebook: in what kernel it runs, what the reader sees meanwhile, and what lies in its folder afterwards.

The kernel is one of the Python that the command runs in: what is installed here is what a run needs, and a kernel of the
same name that belongs to somebody else, or to another environment, knows nothing of it.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from mialib import REPO_ROOT, environment, outputs_root, progress, reporting, store
from mialib.site.links import LINK

# what a run leaves in its folder beside the executed notebook
_RESULTS = ("metrics.json", "rows.csv.gz", "margins.npz", "figures/*.png")
_FILES = (".ipynb", ".md", ".yaml", ".json", ".png")  # a link to one of these is meant to lead to a file


class Kernel(AsyncKernelManager):
    """A kernel of this Python, whatever the machine knows by the name that is asked for.

    What it says travels encrypted where jupyter_client and ZeroMQ know how; newer kernels warn of anything else.
    """

    @default("transport_encryption")
    def _encrypted(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"

    @property
    def kernel_spec(self) -> KernelSpec:
        if self._kernel_spec is None:
            self._kernel_spec = KernelSpec(**get_kernel_dict())
        return self._kernel_spec

    async def _async_signal_kernel(self, signum: int) -> None:
        """Tell the kernel, not its whole group: workers end with it, and one that is just starting would print a traceback."""
        if os.name == "posix" and self.provisioner.pid:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(self.provisioner.pid, signum)
        else:
            await super()._async_signal_kernel(signum)


def execute(notebook: Path, parameters: dict) -> int:
    """Run one notebook; 0, or 1 after printing the failing cell's error.

    The folder's earlier results go first, so that all that lies there belongs to one run.
    """
    folder = outputs_root() / notebook.stem / parameters["run"]
    executed, cache = folder / "executed.ipynb", store.Store()
    folder.mkdir(parents=True, exist_ok=True)
    store.sweep(folder)
    before = cache.entries()
    for path in (path for pattern in _RESULTS for path in folder.glob(pattern)):
        path.unlink()
    cells = len(nbformat.read(notebook, as_version=4).cells) + 1  # papermill adds one, with the parameters
    print(f"{notebook.stem}, run {parameters['run']!r} -> {folder}", flush=True)
    try:
        with _progress(f"{notebook.stem}, {parameters['run']}", cells) as watch:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                kernel_name="python3",  # papermill asks for a name, and the notebook may have none
                language="python",
                kernel_manager_class=Kernel,
                log_output=False,
                progress_bar=False,  # there is one display
                on_cell_start=lambda cell, cell_index: setattr(watch, "cell", cell_index),
            )
    except PapermillExecutionError as error:
        print(
            f"\nmialib: cell {error.exec_count} of {notebook.name} failed: {error.ename}: {error.evalue}\n"
            f"The notebook up to there: {executed}. {_gained(cache, before)}",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
            raise
        print(
            f"\nmialib: the notebook's kernel died, most likely for want of memory; see {executed}.\n"
            f"{_gained(cache, before)} Fewer processes (--jobs 1) need less memory.",
            file=sys.stderr,
        )
        return 1
    finally:
        if executed.exists():
            _tidy(executed, notebook.parent)
    print(reporting.tables.headline(reporting.load(folder / "metrics.json")))
    places = {
        "executed notebook": executed,
        "metrics": folder / "metrics.json",
        "rows": folder / "rows.csv.gz",
        "figures": folder / "figures",
    }
    print("\n" + "\n".join(f"{name:18} {place}" for name, place in places.items() if place.exists()))
    return 0


def _gained(cache: store.Store, before: dict[str, int]) -> str:
    """What a run that failed leaves to the next one, as it is seen in the cache."""
    count = len(cache.entries().items() - before.items())
    if not count:
        return f"It put nothing into the cache, {cache.root}."
    entries = "one entry" if count == 1 else f"{count} entries"
    return f"It put {entries} into the cache, {cache.root}: start again to go on from there."


def _tidy(executed: Path, source: Path) -> None:
    """Make an executed notebook, whole or not, one that can be handed on: links that lead somewhere, no private places.

    Where somebody's checkout, cache and home lie is nobody's business: not in tracebacks and warnings either.

    Args:
        source: the folder that its links start from.
    """
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (OSError, ValueError):  # stopped while it was written
        return
    noted = notebook.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):  # papermill notes them as it was given them
        if (path := Path(noted.get(name) or "")).is_relative_to(REPO_ROOT):
            noted[name] = str(path.relative_to(REPO_ROOT))
    relink(notebook, source, executed.parent)
    notebook = nbformat.from_dict(reporting.without_places(notebook))
    store.write(executed, nbformat.writes(notebook).encode())


def relink(notebook: NotebookNode, before: Path, now: Path) -> None:
    """Change a notebook's links to files, so that they work where the notebook lies.

    Args:
        before: the folder that the links start from.
        now: the folder in which the notebook lies. A link to a file that is not there, such as the stored results, which
            do not travel with an installation, becomes its text.
    """

    def changed(link: re.Match) -> str:
        text, (target, mark, place) = link[1], link[2].partition("#")
        if not target or ":" in target or os.path.isabs(target) or (now / target).exists():
            return link[0]
        if (before / target).exists():
            return f"[{text}]({Path(os.path.relpath(before / target, now)).as_posix()}{mark}{place})"
        return text if target.endswith(_FILES) else link[0]

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(changed, cell.source)


@contextmanager
def _progress(title: str, cells: int) -> Iterator[progress.Watch]:
    """Show on stderr what the notebook's kernel writes to the progress file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "progress")
        Path(path).touch()
        # the kernel's connection file lies in the home folder otherwise, and there may be none
        runtime = os.environ.get("JUPYTER_RUNTIME_DIR") or folder
        with (
            environment(MIALIB_PROGRESS=path, JUPYTER_RUNTIME_DIR=runtime),
            progress.watched(path, title, cells) as watch,
        ):
            yield watch
