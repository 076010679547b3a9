"""What made the results of a run: versions, device, commit, time."""

import platform
import subprocess
from pathlib import Path

import torch
from joblib import effective_n_jobs

from mialib import REPO_ROOT, version
from mialib.training import elsewhere, tally


class Provenance(dict):
    """A dictionary for metrics.json that a notebook shows as one line."""

    def __repr__(self) -> str:
        backend = "" if self["backend"] == "local" else f", trained by {self['backend']}"
        parts = (
            f"torch {self['torch']}, mialib {self['mialib']}, Python {self['python']}",
            self["device"] + backend,
            f"commit {short(self['commit'])}" if self["commit"] else "no commit",
            f"{self['seconds']:g} s, {self['trained']} networks trained and {self['found']} found"
            * bool(self["seconds"]),
        )
        return "; ".join(filter(None, parts))


def short(commit: str) -> str:
    """A commit's first seven digits, and "with changes" if there were some."""
    return commit[:7] + " with changes" * commit.endswith("-dirty")


def provenance(seconds: float, device) -> Provenance:
    """What made the results: versions, device, backend, git commit (None outside the repository), time.

    `seconds` is what this execution took, 0 before it; `training_seconds` what the training of all its models took, one
    process each, whenever that was: `trained` models were trained in this execution, `found` lay in the store
    (`training.tally`).
    """
    device, of_training = torch.device(device), tally.so_far()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads, processes = torch.get_num_threads(), effective_n_jobs(None)
        name = f"{device.type} ({platform.machine()}, {processes} processes, {threads} threads each)"
    return Provenance(
        torch=torch.__version__,
        mialib=version(),
        python=platform.python_version(),
        device=name,
        backend=elsewhere.chosen().backend,
        precision=", ".join(of_training.precisions),
        commit=_commit(),
        seconds=round(float(seconds), 1),
        trained=of_training.trained,
        found=of_training.found,
        training_seconds=round(of_training.seconds, 1),
    )


def _commit() -> str | None:
    def git(*arguments):
        command = ["git", "-C", str(REPO_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != REPO_ROOT:
            return None  # installed inside another repository
        # A run writes its own outputs before it asks; they do not change what was run.
        dirty = git("status", "--porcelain", "--", ".", ":(exclude)outputs")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet
        return None
