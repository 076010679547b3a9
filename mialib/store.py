"""Nothing is computed twice, nothing half-written is trusted: a folder of trained models under content keys.

An entry is two files, `<key>.safetensors` and `<key>.json`, written under temporary names and renamed, the JSON last. The
JSON holds the SHA-256 of the tensors and of the record, so that loading notices a missing, cut or altered entry: it is
named in a warning, set aside and made again. An entry that cannot be read is another matter: a disk that does not answer
says nothing about what lies on it, so the entry stays and an error names it. Place: the argument, else `MIALIB_CACHE`,
else the user cache.
"""

import hashlib
import json
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mialib import places

# readings before an entry counts as unreadable, or as corrupt: another process may be writing it anew
TRIES = 3
PAUSE = 0.1  # seconds before the second, twice that before the third
_ADVICE = (
    "set the environment variable MIALIB_CACHE (or the argument `root`) to a folder that you can write to"
)
_HOST = re.sub(r"\W", "_", platform.node())
_TEMPORARY = re.compile(r"\..+\.(?P<host>\w*)-(?P<process>\d+)-\w+\.part")
_NAMELESS = re.compile(
    r"\.[0-9a-f]{40}\.(json|safetensors)\.\w{8}"
)  # temporary names that older versions wrote
_LONG = 3600.0  # seconds; no write takes that long


class Store:
    """Tensors and a JSON record under a key.

    Args:
        root: folder, made if missing.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = places.at(root, "the argument `root`") if root else places.cache_root()

    def get(
        self, key: str, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> tuple[dict[str, Tensor], dict] | None:
        """The entry, or None where there is none; a corrupt one is renamed to `*.corrupt` and counts as none.

        Args:
            shapes: name -> shape of the tensors that a sound entry must hold; default: any will do.

        Raises:
            OSError: the entry is there and cannot be read. It stays as it is.
        """
        tensors, record = self._paths(key)
        for attempt in range(TRIES):
            time.sleep(PAUSE * attempt)
            try:
                text = record.read_bytes()
                return _checked(text, tensors.read_bytes(), shapes or {})
            except (FileNotFoundError, NotADirectoryError):
                return None
            except (OSError, ValueError, RecursionError, SafetensorError) as error:
                problem = error
        if isinstance(problem, OSError):
            raise places.told(
                problem,
                f"cache entry {tensors} is there and cannot be read ({problem.strerror or problem}); it was left as it "
                "is: try again, see to the disk or the rights, or set MIALIB_CACHE to another folder",
            ) from problem
        done = _set_aside(tensors, record)
        warnings.warn(
            f"cache entry {tensors} is corrupt ({problem}); {done}, it is computed again", stacklevel=2
        )
        return None

    def ready(self) -> bool:
        """Whether results can be kept, asked before the work. Also removes what killed writers left here.

        Where a folder can be read but not written to, a warning says so; what it holds is still used.

        Raises:
            OSError: there is no folder, and it cannot be made.
        """
        if places.LEFT_ALONE.get():
            return False
        try:
            places.writable(self.root, _ADVICE)
        except OSError as error:
            if not self.root.is_dir():
                raise
            warnings.warn(f"what is computed now is not kept: the cache {error}", stacklevel=2)
            return False
        sweep(self.root)
        return True

    def put(self, key: str, tensors: dict[str, Tensor], record: dict) -> None:
        """Write an entry whole or not at all; where that fails, a warning says so and the work goes on."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        kept = json.loads(_packed(record))  # hashed as it will be read: with lists for tuples, texts for keys
        meta = {"sha256": _digest(content), "record_sha256": _digest(_packed(kept)), "record": kept}
        try:
            for path, data in zip(self._paths(key), (content, _packed(meta)), strict=True):
                write(path, data)
        except OSError as error:
            warnings.warn(
                f"what is computed now is not kept: the cache {self.root} cannot be written to "
                f"({error.strerror or error}); make room there, or {_ADVICE}",
                stacklevel=2,
            )

    def entries(self) -> dict[str, int]:
        """Each key, with the time at which it was written, in nanoseconds."""
        return {path.stem: path.stat().st_mtime_ns for path in self.root.glob("*/*.json")}

    def since(self, key: str) -> int | None:
        """When an entry was written, in nanoseconds; None where there is none."""
        try:
            return self._paths(key)[1].stat().st_mtime_ns
        except OSError:
            return None

    def _paths(self, key: str) -> tuple[Path, Path]:
        folder = self.root / key[:2]
        return folder / f"{key}.safetensors", folder / f"{key}.json"


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename: readers see the old file or the whole new one."""
    if places.LEFT_ALONE.get():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # the writer's name, so that `sweep` knows which files nobody will finish
    mark = f".{path.name}.{_HOST}-{os.getpid()}-"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=mark, suffix=".part")
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


def sweep(folder: Path) -> None:
    """Remove the temporary files below a folder whose writers were killed; files that are being written stay."""
    for path in folder.rglob(".*"):
        try:
            if _abandoned(path):
                path.unlink(missing_ok=True)
        except OSError:  # somebody else's, or gone meanwhile: it harms nobody
            continue


def _abandoned(path: Path) -> bool:
    """Whether it is a temporary file of a process of this machine that is gone, or any that is far too old."""
    mark = _TEMPORARY.fullmatch(path.name)
    if mark is None and _NAMELESS.fullmatch(path.name) is None:
        return False
    if mark is not None and mark["host"] == _HOST and not _alive(int(mark["process"])):
        return True
    return time.time() - path.stat().st_mtime > _LONG


def _alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere this very question ends the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _checked(text: bytes, content: bytes, shapes: Mapping[str, tuple]) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the record of an entry; raises ValueError, RecursionError or SafetensorError for a mismatch."""
    meta = json.loads(text)
    if not isinstance(meta, dict) or not isinstance(meta.get("record"), dict):
        raise ValueError("its JSON holds no record")
    record = meta["record"]
    found = {"sha256": _digest(content), "record_sha256": _digest(_packed(record))}
    for name, digest in found.items():
        # older entries have no checksum of the record
        if (written := meta.get(name, digest if name == "record_sha256" else None)) != digest:
            raise ValueError(f"{name} is {digest}, {written} was written")
    tensors = load(content)
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        if tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(f"tensor {name} has shape {tuple(tensors[name].shape)}, not {tuple(shape)}")
    return tensors, record


def _set_aside(*paths: Path) -> str:
    """Rename to `*.corrupt`; gives what happened, in words."""
    if places.LEFT_ALONE.get():
        return "it stays where it is"
    for path in paths:
        try:
            path.replace(path.with_name(path.name + ".corrupt"))
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            return f"it cannot be set aside ({error.strerror or error})"
    return "set aside as *.corrupt"


def _packed(thing: dict) -> bytes:
    return json.dumps(thing, allow_nan=False).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
