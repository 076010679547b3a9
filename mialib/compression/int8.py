"""A real integer network, to compare with a simulated one: post-training static int8 with ONNX Runtime on a CPU.

Weights are int8, symmetric, with a scale for each output channel. Activations, including the input and the logits, are
uint8 with one scale and zero point a tensor; these cover the range seen on the calibration examples (min-max), and values
beyond it are clipped. So logits take at most 256 values. BatchNorm is folded into the convolution before it; norms that
follow none stay in float32. The first and last layers are treated like all others. The scheme is Jacob et al. 2018,
arXiv:1712.05877, except for the scales by channel (Krishnamoorthi 2018, arXiv:1806.08342).

Models are the bytes of an ONNX file, input "x" float32 (n, ...), output "logits" float32 (n, c), any n.
"""

import copy
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from onnxruntime import quantization
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from mialib.compression import deployment_cost
from mialib.training import population

# What becomes integer: all that can, except norms: their few numbers a channel lose much in 8 bits and save nothing.
_KINDS = [kind for kind in sorted(QLinearOpsRegistry | QDQRegistry) if not kind.endswith("Normalization")]


def float_model(module: nn.Module, example: Tensor) -> bytes:
    """`module` in eval mode as an ONNX model, in float32.

    Args:
        example: (b, ...) float32, normalised inputs, on which the export is checked.

    Raises:
        ValueError: an example that is empty, not float32 or without a batch axis; a module that ONNX cannot express,
            with the type of the layer where that can be told; one whose forward pass branches on its input's values.
    """
    _check(example, "example")
    module = copy.deepcopy(module).cpu().eval()
    example = example.detach().cpu()
    example = example[: population.at_once(example)]
    with torch.no_grad():
        expected = module(example)  # an error here is no failure of the export, and is raised as it is
        try:
            model = _export(module, (example[:2],))
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"int8: {_unknown_layer(module, example[:2])} has no form in ONNX ({reason}); "
                "use layers and operations that torch.onnx.export knows, or stay with PyTorch"
            ) from error
    exported = OnnxNetwork(model).logits(example)
    if exported.shape != expected.shape or (exported - expected).abs().max() > 1e-3 * expected.abs().max():
        raise ValueError(
            f"int8: the ONNX form of {type(module).__name__} answers otherwise than the module; a forward pass that "
            "branches on its input's values, or takes the size of the batch as fixed, cannot be exported"
        )
    return model


def int8_model(module: nn.Module, calibration: Tensor) -> bytes:
    """`module` in eval mode as an ONNX model whose convolutions and linear layers compute in integers.

    Args:
        calibration: (n, ...) float32, normalised inputs. The model reveals something of them: their extremes are its
            ranges.

    Raises:
        ValueError: as `float_model`, for the calibration examples.
    """
    _check(calibration, "calibration")
    model = onnx.load_from_string(float_model(module, calibration))
    with _silence(), tempfile.TemporaryDirectory() as folder:
        ready, quantized = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(model, ready, skip_symbolic_shape=True)  # shapes and constants
        # uint8 activations: ONNX Runtime on x86 turns int8 ones into uint8 where it can, but leaves the convolutions of
        # residual blocks in float32. All 8 bits of the weights are used: `_overflows` takes care of the rest.
        quantization.quantize_static(
            ready,
            quantized,
            _Batches(calibration.detach().cpu()),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_KINDS,
            per_channel=True,
            reduce_range=False,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return quantized.read_bytes()


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX model that answers on one CPU thread: x (n, ...) float32 -> log-posteriors (n, c) float64.

    Pickles as its bytes.
    """

    model: bytes = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.cpu()
        logits = torch.cat([self.logits(part) for part in x.split(population.at_once(x))])
        return logits.double().log_softmax(-1)

    def logits(self, x: Tensor) -> Tensor:
        """(n, c) float32, of all examples at once."""
        return torch.from_numpy(self._session.run(["logits"], {"x": x.detach().cpu().numpy()})[0])

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return _session(self.model, exact=_overflows())

    def __reduce__(self):
        return OnnxNetwork, (self.model,)


def compare(
    module: nn.Module, calibration: Tensor, examples: Mapping[str, Tensor], repeats: int = 30
) -> pd.DataFrame:
    """The costs of `module` in PyTorch, in ONNX Runtime, and there in integers.

    Columns PyTorch float32, ONNX float32, ONNX int8 and ratio (ONNX float32 / ONNX int8, > 1 = a gain). Rows are file
    (KB) of 1000 bytes and "CPU latency, <name> (ms)" for each of `examples`, name -> batch (b, ...): medians of
    `repeats` forward passes on one thread, in turns (`deployment_cost.latencies`).
    """
    models = [float_model(module, calibration), int8_model(module, calibration)]
    answers = [module, *(OnnxNetwork(model).logits for model in models)]
    sizes = [deployment_cost.file_size(module)["file_bytes"], *map(len, models)]
    rows = {"file (KB)": [size / 1000 for size in sizes]}
    for name, example in examples.items():
        rows[f"CPU latency, {name} (ms)"] = deployment_cost.latencies(answers, example, repeats)
    columns = ["PyTorch float32", "ONNX float32", "ONNX int8"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
    return table.assign(ratio=table["ONNX float32"] / table["ONNX int8"])


class _Batches(quantization.CalibrationDataReader):
    """The calibration examples as ONNX Runtime asks for them."""

    def __init__(self, x: Tensor):
        self.parts: Iterator[Tensor] = iter(x.split(population.at_once(x)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self.parts, None)
        return None if part is None else {"x": part.numpy()}


def _export(module: nn.Module, args: tuple) -> bytes:
    # The older, tracing exporter: 10 ms for a small network where the one behind dynamo=True takes a second, for the same
    # graph. It may freeze a branch, and warns even of torch's own layers; the checks in `float_model` make up for that.
    file = io.BytesIO()
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            module,
            args,
            file,
            dynamo=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}},
        )
    return file.getvalue()


@contextmanager
def _silence():
    """Keep stdout quiet: torch's exporter prints what it cannot express, with the paths of source files.

    It prints from C++, hence the descriptor. And keep new handlers off the root logger: ONNX Runtime's quantiser adds one
    with its first remark.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.getLogger().removeHandler(handler)


def _unknown_layer(module: nn.Module, example: Tensor) -> str:
    """The type of the first layer that cannot be exported even on its own; the module's where it is not one layer."""
    seen = []
    layers = [layer for layer in module.modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(lambda *call: seen.append(call[:2])) for layer in layers]
    module(example)
    for hook in hooks:
        hook.remove()
    for layer, args in seen:
        try:
            _export(layer, args)
        except Exception:
            return f"layer {type(layer).__name__}"
    return f"{type(module).__name__}.forward"


def _session(model: bytes, exact: bool) -> onnxruntime.InferenceSession:
    """`exact`: turn int8 weights (and the zero point) into uint8 ones, w + 128, whose sums never overflow."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _overflows() -> bool:
    """Whether this CPU computes uint8 times int8 wrongly.

    AVX2, and AVX-512 without VNNI, add two neighbouring products in 16 bits and clamp: 2 * 255 * 127 > 2^15 - 1.
    Weights of 7 bits (`reduce_range`) would prevent it, but these have 8. Exact sums take up to 1.7 times as long, so
    they are asked for only where they are needed; the answers are the same everywhere.
    """
    a, b = np.full((8, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b"], ["product"])],
        "product",
        [info("a", kind.UINT8, a.shape)],
        [info("product", kind.INT32, (8, 32))],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)])
    product = _session(model.SerializeToString(), exact=False).run(None, {"a": a})[0]
    return bool((product != 255 * 127 * 64).any())


def _check(x: Tensor, what: str) -> None:
    given = f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
    if x.dtype != torch.float32 or x.ndim < 2 or len(x) == 0:
        raise ValueError(
            f"int8: {what} must be at least one normalised input, float32 (n, ...), found {given}; "
            "data.inputs(index) gives such"
        )
