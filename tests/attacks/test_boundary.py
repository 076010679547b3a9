"""Distance to the boundary: beside known ones, within the budget, whatever the order, for who sees labels alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from mialib import asking, models, training
from mialib.asking import Views
from mialib.attacks import averaging, boundary
from mialib.attacks.boundary import BoundaryDistance
from mialib.data import splits
from mialib.measures import metrics
from mialib.study import Study
from mialib.training import Recipe
from tests.attacks.test_label_only import halves

D = 16
NORMAL = torch.nn.functional.normalize(torch.randn(D, generator=torch.Generator().manual_seed(5)), dim=0)


def plane(x):
    """Two classes on both sides of a slanted plane through 0.3 NORMAL: (m, b, ...) -> (m, b, 2)."""
    signed = x.flatten(2).double() @ NORMAL.double() - 0.3
    return torch.stack([torch.zeros_like(signed), signed], -1).log_softmax(-1)


def ball(x):
    """Inside and outside of a ball of radius 3 around 0."""
    beyond = x.flatten(2).double().norm(dim=-1) - 3
    return torch.stack([torch.zeros_like(beyond), beyond], -1).log_softmax(-1)


def points(n=60, m=1, shape=(D,), seed=0, spread=1.0):
    return spread * torch.randn(m, n, *shape, generator=torch.Generator().manual_seed(seed))


def views(x, labels=None, door=plane):
    """Views of the door's models on x (m, n, ...); true labels by default as the door says."""
    log_p = door(x)
    return Views(log_p, log_p.argmax(-1) if labels is None else labels, x=x, query=door)


def to_plane(x):
    return (x.flatten(2).double() @ NORMAL.double() - 0.3).abs()


# Closed forms


@pytest.mark.parametrize("shape", [(D,), (1, 4, 4)], ids=["features", "pictures"])
def test_the_distance_to_a_plane_is_found_and_never_a_smaller_one(shape):
    x = points(m=2, shape=shape)
    ratio = BoundaryDistance(2000).search(views(x)).distance / to_plane(x)
    assert ratio.shape == (2, 60) and ratio.dtype == torch.float64
    assert ratio.min() > 1 - 1e-4  # float32
    assert ratio.median() < 1.02 and ratio.max() < 1.1


def test_the_distance_to_a_sphere_is_found_from_inside_and_outside():
    x = torch.cat([points(40, spread=0.5), points(40, seed=1, spread=1.5)], 1)
    seen = views(x, door=ball)
    assert 0 < int(seen.labels.sum()) < 80
    truth = (x.norm(dim=-1).double() - 3).abs()
    ratio = BoundaryDistance(2000).search(seen).distance / truth
    assert ratio.min() > 1 - 1e-4 and ratio.median() < 1.05


def test_what_the_model_labels_wrongly_is_at_distance_0_and_asked_nothing():
    x = points()
    seen = views(x)
    wrong = torch.arange(60) % 3 == 0
    found = BoundaryDistance(300).search(
        replace(seen, labels=torch.where(wrong, 1 - seen.labels, seen.labels))
    )
    assert torch.equal(found.distance[0] == 0, wrong) and torch.equal(found.queries[0] == 0, wrong)


def test_one_label_for_all_is_farther_than_any_two_candidates_and_costs_nothing():
    x = points()
    found = BoundaryDistance(300).search(views(x, door=lambda x: plane(x + 100 * NORMAL)))
    assert (found.queries == 0).all() and (found.distance > torch.cdist(x[0], x[0]).max()).all()
    assert found.distance.isfinite().all()


# The budget


def test_more_queries_never_find_a_larger_distance():
    seen = views(points(40), door=ball)
    distances = [BoundaryDistance(budget).search(seen).distance for budget in (20, 100, 250, 1000)]
    for few, many in zip(distances, distances[1:], strict=False):
        assert (many <= few).all() and many.mean() < few.mean()


@pytest.mark.parametrize("budget", [8, 9, 57, 250, 1234])
def test_the_budget_is_never_exceeded_and_each_query_is_counted(budget, monkeypatch):
    monkeypatch.setattr(averaging, "ROWS", 100)
    asked = []

    def door(x):
        asked.append(x.shape[0] * x.shape[1])
        return plane(x)

    seen = views(points(30, m=2))
    found = BoundaryDistance(budget).search(replace(seen, query=door))
    assert found.queries.dtype == torch.int64 and int(found.queries.max()) <= budget
    assert int(found.queries.sum()) == sum(asked)
    assert budget < 100 or int(found.queries.min()) > budget / 2


def test_a_larger_budget_has_the_rounds_of_a_smaller_one_and_more():
    few, many = (BoundaryDistance(budget).rounds(64) for budget in (250, 2500))
    assert many[: len(few)] == few and len(many) > len(few) > 2
    assert [one.probes for one in many[1:4]] == [30, 42, 52]
    assert few[0].halvings == boundary.least_budget(64) == 10


def test_a_budget_that_does_not_suffice_for_a_line_is_named_before_the_first_question():
    def never(x):
        raise AssertionError("asked")

    seen = replace(views(points()), query=never)
    with pytest.raises(ValueError, match="budget is 7; inputs of 16 numbers need 8 queries"):
        BoundaryDistance(7).search(seen)


# Invariance


def test_order_and_blocks_change_nothing(monkeypatch):
    seen = views(points(50), door=ball)
    whole = BoundaryDistance(300).search(seen)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    turned = BoundaryDistance(300).search(seen.rows(order[None]))
    monkeypatch.setattr(averaging, "ROWS", 64)
    monkeypatch.setattr(averaging, "VALUES", 600)
    blocks = BoundaryDistance(300).search(seen)
    torch.testing.assert_close(turned.distance, whole.distance[:, order], rtol=1e-4, atol=0)
    torch.testing.assert_close(blocks.distance, whole.distance, rtol=1e-4, atol=0)


def test_of_binary_features_too_where_many_are_equally_near():
    x = (points(80) > 0).float()
    seen, order = views(x, door=lambda x: plane(x - 0.5)), torch.arange(80).flip(0)
    whole, turned = (BoundaryDistance(100).search(one).distance for one in (seen, seen.rows(order[None])))
    torch.testing.assert_close(turned, whole[:, order], rtol=1e-4, atol=0)


def test_same_seed_same_distances_for_each_model_alone_and_inputs_stay():
    x = points(m=2)
    seen, before, state = views(x, door=ball), x.clone(), torch.get_rng_state()
    attack = BoundaryDistance(200)
    both = attack.search(seen, 3)
    assert torch.equal(both.distance[1:], attack.search(seen[[1]], 3).distance)
    assert not torch.equal(both.distance, attack.search(seen, 4).distance)
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())


def test_scores_are_never_looked_at():
    x, member = points(40, m=2), halves(2, 40)

    def hard(log_p):
        return one_hot(log_p.argmax(-1), 2).double().log()

    seen = views(x)
    served = asking.serve(seen, hard)
    assert served.log_posteriors.isinf().any()
    attack = BoundaryDistance(100)
    assert torch.equal(attack(served[[0]], served, member), attack(seen[[0]], seen, member))


# Margins


def test_margins_are_distances_less_the_threshold_of_the_first_shadows():
    target = views(points(40))
    near, far = points(40, m=3, seed=1), points(40, m=3, seed=2)
    away = torch.where(plane(far).argmax(-1).bool(), 1.0, -1.0)[..., None] * NORMAL
    shadows = views(torch.cat([far + 2 * away, near], 1))
    member = (torch.arange(80) < 40).repeat(3, 1)
    attack = BoundaryDistance(300)
    margins = attack(target, shadows, member)
    cut = attack.search(target).distance[0] - margins
    assert margins.dtype == torch.float64 and torch.allclose(cut, cut[:1])
    own = attack.search(shadows)
    assert (own.distance[:2][member[:2]] > cut[0]).double().mean() > 0.9
    assert (own.distance[:2][~member[:2]] < cut[0]).double().mean() > 0.8
    # the third is asked only where all are to be
    asked = []

    def door(x):
        asked.append(x.shape[1])
        return plane(x)

    counted = replace(shadows, query=door)
    for teachers, count in ((2, 2), (None, 3), (7, 3)):
        asked.clear()
        BoundaryDistance(300, teachers=teachers).learn(counted, member)
        assert sum(asked) == int(own.queries[:count].sum())


def test_nothing_is_found_where_nothing_leaks():
    seen, member = (
        views(points(400, m=3)),
        torch.rand(3, 400, generator=torch.Generator().manual_seed(0)) < 0.5,
    )
    margins = BoundaryDistance(60)(seen[[0]], seen[[1, 2]], member[1:])
    assert (
        abs(metrics.auc(member[0].numpy(), margins.numpy()).value - 0.5) < 3 / (12 * 100) ** 0.5
    )  # three standard errors of 200 a side


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "budget must be at least 1, found 0"),
        ({"probes": 0}, "probes must be at least 1, found 0"),
        ({"teachers": 0}, "teachers must be at least 1, found 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BoundaryDistance(**settings)


def test_a_target_that_cannot_be_asked_and_shadows_that_do_not_fit_are_named():
    seen, member = views(points(10, m=2)), halves(2, 10)
    attack = BoundaryDistance(50)
    with pytest.raises(ValueError, match="one model.*found 2"):
        attack(seen, seen, member)
    with pytest.raises(ValueError, match="target.query is needed, found None"):
        attack(replace(seen[[0]], query=None), seen, member)
    with pytest.raises(ValueError, match="shadows.x is needed, found None"):
        attack(seen[[0]], replace(seen, x=None), member)
    with pytest.raises(ValueError, match=r"shape of the labels, \(2, 10\), found \(10, 2\)"):
        attack(seen[[0]], seen, member.T)


# Real networks


def test_members_of_an_overfit_network_are_farther_from_its_boundary(digits):
    split = splits.target_shadow(len(digits), 1, 1, seed=0, n_train=100)
    networks = training.fit(models.make("small_cnn", digits), digits, split, Recipe(25, batch_size=32))
    study = Study(digits, split, 1)
    arm = study.arm("overfit", networks)
    attack = BoundaryDistance(100)
    with asking.tally() as asked:
        study.attack({"boundary_distance": attack}, arm)
    assert study.values(arm, "auc", attack="boundary_distance")[0] > 0.6
    found = (
        attack.search(arm.targets()[0], 0).queries.sum() + attack.search(arm.shadows()[:2], 0).queries.sum()
    )
    assert asked.inputs == int(found)
    assert asked.inputs <= 100 * 2 * 200 and math.isfinite(
        float(study.margins(arm, "boundary_distance").sum())
    )
