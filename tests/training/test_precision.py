"""What a precision switches on, and that BatchNorm keeps float32 in it."""

import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from mialib import training
from mialib.store import Store
from mialib.training import cross_entropy, population, precision
from tests.training.cases import CASES, FEATURES, RECIPE, SPLIT, mlp
from tests.training.test_population import largest_difference


def switches():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture
def put_back():
    """The switches of this process, put back after the test."""
    before = switches()
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("before", [(True, "highest"), (True, "high"), (False, "highest")], ids=str)
@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_tf32_is_on_where_it_is_asked_for_alone_and_put_back(put_back, before, name):
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])
    with pytest.raises(ValueError), precision.arithmetic(name):
        assert switches() == ((True, "high") if name == "tf32" else (False, "highest"))
        raise ValueError
    assert switches() == before


@pytest.mark.parametrize("name", ["float32", "bf16"])
def test_a_training_runs_in_its_precision(put_back, name):
    torch.backends.cudnn.allow_tf32 = True  # cuDNN's default
    torch.set_float32_matmul_precision("high")
    seen = []

    def looking(forward, params, batch, step):
        logits = forward(params, batch.x)
        seen.append((*switches(), logits.dtype))
        return cross_entropy(forward, params, batch, step)

    case = replace(CASES["cross_entropy"], hooks={"objective": looking})
    case.train(precision=name, epochs=1)
    assert set(seen) == {(False, "highest", torch.float32)}  # losses are float32
    assert switches() == (True, "high")


@pytest.mark.parametrize("name, rounds", [("float32", False), ("tf32", False), ("bf16", True)])
def test_bf16_alone_rounds_by_autocast(name, rounds):
    with precision.autocast(name, torch.device("cpu")):
        assert (nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16) == rounds


def test_tf32_on_a_cpu_is_refused_before_any_work():
    with pytest.raises(
        ValueError, match="precision is 'tf32', and that is CUDA's alone; on a CPU take 'float32'"
    ):
        training.fit(mlp, FEATURES, SPLIT, replace(RECIPE, precision="tf32"))


# BatchNorm


def without_bias():
    """Its first layer hands BatchNorm what autocast has rounded, under vmap too."""
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def rounded(norms, x):
    module = population.skeleton(without_bias).train()
    models = population.initial(without_bias, [0, 1])
    with precision.autocast("bf16", x.device):
        return population.forward(norms(module), models.params, models.buffers, x), models.buffers


def test_together_batchnorm_has_to_be_kept_in_float32():
    x = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match="type"):
        rounded(lambda module: module, x)
    logits, buffers = rounded(precision.float32_norms, x)
    assert logits.shape == (2, 16, 3)
    assert all(tensor.dtype == torch.float32 for name, tensor in buffers.items() if name.endswith("n_mean"))
    for i in range(2):  # each as it is alone, to the rounding of bf16
        models = population.initial(without_bias, [i])
        with precision.autocast("bf16", x.device):
            alone = population.forward(
                population.skeleton(without_bias).train(), models.params, models.buffers, x[[i]]
            )
        assert torch.allclose(logits[i].float(), alone[0].float(), atol=0.05), i
        assert torch.allclose(buffers["1.running_mean"][i], models.buffers["1.running_mean"][0], atol=1e-3), i
        assert torch.allclose(buffers["1.running_var"][i], models.buffers["1.running_var"][0], atol=1e-3), i


def test_a_norm_gives_back_the_type_that_it_was_given_and_computes_in_float32():
    norm, reference = precision.float32_norms(nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(norm(x), reference(x.float()).bfloat16())
    assert torch.equal(norm.running_mean, reference.running_mean)
    assert norm(x.float()).dtype == torch.float32


@pytest.mark.parametrize("make_model", [mlp, without_bias])
def test_models_train_in_bf16_together_as_they_do_alone(make_model):
    recipe, root = replace(RECIPE, epochs=2, precision="bf16"), os.environ["MIALIB_CACHE"]
    alone, together = (
        training.fit(make_model, FEATURES, SPLIT, recipe, batched=batched, cache=Store(f"{root}/{batched}"))
        for batched in (False, True)
    )
    # a step of Adam is 2^-7 long, whichever way a gradient that is nothing but rounding points
    assert largest_difference(alone, together) < 2 * 6 * 2**-7
    for i in range(2):
        assert together.records[i]["loss"] == pytest.approx(alone.records[i]["loss"], abs=0.05), i


# On CUDA


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; no stand-in can do this")
def test_float32_is_not_tf32_on_cuda():
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    x, weight = a.view(1, 64, 32, 32), a[:, :64].contiguous().view(256, 64, 1, 1)
    exact = nn.functional.conv2d(x.double(), weight.double())
    errors = {}
    for name in ("float32", "tf32"):
        with precision.arithmetic(name):
            found = nn.functional.conv2d(x.cuda(), weight.cuda()).cpu()
            errors[name] = float((found - exact).abs().max() / exact.abs().max())
    assert errors["float32"] < 1e-5 < errors["tf32"] < 1e-2


@pytest.mark.cuda
@pytest.mark.parametrize("name", precision.PRECISIONS)
@pytest.mark.parametrize("batched", [False, True])
def test_models_with_batchnorm_learn_in_every_precision(name, batched, tmp_path, accelerator):
    case = CASES["FlipAndShift"]
    recipe = replace(RECIPE, epochs=20, precision=name)
    found = training.fit(
        case.make_model, case.data.to(accelerator), SPLIT, recipe, batched=batched, cache=Store(tmp_path)
    )
    assert all(record["loss"][-1] < record["loss"][0] for record in found.records)
