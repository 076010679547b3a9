"""Nothing is computed twice, nothing half-written is trusted: a folder of trained models under content keys.

An entry is two files, `<key>.safetensors` and `<key>.json`, written under temporary names and renamed, the JSON last:
it holds the SHA-256 of the tensors, so a missing, cut or altered entry is noticed on load. It is then named in a
warning, set aside and made again. Place: the argument, else `MIALIB_CACHE`, else the user cache.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor


class Store:
    """Tensors and a JSON record under a key.

    Args:
        root: folder, made if missing.
    """

    def __init__(self, root: str | Path | None = None):
        default = os.environ.get("MIALIB_CACHE") or Path(pooch.os_cache("mialib")) / "models"
        self.root = Path(root or default).expanduser()

    def get(self, key: str) -> tuple[dict[str, Tensor], dict] | None:
        """The entry, or None where there is none; a corrupt one is renamed to `*.corrupt` and counts as none."""
        tensors, record = self._paths(key)
        if not (tensors.exists() and record.exists()):
            return None
        try:
            content, meta = tensors.read_bytes(), json.loads(record.read_text())
            digest = hashlib.sha256(content).hexdigest()
            if digest != meta["sha256"]:
                raise ValueError(f"SHA-256 is {digest}, {meta['sha256']} was written")
            return load(content), meta["record"]
        except (ValueError, TypeError, KeyError, SafetensorError, OSError) as error:
            for path in (tensors, record):
                if path.exists():
                    path.replace(path.with_name(path.name + ".corrupt"))
            warnings.warn(
                f"cache entry {tensors} is corrupt ({error}); set aside as *.corrupt, it is computed again",
                stacklevel=2,
            )
            return None

    def put(self, key: str, tensors: dict[str, Tensor], record: dict) -> None:
        """Write an entry whole or not at all."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        meta = {"sha256": hashlib.sha256(content).hexdigest(), "record": record}
        record_bytes = json.dumps(meta, allow_nan=False).encode()
        for path, data in zip(self._paths(key), (content, record_bytes), strict=True):
            write(path, data)

    def _paths(self, key: str) -> tuple[Path, Path]:
        folder = self.root / key[:2]
        return folder / f"{key}.safetensors", folder / f"{key}.json"


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def key(**made_of) -> str:
    """Hash of everything that made a result; two results share it only if every part agrees."""
    return hashlib.sha256(json.dumps(describe(made_of), sort_keys=True).encode()).hexdigest()[:40]


def describe(thing):
    """A JSON-able description that differs whenever the thing does.

    Tensors become the hash of their bytes, functions their qualified name, partials and dataclasses their parts.

    Raises:
        TypeError: something without a stable description (a lambda, a local function, an unknown object).
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Tensor):
        content = thing.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return ["tensor", str(content.dtype), list(content.shape), digest]
    if isinstance(thing, dict):
        return {str(name): describe(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if isinstance(thing, functools.partial):
        return ["partial", describe(thing.func), describe(thing.args), describe(thing.keywords)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.compare}
        return [f"{type(thing).__module__}.{type(thing).__qualname__}", parts]
    name = getattr(thing, "__qualname__", None)
    if name and "<" not in name:
        return f"{thing.__module__}.{name}"
    raise TypeError(
        f"{thing!r} has no stable description, so its results could not be cached; use a module-level function, "
        "a functools.partial of one, or a frozen dataclass with __call__"
    )


def sources(*things) -> str:
    """Hash of the syntax trees of the modules in which the things are defined: comments and layout do not count.

    Things are modules, functions, classes, instances, partials and dataclasses; of the last two the parts count too.
    """
    modules = set().union(*map(_modules, things))
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(_tree(name).encode())
    return digest.hexdigest()[:16]


def _modules(thing) -> set[str]:
    if inspect.ismodule(thing):
        return {thing.__name__}
    if isinstance(thing, functools.partial):
        return set().union(*map(_modules, (thing.func, *thing.args, *thing.keywords.values())))
    names = {thing.__module__ if hasattr(thing, "__qualname__") else type(thing).__module__}
    names -= {"builtins", "torch"}  # values: numbers, strings, tensors, None
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = (getattr(thing, f.name) for f in dataclasses.fields(thing) if f.compare)
        return names.union(*map(_modules, parts))
    return names


@functools.cache
def _tree(module: str) -> str:
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # typed at a prompt: nothing to read, the description has to do
        return module
    return ast.dump(_without_docstrings(ast.parse(source)))


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
