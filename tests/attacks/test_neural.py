"""Neural attacks: what the networks read, that they learn, and that trainings are told apart and cached."""

import os
from dataclasses import replace
from functools import partial

import pytest
import torch

from mialib import asking, training
from mialib.asking import Views
from mialib.attacks import neural
from mialib.data import splits
from mialib.measures import metrics
from mialib.models import attack_networks
from mialib.store import Store
from mialib.training import Recipe, loop
from tests.training.test_population import assert_same, largest_difference

QUICK = Recipe(2, 32, 5e-3)
NAMES = ["nn", "top3_nn", "nn_class", "samia"]


def views(m=1, n=30, c=4, seed=0, member=None):
    """Random answers; with `member` (m, n), members get a higher posterior and a lower sensitivity."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(m, n, c, generator=generator, dtype=torch.float64)
    labels = torch.randint(c, (m, n), generator=generator)
    sensitivity = torch.rand(m, n, c, generator=generator, dtype=torch.float64)
    if member is not None:
        logits.scatter_add_(2, labels[..., None], 5.0 * member[..., None].double())
        sensitivity *= 1 - 0.8 * member[..., None].double()
    return Views(logits.log_softmax(-1), labels, sensitivity)


def membership(m, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) < n // 2 for _ in range(m)])


def test_feature_layouts():
    seen = views(m=2, n=3, c=4)
    p, s = seen.log_posteriors.exp().float(), seen.sensitivity.float()
    one_hot = torch.zeros(2, 3, 4).scatter(2, seen.labels[..., None], 1.0)
    assert torch.equal(neural.posteriors(seen), p)
    assert torch.equal(neural.posteriors_and_label(seen), torch.cat([p, one_hot], -1))
    assert torch.equal(neural.samia_features(seen), torch.cat([p, s, one_hot], -1))
    for features in (neural.posteriors, neural.top3, neural.posteriors_and_label, neural.samia_features):
        assert features(seen).dtype == torch.float32, features.__name__


def test_top3_is_sorted_and_forgets_the_classes():
    log_p = torch.tensor([[[0.1, 0.4, 0.2, 0.3]]]).double().log()
    assert neural.top3(Views(log_p, torch.tensor([[0]]))).tolist() == [[pytest.approx([0.4, 0.3, 0.2])]]


def test_ranked_posteriors_are_all_of_them_sorted():
    log_p = torch.tensor([[[0.1, 0.4, 0.2, 0.3]]]).double().log()
    assert neural.ranked(Views(log_p, torch.tensor([[0]]))).tolist() == [
        [pytest.approx([0.4, 0.3, 0.2, 0.1])]
    ]
    attack = neural.ranked_nn(QUICK, trainings=2)
    assert (attack.name, attack.recipe, attack.trainings) == ("ranked_nn", QUICK, 2)
    assert attack.network(4)()(attack.features(views())[0]).shape == (30, 2)


def test_answers_of_zero_behind_a_defence_are_no_trouble():
    log_p = torch.tensor([[[0.0, -torch.inf, -torch.inf]]]).double()
    assert neural.posteriors(Views(log_p, torch.tensor([[0]]))).tolist() == [[[1.0, 0.0, 0.0]]]


@pytest.mark.parametrize(("name", "width"), [("nn", 4), ("top3_nn", 3), ("nn_class", 8), ("samia", 12)])
def test_networks_fit_their_features(name, width):
    attack = neural.attacks()[name]
    network = attack.network(width)()
    assert attack.name == name and network(torch.zeros(2, width)).shape == (2, 2)
    assert attack.features(views()).shape == (1, 30, width)


def test_the_default_schedule_is_the_official_one():
    recipe = neural.attacks()["nn"].recipe
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (100, 128, 1e-3, 5e-4)
    assert (recipe.optimizer, recipe.momentum, recipe.milestones) == ("sgd", 0.9, (50, 75))


@pytest.mark.parametrize("name", NAMES)
def test_a_separable_problem_is_learned(name):
    member, target_member = membership(3, 100), membership(1, 200, seed=9)
    shadows, target = views(3, 100, seed=1, member=member), views(1, 200, seed=2, member=target_member)
    attack = neural.attacks(Recipe(8, 32, 3e-3), trainings=1)[name]
    margins = attack(target, shadows, member, 0)
    assert metrics.auc(target_member[0], margins).value > 0.85
    assert metrics.balanced_accuracy(target_member[0], margins).value > 0.75  # the zero point is right, too


def test_the_margin_is_the_networks_logit_difference():
    member, attack = membership(2, 30), neural.attacks(QUICK)["nn"]
    shadows, target = views(2, seed=1, member=member), views(seed=2)
    network = attack.fit(shadows, member, [1])[0]
    with torch.no_grad():
        logits = network(neural.posteriors(target)[0]).double()
    assert torch.allclose(attack(target, shadows, member, 1), logits[:, 1] - logits[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_trainings_differ_are_cached_and_deterministic(name, monkeypatch):
    member, attack = membership(2, 30), neural.attacks(QUICK, trainings=2)[name]
    shadows, target = views(2, seed=1, member=member), views(seed=2)
    margins = [attack(target, shadows, member, seed) for seed in (0, 1)]
    assert margins[0].shape == (30,) and margins[0].dtype == torch.float64
    assert not torch.equal(*margins)

    def fail(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "train", fail)
    assert all(torch.equal(attack(target, shadows, member, seed), margins[seed]) for seed in (0, 1))
    assert len(attack.fit(shadows, member)) == 2  # all trainings
    with pytest.raises(AssertionError, match="trained again"):
        attack(target, shadows, ~member, 0)  # other rows, other network


def test_training_one_by_one_in_a_fresh_cache_gives_the_same(monkeypatch, tmp_path):
    member, attack = membership(2, 30), neural.attacks(QUICK, trainings=2)["samia"]
    shadows, target = views(2, seed=1, member=member), views(seed=2)
    first = attack(target, shadows, member, 1)
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path))
    assert torch.equal(first, attack(target, shadows, member, 1))


# Networks of several lessons


def lessons(*sizes, c=4):
    """Shadows and their membership, a pair for each size: the answers of two models to so many candidates."""
    found = []
    for seed, n in enumerate(sizes):
        member = membership(2, n, seed)
        found.append((views(2, n, c, seed, member), member))
    return found


def alone(attack, taught, tmp_path):
    """The networks of each lesson, trained in a store of its own."""
    return [replace(attack, cache=Store(tmp_path / str(i))).fit(*lesson) for i, lesson in enumerate(taught)]


@pytest.mark.parametrize("name", NAMES)
def test_networks_that_learn_together_are_those_that_learn_alone(name, tmp_path):
    taught, attack = lessons(30, 24, 30), neural.attacks(QUICK, trainings=2)[name]
    found = replace(attack, batched=False, cache=Store(tmp_path / "together")).fit_all(taught)
    for one, other in zip(found, alone(attack, taught, tmp_path), strict=True):
        assert_same(one, other)
        assert one.trained_on == other.trained_on and len(one) == 2
        assert [record["loss"] for record in one.records] == [record["loss"] for record in other.records]


def samia_without_dropout(features):
    return partial(attack_networks.samia_network, features // 3, 0.0)


def test_one_population_takes_the_steps_of_each_alone(tmp_path, trained_seeds):
    # SGD: the gradient of attention's key bias is zero but for rounding, of which Adam would make whole steps
    taught, recipe = lessons(30, 30, 30), replace(QUICK, optimizer="sgd")
    attack = neural.NeuralAttack("samia", neural.samia_features, samia_without_dropout, recipe, trainings=2)
    found = replace(attack, batched=True, cache=Store(tmp_path / "together")).fit_all(taught)
    assert trained_seeds == [[0, 1, 0, 1, 0, 1]]  # all at once
    for i, (one, other) in enumerate(zip(found, alone(attack, taught, tmp_path), strict=True)):
        assert largest_difference(one, other) < 1e-5, i
        assert largest_difference(one, found[i - 1]) > 1e-3, i


@pytest.mark.cuda
def test_one_population_on_a_device_takes_the_steps_of_each_on_the_cpu(tmp_path, accelerator):
    taught, recipe = lessons(30, 30), replace(QUICK, optimizer="sgd")
    attack = neural.NeuralAttack("samia", neural.samia_features, samia_without_dropout, recipe, trainings=2)
    there = replace(attack, device=accelerator, batched=True, cache=Store(tmp_path / "there")).fit_all(taught)
    for one, other in zip(there, alone(attack, taught, tmp_path), strict=True):
        assert one.device.type == accelerator and largest_difference(one.to("cpu"), other) < 1e-4


def test_whoever_trains_beside_it_a_network_is_the_same_entry(trained_seeds):
    one, two, three = lessons(30, 30, 30)
    attack = neural.attacks(QUICK, trainings=2, batched=True)["samia"]
    keys = [networks.keys for networks in attack.fit_all([one, two])]
    assert len(trained_seeds) == 1
    assert [networks.keys for networks in attack.fit_all([two, one])] == keys[::-1]
    assert [attack.fit(*one).keys, attack.fit(*two).keys] == keys
    assert attack.fit_all([three, two], [1])[1].keys == keys[1][1:]
    assert trained_seeds[1:] == [[1]]  # the third lesson's


def test_the_store_knows_a_network_by_its_rows(tmp_path):
    [lesson] = lessons(30)
    attack = neural.attacks(QUICK, trainings=2)["nn"]
    rows = attack._rows(*lesson)
    plain = training.fit(attack.network(4), rows, splits.everyone(60, [0, 1]), QUICK, cache=Store(tmp_path))
    assert attack.fit(*lesson).keys == plain.keys


def test_lessons_that_teach_the_same_are_learned_once(trained_seeds):
    [one] = lessons(30)
    again = (views(2, 30, 4, 0, one[1]), one[1].clone())
    found = neural.attacks(QUICK, trainings=1)["nn"].fit_all([one, again])
    assert trained_seeds == [[0]] and found[0].keys == found[1].keys


def test_no_more_lessons_learn_together_than_memory_is_for(monkeypatch, trained_seeds):
    taught, attack = lessons(30, 30, 24, 30), neural.attacks(QUICK, trainings=2, batched=True)["nn"]
    keys = [networks.keys for networks in attack.fit_all(taught)]
    assert sorted(trained_seeds) == [[0, 1], [0, 1, 0, 1, 0, 1]]  # those of 24 candidates, and three of 30
    trained_seeds.clear()
    monkeypatch.setenv("MIALIB_CACHE", f"{os.environ['MIALIB_CACHE']}-again")
    monkeypatch.setattr(neural, "TOGETHER", 2 * 60 * 4 * 4)  # two lessons of 60 rows of 4 float32
    assert [networks.keys for networks in attack.fit_all(taught)] == keys
    assert sorted(trained_seeds) == [[0, 1], [0, 1], [0, 1, 0, 1]]
    trained_seeds.clear()
    monkeypatch.setenv("MIALIB_CACHE", f"{os.environ['MIALIB_CACHE']}-alone")
    monkeypatch.setattr(neural, "TOGETHER", 1)  # less than any has
    assert [networks.keys for networks in attack.fit_all(taught)] == keys
    assert trained_seeds == [[0, 1]] * 4


@pytest.mark.parametrize(
    ("options", "together"),
    [({}, False), ({"batched": True}, True), ({"device": "cuda"}, True), ({"device": "cuda", "batched": False}, False)],
)  # fmt: skip
def test_networks_learn_at_once_on_a_device_and_where_it_is_asked(options, together):
    assert neural.attacks(**options)["samia"].together == together


def test_the_target_does_not_change_the_network():
    member, attack = membership(2, 30), neural.attacks(QUICK)["nn"]
    shadows, target = views(2, seed=1, member=member), views(seed=2)
    few = replace(target, log_posteriors=target.log_posteriors[:, :5], labels=target.labels[:, :5])
    assert torch.allclose(attack(few, shadows, member, 0), attack(target, shadows, member, 0)[:5], atol=1e-6)


@pytest.mark.parametrize("seed", [-1, 3])
def test_a_training_that_there_is_not_is_named(monkeypatch, seed):
    monkeypatch.setattr(loop, "train", None)  # nothing may be trained
    attack = neural.attacks(QUICK, trainings=3)["samia"]
    with pytest.raises(ValueError, match=f"samia: seed is {seed}; the attack has trainings 0 to 2"):
        attack(views(), views(2), membership(2, 30), seed)


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(loop, "train", None)  # nothing may be trained
    member = membership(2, 30)
    shadows, target = views(2), views()
    attacks = neural.attacks(QUICK, trainings=3)
    with pytest.raises(ValueError, match="samia needs the sensitivity"):
        attacks["samia"](target, replace(shadows, sensitivity=None), member, 0)
    with pytest.raises(ValueError, match="top3_nn needs 3 classes or more, found 2"):
        attacks["top3_nn"](views(c=2), views(2, c=2), member, 0)
    with pytest.raises(
        ValueError, match=r"nn: membership must have the shape of the labels, \(2, 30\), found \(2, 29\)"
    ):
        attacks["nn"](target, shadows, member[:, 1:], 0)
    with pytest.raises(ValueError, match="nn: membership is of no model.*train shadow models.*half"):
        attacks["nn"](target, shadows[:0], member[:0], 0)


@pytest.mark.cuda
def test_attack_networks_train_on_cuda(accelerator):
    member, target_member = membership(3, 100), membership(1, 200, seed=9)
    shadows, target = views(3, 100, seed=1, member=member), views(1, 200, seed=2, member=target_member)
    for attack in neural.attacks(Recipe(8, 32, 3e-3), trainings=1, device=accelerator).values():
        margins = attack(target, shadows, member, 0)
        assert margins.device.type == "cpu" and metrics.auc(target_member[0], margins).value > 0.85, (
            attack.name
        )


def test_rows_are_a_data_set_of_shadow_answers():
    member, attack = membership(2, 30), neural.attacks(QUICK)["nn_class"]
    shadows = views(2)
    rows = attack._rows(shadows, member)
    assert len(rows) == 60 and rows.num_classes == 2 and torch.equal(rows.y, member.flatten().long())
    assert torch.equal(rows.x, neural.posteriors_and_label(shadows).flatten(0, 1))
    assert asking.logits(attack.fit(shadows, member, [0]), rows, torch.arange(60)).shape == (1, 60, 2)
