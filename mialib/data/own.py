"""Data sets and networks of your own, by address: "module:function", or "folder:PATH" for pictures.

A module is looked for beside the YAML file that is run, then on Python's path. A folder whose path is not absolute is
looked for beside the YAML file, then below the data root. `mialib run` passes the YAML file's folder on in the
environment variable `MIALIB_BESIDE`.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.machinery import PathFinder
from pathlib import Path

from mialib import environment

BESIDE = "MIALIB_BESIDE"


def beside(folder: Path) -> AbstractContextManager:
    """Within it, addresses are looked for in `folder` first, in this process and in those that it starts."""
    return environment(**{BESIDE: str(folder.resolve())})


def check(address: str) -> None:
    """Raises ValueError for the address of a module that is nowhere, or of a folder that is not there; runs nothing."""
    if address.startswith("folder:"):
        folder(address, None)
        return
    module, _, name = address.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("an address is module:function, both Python names")
    if not _is_there(module.split(".")[0]):
        raise ValueError(f"no module {module}; it is looked for in {_places()[0]}, then on Python's path")


def function(address: str) -> Callable:
    """The function at "module:function".

    Raises:
        ValueError: no such module or function.
    """
    check(address)
    module, _, name = address.partition(":")
    # stays: other processes find what they train by its module's name
    if (place := _places()[0]) not in sys.path:
        sys.path.insert(0, place)
    imported = importlib.import_module(module)
    made = getattr(imported, name, None)
    if not callable(made):
        names = [key for key, value in vars(imported).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{address}: {imported.__file__} has no function {name}; it has {', '.join(names)}")
    return made


def folder(address: str, root: Path | None) -> Path:
    """The folder at "folder:PATH".

    Raises:
        ValueError: it is not there.
    """
    path = Path(address.removeprefix("folder:")).expanduser()
    tried = [place / path for place in (Path(_places()[0]), root) if place is not None]
    for place in tried:
        if place.is_dir():
            return place
    if root is None and not path.is_absolute():  # it may be below the data root
        return path
    raise ValueError(f"{address}: no folder {' or '.join(map(str, tried))}")


def _is_there(module: str) -> bool:
    """Whether a module of that name can be found, also one that is installed by a finder of its own; runs nothing."""
    if PathFinder.find_spec(module, _places()) is not None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # __main__ has none
        return False


def _places() -> list[str]:
    return [os.environ.get(BESIDE) or os.getcwd(), *sys.path]
