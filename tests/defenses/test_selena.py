"""SELENA: who trains the sub-models, who is asked about whom, and what the distilled network learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mialib import asking, training
from mialib.data import Splits, splits
from mialib.defenses import selena
from mialib.training import Recipe, loop

RECIPE = Recipe(epochs=60, batch_size=8, lr=1e-2, weight_decay=0.0)
FEW = dict(sub_models=5, left_out=2)


def mlp():
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 1, seed=0, n_train=23)


# Who trains the sub-models


@pytest.mark.parametrize(
    ("n_members", "sub_models", "left_out"),
    [(23, 5, 2), (100, 25, 10), (50, 25, 10), (7, 25, 10), (23, 2, 1), (40, 6, 4), (3, 3, 2), (61, 10, 1)],
)
def test_every_member_is_left_out_of_exactly_so_many(n_members, sub_models, left_out):
    split = splits.target_shadow(500, 1, 2, seed=1, n_train=n_members)
    own = selena.sub_splits(split, sub_models, left_out)
    member = own.member.view(3, sub_models, 500)
    trains = member.sum(1)
    assert bool((trains[split.member] == sub_models - left_out).all())
    assert bool((trains[~split.member] == 0).all())
    sizes = member.sum(2)
    assert int((sizes.amax(1) - sizes.amin(1)).max()) == (n_members * left_out % sub_models > 0)
    assert sizes.sum(1).tolist() == [n_members * (sub_models - left_out)] * 3


def test_sub_models_keep_the_test_and_reserve_of_their_network(split):
    own = selena.sub_splits(split, 4, 1)
    for name in ("test", "reserve"):
        found = getattr(own, name).view(2, 4, -1)
        assert torch.equal(found, getattr(split, name)[:, None].expand_as(found)), name


def test_sub_models_have_seeds_and_members_of_their_own():
    split = splits.target_shadow(500, 1, 2, seed=1, n_train=100)
    own = selena.sub_splits(split, 25, 10)
    assert len(set(own.seeds.tolist())) == 75 and len(own.member.unique(dim=0)) == 75
    without = ~own.member.view(3, 25, -1)[0, :, split.member[0]].T  # (members, sub-models)
    assert len(without.unique(dim=0)) > 90  # random sets, hardly two alike
    both = (without.float().T @ without.float()).fill_diagonal_(15.0)  # any two share 15 of 100 on average
    assert float(both.min()) > 4 and float(both.max()) < 26


def test_a_networks_sub_models_depend_on_its_own_members_and_seed_only(split):
    together, alone = (selena.sub_splits(one, 5, 2) for one in (split, split[1:]))
    for name in ("member", "test", "reserve", "seeds"):
        assert torch.equal(getattr(together, name)[5:], getattr(alone, name)), name
    other = selena.sub_splits(replace(split, seeds=split.seeds + 1), 5, 2)
    assert not torch.equal(other.member, together.member)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((1, 1), "sub_models is 1; at least 2"),
        ((25, 0), "left_out is 0; it must be 1 to 24"),
        ((25, 25), "left_out is 25; it must be 1 to 24"),
    ],
)
def test_what_leaves_nobody_or_all_out_is_refused(split, options, words):
    with pytest.raises(ValueError, match=words):
        selena.sub_splits(split, *options)


# Who is asked about whom


def test_split_ai_by_hand():
    """Three sub-models, two examples: the first was seen by the first one, the second by the two others."""
    saw = torch.tensor([[True, False], [False, True], [False, True]])
    posteriors = torch.tensor([[[9.0, 9.0], [0.2, 0.8]], [[0.1, 0.9], [9.0, 9.0]], [[0.5, 0.5], [9.0, 9.0]]])
    expected = torch.tensor([[0.3, 0.7], [0.2, 0.8]])
    torch.testing.assert_close(selena.split_ai(posteriors, saw), expected)
    poisoned = posteriors.masked_fill(saw[..., None], torch.nan)
    torch.testing.assert_close(selena.split_ai(poisoned, saw), expected)


def fit(toy, split, monkeypatch, recipe=RECIPE, **options):
    """The distilled networks and the soft targets that they learned."""
    learned = []
    monkeypatch.setattr(selena, "SoftTargets", lambda targets: learned.append(targets) or _Kept(targets))
    return selena.fit(mlp, toy, split, recipe, **FEW, **options), learned[0]


_Kept = selena.SoftTargets


def test_the_targets_come_from_sub_models_that_did_not_see_the_example(toy, split, monkeypatch):
    """Sub-models that know members by heart: 0 is what they saw, 1 what was left out, 2 what is another network's."""

    def by_heart(population, data, index):
        saw = own.member[population, index]
        ours = split.member[population // FEW["sub_models"], index]
        return torch.stack([saw, ours & ~saw, ~ours], dim=-1).double().log()

    class Rows(list):
        def __getitem__(self, rows):
            return torch.arange(10)[rows][:, None]

    own, found = selena.sub_splits(split, *FEW.values()), []
    monkeypatch.setattr(training, "fit", lambda *args, **options: found.append(options) or Rows())
    monkeypatch.setattr(asking, "log_posteriors", by_heart)
    selena.fit(mlp, toy, split, RECIPE, **FEW)
    targets = found[1]["objective"].targets
    assert targets.shape == (2, 120, 3) and targets.dtype == torch.float32
    assert bool((targets[split.member] == torch.tensor([0.0, 1.0, 0.0])).all())
    assert bool(targets[~split.member].isnan().all())


def test_the_distilled_network_answers_as_its_teacher_and_not_as_the_labels(toy, split, monkeypatch):
    distilled, targets = fit(toy, split, monkeypatch)
    undefended = training.fit(mlp, toy, split, RECIPE)
    index = splits.indices(split.member)
    teacher = targets.gather(1, index[..., None].expand(-1, -1, 3)).double()
    torch.testing.assert_close(teacher.sum(-1), torch.ones_like(teacher[..., 0]))
    labels = nn.functional.one_hot(toy.y[index], 3).double()
    distilled_answers, memorised = (
        asking.log_posteriors(one, toy, index).exp() for one in (distilled, undefended)
    )
    to_teacher, to_labels = ((distilled_answers - truth).abs().sum(-1).mean() for truth in (teacher, labels))
    assert to_teacher < 0.5 * to_labels
    assert (memorised - labels).abs().sum(-1).mean() < 0.5 * to_labels  # which plain training does learn
    assert len(distilled) == 2 and [len(record["loss"]) for record in distilled.records] == [60, 60]


def test_a_second_fit_trains_nothing(toy, split, monkeypatch):
    recipe = replace(RECIPE, epochs=2)
    first = selena.fit(mlp, toy, split, recipe, **FEW)
    monkeypatch.setattr(loop, "train", None)
    second = selena.fit(mlp, toy, split, recipe, **FEW)
    assert second.keys == first.keys
    for name, tensor in first.params.items():
        assert torch.equal(tensor, second.params[name]), name


def test_a_best_epoch_is_chosen_on_the_reserve_of_the_network(toy, split):
    fitted = selena.fit(mlp, toy, split, replace(RECIPE, epochs=2, select_best=True), **FEW)
    assert all("best_epoch" in record for record in fitted.records)


def test_labels_cannot_come_back_through_the_options(toy, split):
    with pytest.raises(ValueError, match="SELENA: objective is .*leave it out"):
        selena.fit(mlp, toy, split, RECIPE, objective=training.cross_entropy)


def test_too_few_members_are_refused(toy):
    one = torch.zeros(1, 120, dtype=torch.bool)
    one[0, 0] = True
    split = Splits(one, torch.zeros_like(one), torch.zeros_like(one), torch.tensor([0]))
    with pytest.raises(
        ValueError, match="SELENA: 1 members, each left out of 10 of 25 sub-models, leave some of these none"
    ):
        selena.fit(mlp, toy, split, RECIPE)
