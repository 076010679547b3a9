"""Nothing is computed twice, nothing half-written is trusted: a folder of trained models under content keys.

An entry is two files, `<key>.safetensors` and `<key>.json`, written under temporary names and renamed, the JSON last. The
JSON holds the SHA-256 of the tensors and of the record, so that loading notices a missing, cut or altered entry: it is
named in a warning, set aside and made again. An entry that cannot be read is another matter: a disk that does not answer
says nothing about what lies on it, so the entry stays and an error names it. Place: the argument, else `MIALIB_CACHE`,
else the user cache.

Several processes, on several machines, may use one folder. Both files of an entry are renamed while the folder is locked,
where the disk can lock folders (NFS mostly cannot); without locks two writers of different tensors under one key may leave a
pair that does not fit, which is then found corrupt, set aside and made again.

The folder can be copied to another machine: no entry names a place or a machine. Whether it is found there depends on its key,
see `hashing`. When an entry was last loaded is the time of its tensors' file, when it was written that of its JSON.
"""

import hashlib
import json
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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
_FILE = re.compile(r"(?P<key>[^.]+)\.(?P<kind>json|safetensors)(?P<corrupt>\.corrupt)?")
_MADE = '{"made": '  # how the JSON of an entry begins
_HEAD, _WORDS = 4096, 300  # bytes of it that hold what made it, in at most so many characters
OLDER = "of older versions"  # the kind of entries that do not say what they are
_swept: set[Path] = set()  # folders from which this process has removed what killed writers left
_used: dict[Path, dict[str, None]] = {}  # folder -> keys that this process loaded or wrote


class Entry(NamedTuple):
    """What lies in a store under a key.

    Args:
        state: "whole", "corrupt" (set aside) or "half" (one of the two files is missing).
        bytes: of its files.
        written, used: when it was written, and when it was last loaded (or written), in nanoseconds since 1970.
    """

    key: str
    state: str
    bytes: int
    written: int
    used: int


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
        readings, before = 0, None
        while readings < TRIES:
            time.sleep(PAUSE * readings)
            if (now := _versions(tensors, record)) != before:  # written anew meanwhile: begin again
                readings, before = 0, now
            readings += 1
            try:
                found = _checked(record.read_bytes(), tensors.read_bytes(), shapes or {})
            except (FileNotFoundError, NotADirectoryError):
                return None
            except (OSError, ValueError, RecursionError, SafetensorError) as error:
                problem = error
            else:
                self._note_use(key)
                return found
        if isinstance(problem, OSError):
            raise places.told(
                problem,
                f"cache entry {tensors} is there and cannot be read ({problem.strerror or problem}); it was left as it "
                "is: try again, see to the disk or the rights, or set MIALIB_CACHE to another folder",
            ) from problem
        if (done := _set_aside(before, tensors, record)) is None:
            return self.get(key, shapes)
        warnings.warn(
            f"cache entry {tensors} is corrupt ({problem}); {done}, it is computed again", stacklevel=2
        )
        return None

    def ready(self) -> bool:
        """Whether results can be kept, asked before the work. The first time, also removes what killed writers left here.

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
        if self.root not in _swept:  # once: it looks at every file
            sweep(self.root)
            _swept.add(self.root)
        return True

    def put(
        self, key: str, tensors: dict[str, Tensor], record: dict, *, kind: str = "others", words: str = ""
    ) -> None:
        """Write an entry whole or not at all; where that fails, a warning says so and the work goes on.

        Args:
            kind, words: what it is, as "networks", and what made it, for people who look into the store.
        """
        if places.LEFT_ALONE.get():
            return
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        kept = json.loads(_packed(record))  # hashed as it will be read: with lists for tuples, texts for keys
        made = [kind, words if len(words) <= _WORDS else words[: _WORDS - 3] + "..."]
        digests = {"sha256": _digest(content), "record_sha256": _digest(_packed(kept))}
        meta = _packed({"made": made} | digests | {"record": kept})  # `made` first, see `made`
        try:
            _put_together(dict(zip(self._paths(key), (content, meta), strict=True)))
        except OSError as error:
            warnings.warn(
                f"what is computed now is not kept: the cache {self.root} cannot be written to "
                f"({error.strerror or error}); make room there, or {_ADVICE}",
                stacklevel=2,
            )
            return
        _used.setdefault(self.root, {})[key] = None

    def made(self, key: str) -> tuple[str, str]:
        """What an entry is and what made it: the `kind` and the `words` that it was put with.

        Entries of older versions do not say it, nor do those that cannot be read: their kind is `OLDER`, without words.
        """
        try:
            with open(self._paths(key)[1], "rb") as file:
                head = file.read(_HEAD).decode("ascii")
            if head.startswith(_MADE):
                kind, words = json.JSONDecoder().raw_decode(head, len(_MADE))[0]
                return str(kind), str(words)
        except (OSError, ValueError, TypeError, RecursionError):
            pass
        return OLDER, ""

    def used(self) -> list[str]:
        """Keys of the entries that this process loaded or wrote, in the order of their first use."""
        return list(_used.get(self.root, ()))

    def scan(self) -> Iterator[Entry]:
        """All that lies in the store, one folder after the other; none where there is no store.

        Raises:
            OSError: it cannot be read.
        """
        for folder in _folders(self.root):
            yield from _entries(folder)

    def entries(self) -> dict[str, int]:
        """Each key of a whole entry, with the time at which it was written, in nanoseconds."""
        return {entry.key: entry.written for entry in self.scan() if entry.state == "whole"}

    def remove(self, entries: Iterable[Entry]) -> list[Entry]:
        """Remove what `scan` found; gives what is gone now.

        What a process is writing stays, and so does what was written or loaded since the scan.

        Raises:
            OSError: the store cannot be written to.
        """
        if places.LEFT_ALONE.get():
            return []
        wanted: dict[Path, list[Entry]] = {}
        for entry in entries:
            wanted.setdefault(self._paths(entry.key)[0].parent, []).append(entry)
        return [gone for folder, ones in wanted.items() for gone in _remove_in(folder, ones)]

    def since(self, key: str) -> int | None:
        """When an entry was written, in nanoseconds; None where there is none."""
        try:
            return self._paths(key)[1].stat().st_mtime_ns
        except OSError:
            return None

    def _note_use(self, key: str) -> None:
        if places.LEFT_ALONE.get():
            return
        _used.setdefault(self.root, {})[key] = None
        with suppress(OSError):  # a store that can only be read, or somebody else's file
            os.utime(self._paths(key)[0])

    def _paths(self, key: str) -> tuple[Path, Path]:
        folder = self.root / key[:2]
        return folder / f"{key}.safetensors", folder / f"{key}.json"


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename: readers see the old file or the whole new one."""
    if places.LEFT_ALONE.get():
        return
    temporary = _beside(path, data)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _put_together(contents: Mapping[Path, bytes]) -> None:
    """Write files of one folder; they are renamed together, in their order, while nobody else renames there."""
    temporaries: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            temporaries[path] = _beside(path, data)
        with _locked(path.parent):
            for path, temporary in temporaries.items():
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def _beside(path: Path, data: bytes) -> Path:
    """Write the data to a temporary file beside a path, to the disk; gives its path."""
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
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Within it no other process is within the same, where the disk can lock folders; elsewhere nobody waits."""
    if os.name != "posix":
        yield
        return
    import fcntl  # not known elsewhere

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the process, however it ends
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the temporary files below a folder whose writers were killed; files that are being written stay."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if name.startswith(".")):
            with suppress(OSError):  # somebody else's, or gone meanwhile: it harms nobody
                if _abandoned(path):
                    path.unlink(missing_ok=True)


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


def _folders(root: Path) -> list[Path]:
    """Those that hold entries, in the order of their names."""
    try:
        with os.scandir(root) as found:
            names = [one.name for one in found if not one.name.startswith(".") and one.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [root / name for name in sorted(names)]


def _entries(folder: Path) -> list[Entry]:
    """What lies in one folder, in the order of the keys; what goes meanwhile is passed over."""
    files: dict[tuple[str, bool], dict[str, os.stat_result]] = {}
    with os.scandir(folder) as found:
        for one in found:
            if (name := _FILE.fullmatch(one.name)) is None:
                continue
            with suppress(FileNotFoundError):
                status = one.stat()
                files.setdefault((name["key"], name["corrupt"] is not None), {})[name["kind"]] = status
    return [_entry(key, corrupt, files[key, corrupt]) for key, corrupt in sorted(files)]


def _entry(key: str, corrupt: bool, files: Mapping[str, os.stat_result]) -> Entry:
    state = "corrupt" if corrupt else "whole" if len(files) == 2 else "half"
    any_one = next(iter(files.values()))
    written, used = files.get("json", any_one).st_mtime_ns, files.get("safetensors", any_one).st_mtime_ns
    return Entry(key, state, sum(one.st_size for one in files.values()), written, max(written, used))


def _remove_in(folder: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Remove entries of one folder that are as they were and that nobody is writing; gives those that are gone."""
    gone = []
    with _locked(folder):
        now, busy = set(_entries(folder)), _being_written(folder)
        for entry in entries:
            if entry not in now or entry.key in busy:
                continue
            for kind in ("json", "safetensors"):  # the JSON first: without it nobody looks for the tensors
                end = ".corrupt" if entry.state == "corrupt" else ""
                (folder / f"{entry.key}.{kind}{end}").unlink(missing_ok=True)
            gone.append(entry)
    return gone


def _being_written(folder: Path) -> set[str]:
    """Keys of which there are temporary files that somebody will finish."""
    keys = set()
    for path in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if not _abandoned(path):
                keys.add(path.name[1:].partition(".")[0])
    return keys


def _versions(*paths: Path) -> tuple | None:
    """What changes whenever one of the files is replaced by another; None where one is missing."""
    try:
        return tuple((found.st_ino, found.st_size, found.st_ctime_ns) for found in map(os.stat, paths))
    except OSError:
        return None


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


def _set_aside(seen: tuple | None, *paths: Path) -> str | None:
    """Rename to `*.corrupt`; gives what happened, in words, and None where the files are not the `seen` ones any more."""
    if places.LEFT_ALONE.get():
        return "it stays where it is"
    try:
        with _locked(paths[0].parent):
            if _versions(*paths) != seen:
                return None
            for path in paths:
                path.replace(path.with_name(path.name + ".corrupt"))
    except OSError as error:
        return f"it cannot be set aside ({error.strerror or error})"
    return "set aside as *.corrupt"


def _packed(thing: dict) -> bytes:
    return json.dumps(thing, allow_nan=False).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
