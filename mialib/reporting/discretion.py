"""What is stored is read by others: texts without the places of the machine that they were written on.

A path below a place that everybody has of their own is written from there (`mialib/store.py`, `$MIALIB_CACHE/ab/abc.json`,
`~/pictures`); of any other absolute path only the last part stays.
"""

import functools
import getpass
import os
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from mialib import REPO_ROOT, outputs_root, places
from mialib.data import download

# what may stand right before a path: the colour of a terminal, the end of a line in a quoted text, a scheme; else no part
# of a word or of another path
_BEFORE = r"(?P<before>\x1b\[[\d;]*m|\\[nrt]|file://|(?<![\w./~…]))"
_PART = r"[^\s/'\"<>:,;()\[\]{}|`*\\\x1b]"
_ANY = re.compile(rf"{_BEFORE}(?P<path>/{_PART}+(?:/{_PART}+)+/?)")
_PICTURES = ("image/", "application/pdf")  # data of a notebook's output that is no text


def without_places(thing):
    """The same text, list or dictionary (of such, to any depth) without absolute paths; other things stay as they are."""
    return _walked(thing, functools.cache(functools.partial(_told, known=_known())))


def _walked(thing, tell: Callable[[str], str]):
    if isinstance(thing, str):
        return tell(thing) if "/" in thing else thing
    if isinstance(thing, Mapping):
        return {
            name: value if str(name).startswith(_PICTURES) else _walked(value, tell)
            for name, value in thing.items()
        }
    if isinstance(thing, list | tuple):
        return [_walked(value, tell) for value in thing]
    return thing


def _told(text: str, known: tuple[tuple[re.Pattern, str], ...]) -> str:
    for pattern, name in known:
        text = pattern.sub(lambda found, name=name: found["before"] + name, text)
    return _ANY.sub(_last_part, text)


def _last_part(found: re.Match) -> str:
    path = Path(found["path"])
    if not os.path.lexists(f"/{path.parts[1]}"):  # a path of a web page, a fraction, a branch
        return found[0]
    return found["before"] + ("…" if path.name == _user() else f"…/{path.name}")


def _known() -> tuple[tuple[re.Pattern, str], ...]:
    """What each place is called, the deepest first, since one may lie in another."""
    names: dict[str, str] = {}

    def call(name: str, *ways: str | os.PathLike | None) -> None:
        for way in ways:
            if way and (path := os.path.abspath(os.path.expanduser(way))) != "/":
                names.setdefault(path, name)
                names.setdefault(os.path.realpath(path), name)

    for find, name in (
        (outputs_root, "$MIALIB_OUTPUTS"),
        (places.cache_root, "$MIALIB_CACHE"),
        (download.data_root, "$MIALIB_DATA"),
    ):
        try:
            call(name, find())
        except (ValueError, RuntimeError):  # there is no home folder: nothing lies there
            continue
    call("", REPO_ROOT)
    call(
        "site-packages", *site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")
    )
    call("python", sysconfig.get_path("stdlib"))
    call("…", sys.prefix, sys.base_prefix)
    home = os.path.abspath(os.path.expanduser("~"))
    call("~", home)
    if home != "/":  # as Python's tracebacks shorten it
        names |= {
            "~" + path[len(home) :]: name for path, name in names.items() if path.startswith(home + "/")
        }
    return tuple(
        (re.compile(_BEFORE + re.escape(path) + (r"(?:/|(?![\w.-]))" if not name else r"(?![\w-])")), name)
        for path, name in sorted(names.items(), key=lambda pair: -len(pair[0]))
    )


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody in particular
        return None
