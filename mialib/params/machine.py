"""What this machine can do: its devices, cores and memory."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

PROCESSES_A_CORE = 4  # more would only wait for each other; machines with few cores are allowed 16
# where Linux says what a container may use, by version 2 and 1 of its control groups
_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"


def problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Which of `values`, each in range by itself, this machine cannot do: (name of the parameter, problem)."""
    chosen = None
    if "device" in values:
        try:
            chosen = device(values["device"])
        except ValueError as error:
            yield "device", str(error)
    if values.get("precision") == "bf16" and chosen and not has_bf16(chosen):
        yield (
            "precision",
            f"precision is 'bf16', and this machine's {chosen.upper()} does not compute in it; take 'float32'",
        )
    if values.get("precision") == "tf32" and chosen == "cpu":
        yield (
            "precision",
            "precision is 'tf32', and that is CUDA's alone; on this machine's CPU take 'float32'",
        )
    cores = os.cpu_count() or 1
    most = max(16, PROCESSES_A_CORE * cores)
    if values.get("n_jobs", 0) > most:
        yield "n_jobs", f"n_jobs is {values['n_jobs']}: this machine has {cores} cores; take at most {most}"


def device(name: str) -> str:
    """ "cpu" or "cuda" for a parameter that may be "auto".

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA device; take 'auto' or 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def has_bf16(device: str) -> bool:
    """Whether networks can be trained in bf16 there; True if PyTorch does not say."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return True if asked is None else bool(asked())


def memory(device: str = "cpu") -> int | None:
    """Bytes of memory of the machine, of the container that this runs in, or of the CUDA device; None if unknown."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        pass
    for path in map(Path, _LIMITS):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            pass
    return min((size for size in found if size > 0), default=None)
