"""Where the files of this machine lie, and whether they can be written there; asked before the work, not after it.

Each place is an environment variable, in which `~` is the home folder; an error names the variable that moves it.
"""

import os
import tempfile
from contextvars import ContextVar
from pathlib import Path

import pooch

# where True, nothing is written: `writable` asks nothing, `store.write` does nothing, no cache keeps anything
LEFT_ALONE: ContextVar[bool] = ContextVar("places are left alone", default=False)


def at(path: str | Path, variable: str) -> Path:
    """The path, with `~` replaced.

    Raises:
        ValueError: there is no such home folder; it names `variable`, where the path came from or could have.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} cannot be found ({str(error).rstrip('.')}); {elsewhere(variable)}, by its full path"
        ) from error


def cache_root() -> Path:
    """Where trained models are kept: the environment variable `MIALIB_CACHE`, else a folder of the user's cache."""
    chosen = os.environ.get("MIALIB_CACHE") or Path(pooch.os_cache("mialib")) / "models"
    return at(chosen, "MIALIB_CACHE")


def elsewhere(variable: str) -> str:
    """What to do where a place cannot be used."""
    return f"set {variable} to a folder that you can write to"


def writable(folder: Path, advice: str) -> None:
    """Check that the folder, or the one in which it would be made, can be written to; nothing is left behind.

    Raises:
        OSError: it cannot. The message ends with `advice`, say "set MIALIB_CACHE to another folder".
    """
    if LEFT_ALONE.get():
        return
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        raise told(error, f"{folder} cannot be written to ({error.strerror or error}); {advice}") from error


def told(error: OSError, text: str) -> OSError:
    """The same error with this text."""
    made = type(error)(text)
    made.errno = error.errno
    return made
