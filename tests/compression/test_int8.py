"""Integers by hand for one layer; for trained networks, how far they are from float32 and what their graphs hold."""

import logging
import pickle
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from mialib.compression import deployment_cost, int8
from mialib.models import classifiers
from mialib.models.layers import initialise
from mialib.training import population

COUNTS = ("Conv", "Gemm", "MatMul")


class Residual(nn.Module):
    """A block whose input is added to its output: the case that int8 activations leave half in float32."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(n, 8, 3, padding=1) for n in (1, 8, 8))
        self.head = nn.Linear(8 * 64, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((x + self.second(self.first(x).relu())).relu().flatten(1))


def learned(module, x, y, epochs):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module


@pytest.fixture(scope="module")
def trained(digits):
    """name -> (module in train mode, 200 calibration examples, 300 other ones that it has not learned either)."""
    torch.manual_seed(0)
    x, y = digits.inputs(torch.arange(1500)), digits.y[:1500]
    centres = torch.rand(30, 446) < 0.3
    labels = torch.arange(1500) % 30
    features = (
        centres[labels] ^ (torch.rand(1500, 446) < 0.2)
    ).float()  # a class's bits, a fifth of them flipped
    made = {
        "small_cnn": (classifiers.small_cnn(1, 10, 8), x, y),
        "lenet5": (classifiers.lenet5(1, 10, 8), x, y),
        "residual": (Residual(), x, y),
        "columnfc": (classifiers.columnfc(446, 30), features, labels),
    }
    return {
        name: (learned(module, inputs[:1000], targets[:1000], epochs=4), inputs[1000:1200], inputs[1200:])
        for name, (module, inputs, targets) in made.items()
    }


@pytest.fixture(scope="module")
def quantized(trained):
    return {name: int8.int8_model(module, calibration) for name, (module, calibration, _) in trained.items()}


NAMES = ("small_cnn", "lenet5", "residual", "columnfc")


def logits(module, x):
    module = module.eval()
    with torch.no_grad():
        answers = module(x)
    module.train()
    return answers


@pytest.mark.parametrize("name", NAMES)
def test_float_model_is_the_module_in_eval_mode(trained, name):
    module, _, x = trained[name]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    deployed = int8.OnnxNetwork(int8.float_model(module, x))
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    expected = logits(module, x)
    torch.testing.assert_close(deployed.logits(x), expected, atol=1e-5, rtol=1e-5)
    answers = deployed(x)
    assert answers.dtype == torch.float64
    torch.testing.assert_close(answers, expected.double().log_softmax(1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_integers_say_nearly_the_same(trained, quantized, name):
    module, _, x = trained[name]
    expected, found = logits(module, x), int8.OnnxNetwork(quantized[name]).logits(x)
    assert (expected.argmax(1) == found.argmax(1)).float().mean() >= 0.98
    error = (found - expected).square().mean().sqrt() / expected.std()
    assert 0 < error < 0.03  # measured: 0.008 to 0.013
    assert len(found.unique()) <= 256


def test_one_layer_by_hand():
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -0.5, 0.25], [0.1, 0.02, -0.05]]))
        module.bias.copy_(torch.tensor([0.3, -0.2]))
    x = torch.tensor([[-1.0, 0.5, 0.2], [2.0, -0.7, 0.1], [0.3, 0.4, 0.9], [1.0, 1.0, 1.0]])
    weight, bias = (p.detach().double().numpy() for p in (module.weight, module.bias))
    y = x.double().numpy() @ weight.T + bias

    def to_uint8(values, seen):
        scale = (seen.max() - seen.min()) / 255
        zero = np.round(-seen.min() / scale)
        return np.clip(np.round(values / scale) + zero, 0, 255) - zero, scale

    w_scale = np.abs(weight).max(1) / 127  # a scale for each output, zero point 0
    integers, x_scale = to_uint8(x.double().numpy(), x.double().numpy())
    sums = integers @ np.round(weight / w_scale[:, None]).T + np.round(bias / (x_scale * w_scale))
    expected, y_scale = to_uint8(sums * x_scale * w_scale, y)
    found = int8.OnnxNetwork(int8.int8_model(module, x)).logits(x).double().numpy()
    np.testing.assert_allclose(found, expected * y_scale, atol=1e-6)
    assert np.abs(found - y).max() > 1e-4  # and that is not float32


def test_answers_end_where_calibration_ended():
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight), nn.init.zeros_(module.bias)
    deployed = int8.OnnxNetwork(int8.int8_model(module, torch.tensor([[-1.0], [2.0]])))
    assert deployed.logits(torch.tensor([[-9.0], [9.0]])).flatten().tolist() == pytest.approx([-1, 2])


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_stored_and_computed_in_integers(quantized, tmp_path, name):
    graph = onnx.load_from_string(quantized[name]).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in COUNTS]
    assert len(layers) == {"small_cnn": 4, "lenet5": 4, "residual": 4, "columnfc": 3}[name]
    for layer in layers:
        assert all(makers[source].op_type == "DequantizeLinear" for source in layer.input), layer.name
        assert [n.op_type for n in graph.node if layer.output[0] in n.input] == ["QuantizeLinear"], layer.name
        weight, scale, zero = (tensors[source] for source in makers[layer.input[1]].input)
        assert weight.dtype == np.int8 and weight.min() >= -127, layer.name
        assert scale.shape == weight.shape[:1] and not zero.any(), layer.name  # by output channel, symmetric
        assert (np.abs(weight).reshape(len(weight), -1).max(1) == 127).all(), layer.name
        activation = tensors[makers[layer.input[0]].input[2]]
        assert activation.dtype == np.uint8 and activation.ndim == 0, layer.name
    assert not any(t.dtype == np.float32 and t.ndim > 1 for t in tensors.values())

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(quantized[name], options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert not set(kinds) & {*COUNTS, "Add", "Relu", "MaxPool"}
    assert sum(kind in ("QLinearConv", "QGemm", "QLinearMatMul") for kind in kinds) == len(layers)


@pytest.mark.parametrize("conv", [False, True])
def test_sums_do_not_overflow_on_any_cpu(conv):
    """255 * 127 + 255 * 127 > 2^15: halved by the instructions of AVX2 unless the session sees to it."""
    module = nn.Sequential(nn.Conv2d(64, 32, 1), nn.Flatten()) if conv else nn.Linear(64, 32)
    layer = module[0] if conv else module
    nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)
    x = torch.cat([torch.zeros(8, 64), torch.ones(8, 64)]).view(16, 64, *[1, 1] * conv)
    model = int8.int8_model(module, x)
    expected = torch.tensor([0.0, 64.0]).repeat_interleave(8)[:, None].expand(16, 32)
    torch.testing.assert_close(int8.OnnxNetwork(model).logits(x), expected)
    exact = int8._session(model, exact=True).run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(exact), expected)


@pytest.mark.parametrize("name", NAMES)
def test_exact_sums_change_no_answer(trained, quantized, name):
    x = trained[name][2]
    exact = int8._session(quantized[name], exact=True).run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(exact), int8.OnnxNetwork(quantized[name]).logits(x))


@pytest.mark.parametrize("name", NAMES)
def test_batching_does_not_matter(trained, quantized, name, monkeypatch):
    x = trained[name][2]
    deployed = int8.OnnxNetwork(quantized[name])
    together = deployed(x)
    assert together.shape == (300, 30 if name == "columnfc" else 10)
    one_by_one = torch.cat([deployed(row) for row in x[:50].split(1)])
    torch.testing.assert_close(one_by_one, together[:50], atol=1e-6, rtol=0)
    asked = []
    monkeypatch.setattr(population, "at_once", lambda x: 7)
    monkeypatch.setattr(
        int8.OnnxNetwork,
        "logits",
        lambda self, x, of=int8.OnnxNetwork.logits: asked.append(len(x)) or of(self, x),
    )
    torch.testing.assert_close(deployed(x), together, atol=1e-6, rtol=0)
    assert asked == [7] * 42 + [6]


def test_models_travel_to_other_processes(trained, quantized):
    x = trained["small_cnn"][2][:5]
    deployed = int8.OnnxNetwork(quantized["small_cnn"])
    expected = deployed(x)  # the session exists by now
    assert torch.equal(pickle.loads(pickle.dumps(deployed))(x), expected)
    answers = Parallel(n_jobs=2)(delayed(deployed)(part) for part in x.split(3))
    assert torch.equal(torch.cat(answers), expected)
    assert len(repr(deployed)) < 100


def test_same_weights_same_file(trained, quantized):
    module, calibration, _ = trained["small_cnn"]
    assert int8.int8_model(module, calibration) == quantized["small_cnn"]


def test_norms_without_convolution_stay_in_float32():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.GroupNorm(2, 8)
    )
    x = torch.randn(100, 6)
    nn.init.uniform_(module[1].weight), nn.init.uniform_(module[1].bias)  # not alike with GroupNorm's
    module(x)  # running statistics other than 0 and 1
    model = int8.int8_model(module, x)
    graph = onnx.load_from_string(model).graph
    (norm,) = (node for node in graph.node if node.op_type == "BatchNormalization")
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert all(kinds[source] == onnx.TensorProto.FLOAT for source in norm.input[1:])
    expected = logits(module, x)
    assert (int8.OnnxNetwork(model).logits(x) - expected).square().mean().sqrt() < 0.05 * expected.std()


def test_pruned_and_dead_channels_are_no_obstacle():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        module[0].weight[:4] = 0
        module[0].bias[2:4] = -1
    x = torch.randn(50, 6)
    torch.testing.assert_close(
        int8.OnnxNetwork(int8.int8_model(module, x)).logits(x), logits(module, x), atol=0.02, rtol=0
    )
    nn.init.constant_(module[0].bias, -100)  # no unit is ever active
    torch.testing.assert_close(
        int8.OnnxNetwork(int8.int8_model(module, x)).logits(x), logits(module, x), atol=0.005, rtol=0
    )


def test_nothing_is_printed_or_left_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.chdir(tmp_path)
    # two biases alike, which the quantiser remarks on
    module, x = (
        initialise(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))),
        torch.randn(9, 6),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = int8.int8_model(module, x)
        int8.OnnxNetwork(model)(x)
        with pytest.raises(ValueError):
            int8.float_model(Spectrum(), x)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert not logging.getLogger().handlers
    assert str(tmp_path).encode() not in model


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


class Branch(nn.Module):
    def forward(self, x):
        return x if len(x) < 3 and x[0, 0] > 0 else -x


@pytest.mark.parametrize(
    "wrong", [torch.zeros(0, 4), torch.ones(5, 4).double(), torch.zeros(4)], ids=["none", "float64", "one"]
)
@pytest.mark.parametrize(
    "make, what",
    [(int8.float_model, "example"), (int8.int8_model, "calibration")],
    ids=["float_model", "int8_model"],
)
def test_inputs_that_do_not_fit_are_named(make, what, wrong):
    with pytest.raises(ValueError, match=rf"{what} must be .* found \({wrong.shape[0]},.*data\.inputs"):
        make(nn.Linear(4, 2), wrong)


def test_errors_say_what_to_do():
    linear, x = nn.Linear(4, 2), torch.ones(5, 4)
    with pytest.raises(ValueError, match="layer Spectrum has no form in ONNX .*fft_fft.* use layers"):
        int8.int8_model(nn.Sequential(linear, Spectrum()), x)
    with pytest.raises(ValueError, match="ONNX form of Branch answers otherwise"):
        int8.float_model(Branch(), x)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        int8.float_model(nn.Linear(3, 2), x)  # not the export's fault


def test_compare_has_three_networks_side_by_side(trained):
    module, calibration, x = trained["columnfc"]
    table = int8.compare(module, calibration, {"one example": x[:1], "batch of 64": x[:64]}, repeats=3)
    assert list(table.columns) == ["PyTorch float32", "ONNX float32", "ONNX int8", "ratio"]
    assert list(table.index) == [
        "file (KB)",
        "CPU latency, one example (ms)",
        "CPU latency, batch of 64 (ms)",
    ]
    assert table.loc["file (KB)", "PyTorch float32"] == deployment_cost.file_size(module)["file_bytes"] / 1000
    assert table.loc["file (KB)", "ratio"] > 3.5  # 4 but for biases and names
    assert (table > 0).all(axis=None)
    assert table["ratio"].to_list() == pytest.approx((table["ONNX float32"] / table["ONNX int8"]).to_list())
    assert module.training
