"""Parameters of a notebook, checked before any work is done: all that is wrong is reported at once.

A notebook calls `check(globals(), arms="ABC")` after its parameters cell; the call names the words that only it has.
`mialib run` reads a YAML file against both first.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mialib import outputs_root, places, store
from mialib.data import own
from mialib.params import fits, relations, vocabulary, yaml_files
from mialib.params.notebooks import declared, words_of
from mialib.params.vocabulary import nearest, shown

Words = Mapping[str, Collection[str]]
Stage = Callable[
    [Mapping[str, Any], Collection[str]], dict[str, list[str]]
]  # sound values and all names -> problems


class Refused(ValueError):
    """Parameters that cannot be used; `problems`: one line for each, which says where it stands."""

    def __init__(self, where: str, problems: list[str]):
        super().__init__(f"{where}: " + "; ".join(problems))
        self.problems = [f"{where}: {problem}" for problem in problems]


def check(namespace: Mapping[str, Any], **words: Collection[str]) -> dict[str, Any]:
    """The parameters that a notebook declares with annotations, validated, also against data, machine and the places where
    it will write.

    Args:
        namespace: the notebook's `globals()`; the names annotated in its parameters cell are its parameters.
        words: for parameters that only this notebook has, each a list of some of these words: arms="ABC". `words_of`
            reads them from the notebook, so they must be written out.

    Returns:
        name -> value, to be stored with the results.

    Raises:
        Refused: naming each parameter that is wrong, what was found and what is valid.
        OSError: results cannot be written where they belong (MIALIB_OUTPUTS), or there can be no cache (MIALIB_CACHE).
    """
    names = [name for name in namespace["__annotations__"] if not name.startswith("_")]
    values = {name: namespace[name] for name in names}
    if wrong := _wrong(values, words, fits.problems):
        raise Refused("the parameters cell", wrong)
    places.writable(outputs_root(), places.elsewhere("MIALIB_OUTPUTS"))
    store.Store().ready()
    return values


def validate(values: Mapping[str, Any], where: str, words: Words | None = None) -> dict[str, Any]:
    """`values` if each is in the vocabulary and in range, and if they go together; data and machine are not looked at.

    Args:
        where: named in the error; words: as for `check`.

    Raises:
        Refused: see `check`.
    """
    if wrong := _wrong(values, words or {}, _not_asked):
        raise Refused(where, wrong)
    return dict(values)


def read(
    path: str | Path,
    notebook: str | Path,
    *,
    fitting: bool = False,
    instead: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The parameters in a YAML file, checked together with the defaults of the notebook that they are for.

    Args:
        fitting: check them against the data, where these are at hand, and the machine too, see `fits`.
        instead: sound values that count instead of the file's.

    Raises:
        FileNotFoundError: the file or its notebook is missing.
        Refused: all that is wrong with the file: how it is written, a name that the notebook does not declare
            (with the nearest one), a value out of range.
    """
    path, notebook = Path(path), Path(notebook)
    if not notebook.is_file():
        raise FileNotFoundError(f"notebook {notebook} does not exist")
    try:
        values, wrong = yaml_files.read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from None
    except (ValueError, OSError) as error:
        raise Refused(str(path), [str(error)]) from None
    defaults = declared(notebook)
    for name in [name for name in values if name not in defaults]:
        wrong.append(
            f"unknown parameter {shown(name)}{nearest(name, defaults)}; {notebook.name} declares {list(defaults)}"
        )
    with own.beside(path.parent):
        known = {name: values[name] for name in values if name in defaults} | instead
        wrong += _wrong(defaults | known, words_of(notebook), fits.apart if fitting else _not_asked)
    if wrong:
        raise Refused(str(path), wrong)
    return values | instead


def _wrong(values: Mapping[str, Any], words: Words, unfit: Stage) -> list[str]:
    """All that is wrong with `values`. Each stage looks at the values that the stages before it found sound."""
    found: list[str] = []
    sound, names = dict(values), values.keys()
    for stage in (lambda sound, names: vocabulary.problems(sound, words), relations.problems, unfit):
        wrong = stage(sound, names)
        found += [problem for of_one in wrong.values() for problem in of_one]
        sound = {name: value for name, value in sound.items() if name not in wrong}
    return found


def _not_asked(sound: Mapping[str, Any], names: Collection[str]) -> dict[str, list[str]]:
    return {}
