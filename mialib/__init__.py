"""mialib: does compressing or post-processing a neural network protect its training data, or expose it?

The data's way is one way:
data -> splits -> train -> predict -> defend the outputs -> attack -> metrics -> claims, plots -> outputs.
"""

import os
import warnings
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]  # notebooks/, params/ and outputs/ stand beside the package


def outputs_root() -> Path:
    """Where runs leave their results: the environment variable `MIALIB_OUTPUTS`, else outputs/ of the repository."""
    return Path(os.environ.get("MIALIB_OUTPUTS") or REPO_ROOT / "outputs")


# opacus imports tqdm's widgets, which warn in notebooks that have none; nothing here uses them
warnings.filterwarnings("ignore", message="IProgress not found")
