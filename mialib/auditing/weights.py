"""Weights from a file, and whether they fit a network: usual wrappings are taken off, and what was done is said."""

import copy
import itertools
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mialib.data import own
from mialib.params.vocabulary import nearest

ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")  # of checkpoints
PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
LOOKED_AT = 10_000  # files of a folder, for one with a name like another
NAMED = 4  # of the keys that an error tells of


def located(path: str | Path, name: str) -> Path:
    """A file or folder; a path that is not absolute counts from where addresses of one's own do (`data.own`).

    Args:
        name: what it is for, for the error.

    Raises:
        ValueError: there is none.
    """
    try:
        there = Path(os.environ.get(own.BESIDE) or os.getcwd()) / Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: {path} cannot be found ({error}); give the full path") from error
    if not there.exists():
        raise ValueError(
            f"{name}: no file or folder {there}{near(there)}; a path counts from the working folder"
        )
    return there


def near(path: Path) -> str:
    """', did you mean ...?' for the file in the same folder whose name is closest to one that is missing, or nothing.

    Where the folder itself is missing: the first folder of the path that is.
    """
    missing = next((one for one in reversed(path.parents) if not one.is_dir()), None)
    if missing is not None:
        return f" (there is no folder {missing}{near(missing)})"
    try:
        return nearest(path.name, [one.name for one in itertools.islice(path.parent.iterdir(), LOOKED_AT)])
    except OSError:  # a folder that may not be read
        return ""


def read(path: str | Path, name: str) -> Mapping:
    """The content of a file of weights, on the CPU; no code of the file is run.

    Raises:
        ValueError: no such file, another kind of file, or one that holds more than weights.
    """
    there = located(path, name)
    if there.suffix not in ENDINGS:
        raise ValueError(f"{name}: weights {there} end in {there.suffix!r}, must in {', '.join(ENDINGS)}")
    try:
        if there.suffix == ".safetensors":
            return safetensors.torch.load_file(there)
        state = torch.load(there, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{name}: {there} {_refusal(str(error))}") from error
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{name}: {there} holds a {type(state).__name__}, must hold a state_dict (name -> tensor)"
        )
    return state


def _refusal(reason: str) -> str:
    """Why a file is not read, and what to do, from what torch says."""
    if "TorchScript" in reason:
        return "is a TorchScript file; pass its path alone"
    if asked := re.search(r"GLOBAL ([\w.]+)", reason):
        return (
            f"holds more than weights ({asked[1]}), and reading it could run code; save model.state_dict() alone, or load it "
            "yourself and pass the model"
        )
    return "cannot be read as weights; save them again"


def load(module: nn.Module, state: Mapping, name: str) -> tuple[str, ...]:
    """Load `state` into `module`, and say which wrappings were taken off: one sentence each.

    Known are a state_dict inside a checkpoint (`INSIDE`), prefixes of all its keys (`PREFIXES`), and the masks of
    `torch.nn.utils.prune`, which are multiplied into the weights where the module has none itself.

    Raises:
        ValueError: missing, unexpected or wrongly shaped keys, all counted and some of each named.
    """
    wanted = module.state_dict()
    state, notes = _inside(state, wanted, name)
    state = copy.copy(state)  # the metadata of a state_dict, on which quantised layers depend, comes with it
    for prefix in PREFIXES:
        is_own = any(key.startswith(prefix) for key in wanted)
        if state and not is_own and all(key.startswith(prefix) for key in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
            notes.append(f'the prefix "{prefix}" of the weights\' names was taken off')
    if folded := _fold(state, wanted):
        notes.append(f"the pruning masks of {folded} weights were multiplied into them")
    _check(state, wanted, name)
    try:
        module.load_state_dict(state, strict=False)  # checked above; only counters of batches may be absent
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name}: the weights cannot be loaded into {type(module).__name__}: {reason}"
        ) from error
    return tuple(notes)


def _inside(state: Mapping, wanted: Mapping, name: str) -> tuple[Mapping, list[str]]:
    """The state_dict that a checkpoint holds beside an epoch, an optimiser and the like."""
    notes = []
    while not wanted.keys() & state.keys():
        key = next((key for key in INSIDE if isinstance(state.get(key), Mapping)), None)
        if key is None:
            break
        state = state[key]
        notes.append(f'the weights are those under "{key}" in the checkpoint')
    if odd := [key for key in state if not isinstance(key, str)]:
        raise ValueError(f"{name}: weights have the key {odd[0]!r}; a state_dict has names as keys")
    return state, notes


def _fold(state: dict, wanted: Mapping) -> int:
    """Replace weight_orig and weight_mask by weight, in place; the number of such weights."""
    names = [key.removesuffix("_orig") for key in state if key.endswith("_orig") and key not in wanted]
    names = [name for name in names if f"{name}_mask" in state and name in wanted]
    for name in names:
        state[name] = state.pop(f"{name}_orig") * state.pop(f"{name}_mask")
    return len(names)


def _check(state: Mapping, wanted: Mapping, name: str) -> None:
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the model"
        for key, tensor in wanted.items()
        # quantised layers keep types and tuples there too
        if isinstance(tensor, Tensor)
        and isinstance(state.get(key), Tensor)
        and state[key].shape != tensor.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(found.values()):
        told = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in found.items() if keys)
        raise ValueError(
            f"{name}: the weights do not fit the model. {told}. The factory must build the network that was saved"
            + _hint(missing, unexpected)
        )


def _hint(missing: list[str], unexpected: list[str]) -> str:
    if any("parametrizations." in key or key.endswith(("_g", "_v")) for key in unexpected):
        return ", with the same parametrisations registered on it"
    if any(key.endswith("_orig") for key in missing):
        return ", and this one has pruning masks that the file lacks: build it without them"
    return ""


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")
