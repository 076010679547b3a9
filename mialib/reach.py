"""Which code some things reach: the definitions of this package that their names lead to, and no others.

A definition is a function, a class or a constant at the top of a module. The names that it loads are followed, through
the rooms' stubs, to whatever they are bound to here. A module counts whole where it looks names up or is used as a value;
a user's modules always do. Libraries are not followed. Methods of objects whose class is named nowhere are not seen; pass
such classes.
"""

import ast
import dataclasses
import functools
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]
WHOLE = "*"  # for a name: all of the module
_LOOKS_UP = {"globals", "vars", "eval", "exec", "__import__"}
_LIBRARY_FOLDERS = {"site-packages", "dist-packages"}  # also those of other environments that this one uses
_LIBRARIES = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
Definition = tuple[str, str]  # module, name


def reached(*things) -> set[Definition]:
    """The definitions that the things reach, their own included."""
    seen: set[Definition] = set()
    todo = [origin for thing in things for part in parts(thing) for origin in _origin(part)]
    while todo:
        module, name = todo.pop()
        if _is_library(module):
            continue
        if not _is_ours(module):  # whole, and what it passes on under this name
            todo += _passed_on(module, name)
            name = WHOLE
        elif _looks_up(module, name):
            name = WHOLE
        if (module, name) not in seen:
            seen.add((module, name))
            todo += _targets(module, name)
    return seen


def forget() -> None:
    """Read this package's sources anew, for tests that edit them."""
    for of_module in (_source, written, _targets, _looks_up):
        of_module.cache_clear()


def _remembered(of_module: Callable) -> Callable:
    """Cache for our own modules, which stay as they are while they run; a user's may be edited in between."""
    cached = functools.cache(of_module)

    @functools.wraps(of_module)
    def call(module: str, *name: str):
        return (cached if _is_ours(module) else of_module)(module, *name)

    call.cache_clear = cached.cache_clear
    return call


@_remembered
def written(module: str, name: str) -> list[str]:
    """The statements of a definition as text, each by `dump`."""
    return [dump(node) for node in _nodes(module, name)]


@_remembered
def _targets(module: str, name: str) -> set[Definition]:
    source = _source(module)
    return _passed_on(module, name) or {
        target for node in _nodes(module, name) for target in _references(node, module, source)
    }


def _passed_on(module: str, name: str) -> set[Definition]:
    """Where a name leads that a module imports, and does not define."""
    source = _source(module)
    is_passed = name in source.imports and name not in source.definitions
    return {_target(*source.imports[name])} if is_passed else set()


@_remembered
def _looks_up(module: str, name: str) -> bool:
    """Whether it looks names up in a way that cannot be read from the source."""
    parts = (part for node in _nodes(module, name) for part in ast.walk(node))
    return any(isinstance(part, ast.Name) and part.id in _LOOKS_UP for part in parts)


class _Source(NamedTuple):
    """A module as it is written."""

    statements: list[ast.stmt]
    definitions: dict[str, list[ast.stmt]]  # name -> the statements that bind it
    imports: dict[str, tuple[str, str | None]]  # name here -> (module, name there; None: the module itself)
    always: list[ast.stmt]  # statements that bind nothing and run on import


@_remembered
def _source(module: str) -> _Source:
    try:
        statements = ast.parse(_text(module)).body
    except (OSError, TypeError):  # typed at a prompt, or a folder of modules: nothing to read
        return _Source([], {}, {}, [])
    definitions: dict[str, list[ast.stmt]] = {}
    imports, always = {}, []
    statements = [node for node in statements if not _is_text(node)]
    for node in statements:
        for inner in ast.walk(node):  # also those inside functions
            if isinstance(inner, ast.Import):
                for alias in inner.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    imports[alias.asname or whole] = whole, None
            elif isinstance(inner, ast.ImportFrom):
                package = module if _is_package(module) else module.rpartition(".")[0]
                base = importlib.util.resolve_name("." * inner.level + (inner.module or ""), package)
                imports |= {alias.asname or alias.name: (base, alias.name) for alias in inner.names}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        else:
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        for name in names:
            definitions.setdefault(name, []).append(node)
        if not names and not isinstance(node, ast.Import | ast.ImportFrom):
            always.append(node)
    return _Source(statements, definitions, imports, always)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _text(module: str) -> str:
    return inspect.getsource(sys.modules.get(module) or importlib.import_module(module))


def _nodes(module: str, name: str) -> list[ast.stmt]:
    source = _source(module)
    return source.statements if name == WHOLE else source.definitions.get(name, []) + source.always


def _references(node: ast.AST, module: str, source: _Source) -> Iterator[Definition]:
    """What a statement of a module names: its own definitions, and those of what it imports."""
    if isinstance(node, ast.Attribute):
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in source.imports:
            yield _target(*source.imports[node.id], *reversed(names))
            return
    if isinstance(node, ast.Name) and node.id in source.imports:
        yield _target(*source.imports[node.id])
    elif isinstance(node, ast.Name) and node.id in source.definitions:
        yield module, node.id
    for child in _children(node):
        yield from _references(child, module, source)


def _target(module: str, *names: str | None) -> Definition:
    """Where a dotted name leads: into a module, or through the stub of a room."""
    for name in names:
        if name is None:
            continue
        inside = f"{module}.{name}"
        if not _is_library(module) and _is_module(inside):
            module = inside
        else:
            return _stub(module).get(name, (module, name))
    return module, WHOLE


@functools.cache
def _stub(room: str) -> dict[str, Definition]:
    """The public names of a room: name -> where it is defined."""
    spec = importlib.util.find_spec(room) if _is_ours(room) else None
    path = Path(spec.origin).with_suffix(".pyi") if spec is not None and spec.origin else None
    if path is None or not path.exists():
        return {}
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {a.name: (f"{room}.{node.module}", a.name) for node in nodes if node.module for a in node.names}


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that run: no annotations."""
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            yield from (
                part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST)
            )


def dump(node: ast.AST) -> str:
    """A node as text, without docstrings and annotations."""
    copy = ast.parse(ast.unparse(node))
    for part in ast.walk(copy):
        if (
            isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(part) is not None
        ):
            part.body = part.body[1:] or [ast.Pass()]
        if isinstance(part, ast.arg):
            part.annotation = None
        elif isinstance(part, ast.FunctionDef):
            part.returns = None
    return ast.dump(copy)


def parts(thing) -> Iterator:
    """A thing, and what partials, dataclasses, lists and dictionaries hold, all the way down."""
    yield thing
    if isinstance(thing, functools.partial):
        inner = (thing.func, *thing.args, *thing.keywords.values())
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        inner = (getattr(thing, field.name) for field in dataclasses.fields(thing) if field.compare)
    elif isinstance(thing, list | tuple | dict):
        inner = thing.values() if isinstance(thing, dict) else thing
    else:
        inner = ()
    for part in inner:
        yield from parts(part)


def _origin(thing) -> Iterator[Definition]:
    if inspect.ismodule(thing):
        yield thing.__name__, WHOLE
        return
    known = thing if hasattr(thing, "__qualname__") else type(thing)
    if known.__module__ != "__main__":
        yield known.__module__, known.__qualname__.partition(".")[0]


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


@functools.cache
def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    if top == PACKAGE:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__, and modules made by hand
        spec = None
    if spec is None or spec.origin is None:  # or a folder of modules
        return False
    at = Path(spec.origin).resolve()
    installed = not _LIBRARY_FOLDERS.isdisjoint(at.parts) or any(map(at.is_relative_to, _LIBRARIES))
    return spec.origin in ("built-in", "frozen") or installed


@functools.cache
def _is_package(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
