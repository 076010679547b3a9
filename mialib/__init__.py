"""mialib: does compressing or post-processing a neural network protect its training data, or expose it?

The rooms follow the data's way, in this order; a room imports only from those before it:

    data -> models -> training -> asking -> measures -> compression -> defenses -> attacks -> study -> reporting -> figures -> auditing

The room `params` says what a notebook's parameters may be; `site` makes pages of what runs leave. Beside the rooms stand
`places` (where files lie), `store`, `uses`, `hashing` and `reach` (nothing is computed twice), `streams` (random numbers),
`progress`, `running` (notebooks), `planning` (what a run would take: `counting` counts its work, `made_up` stands in for its
results, `pace` measures how long it takes), `sweeping` (several runs side by side), `housekeeping` (what the store holds, and
what of it can go) and `cli`. A room is imported when it is first used; its `__init__.pyi` lists its public names.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:  # for editors and type checkers, which do not see what is imported at first use
    from mialib.auditing import Shadows as Shadows
    from mialib.auditing import audit as audit
    from mialib.auditing import audit_answers as audit_answers

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
    "auditing",
    "site",
)
_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "repository"  # where an installation has notebooks/ and params/


def _root() -> Path:
    """The folder that holds notebooks/ and params/.

    In a checkout it is the package's own. For an installation it is the nearest one around the working folder (a copy by
    `mialib init`, or a checkout), else the one that came with the package.
    """
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        return _PACKAGE.parent
    names = [path.name for path in (_SHIPPED / "notebooks").glob("*.ipynb")]
    try:
        here = Path.cwd()
    except OSError:  # the working folder was removed
        return _SHIPPED
    for place in (here, *here.parents):
        if (place / "params").is_dir() and any((place / "notebooks" / name).is_file() for name in names):
            return place
    return _SHIPPED


REPO_ROOT = _root()

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=(
        *ROOMS,
        "places",
        "store",
        "uses",
        "turns",
        "hashing",
        "reach",
        "streams",
        "progress",
        "running",
        "made_up",
        "pace",
        "counting",
        "planning",
        "sweeping",
        "housekeeping",
        "cli",
    ),
    submod_attrs={"auditing": ["audit", "audit_answers", "Shadows"]},
)


def stored_root() -> Path:
    """Where results are kept: outputs/ beside the notebooks; for an installation, outputs/ in the working folder."""
    return (Path.cwd() if REPO_ROOT == _SHIPPED else REPO_ROOT) / "outputs"


def outputs_root(otherwise: Path | None = None) -> Path:
    """Where runs write their results: the environment variable `MIALIB_OUTPUTS`, else outputs/.local of the repository.

    git ignores that folder, so a notebook that is run leaves the stored results in outputs/ as they are. Outside a
    repository nothing is stored, and results go to outputs/ itself.

    Args:
        otherwise: the folder where the variable is not set.
    """
    from mialib import places  # only here: importing the package imports none of its files

    if otherwise is None:
        otherwise = stored_root() / (".local" if (REPO_ROOT / "pyproject.toml").is_file() else "")
    return places.at(os.environ.get("MIALIB_OUTPUTS") or otherwise, "MIALIB_OUTPUTS")


def version() -> str | None:
    """Of the installed package, else of the checkout that it is imported from; None where neither says it."""
    from importlib import metadata  # only who asks needs these

    try:
        return metadata.version("mialib")
    except metadata.PackageNotFoundError:
        import tomllib

        project = REPO_ROOT / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"] if project.is_file() else None


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for what runs or is started within it; the old ones return afterwards."""
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
