"""Neural attacks: what the networks read, that they learn, and that trainings are told apart and cached."""

from dataclasses import replace

import pytest
import torch

from mialib import asking
from mialib.asking import Views
from mialib.attacks import neural
from mialib.measures import metrics
from mialib.training import Recipe, loop

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
