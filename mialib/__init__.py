"""mialib: does compressing or post-processing a neural network protect its training data, or expose it?

The data's way is one way, and the rooms tell it in this order; a room imports from those before it only:

    data -> models -> training -> asking -> measures -> compression -> defenses -> attacks -> study -> reporting -> figures

The last room, `params`, says what notebooks may ask of the others. Beside them stand `places` (of files), `store`, `hashing` and
`reach` (nothing is computed twice), `streams` (of random numbers), `progress` and `cli`. A room is imported when it is first
used; what it says aloud stands in its `__init__.pyi`.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lazy_loader

ROOMS = (
    "data",
    "models",
    "training",
    "asking",
    "measures",
    "compression",
    "defenses",
    "attacks",
    "study",
    "reporting",
    "figures",
    "params",
)
REPO_ROOT = Path(__file__).resolve().parents[1]  # notebooks/, params/ and outputs/ stand beside the package

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=(*ROOMS, "places", "store", "hashing", "reach", "streams", "progress", "cli"),
)


def outputs_root() -> Path:
    """Where runs leave their results: the environment variable `MIALIB_OUTPUTS`, else outputs/.local of the repository.

    git ignores that folder, so that whoever runs a notebook leaves the stored results in outputs/ as they are.
    """
    from mialib import places  # when first asked: importing the package imports none of its files

    return places.at(os.environ.get("MIALIB_OUTPUTS") or REPO_ROOT / "outputs" / ".local", "MIALIB_OUTPUTS")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for what runs or is started within it; what stood there before returns."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# opacus imports tqdm's widgets, which warn in notebooks that have none; nothing here uses them
warnings.filterwarnings("ignore", message="IProgress not found")
