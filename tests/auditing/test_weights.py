"""Weights that fit are loaded whatever they are wrapped in; for those that do not, the keys are named."""

import copy
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune

from mialib.auditing import weights
from mialib.data import own


def made(classes=3):
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def net():
    torch.manual_seed(1)
    return made()


def prefixed(net, prefix):
    return {prefix + key: value for key, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "wrap, notes",
    [
        (lambda net: net.state_dict(), []),
        (lambda net: prefixed(net, "module."), ['"module."']),
        (lambda net: prefixed(net, "module._orig_mod."), ['"module."', '"_orig_mod."']),
        (lambda net: {"epoch": 1, "model": net.state_dict()}, ['under "model"']),
        (lambda net: {"state_dict": prefixed(net, "model."), "optimizer": {}}, ['under "state_dict"', '"model."']),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["pt", "pth"])
def test_wrappings_are_taken_off_and_said(net, tmp_path, wrap, notes, ending):
    path, target = tmp_path / f"net.{ending}", made()
    state = wrap(net)
    torch.save(state, path)
    said = weights.load(target, weights.read(path, "pruned"), "pruned")
    assert same(net, target)
    assert len(said) == len(notes) and all(part in note for part, note in zip(notes, said, strict=True))


def test_safetensors_and_the_place_of_a_file(net, tmp_path, monkeypatch):
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    with own.beside(tmp_path):
        state = weights.read("net.safetensors", "pruned")
    target = made()
    assert weights.load(target, state, "pruned") == ()
    assert same(net, target)


def test_pruning_masks_are_folded_unless_the_module_has_them(net):
    prune.l1_unstructured(net[0], "weight", 0.5)
    state, target = net.state_dict(), made()
    before = copy.deepcopy(state)
    assert weights.load(target, state, "pruned") == (
        "the pruning masks of 1 weights were multiplied into them",
    )
    assert torch.equal(target[0].weight, net[0].weight)
    assert (target[0].weight == 0).sum() == 12
    assert state.keys() == before.keys()  # the caller's stays
    masked = made()
    prune.identity(masked[0], "weight")
    assert weights.load(masked, state, "pruned") == ()
    assert same(masked, net)


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_keep_types_in_their_state(net):
    integer = [torch.ao.quantization.quantize_dynamic(each.eval(), {nn.Linear}) for each in (net, made())]
    assert weights.load(integer[1], integer[0].state_dict(), "int8") == ()
    x = torch.randn(5, 6)
    assert torch.equal(integer[0](x), integer[1](x))


def test_keys_that_do_not_fit_are_counted_and_named(net):
    state = made(classes=5).state_dict()
    del state["0.weight"], state["1.num_batches_tracked"]
    state |= {f"extra{i}": torch.zeros(1) for i in range(6)}
    with pytest.raises(ValueError) as caught:
        weights.load(net, state, "pruned")
    assert str(caught.value) == (
        "pruned: the weights do not fit the model. 1 missing: 0.weight; 6 unexpected: extra0, extra1, extra2, extra3, ...; "
        "2 of another shape: 2.weight (5, 4) in the file, (3, 4) in the model, 2.bias (5,) in the file, (3,) in the model. "
        "The factory must build the network that was saved"
    )


def test_parametrisations_and_masks_that_one_side_lacks_are_said(net):
    with pytest.raises(ValueError, match="same parametrisations"):
        weights.load(made(), nn.utils.parametrizations.weight_norm(net[0]) and net.state_dict(), "pruned")
    masked = made()
    prune.identity(masked[0], "weight")
    with pytest.raises(ValueError, match="masks that the file lacks"):
        weights.load(masked, made().state_dict(), "pruned")


def test_files_that_hold_no_weights(net, tmp_path):
    torch.save(net, tmp_path / "whole.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK")
    (tmp_path / "broken.safetensors").write_bytes(b"PK")
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(1))
    for name, told in {
        "whole.pt": "holds more than weights (torch.nn.modules.container.Sequential)",
        "tensor.pt": "holds a Tensor",
        "broken.pt": "cannot be read as weights",
        "broken.safetensors": "cannot be read as weights",
        "net.pkl": "end in '.pkl'",
        "none.pt": "no file or folder",
    }.items():
        with pytest.raises(ValueError, match="^pruned: ") as caught:
            weights.read(tmp_path / name, "pruned")
        assert name in str(caught.value) and told in str(caught.value)


def test_keys_must_be_names(net):
    with pytest.raises(ValueError, match="have the key 1"):
        weights.load(net, {1: torch.zeros(1)}, "pruned")


def test_a_missing_file_is_told_with_the_name_that_is_nearest(tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "original.pt").touch()
    for path, said in (
        ("nets/orignal.pt", r"orignal.pt, did you mean 'original.pt'\?;"),
        ("nets/x", "x; a path"),
        ("net/original.pt", r"\(there is no folder .*net, did you mean 'nets'\?\);"),
    ):
        with pytest.raises(ValueError, match=f"pruned: no file or folder .*{said}"):
            weights.located(tmp_path / path, "pruned")
