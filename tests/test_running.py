"""Whole runs: which Python their kernel is, whom they leave behind when they are killed, where their links lead."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
import pytest

from mialib import REPO_ROOT, running

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
# the command without its checks of parameters, as a shell in the foreground starts it
COMMAND = """
import signal, sys
from pathlib import Path
from mialib import cli, running
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
cli._command = lambda arguments: running.execute(Path(sys.argv[1]), {"run": "first"})
sys.exit(cli.main([]))
"""
PARAMETERS = 'epochs: int = 1\nrun: str = "none"'  # on its first line IPython takes `run` for its magic
WORK = """
import os, pathlib, time
from joblib import Parallel, delayed, parallel_config
from mialib.training import workers

def work():
    pathlib.Path(f"worker{os.getpid()}").touch()
    time.sleep(100)

pathlib.Path(f"kernel{os.getpid()}").touch()
parallel_config(backend="loky", n_jobs=2, **workers.tied())  # as training.use_processes, without torch
_ = Parallel()(delayed(work)() for _ in range(2))
"""


class Run:
    """The command at work on a toy notebook, in a folder of its own."""

    def __init__(self, folder, *cells, **environment):
        made = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, *cells)]
        made[0].metadata["tags"] = ["parameters"]
        nbformat.write(nbformat.v4.new_notebook(cells=made), folder / "toy.ipynb")  # it names no kernel
        self.folder, self.mark = folder, f"MARK={uuid.uuid4()}"
        self.results = folder / "outputs" / "toy" / "first"
        settings = {"MIALIB_OUTPUTS": str(folder / "outputs"), "PYTHONPATH": str(REPO_ROOT)}
        settings |= dict([self.mark.split("=")]) | environment
        command = [sys.executable, "-c", COMMAND, "toy.ipynb"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | settings, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, pattern):
        """The paths that match, as soon as there are some."""
        for _ in range(3000):
            if found := sorted(self.folder.glob(pattern)):
                return found
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.1)
        raise AssertionError(f"no {pattern} in five minutes")

    def left(self):
        """The processes that are left of it, found by what they inherit; a zombie has nothing."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:  # it has ended, or belongs to somebody else
                pass
        return found

    def end(self):
        """(status, what it said) once no process of it is left: within ten seconds, and what a busy machine adds."""
        until = time.monotonic() + 40
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.1)
        assert not left
        return self.process.wait(), self.process.stderr.read()


CASES = [
    ("command", "SIGINT", 130),
    ("command", "SIGTERM", 143),
    ("command", "SIGHUP", 129),
    ("command", "SIGKILL", -9),
    ("kernel", "SIGINT", 1),
    ("kernel", "SIGTERM", 1),
    ("kernel", "SIGKILL", 1),
    ("worker", "SIGTERM", 1),
    ("worker", "SIGKILL", 1),
]


def test_a_kernel_is_private_where_that_is_known_and_says_nothing_of_its_own(tmp_path):
    started = Run(
        tmp_path,
        "import ipykernel.kernelapp as app; print('said by a cell', app.IPKernelApp.instance().transport)",
    )
    said = started.process.communicate(timeout=300)[1]
    assert "WARNING" not in said and "encryption" not in said
    assert "said by a cell" in (started.results / "executed.ipynb").read_text()


@linux
@pytest.mark.parametrize(
    ("victim", "name", "status"),
    [
        pytest.param(*case, marks=[] if case[:2] == ("command", "SIGTERM") else [pytest.mark.slow])
        for case in CASES
    ],
)
def test_nothing_is_left_of_a_run_whoever_is_killed(tmp_path, victim, name, status):
    run = Run(tmp_path, WORK)
    pids = {"command": run.process.pid, "worker": int(run.wait_for("worker*")[0].name.removeprefix("worker"))}
    pids["kernel"] = int(run.wait_for("kernel*")[0].name.removeprefix("kernel"))
    assert len(run.left()) >= 4  # with two workers; without them the test could not fail
    os.kill(pids[victim], getattr(signal, name))
    found, said = run.end()
    assert found == status
    if victim == "command" and name != "SIGKILL":
        assert said.splitlines()[-1] == "mialib: stopped; start again to go on"
        assert said.count("mialib:") == 1 and "Traceback" not in said
    if victim != "command":
        assert any(line.startswith("mialib: ") for line in said.splitlines()) and "Traceback" not in said


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_nothing_is_left_of_a_run_that_was_killed_while_its_kernel_started(tmp_path, name, status):
    run = Run(tmp_path, WORK)
    run.wait_for("outputs/toy/first/executed.ipynb")  # written just before
    time.sleep(0.2)
    os.kill(run.process.pid, getattr(signal, name))
    found, said = run.end()
    assert found == status and "Traceback" not in said


@pytest.mark.slow
def test_the_kernel_is_this_python_whatever_the_user_has_under_its_name(tmp_path):
    """Also where the environment belongs to somebody else, so that Jupyter prefers what the user has."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-c", "raise SystemExit('somebody else')", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "theirs"}))
    places = {name: str(tmp_path / "jupyter") for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR")}
    cell = "import pathlib, sys; pathlib.Path('python').write_text(sys.prefix); raise ValueError('so far')"
    run = Run(tmp_path, cell, JUPYTER_PREFER_ENV_PATH="0", **places)
    _, said = run.process.communicate(timeout=300)
    assert "failed: ValueError: so far" in said
    assert (tmp_path / "python").read_text() == sys.prefix


def test_the_kernel_is_named_by_nobody():
    spec = running.Kernel(kernel_name="of somebody else").kernel_spec
    assert spec.argv[0] == sys.executable and "ipykernel_launcher" in spec.argv


def relinked(text, tmp_path):
    """A text of a notebook in notebooks/ that was executed in outputs/.local/b/run/."""
    for name in ("notebooks/a.ipynb", "outputs/a/x/executed.ipynb", "outputs/.local/b/run/beside.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cells = [nbformat.v4.new_code_cell(text), nbformat.v4.new_markdown_cell(text)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    running.relink(notebook, tmp_path / "notebooks", tmp_path / "outputs" / ".local" / "b" / "run")
    assert notebook.cells[0].source == text  # code is no text
    return notebook.cells[1].source


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[`a`](a.ipynb)", "[`a`](../../../../notebooks/a.ipynb)"),
        ("[a](a.ipynb#Claims) and [x](../outputs/a/x/executed.ipynb).",
         "[a](../../../../notebooks/a.ipynb#Claims) and [x](../../../a/x/executed.ipynb)."),
        ("[lost](../outputs/lost/executed.ipynb).", "lost."),
        ("[beside](beside.md)", "[beside](beside.md)"),
        ("[doi](https://doi.org/10.1/x), [above](#a), [mail](mailto:a@b.c)", None),
        ("$f[i](x)$, [0, 1](half), a list [1] (of one)", None),
    ],
)  # fmt: skip
def test_links_work_where_the_notebook_lies(tmp_path, before, after):
    assert relinked(before, tmp_path) == (before if after is None else after)


def test_links_that_work_stay_as_they_are(tmp_path):
    once = relinked("[a](a.ipynb)", tmp_path)
    assert relinked(once, tmp_path) == once


@pytest.mark.parametrize(
    "path",
    sorted((REPO_ROOT / "outputs").glob("*/*/executed.ipynb")),
    ids=lambda path: "/".join(path.parts[-3:-1]),
)
def test_links_of_stored_notebooks_lead_somewhere(path):
    cells = nbformat.read(path, 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    targets = {target.partition("#")[0] for _, target in running.LINK.findall(text) if ":" not in target}
    lost = {target for target in targets if target.endswith(running._FILES)}
    assert {target for target in lost if not (path.parent / target).exists()} == set()
