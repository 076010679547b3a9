"""Nothing is computed twice, nothing half-written is trusted: a folder of trained models under content keys.

An entry is two files, `<key>.safetensors` and `<key>.json`, written under temporary names and renamed, the JSON last:
it holds the SHA-256 of the tensors, so a missing, cut or altered entry is noticed on load. It is then named in a
warning, set aside and made again. Place: the argument, else `MIALIB_CACHE`, else the user cache.
"""

import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import pooch
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
