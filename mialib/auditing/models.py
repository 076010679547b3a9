"""What a model says, whichever form it has: a module, a file, a factory with weights, or any callable.

Answers are the raw outputs, logits or posteriors as the model gives them; `answers.recognised` tells which. A model is
only asked: it is never copied, converted or changed, and it is back in its mode (train or eval) afterwards.
"""

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mialib import progress
from mialib.auditing import outputs, weights
from mialib.data import own
from mialib.data.tensors import kind_of, must_be_tensor

STEADY = 1e-4  # of the largest answer: more than rounding does, less than dropout or noise
VALID = (
    "a torch module, an ONNX file (.onnx), a torch.export (.pt2) or TorchScript file (.pt, .pth, .ts), "
    'mialib.auditing.Checkpoint("module:function", weights), or a function of inputs that gives logits or posteriors, such as '
    "classifier.predict_proba"
)
_PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ONNX_TYPES = {
    "tensor(float16)": torch.float16,
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
    "tensor(int8)": torch.int8,
    "tensor(int32)": torch.int32,
    "tensor(int64)": torch.int64,
    "tensor(bool)": torch.bool,
}


@dataclass(frozen=True)
class Checkpoint:
    """A network that a function of one's own builds, with weights from a file.

    Args:
        factory: "package.module:function", looked for in the working folder first, or the function itself; without
            arguments, it gives a module.
        weights: a state_dict in a .pt, .pth, .ckpt, .bin or .safetensors file, or the state_dict itself; None where the
            function loads them.
    """

    factory: str | Callable[[], nn.Module]
    weights: str | Path | Mapping[str, object] | None = None


@dataclass(frozen=True)
class Takes:
    """The inputs that a model takes. shape: with the batch, None where any size will do. None: not known."""

    dtype: torch.dtype | None = None
    shape: tuple[int | None, ...] | None = None

    @property
    def rows(self) -> int | None:
        """The fixed size of a batch."""
        return self.shape[0] if self.shape else None


@dataclass(frozen=True)
class Opened:
    """A model ready to be asked, so that a file is read once.

    kind: which form it had. notes: what was assumed, a sentence each.
    """

    ask: Callable[[Tensor], object]
    kind: str
    takes: Takes = Takes()
    notes: tuple[str, ...] = ()


def answers(
    model, x: Tensor, *, name: str, batch_size: int = 256, device: torch.device | str = "cpu"
) -> np.ndarray:
    """What a model says to inputs, raw: float32 or float64 (n, c), or (n, 1) of a model with a single output.

    Of several outputs it is `.logits`, an output named like one of `outputs.NAMES`, or the first with a row for each input.
    Floating inputs get the floating type that the model computes in.

    Args:
        model: see `opened`.
        x: (n, ...), as the model takes them.
        name: of the model, for errors and the progress bar.
        batch_size: how many inputs are asked about at once, at most.
        device: for models that have no place of their own, and for those read from a file.

    Raises:
        ValueError: no form of a model, inputs that it does not take, or answers that are not one row of numbers for each
            input. Errors of the model itself pass through, with a note of the batch.
    """
    must_be_tensor("x", x, where=f"{name}: ")
    if x.ndim == 0 or not len(x):
        raise ValueError(f"{name}: x is {_described(x)}, must hold at least one input (n, ...)")
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"{name}: batch_size is {batch_size!r}, must be an integer of at least 1")
    model = opened(model, name=name, device=device)
    _check_taken(x, model.takes, name)
    edges, rows = _edges(len(x), int(batch_size), model.takes.rows), []
    for number in progress.follow(range(len(edges) - 1), f"answers, {name}", "batch"):
        start, end = edges[number : number + 2]
        where = f"{name}: batch {number + 1} of {len(edges) - 1} (inputs {start} to {end - 1})"
        rows.append(_ask(model, x[start:end], where))
        if rows[-1].shape[1] != rows[0].shape[1]:
            raise ValueError(
                f"{where} got {rows[-1].shape[1]} values for each input, the first batch {rows[0].shape[1]}"
            )
    return np.concatenate(rows)


def is_steady(
    model, batch: Tensor, *, name: str = "model", batch_size: int = 256, device: torch.device | str = "cpu"
) -> bool:
    """Whether a model says the same when it is asked twice: no dropout left on, no noise.

    Differences up to `STEADY` of the largest answer are taken for rounding.

    Args:
        batch: (n, ...) inputs, of which the first `batch_size` are asked about.

    Raises:
        ValueError: as `answers`.
    """
    model = opened(model, name=name, device=device)
    x = batch[:batch_size]
    first, second = (answers(model, x, name=name, batch_size=batch_size) for _ in range(2))
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    return bool(np.allclose(first, second, rtol=0, atol=STEADY * scale, equal_nan=True))


def opened(model, *, name: str, device: torch.device | str = "cpu") -> Opened:
    """A model in any of its forms, ready to be asked.

    Args:
        model: one of
            - an `nn.Module`, also pruned, parametrised, parallel or quantised; asked where its parameters are;
            - a `torch.export` program;
            - a path to an .onnx, .pt2 (torch.export) or TorchScript file (.pt, .pth, .ts, .torchscript);
            - a `Checkpoint`;
            - "package.module:function": a function without arguments that gives a model in any form, or one of inputs;
            - a callable, tensor (b, ...) on `device` -> logits or posteriors (b, c), of torch, numpy or lists;
            - an `Opened` model.
        name: of the model, for errors.

    Raises:
        ValueError: none of these, a file that is not there or cannot be read, weights that do not fit.
    """
    if isinstance(model, Opened):
        return model
    if isinstance(model, Checkpoint):
        return _checkpoint(model, name, device)
    if isinstance(model, str | Path):
        return _by_name(model, name, device)
    if isinstance(model, nn.Module):
        return _module(model, "module", device)
    if isinstance(model, torch.export.ExportedProgram):
        return _program(model, name, device)
    if isinstance(model, type):
        raise ValueError(
            f"{name} is the class {model.__name__}, not a model; pass one that is made and trained"
        )
    if callable(model):
        return Opened(lambda x: model(x.to(device)), "callable")
    raise ValueError(f"{name} is a {kind_of(model)}; a model is {VALID}")


def _by_name(model: str | Path, name: str, device) -> Opened:
    """A model by the path of its file, or by the address of a function."""
    ending = Path(model).suffix.lower()
    if ending in _FILES:
        return _FILES[ending](weights.located(model, name), name, device)
    if ending in weights.ENDINGS:
        raise ValueError(
            f'{name}: {model} holds weights alone; pass Checkpoint("package.module:function", {str(model)!r}) with a '
            "function that builds the network"
        )
    if not isinstance(model, str) or ":" not in model:
        raise ValueError(f"{name} is {str(model)!r}; a model is {VALID}")
    function = _function(model, name)
    if not _is_factory(function):
        return Opened(lambda x: function(x.to(device)), "callable")
    made = opened(_made(function, name, model), name=name, device=device)
    return Opened(
        made.ask, made.kind, made.takes, (*made.notes, f"its weights are those that {model} gives it")
    )


def _checkpoint(model: Checkpoint, name: str, device) -> Opened:
    function = _function(model.factory, name) if isinstance(model.factory, str) else model.factory
    if not callable(function):
        raise ValueError(
            f"{name}: factory is a {kind_of(function)}, must be a function or its address module:function"
        )
    content = model.weights
    if isinstance(content, str | Path):
        content = weights.read(content, name)  # before the network is built
    module = _made(function, name, model.factory)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name}: the factory {model.factory} gives a {kind_of(module)}, must give a torch module"
        )
    notes = () if content is None else weights.load(module, content, name)
    made = _module(module.to(device), "checkpoint", device)
    return Opened(made.ask, made.kind, made.takes, (*made.notes, *notes))


def _function(address: str, name: str) -> Callable:
    try:
        own.check(address)
    except ValueError as error:
        raise ValueError(f"{name}: {address}: {error}") from error
    return own.function(address)  # an error in the user's module passes through


def _made(function: Callable, name: str, what) -> object:
    try:
        return function()
    except Exception as error:
        error.add_note(f"{name}: raised by the factory {what}, called without arguments")
        raise


def _is_factory(function: Callable) -> bool:
    """Whether it can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _module(module: nn.Module, kind: str, device) -> Opened:
    """It is asked where its tensors are; quantised layers may have none that say so, and compute on the CPU."""
    tensors = [*module.parameters(), *module.buffers()]
    packed = any(hasattr(part, "_packed_params") for part in module.modules())
    place = tensors[0].device if tensors else torch.device("cpu" if packed else device)
    types = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
    dtype = types.pop() if len(types) == 1 and types <= set(_PLAIN) else None

    def ask(x: Tensor):
        with _evaluating(module):
            return module(x.to(place))

    return Opened(ask, kind, Takes(dtype), _cast(dtype))


def _cast(dtype: torch.dtype | None) -> tuple[str, ...]:
    """What is to be said where inputs are rounded to what a model computes in."""
    is_rounded = dtype in (torch.float16, torch.bfloat16)
    return (f"it computes in {_type(dtype)}, to which its inputs are rounded",) if is_rounded else ()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode by the flags alone: `eval()` makes some layers change their weights (LoRA merges them), or raises."""
    parts = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    try:
        for part, _ in parts:
            part.training = False
        yield
    finally:
        for part, was in parts:
            part.training = was


def _onnx(path: Path, name: str, device) -> Opened:
    """On the CPU, whatever `device` is."""
    import onnxruntime  # here: only who has such a file needs it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an error of its own for each reason
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: {path} is no ONNX file that ONNX Runtime can run: {reason}") from error
    inputs, names = session.get_inputs(), [output.name for output in session.get_outputs()]
    given = inputs[0]
    _check_one_input([f"{each.name} {each.type} {each.shape}" for each in inputs], path, name)
    if given.type not in _ONNX_TYPES:
        raise ValueError(f"{name}: {path} takes {given.type}; {', '.join(_ONNX_TYPES)} can be asked")
    shape = tuple(size if isinstance(size, int) else None for size in given.shape)
    takes = Takes(_ONNX_TYPES[given.type], shape or None)

    def ask(x: Tensor):
        return dict(zip(names, session.run(None, {given.name: x.detach().cpu().numpy()}), strict=True))

    return Opened(ask, "ONNX file", takes, _cast(takes.dtype))


def _exported(path: Path, name: str, device) -> Opened:
    with suppress(
        ImportError
    ):  # int8 programs of torchao consist of operations that are known once this is imported
        importlib.import_module("torch.ao.quantization.fx._decomposed")
    try:
        program = torch.export.load(path)
    except Exception as error:  # of many kinds, as it is a zip of several files
        raise ValueError(
            f"{name}: {path} is no file of torch.export.save, or it needs operations of a package that is not imported; import "
            f"that first: {error}"
        ) from error
    return _program(program, name, device)


def _program(program, name: str, device) -> Opened:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [values[each] for each in program.graph_signature.user_inputs]
    _check_one_input([str(each) for each in inputs], "the exported program", name)
    shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
    made = _module(program.module(), "exported program", device)
    return Opened(made.ask, made.kind, Takes(inputs[0].dtype, shape), _cast(inputs[0].dtype))


def _script(path: Path, name: str, device) -> Opened:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, that it will go some day
            module = torch.jit.load(path, map_location=device)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: {path} is no TorchScript file; if it holds weights, pass "
            f'Checkpoint("package.module:function", {str(path)!r}) with a function that builds the network'
        ) from error
    return _module(module, "TorchScript file", device)


_FILES = {".onnx": _onnx, ".pt2": _exported} | dict.fromkeys((".pt", ".pth", ".ts", ".torchscript"), _script)


def _check_one_input(inputs: list[str], what, name: str) -> None:
    if len(inputs) != 1:
        raise ValueError(
            f"{name}: {what} takes {len(inputs)} inputs ({', '.join(inputs)}), one can be asked; pass a function of one "
            "input that fills in the others"
        )


def _check_taken(x: Tensor, takes: Takes, name: str) -> None:
    if takes.shape is None:
        return
    fits = x.ndim == len(takes.shape) and all(
        size in (None, there) for size, there in zip(takes.shape[1:], x.shape[1:], strict=True)
    )
    is_cast = x.is_floating_point() and takes.dtype in _PLAIN
    if not fits or not (x.dtype == takes.dtype or is_cast):
        sizes = ", ".join("any" if size is None else str(size) for size in ("n", *takes.shape[1:]))
        raise ValueError(
            f"{name} takes {_type(takes.dtype)} ({sizes}), x is {_described(x)}; pass inputs as it takes them"
        )


def _edges(n: int, batch_size: int, fixed: int | None) -> list[int]:
    """Where batches begin and end. They are alike in size, so that none is left with a single input, which some models
    answer without a batch axis."""
    if fixed:
        return [*range(0, n, fixed), n]
    count = math.ceil(n / batch_size)
    return [n * i // count for i in range(count + 1)]


def _ask(model: Opened, x: Tensor, where: str) -> np.ndarray:
    """(b, c) for inputs (b, ...), filled up with copies of the last one where the model takes larger batches only."""
    n, takes = len(x), model.takes
    if takes.rows and takes.rows > n:
        x = torch.cat([x, x[-1:].expand(takes.rows - n, *x.shape[1:])])
    if x.is_floating_point() and takes.dtype is not None:
        x = x.to(takes.dtype)
    try:
        with torch.no_grad():
            said = model.ask(x)
    except Exception as error:
        error.add_note(f"{where}, asked {_described(x)}")
        raise
    return outputs.rows(said, len(x), where)[:n]


def _described(x: Tensor) -> str:
    return f"{_type(x.dtype)} {tuple(x.shape)}"


def _type(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
