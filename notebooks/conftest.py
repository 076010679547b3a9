"""nbval runs every notebook with its default parameters, in a fresh cache, and leaves the stored results alone."""

import os
import tempfile
from collections import Counter

import pytest
from nbval.kernel import RunningKernel
from xdist.scheduler import LoadFileScheduling

for _variable in ("MIALIB_CACHE", "MIALIB_OUTPUTS"):
    os.environ[_variable] = tempfile.mkdtemp(prefix="mialib-")
os.environ["OMP_NUM_THREADS"] = "1"  # notebooks run side by side

# of a cell; nbval reads them when the cell is done, and its socket drops what is beyond 1,000
MOST_MESSAGES = 100
_received = Counter()
_get_message = RunningKernel.get_message


def _counted(kernel, stream, timeout=None):
    message = _get_message(kernel, stream, timeout)
    _received[stream] += 1
    return message


RunningKernel.get_message = _counted


# notebooks that train the same networks: one process runs them in turn, and finds in its cache what it has trained
TOGETHER = {"notebooks/yang2020_inversion.ipynb": "notebooks/yang2020_purification.ipynb"}


class InTurn(LoadFileScheduling):
    """The files of `TOGETHER` are handed out as one."""

    def _split_scope(self, nodeid):
        scope = super()._split_scope(nodeid)
        return TOGETHER.get(scope, scope)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return InTurn(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)  # progress bars


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    _received.clear()
    result = yield
    assert _received["iopub"] <= MOST_MESSAGES, (
        f"{item.name} sent {_received['iopub']} messages, at most {MOST_MESSAGES} are well: a progress bar that moves too often"
    )
    return result
