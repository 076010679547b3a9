"""nbval runs every notebook with its default parameters, in a fresh cache, and leaves the stored results alone."""

import os
import tempfile

for _variable in ("MIALIB_CACHE", "MIALIB_OUTPUTS"):
    os.environ[_variable] = tempfile.mkdtemp(prefix="mialib-")
os.environ["OMP_NUM_THREADS"] = "1"  # notebooks run side by side


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)  # progress bars
