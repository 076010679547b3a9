"""Model stacking: the cut in three, what each part learns from, and the network that they make."""

import pickle
from dataclasses import replace

import pytest
import torch

from mialib import asking, models, study, training
from mialib.data import splits
from mialib.defenses import stacking
from mialib.study import Study
from mialib.training import Recipe, loop
from tests.defenses.test_selena import mlp

RECIPE = Recipe(epochs=20, batch_size=8, lr=1e-2)
SHORT = replace(RECIPE, epochs=2)


@pytest.fixture
def split():
    return splits.target_shadow(120, 1, 1, seed=0, n_train=25)


@pytest.mark.parametrize(
    ("n_members", "sizes"), [(24, [8, 8, 8]), (25, [8, 8, 9]), (26, [9, 9, 8]), (3, [1, 1, 1])]
)
def test_the_members_are_cut_in_three(n_members, sizes):
    split = splits.target_shadow(120, 1, 1, seed=0, n_train=n_members)
    parts = stacking.thirds(split)
    assert torch.equal(parts.sum(0), split.member.long())  # every member once, and nobody else
    assert parts.sum(2).T.tolist() == [sizes, sizes]


def test_a_cut_depends_on_the_networks_own_members_and_seed_only(split):
    together = stacking.thirds(split)
    assert torch.equal(together[:, 1:], stacking.thirds(split[1:]))
    assert not torch.equal(together, stacking.thirds(replace(split, seeds=split.seeds + 1)))


def test_the_first_level_learns_a_third_each_and_the_combiner_the_last_one(toy, split, monkeypatch):
    trained, asked = [], []
    fit, log_posteriors = training.fit, asking.log_posteriors

    def watched_fit(make_model, data, split, recipe, **options):
        trained.append((data, split))
        return fit(make_model, data, split, recipe, **options)

    def watched_answers(population, data, index):
        asked.append((index, log_posteriors(population, data, index)))
        return asked[0][1]

    monkeypatch.setattr(training, "fit", watched_fit)
    monkeypatch.setattr(asking, "log_posteriors", watched_answers)
    stacking.fit(mlp, toy, split, SHORT, SHORT)
    first, second, last = stacking.thirds(split)
    (_, level), (rows, block) = trained
    assert torch.equal(level.member, torch.cat([first, second]))
    assert torch.equal(level.reserve, split.reserve.repeat(2, 1))
    ((index, logs),) = asked
    assert torch.equal(index, splits.indices(last).repeat(2, 1))
    assert torch.equal(rows.y, toy.y[index[:2]].flatten()) and rows.x.shape == (18, 6)
    both = torch.cat([logs[:2], logs[2:]], dim=-1).exp().float()  # of first and second, for each network
    assert torch.equal(rows.x, both.flatten(0, 1))
    own = torch.arange(18) < 9  # of the first network; the others are of the second
    assert torch.equal(block.member, torch.stack([own, ~own]))
    seeds = torch.cat([level.seeds, block.seeds]).tolist()
    assert len(set(seeds)) == 6


def test_a_stacked_network_is_its_parts_composed(toy, split):
    fitted = stacking.fit(mlp, toy, split, RECIPE, RECIPE)
    for i, stacked in enumerate(fitted):
        first, second = (part(toy.x).softmax(1) for part in (stacked.first, stacked.second))
        by_hand = stacked.combiner(torch.cat([first, second], dim=1))
        assert torch.equal(stacked(toy.x), by_hand) and by_hand.shape == (120, 3), i
        assert [layer.out_features for layer in stacked.combiner[::2]] == [64, 3], i
        assert not torch.equal(first, second), i
        again = pickle.loads(pickle.dumps(stacked))
        assert torch.equal(again(toy.x), by_hand), i


def test_each_network_is_its_own(toy, split):
    """Together or alone the first level is the same, and so is the combiner but for the data set's other rows."""
    together = stacking.fit(mlp, toy, split, SHORT, SHORT)
    alone = stacking.fit(mlp, toy, split[1:], SHORT, SHORT)
    assert together[1:].params.keys() == alone.params.keys()
    for name, tensor in alone.params.items():
        torch.testing.assert_close(together.params[name][1:], tensor)


def test_it_stands_where_other_networks_stand(toy, split):
    toy = replace(
        toy, x=toy.x + 2 * torch.eye(3, 6)[toy.y]
    )  # eight examples a network say enough of these classes
    fitted = stacking.fit(mlp, toy, split, RECIPE)
    here = Study(toy, split, 2)
    stacked = here.arm("stacked", fitted)
    here.measure(study.utility)
    assert here.values(stacked, "test_accuracy").mean() > 0.7
    assert here.values(stacked, "epochs").tolist() == [stacking.COMBINER.epochs] * 2
    assert (
        len(fitted.records[0]["first"]["loss"]) == len(fitted.records[0]["second"]["loss"]) == RECIPE.epochs
    )
    index, _ = splits.candidates(split, seed=0)
    seen = asking.ask(fitted, toy, index, probes=True)
    torch.testing.assert_close(seen.query(torch.stack([seen.x[0], seen.x[1]])), seen.log_posteriors)
    tuned = training.fit(fitted.make_model, toy, split, SHORT, start=fitted)  # as one network, keys and all
    assert tuned.params.keys() == fitted.params.keys()


def test_networks_with_running_statistics_keep_them(digits):
    split = splits.target_shadow(len(digits), 1, 1, seed=0, n_train=30)
    make_model = models.make("small_cnn", digits)
    fitted = stacking.fit(make_model, digits, split[:1], replace(SHORT, epochs=1), SHORT)
    assert fitted.buffers.keys() == dict(fitted[0].named_buffers()).keys()
    assert int(fitted[0].first[1].num_batches_tracked) == 2  # ten members in batches of eight
    pickle.dumps(fitted)


def test_a_second_fit_trains_nothing(toy, split, monkeypatch):
    first = stacking.fit(mlp, toy, split, SHORT, SHORT)
    assert len(set(first.keys)) == 2
    monkeypatch.setattr(loop, "train", None)
    second = stacking.fit(mlp, toy, split, SHORT, SHORT)
    assert second.keys == first.keys
    for name, tensor in first.params.items():
        assert torch.equal(tensor, second.params[name]), name


def test_fewer_than_three_members_are_refused(toy):
    split = splits.target_shadow(120, 1, 1, seed=0, n_train=2)
    with pytest.raises(ValueError, match="three parts, and there are 2"):
        stacking.fit(mlp, toy, split, RECIPE)
