import copy
import itertools
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn

from mialib.compression import pruning
from mialib.models import classifiers
from mialib.training import Batch, Population
from mialib.training.population import initial, stack

FILTERS = ("l1_filter", "l2_filter")


def cnn():
    return classifiers.small_cnn(in_channels=1, num_classes=3, image_size=8, width=4)


def population(k=3, make_model=cnn):
    models_ = initial(make_model, list(range(k)))
    generator = torch.Generator().manual_seed(0)
    for tensor in models_.params.values():  # BatchNorm starts with all scales equal: make them differ
        if tensor.dim() == 2:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return models_


def mlp(*weights):
    """A population of one-layer networks with the given weights (out, in)."""
    modules = []
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight))
        layer.weight.data = torch.tensor(weight)
        modules.append(layer)
    return stack(partial(nn.Linear, len(weights[0][0]), len(weights[0])), modules)


def test_unstructured_by_hand():
    pop = mlp([[0.1, -3.0], [2.0, -0.2]], [[5.0, 1.0], [-2.0, 4.0]])
    masks = pruning.mask(pop, "l1_unstructured", 0.5)
    assert list(masks.kept) == ["weight"]
    assert masks.kept["weight"].tolist() == [[[False, True], [True, False]], [[True, False], [False, True]]]
    assert masks(pop.params)["weight"][0].tolist() == [[0.0, -3.0], [2.0, 0.0]]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.95])
def test_unstructured_prunes_the_smallest_of_each_layer(sparsity):
    pop = population()
    masks = pruning.mask(pop, "l1_unstructured", sparsity)
    assert set(masks.kept) == {
        name for name, tensor in pop.params.items() if tensor.dim() > 2
    }  # first, last included
    for name, kept in masks.kept.items():
        weight = pop.params[name]
        assert kept.dtype == torch.bool and kept.shape == weight.shape, name
        for i, (model_kept, size) in enumerate(zip(kept, weight.abs(), strict=True)):
            assert (~model_kept).sum() == round(sparsity * model_kept.numel()), f"{name}, model {i}"
            if sparsity:
                assert size[~model_kept].max() <= size[model_kept].min(), f"{name}, model {i}"


@pytest.mark.parametrize("method", pruning.METHODS)
def test_sparsity_zero_keeps_everything(method):
    pop = population()
    masks = pruning.mask(pop, method, 0.0)
    assert masks.kept and all(kept.all() for kept in masks.kept.values())
    assert all(torch.equal(masks(pop.params)[name], tensor) for name, tensor in pop.params.items())


@pytest.mark.parametrize("method", pruning.METHODS)
def test_higher_sparsity_prunes_a_superset(method):
    pop = population()
    steps = [pruning.mask(pop, method, s).kept for s in (0.0, 0.2, 0.25, 0.5, 0.8)]
    for fewer, more in itertools.pairwise(steps):
        for name in fewer:
            assert (more[name] <= fewer[name]).all(), name


@pytest.mark.parametrize("method", [m for m in pruning.METHODS if m != "l1_global"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ties_are_cut_at_the_exact_count_lowest_index_first(method, value):
    pop = population()
    tied = Population(
        pop.make_model, {n: torch.full_like(t, value) for n, t in pop.params.items()}, pop.buffers
    )
    if method.startswith("slimming"):
        kept = torch.cat(
            [pruning.mask(tied, method, 0.5).kept[n] for n in ("1.weight", "4.weight", "8.weight")], 1
        )
        assert (~kept).sum(1).tolist() == [14] * 3
        expected = [False] * 28  # 4 + 8 + 16 channels; the first of each layer is its largest, always kept
        for i in (0, 4, 12):
            expected[i] = True
        pruned = 0
        for i in range(28):
            if not expected[i]:
                expected[i] = pruned >= 14
                pruned += 1
        assert kept[1].tolist() == expected
        return
    for name, weight in pruning.mask(tied, method, 0.5).kept.items():
        order = weight.flatten(2).all(2) if method in FILTERS else weight.flatten(1)
        half = order.shape[1] // 2
        assert not order[:, :half].any() and order[:, half:].all(), name


def test_ties_share_what_is_left_of_the_count_after_smaller_ones():
    scores = torch.tensor([[2.0, 1.0, 2.0, 0.0, 2.0, 3.0]])
    for count, kept in ((2, [1, 0, 1, 0, 1, 1]), (3, [0, 0, 1, 0, 1, 1]), (4, [0, 0, 0, 0, 1, 1])):
        assert pruning.prune_smallest(scores, count).int().tolist() == [kept]


@pytest.mark.parametrize("method", pruning.METHODS)
def test_many_models_equal_one_by_one(method):
    pop = population(4)
    together = pruning.mask(pop, method, 0.6)
    for i in range(4):
        alone = pruning.mask(pop[i : i + 1], method, 0.6)
        for name, kept in together.kept.items():
            assert torch.equal(kept[i : i + 1], alone.kept[name]), f"model {i}, {name}"


# of three filters, (3, 0), (side, side) and (0.5, 5), one goes, and its bias stays; L1: 3, 2 side, 5.5; L2: 3, 1.41 side, 5.02
@pytest.mark.parametrize(
    "method, side, lost", [("l1_filter", 2.0, 0), ("l2_filter", 2.0, 1), ("l2_filter", 2.2, 0)]
)
def test_filter_norms_by_hand(method, side, lost):
    conv = nn.Conv2d(1, 3, (1, 2), bias=True)
    conv.weight.data = torch.tensor([[3.0, 0.0], [side, side], [0.5, 5.0]]).view(3, 1, 1, 2)
    pop = stack(partial(nn.Conv2d, 1, 3, (1, 2)), [conv])
    masks = pruning.mask(pop, method, 0.34)
    assert list(masks.kept) == ["weight"]
    kept = masks.kept["weight"][0].flatten(1)
    assert [row.tolist() for row in kept] == [[i != lost] * 2 for i in range(3)]


@pytest.mark.parametrize("method", FILTERS)
def test_filters_fall_whole_and_in_convolutions_only(method):
    pop = population()
    masks = pruning.mask(pop, method, 0.5)
    assert set(masks.kept) == {name for name, tensor in pop.params.items() if tensor.dim() == 5}
    for name, kept in masks.kept.items():
        per_filter = kept.flatten(2)
        assert (per_filter.all(2) | ~per_filter.any(2)).all(), name
        assert (~per_filter.any(2)).sum(1).tolist() == [pop.params[name].shape[1] // 2] * 3, name


@pytest.mark.parametrize("method", FILTERS)
def test_one_filter_stays_even_if_the_count_rounds_up_to_all(method):
    masks = pruning.mask(population(), method, 0.99)
    assert all(kept.flatten(2).any(2).sum(1).min() == 1 for kept in masks.kept.values())


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.85])
def test_slimming_has_one_threshold_for_each_model(sparsity):
    pop = population()
    names = pruning.gammas(cnn())
    masks = pruning.mask(pop, "slimming", sparsity)
    biases = [name.replace("weight", "bias") for name in names]
    assert set(masks.kept) == {*names, *biases}
    assert all(torch.equal(masks.kept[g], masks.kept[b]) for g, b in zip(names, biases, strict=True))
    for i in range(3):
        kept = torch.cat([masks.kept[n][i] for n in names])
        size = torch.cat([pop.params[n][i].abs() for n in names])
        assert (~kept).sum() == round(sparsity * len(kept)), i
        champions = torch.cat([pop.params[n][i].abs() == pop.params[n][i].abs().max() for n in names])
        assert kept[champions].all(), i
        assert size[~kept].max() <= size[kept & ~champions].min(), i


def test_slimming_never_empties_a_layer():
    pop = population()
    small = pop.params | {
        "4.weight": pop.params["4.weight"] * 1e-3
    }  # a layer whose channels are all the smallest
    pop = Population(pop.make_model, small, pop.buffers)
    kept = pruning.mask(pop, "slimming", 0.5).kept
    assert kept["4.weight"].sum(1).tolist() == [1, 1, 1]
    most = small["4.weight"].abs().argmax(1)
    assert kept["4.weight"].gather(1, most[:, None]).all()
    assert all(kept[n].any(1).all() for n in kept)
    fewest = pruning.mask(pop, "slimming", 25 / 28).kept
    assert all((fewest[n].sum(1) == 1).all() for n in fewest)
    with pytest.raises(ValueError, match=r"sparsity: 0.95.*empty.*at most 0.8929"):
        pruning.mask(pop, "slimming", 0.95)  # 27 of 28 channels, three layers


@pytest.mark.parametrize("method, answer", [("slimming", 0.0), ("l1_filter", 0.7)])
def test_slimmed_channels_are_dead_and_pruned_filters_emit_their_batchnorm_bias(method, answer):
    pop = population(1)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = pruning.mask(pop, method, 0.5)
    params = masks(pop.params | {"1.bias": torch.full_like(pop.params["1.bias"], 0.7)})
    if method == "slimming":
        lost = ~masks.kept["1.weight"][0]
    else:
        lost = ~masks.kept["0.weight"][0].flatten(1).any(1)
    module = pop.make_model()
    module.load_state_dict({n: t[0] for n, t in (params | pop.buffers).items()})
    maps = module.eval()[:3](x)[:, lost]
    assert lost.any()
    torch.testing.assert_close(maps, torch.full_like(maps, answer))


@pytest.mark.parametrize("method", pruning.METHODS)
def test_masks_leave_the_callers_parameters_alone(method):
    pop = population()
    before = copy.deepcopy(pop.params)
    masks = pruning.mask(pop, method, 0.5)
    pruned = masks(pop.params)
    assert list(pruned) == list(pop.params)
    for name, tensor in pop.params.items():
        assert torch.equal(tensor, before[name]), name
        assert (pruned[name] is tensor) == (name not in masks.kept), name


@pytest.mark.parametrize("method", pruning.METHODS)
def test_masks_can_be_stored(method):
    """Which safetensors refuses where two share their memory, and where one is no block of its own."""
    kept = pruning.mask(population(), method, 0.5).kept
    back = safetensors.torch.load(safetensors.torch.save(kept))
    assert back.keys() == kept.keys() and all(torch.equal(back[name], kept[name]) for name in kept)


def test_pruned_weights_get_no_gradient():
    pop = population()
    masks = pruning.mask(pop, "l1_unstructured", 0.7)
    params = {name: tensor.clone().requires_grad_() for name, tensor in pop.params.items()}
    sum(tensor.square().sum() + tensor.sum() for tensor in masks(params).values()).backward()
    for name, kept in masks.kept.items():
        assert not params[name].grad[~kept].any(), name
        torch.testing.assert_close(params[name].grad[kept], 2 * pop.params[name][kept] + 1)


def test_a_pruned_weight_that_became_nan_is_still_zero():
    pop = mlp([[0.1, -3.0], [2.0, -0.2]])
    masks = pruning.mask(pop, "l1_unstructured", 0.5)
    broken = {"weight": torch.tensor([[[float("nan"), -3.0], [2.0, float("inf")]]])}
    assert masks(broken)["weight"].tolist() == [[[0.0, -3.0], [2.0, 0.0]]]


@pytest.mark.parametrize("rows", [slice(1, 3), [2, 0]])
def test_masks_of_some_models(rows):
    pop = population()
    masks = pruning.mask(pop, "l1_unstructured", 0.5)
    some = masks[rows]
    assert len(some) == 2 and len(masks) == 3
    expected = masks(pop.params)
    for name, tensor in some(pop[rows].params).items():
        assert torch.equal(tensor, expected[name][rows]), name
    with pytest.raises(TypeError, match=r"\[1:2\]"):
        masks[1]


def test_gamma_penalty_by_hand():
    params = {
        "a": torch.tensor([[1.0, -2.0], [0.0, 0.5]]),
        "b": torch.tensor([[3.0], [-4.0]]),
        "c": torch.ones(2, 9),
    }
    assert pruning.gamma_penalty(params, ["a", "b"]).tolist() == [6.0, 4.5]
    leaf = params["a"].clone().requires_grad_()
    pruning.gamma_penalty({"a": leaf}, ["a"]).sum().backward()
    assert leaf.grad.tolist() == [[1.0, -1.0], [0.0, 1.0]]


def test_gammas_are_the_batchnorm_scales():
    assert pruning.gammas(cnn()) == ["1.weight", "4.weight", "8.weight"]
    assert len(pruning.gammas(classifiers.resnet18(3, 10))) == 20
    assert pruning.gammas(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) == []
    assert pruning.gammas(nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2))) == ["1.weight"]


def test_achieved_sparsity_by_hand():
    params = {"a": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([[3.0] * 6, [0.0] + [1.0] * 5])}
    got = pruning.achieved_sparsity(params)
    assert got.layers["a"].tolist() == [0.5, 1.0]
    assert got.layers["b"].tolist() == pytest.approx([0.0, 1 / 6])
    assert got.overall.tolist() == [1 / 8, 3 / 8]
    assert got.overall.dtype == got.layers["b"].dtype == torch.float64
    alone = pruning.achieved_sparsity({name: tensor[1:] for name, tensor in params.items()})
    assert alone.overall.tolist() == [3 / 8]
    pop = population()
    masks = pruning.mask(pop, "l1_unstructured", 0.5)
    assert pruning.achieved_sparsity(masks).overall.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("method", "sparsity", "make_model", "message"),
    [
        ("l1_unstructured", 1.0, cnn, "sparsity: 1.0"),
        ("l1_unstructured", -0.1, cnn, "sparsity: -0.1"),
        ("slimming", float("nan"), cnn, "sparsity: nan"),
        ("magnitude", 0.5, cnn, "method: unknown 'magnitude'.*l1_unstructured"),
        ("l1_filter", 0.5, partial(classifiers.columnfc, 8, 3), "l1_filter.*Conv2d.*none"),
        ("slimming", 0.5, partial(classifiers.columnfc, 8, 3), "no BatchNorm"),
        ("l1_unstructured", 0.5, partial(nn.BatchNorm1d, 4), "Linear.*none"),
    ],
)
def test_refusals_name_what_is_wrong(method, sparsity, make_model, message):
    with pytest.raises(ValueError, match=message):
        pruning.mask(initial(make_model, [0]), method, sparsity)


def test_settings_are_refused_before_any_training():
    make_model = partial(classifiers.columnfc, in_features=4, num_classes=3)
    pruning.check(make_model, [("l1_unstructured", 0.0), ("l1_unstructured", 0.9)])
    with pytest.raises(ValueError, match="slimming ranks BatchNorm"):
        pruning.check(make_model, [("l1_unstructured", 0.5), ("slimming_l1", 0.5)])
    with pytest.raises(ValueError, match="sparsity: 1.0 is outside"):
        pruning.check(make_model, [("l1_unstructured", 1.0)])


def test_the_slimming_objective_adds_the_penalty():
    def forward(params, x):
        return x

    params = {"bn.weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    batch = Batch(
        torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)
    )
    losses = pruning.SparseGamma(0.1, ("bn.weight",))(forward, params, batch, 0)
    torch.testing.assert_close(losses, torch.log(torch.tensor(4.0)) + 0.1 * torch.tensor([3.0, 0.5]))


def test_global_magnitude_ranks_all_layers_together():
    make_model = partial(nn.Sequential, nn.Linear(2, 2), nn.Linear(2, 2))
    pop = initial(make_model, [0, 1])
    for name, values in {
        "0.weight": [[[9.0, 8.0], [-7.0, 6.0]], [[1.0, 2.0], [3.0, 0.1]]],
        "1.weight": [[[0.5, -0.4], [0.3, 5.0]], [[-9.0, 8.0], [7.0, 4.0]]],
    }.items():
        pop.params[name].copy_(torch.tensor(values))
    kept = pruning.mask(pop, "l1_global", 0.5).kept
    # four of eight go; the largest of each layer (5 of the first model, 3 of the second) stays all the same
    assert kept["0.weight"].tolist() == [[[True, True], [True, False]], [[False, False], [True, False]]]
    assert kept["1.weight"].tolist() == [[[False, False], [False, True]], [[True, True], [True, False]]]
    with pytest.raises(
        ValueError, match="removes 7 of 8 weights, which would leave one of the 2 layers empty"
    ):
        pruning.mask(pop, "l1_global", 0.9)
