"""metrics.json: what a run leaves behind, written whole or not at all, and read back with its errors named.

It holds parameters, provenance (versions, device, commit, seconds), the tidy rows of `study.rows` and the claims.
"""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from mialib import REPO_ROOT, store
from mialib.study import COLUMNS
from mialib.study.rows import finite

CLAIM_COLUMNS = ("claim", "source", "paper", "ours", "verdict")
_SECTIONS = ("notebook", "run", "parameters", "provenance", "rows", "claims")


def save(
    path, *, notebook: str, run: str, parameters: dict, rows: list[dict], claims, provenance: dict
) -> Path:
    """Write metrics.json (one row a line), whole or not at all; return its path. A missing folder is made.

    `claims` is the DataFrame of `claims.compare`, or a list of dicts with the keys in `CLAIM_COLUMNS`.
    nan and inf in the measured columns become null; anywhere else they raise ValueError, as does what JSON
    cannot hold.
    """
    path = Path(path)
    rows = [{name: finite(name, value) for name, value in item.items()} for item in rows]
    for index, item in enumerate(rows):
        if item.keys() != set(COLUMNS):
            raise ValueError(
                f"rows[{index}] lacks columns {sorted(set(COLUMNS) - item.keys())} and has unknown ones"
                f" {sorted(item.keys() - set(COLUMNS))}; make it with study.tidy_row"
            )
    records = claims.to_dict("records") if isinstance(claims, pd.DataFrame) else claims
    content = {
        "notebook": notebook,
        "run": run,
        "parameters": parameters,
        "provenance": provenance,
        "rows": rows,
        "claims": [{name: record[name] for name in CLAIM_COLUMNS} for record in records],
    }
    text = "{\n" + ",\n".join(f'"{name}": {_section(name, content[name])}' for name in _SECTIONS) + "\n}\n"
    store.write(path, text.encode())
    return path


def load(path) -> dict:
    """Read what `save` wrote: a dict with notebook, run, parameters, provenance, rows and claims.

    Raises FileNotFoundError for a missing file, ValueError for one that is not whole, valid JSON without NaN,
    or lacks a section.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the notebook that writes it")

    def refuse(constant):
        raise ValueError(f"it holds {constant}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except ValueError as error:
        raise ValueError(f"{path} is not valid results JSON ({error}); run the notebook again") from error
    missing = [name for name in _SECTIONS if name not in content]
    if missing:
        raise ValueError(f"{path} lacks {missing}; results hold {list(_SECTIONS)}")
    return content


def provenance(seconds: float, device) -> dict:
    """What made the results: versions, device, git commit (None outside the repository), run time."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
    return {
        "torch": torch.__version__,
        "mialib": version("mialib"),
        "python": platform.python_version(),
        "device": name,
        "commit": _commit(),
        "seconds": round(float(seconds), 1),
    }


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


def _section(name, value) -> str:
    try:
        if name in ("rows", "claims"):
            compact = {"allow_nan": False, "separators": (",", ":")}  # tens of thousands of rows
            return "[\n" + ",\n".join(json.dumps(item, **compact) for item in value) + "\n]"
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from error
