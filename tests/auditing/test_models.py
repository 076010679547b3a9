"""Each form of a model gives the same answers as the module that it was made of; what cannot be asked is said."""

import copy
import importlib
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from mialib import REPO_ROOT
from mialib.auditing import Checkpoint, models

X = torch.linspace(-1, 1, 60).reshape(10, 6)


class Net(nn.Module):
    """With layers that answer otherwise in train mode."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.first(x)).relu()))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def expected(net):
    with torch.no_grad():
        return copy.deepcopy(net).eval()(X).numpy()


def ask(model, x=X, **options):
    return models.answers(model, x, name="pruned", **options)


def to_onnx(module, path, dynamic=True, rows=2, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            options.pop("args", (X[:rows],)),
            path,
            dynamo=False,
            input_names=options.pop("input_names", ["x"]),
            output_names=["answer"],
            dynamic_axes={"x": {0: "n"}, "answer": {0: "n"}} if dynamic else None,
        )
    return path


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_a_module_is_asked_in_eval_mode_and_left_as_it_was(net, expected, batch_size):
    net.head.eval()  # a part in another mode than the whole
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    np.testing.assert_allclose(ask(net, batch_size=batch_size), expected, atol=1e-6)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_the_mode_returns_after_an_error_and_the_error_says_which_batch(net):
    with pytest.raises(RuntimeError) as caught:
        ask(net, torch.zeros(4, 5))
    assert net.training
    assert caught.value.__notes__ == ["pruned: batch 1 of 1 (inputs 0 to 3), asked float32 (4, 5)"]


def test_a_layer_that_changes_its_weights_in_eval_mode_keeps_them():
    class Merging(nn.Linear):
        def train(self, mode=True):
            raise AssertionError("as LoRA's layers, which merge weights here")

    layer = Merging(6, 3)
    assert ask(layer).shape == (10, 3)


def test_pruned_parametrised_parallel_and_half_modules(net):
    prune.l1_unstructured(net.first, "weight", 0.5)
    parametrizations.weight_norm(net.head)
    expected = net.eval()(X).detach().numpy()
    np.testing.assert_allclose(ask(net.train()), expected, atol=1e-6)
    np.testing.assert_allclose(ask(nn.DataParallel(net)), expected, atol=1e-6)
    assert ask(Net().half()).dtype == np.float32
    assert models.opened(Net().bfloat16(), name="half").notes == (
        "it computes in bfloat16, to which its inputs are rounded",
    )
    assert ask(net.double(), X).dtype == np.float64


@pytest.mark.filterwarnings("ignore")
def test_integer_networks_of_torch(net, expected):
    dynamic = torch.ao.quantization.quantize_dynamic(copy.deepcopy(net).eval(), {nn.Linear})
    np.testing.assert_allclose(ask(dynamic), expected, atol=0.05)
    static = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(6, 3)).eval()
    static.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    prepared = torch.ao.quantization.prepare(static)
    prepared(X)
    integer = torch.ao.quantization.convert(prepared)  # its answers are a quantised tensor
    np.testing.assert_allclose(ask(integer), static[1](X).detach().numpy(), atol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_integer_networks_of_torchao(net, expected):
    quantization = pytest.importorskip("torchao.quantization")
    integer = copy.deepcopy(net).eval()
    quantization.quantize_(integer, quantization.Int8WeightOnlyConfig())
    np.testing.assert_allclose(ask(integer), expected, atol=0.05)
    integer = copy.deepcopy(net).eval()
    quantization.quantize_(integer, quantization.Int8DynamicActivationInt8WeightConfig())
    np.testing.assert_allclose(ask(integer), expected, atol=0.1)


@pytest.mark.filterwarnings("ignore")
def test_integer_graphs_of_torchao_also_as_files(net, expected, tmp_path):
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    any_size = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(net.eval(), (X,), dynamic_shapes=any_size, strict=True).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(graph, quantizer)
    prepared(X)
    integer = pt2e.convert_pt2e(prepared)  # eval() raises on it
    np.testing.assert_allclose(ask(integer), expected, atol=0.1)
    torch.export.save(torch.export.export(integer, (X,), dynamic_shapes=any_size), tmp_path / "int8.pt2")
    np.testing.assert_array_equal(ask(tmp_path / "int8.pt2"), ask(integer))


@pytest.mark.parametrize("batch_size", [2, 256])
def test_an_onnx_file(net, expected, tmp_path, batch_size):
    path = to_onnx(net, tmp_path / "net.onnx")
    for form in (path, str(path)):
        np.testing.assert_allclose(ask(form, batch_size=batch_size), expected, atol=1e-5)
    np.testing.assert_allclose(ask(path, X.double()), expected, atol=1e-5)  # rounded, as for a module


def test_a_path_counts_from_the_working_folder(net, tmp_path, monkeypatch):
    to_onnx(net, tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    assert ask("net.onnx").shape == (10, 3)
    with pytest.raises(ValueError, match="pruned: no file or folder .*other.onnx"):
        ask("other.onnx")


def test_a_fixed_batch_of_a_graph_is_kept_to(net, expected, tmp_path):
    path = to_onnx(net, tmp_path / "net.onnx", dynamic=False, rows=4)
    np.testing.assert_allclose(ask(path), expected, atol=1e-5)
    np.testing.assert_allclose(ask(path, X[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    "x, found",
    [
        (torch.zeros(3, 5), r"float32 \(3, 5\)"),
        (torch.zeros(3, 6, 1), r"float32 \(3, 6, 1\)"),
        (torch.zeros(3, 6, dtype=torch.uint8), r"uint8 \(3, 6\)"),
    ],
)
def test_inputs_that_a_graph_does_not_take(net, tmp_path, x, found):
    path = to_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=rf"pruned takes float32 \(n, 6\), x is {found}"):
        ask(path, x)


def test_a_graph_of_several_inputs_and_a_broken_file(tmp_path):
    class Sum(nn.Module):
        def forward(self, x, mask):
            return x + mask

    path = to_onnx(Sum(), tmp_path / "two.onnx", args=(X, X), input_names=["x", "mask"])
    with pytest.raises(ValueError, match=r"takes 2 inputs \(x tensor\(float\).*, mask"):
        ask(path)
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"pruned: .*broken.onnx is no ONNX file"):
        ask(tmp_path / "broken.onnx")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_exported_programs_and_torchscript(net, expected, tmp_path):
    batch = torch.export.Dim("n")
    program = torch.export.export(net.eval(), (X[:2],), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.jit.save(torch.jit.trace(net, X[:2]), tmp_path / "net.pt")
    for form in (program, tmp_path / "net.pt2", tmp_path / "net.pt"):
        np.testing.assert_allclose(ask(form, batch_size=4), expected, atol=1e-6)
    fixed = torch.export.export(net, (X[:4],))
    np.testing.assert_allclose(ask(fixed), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"pruned takes float32 \(n, 6\)"):
        ask(fixed, X[:, :2])


def test_an_exported_integer_program_is_read_where_its_operations_are_not_yet_known(tmp_path):
    importlib.import_module("torch.ao.quantization.fx._decomposed")

    class Rounded(nn.Module):
        def forward(self, x):
            q = torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.5, 0, -128, 127, torch.int8)
            return torch.ops.quantized_decomposed.dequantize_per_tensor(q, 0.5, 0, -128, 127, torch.int8)

    torch.export.save(torch.export.export(Rounded(), (X,)), tmp_path / "int8.pt2")
    code = (
        "import torch; from mialib.auditing import models; "
        f"print(models.answers({str(tmp_path / 'int8.pt2')!r}, torch.full((10, 6), 0.6), name='int8')[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO_ROOT)
    assert done.stdout.strip() == "[0.5 0.5 0.5 0.5 0.5 0.5]", done.stderr


def test_a_broken_program_names_its_file(tmp_path):
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"pruned: .*broken.pt2 is no file of torch.export.save"):
        ask(tmp_path / "broken.pt2")


MODULE = """
import torch
from torch import nn

def net():
    return nn.Linear(6, 3)

def served(x):
    return [[0.5, 0.5]] * len(x)

def none():
    return None

def failing():
    raise KeyError("own")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """The working folder, with a module of its own name."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_checkpoint_by_address_or_function(folder):
    layer = nn.Linear(6, 3)
    torch.save({"epoch": 3, "state_dict": layer.state_dict()}, "net.pth")
    for factory in (f"{folder}:net", lambda: nn.Linear(6, 3)):
        made = models.opened(Checkpoint(factory, "net.pth"), name="pruned")
        assert made.kind == "checkpoint" and "state_dict" in made.notes[0]
        np.testing.assert_array_equal(ask(made), layer(X).detach().numpy())


def test_functions_by_address(folder):
    made = models.opened(f"{folder}:net", name="pruned")
    assert ask(made).shape == (10, 3)
    assert made.notes == (f"its weights are those that {folder}:net gives it",)
    np.testing.assert_array_equal(ask(f"{folder}:served"), np.full((10, 2), 0.5))


def test_factories_that_do_not_fit(folder):
    with pytest.raises(ValueError, match="gives a NoneType, must give a torch module"):
        ask(Checkpoint(f"{folder}:none"))
    with pytest.raises(KeyError, match="own") as caught:
        ask(Checkpoint(f"{folder}:failing"))
    assert "called without arguments" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="pruned: nowhere:net: no module nowhere"):
        ask(Checkpoint("nowhere:net"))
    with pytest.raises(ValueError, match="has no function other; it has"):
        ask(f"{folder}:other")


def test_weights_alone_are_no_model(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "net.pt")
    (tmp_path / "net.safetensors").write_bytes(b"")
    for name in ("net.pt", "net.safetensors"):
        with pytest.raises(ValueError, match=r"pass Checkpoint\("):
            ask(tmp_path / name)


@pytest.mark.parametrize(
    "model, found", [(3, "is a int"), ("net.bin2", "is 'net.bin2'"), (Net, "is the class Net")]
)
def test_what_is_no_model(model, found):
    with pytest.raises(ValueError, match=f"pruned {found}"):
        ask(model)


def test_a_callable_is_asked_in_batches_alike_in_size():
    asked = []

    def served(x):
        asked.append(len(x))
        return SimpleNamespace(logits=x[:, :2].numpy())

    np.testing.assert_array_equal(ask(served, batch_size=4), X[:, :2].numpy())
    assert asked == [3, 3, 4]


@pytest.mark.parametrize(
    "answer, told",
    [
        (lambda x: x[1:, :2], r"batch 1 of 3 \(inputs 0 to 2\) got an answer of shape \(2, 2\), must be \(3, classes\)"),
        (lambda x: x[:, :2] if 0 in x[:, :1] - X[0, 0] else x, r"batch 2 of 3 \(inputs 3 to 5\) got 6 values for each"),
        (lambda x: x[:, :1].long(), "got whole numbers"),
    ],
)  # fmt: skip
def test_answers_that_do_not_fit_name_the_batch(answer, told):
    with pytest.raises(ValueError, match=f"pruned: {told}" if told[0] == "b" else told):
        ask(answer, batch_size=4)


def test_errors_of_a_callable_pass_through_with_a_note():
    def served(x):
        if x[0, 0] > 0:
            raise ConnectionError("no route")
        return x

    with pytest.raises(ConnectionError, match="no route") as caught:
        ask(served, batch_size=4)
    assert caught.value.__notes__ == ["pruned: batch 3 of 3 (inputs 6 to 9), asked float32 (4, 6)"]


def test_a_model_that_answers_by_chance_is_not_steady(net):
    assert models.is_steady(net, X)
    assert not models.is_steady(lambda x: nn.functional.dropout(x), X)
    assert not models.is_steady(lambda x: x + 0.01 * torch.randn(x.shape), X)
    assert models.is_steady(lambda x: x / 0, X)  # infinite, and nan, but the same twice


@pytest.mark.parametrize(
    "x, options, told",
    [
        (X.numpy(), {}, "x is a numpy.ndarray of float32, must be a torch.Tensor"),
        (X[:0], {}, "must hold at least one input"),
        (X, {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_asked_about(x, options, told):
    with pytest.raises(ValueError, match=f"pruned: {told}" if options else told):
        ask(Net(), x, **options)


@pytest.mark.cuda
def test_a_module_is_asked_where_it_is(net, expected, accelerator):
    np.testing.assert_allclose(ask(net.to(accelerator)), expected, atol=1e-5)
    assert next(net.parameters()).device.type == torch.device(accelerator).type
