"""Labels alone: distance to a known boundary, a swapper that is caught, and an overfit network on real data."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mialib import asking, models, streams, training
from mialib.asking import Views
from mialib.attacks import averaging, threshold
from mialib.attacks.label_only import NoiseRobustness, SwapDetector, replaced_features
from mialib.data import splits
from mialib.measures import metrics
from mialib.study import Study
from mialib.training import Recipe


def plane(x):
    """Two classes on both sides of the plane where the first value is 0: (m, b, ...) -> (m, b, 2)."""
    first = x.flatten(2)[..., 0].double()
    return torch.stack([torch.zeros_like(first), first], -1).log_softmax(-1)


def views(x, labels=None, door=plane):
    """Views of the door's models on x (m, n, ...); true labels by default as the door says."""
    log_p = door(x)
    return Views(log_p, log_p.argmax(-1) if labels is None else labels, x=x, query=door)


def ladder(n, m=1, shape=(1, 2, 2), farthest=2.0):
    """Pictures whose distance to the plane grows from 0 to `farthest`, in both classes."""
    x = torch.zeros(m, n, *shape)
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    x.flatten(2)[..., 0] = sign * torch.linspace(0.01, farthest, n)
    return x


def features(n=50, d=4, m=2, seed=0):
    return torch.randn(m, n, d, generator=torch.Generator().manual_seed(seed))


def halves(m, n):
    return (torch.arange(n) < n // 2).repeat(m, 1)


# Robustness


def test_a_few_shadows_can_set_the_zero_and_no_others_are_asked():
    asked = []

    def door(x):
        asked.append(len(x))
        return plane(x)

    shadows, target = views(ladder(40, m=4), door=door), views(ladder(40))
    member, _ = halves(4, 40), asked.clear()
    every = NoiseRobustness(queries=4)(target, shadows, member)
    everybody, _ = len(asked), asked.clear()
    two = NoiseRobustness(queries=4, teachers=2)(target, shadows, member)
    assert 2 * len(asked) == everybody
    assert torch.equal(every - every[0], two - two[0])  # the order is the same
    with pytest.raises(ValueError, match="teachers must be at least 1, or None for all shadows, found 0"):
        NoiseRobustness(teachers=0)


def test_robustness_is_the_chance_to_stay_on_the_right_side():
    """At distance d, Gaussian noise of strength s leaves a share Phi(d / s) on the true side."""
    seen = views(ladder(40))
    found = NoiseRobustness((0.5, 1.0), 4000).robustness(seen)
    distance = seen.x.flatten(2)[..., 0].abs().double()
    normal = torch.distributions.Normal(0, 1)
    expected = (normal.cdf(distance / 0.5) + normal.cdf(distance / 1.0)) / 2
    assert found.shape == (1, 40) and found.dtype == torch.float64
    assert (found - expected).abs().max() < 5 * 0.5 / 4000**0.5


def test_the_wrong_side_is_as_robust_as_noise_reaches_the_right_one():
    seen = views(ladder(40))
    right = NoiseRobustness((0.5,), 200)
    wrong = right.robustness(replace(seen, labels=1 - seen.labels))
    assert torch.allclose(wrong, 1 - right.robustness(seen))
    assert wrong[0, -1] == 0


def test_farther_from_the_boundary_is_a_larger_margin():
    x = ladder(100)
    near, far = views(x[:, :50]), views(x[:, 50:])
    member = halves(1, 50)
    attack = NoiseRobustness((0.5, 1.0), 100)
    shadows = views(ladder(50, farthest=1.0))
    low, high = (attack(one, shadows, member, 0) for one in (near, far))
    assert metrics.auc(torch.arange(100) >= 50, torch.cat([low, high])).value > 0.95


def slow_share(seen, labels, strengths, queries, seed, block):
    """Candidate by candidate and copy by copy; pictures get Gaussian noise, features are replaced."""
    m, n = seen.labels.shape
    shape = seen.x.shape[2:]
    share = torch.zeros(m, n, dtype=torch.float64)
    for i in range(m):
        generator = streams.generator(seed, "copies")
        for j in range(n):
            if j % block == 0 and len(shape) == 3:
                noise = torch.randn((queries, block, *shape), generator=generator)
            elif j % block == 0:
                uniform = torch.rand((queries, block, *shape), generator=generator)
                other = torch.randint(n, (queries * block, *shape), generator=generator)
                other = other.view(queries, block, *shape)
            for q in range(queries):
                strength, copy = strengths[q % len(strengths)], seen.x[i, j].clone()
                if len(shape) == 3:
                    copy += strength * noise[q, j % block]
                else:
                    for f in range(*shape):
                        if uniform[q, j % block, f] < strength:
                            copy[f] = seen.x[i, other[q, j % block, f], f]
                answer = seen.query(copy.expand(m, 1, *shape))[i, 0]
                share[i, j] += float(answer.argmax() == labels[i, j]) / queries
    return share


@pytest.mark.parametrize("x", [ladder(11, m=2), features(11)], ids=["pictures", "features"])
def test_margins_equal_the_slow_loop(monkeypatch, x):
    monkeypatch.setattr(averaging, "ROWS", 24)
    labels = torch.randint(2, x.shape[:2], generator=torch.Generator().manual_seed(1))
    shadows, target = views(x, labels), views(x[:1].flip(1), labels[:1])
    attack, member = NoiseRobustness((0.3, 0.9), 6), halves(2, 11)
    margins = attack(target, shadows, member, 7)
    own, learned = (slow_share(one, one.labels, (0.3, 0.9), 6, 7, block=4) for one in (target, shadows))
    cut = threshold.best_threshold(learned.flatten(), member.flatten())
    assert margins.dtype == torch.float64
    torch.testing.assert_close(margins, own[0] - cut)
    assert len(set(margins.tolist())) > 2


def test_who_is_a_member_of_the_shadows_moves_the_threshold_only():
    seen, shadows = views(ladder(60)), views(ladder(60, m=2))
    attack = NoiseRobustness((0.5,), 20)
    one, other = halves(2, 60), ~halves(2, 60)
    difference = attack(seen, shadows, one, 0) - attack(seen, shadows, other, 0)
    assert difference[0] != 0 and torch.allclose(difference, difference[:1])


def test_posteriors_do_not_matter_where_labels_stay():
    shadows, member = views(ladder(40, m=2)), halves(2, 40)
    attack = NoiseRobustness((0.5,), 20)

    def certain(log_p):
        return one_hot(log_p.argmax(-1), 2).double().log()

    plain = attack(shadows[[0]], shadows, member, 0)
    served = asking.serve(shadows, certain)
    assert served.log_posteriors.isinf().any()
    assert torch.equal(attack(served[[0]], served, member, 0), plain)


@pytest.mark.parametrize("x", [ladder(30, m=2), features(30)], ids=["pictures", "features"])
def test_same_seed_same_margins_for_each_model_alone_and_inputs_stay(x):
    seen, member = views(x), halves(2, 30)
    before, state = x.clone(), torch.get_rng_state()
    attack = NoiseRobustness((0.5, 1.0), 20)
    margins = attack(seen[[1]], seen, member, 3)
    assert torch.equal(margins, attack(seen[[1]], seen, member, 3))
    assert not torch.equal(attack.robustness(seen, 3), attack.robustness(seen, 4))
    assert torch.equal(attack.robustness(seen, 3)[1:], attack.robustness(seen[[1]], 3))
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "attack, models_asked",
    [(NoiseRobustness((0.5, 1.0, 2.0), 12), 3), (SwapDetector(queries=4), 1)],
    ids=["noise", "swap"],
)
def test_it_asks_as_often_as_it_says(attack, models_asked):
    asked = []

    def door(x):
        asked.append(x.shape[0] * x.shape[1])
        return plane(x)

    target, shadows = (replace(views(ladder(30, m=m)), query=door) for m in (1, 2))
    asked.clear()
    attack(target, shadows, halves(2, 30), 0)
    assert sum(asked) == models_asked * 30 * attack.queries


def test_features_are_replaced_with_the_asked_probability_by_values_of_their_column():
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(200.0).view(100, 2)  # no value twice
    copies = replaced_features(torch.tensor([0.2, 1.0]))(x, torch.arange(50), generator)
    assert copies.shape == (2, 50, 2)
    for column in range(2):
        assert set(copies[..., column].flatten().tolist()) <= set(x[:, column].tolist()), column
    many = replaced_features(torch.full((400,), 0.2))(x, torch.arange(50), generator)
    # a replacement is the old value once in a hundred
    assert float((many != x[:50]).double().mean()) == pytest.approx(0.2 * 0.99, abs=0.006)


def test_binary_features_flip_by_the_frequency_of_the_other_value():
    generator = torch.Generator().manual_seed(0)
    x = (torch.arange(100) < 10).float()[:, None]  # one in ten is 1
    copies = replaced_features(torch.full((2000,), 0.5))(x, torch.arange(100), generator)[..., 0]
    flipped = (copies != x[:, 0]).double().mean(0)
    assert float(flipped[:10].mean()) == pytest.approx(0.5 * 0.9, abs=0.02)
    assert float(flipped[10:].mean()) == pytest.approx(0.5 * 0.1, abs=0.01)


# The swap detector


@dataclass(frozen=True)
class Swapper:
    """Exchanges the two labels where the scores are exactly one of the keys, one list of keys (r, c) a model."""

    keys: list[Tensor]

    def __getitem__(self, models):
        return Swapper(self.keys[models] if isinstance(models, slice) else [self.keys[i] for i in models])

    def __call__(self, log_p):
        known = [(own[:, None] == keys).all(-1).any(-1) for own, keys in zip(log_p, self.keys, strict=True)]
        return torch.where(torch.stack(known)[..., None], log_p.flip(-1), log_p)


@pytest.mark.parametrize("x", [ladder(200), features(200, m=1)], ids=["pictures", "features"])
def test_a_swapper_gives_its_members_away(x):
    seen = views(x)
    swapped = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.2
    served = asking.serve(seen, Swapper([seen.log_posteriors[0, swapped]]))
    assert torch.equal(served.log_posteriors.argmax(-1) != seen.labels, swapped[None])
    decided = SwapDetector()(served, None, None, 0) > 0
    assert torch.equal(decided, swapped)  # TPR 1, FPR 0
    assert 20 < int(swapped.sum()) < 60


def test_without_a_swapper_nobody_is_flagged():
    margins = SwapDetector()(views(ladder(200)), None, None, 0)
    assert margins.dtype == torch.float64 and (margins == -0.5).all()


def test_its_margins_are_the_slow_loops_and_the_shadows_are_ignored(monkeypatch):
    monkeypatch.setattr(averaging, "ROWS", 20)
    seen = views(ladder(12, farthest=0.5))
    found = SwapDetector(epsilon=0.4, queries=5)(seen, "anything", "at all", 3)
    kept = slow_share(seen, seen.log_posteriors.argmax(-1), (0.4,), 5, 3, block=4)
    torch.testing.assert_close(found, 0.5 - kept[0])
    assert len(found.unique()) > 2


def test_larger_noise_than_the_distance_to_the_boundary_is_no_majority():
    """Almost on the boundary half of the copies are on the other side: the margin is about 0, not 1/2."""
    margins = SwapDetector(epsilon=1.0, queries=4001)(views(ladder(5, farthest=0.02)), None, None, 0)
    assert margins.abs().max() < 0.04


def test_it_looks_at_the_label_that_was_seen_not_at_the_true_one():
    seen = views(ladder(50))
    wrong = replace(seen, labels=1 - seen.labels)
    assert (SwapDetector()(wrong, None, None, 0) == -0.5).all()


# Bad input


BOTH = [NoiseRobustness(), SwapDetector()]


@pytest.mark.parametrize("attack", BOTH, ids=["noise", "swap"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": None}, "target.query is needed, found None"),
        ({"x": None}, "target.x is needed, found None"),
        ({"x": torch.zeros(1, 9, 1, 2, 2)}, r"target.x must be \(1, 10\) inputs"),
    ],
)
def test_a_target_that_cannot_be_asked_is_named(attack, change, message):
    shadows = views(ladder(10, m=2))
    with pytest.raises(ValueError, match=message):
        attack(replace(shadows[[0]], **change), shadows, halves(2, 10), 0)


@pytest.mark.parametrize("attack", BOTH, ids=["noise", "swap"])
def test_one_target_at_a_time(attack):
    shadows = views(ladder(10, m=2))
    with pytest.raises(ValueError, match="one model.*found 2"):
        attack(shadows, shadows, halves(2, 10), 0)


def test_shadows_that_do_not_fit_are_named_before_the_first_question():
    shadows, member = views(ladder(10, m=2)), halves(2, 10)

    def never(x):
        raise AssertionError("asked")

    target = replace(shadows[[0]], query=never)
    attack = NoiseRobustness()
    with pytest.raises(ValueError, match="shadows.query is needed"):
        attack(target, replace(shadows, query=None), member, 0)
    with pytest.raises(ValueError, match=r"shape of the labels, \(2, 10\), found \(10, 2\)"):
        attack(target, shadows, member.T, 0)
    with pytest.raises(ValueError, match="probabilities.*found"):
        NoiseRobustness((0.5, 1.5), 2)(replace(target, x=torch.zeros(1, 10, 3)), shadows, member, 0)
    with pytest.raises(ValueError, match="both groups"):
        attack(shadows[[0]], shadows, torch.ones_like(member), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": ()}, "strengths must be one or more numbers above 0"),
        ({"strengths": (0.1, 0.0)}, r"strengths must be .* found \(0.1, 0.0\)"),
        ({"strengths": (float("nan"),)}, "strengths must be"),
        ({"queries": 0}, "queries must be a multiple of the 4 strengths"),
        ({"queries": 42}, "queries must be a multiple of the 4 strengths.*found 42"),
    ],
)
def test_bad_robustness_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        NoiseRobustness(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be above 0 and finite, found 0.0"),
        ({"epsilon": float("inf")}, "epsilon must be above 0"),
        ({"queries": 0}, "queries must be at least 1 a candidate, found 0"),
    ],
)
def test_bad_detector_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SwapDetector(**settings)


# Real data


@pytest.fixture(scope="module")
def overfit(digits):
    split = splits.target_shadow(len(digits), 2, 2, seed=0, n_train=100)
    networks = training.fit(models.make("small_cnn", digits), digits, split, Recipe(40, batch_size=32))
    found = Study(digits, split, 2)
    return found, found.arm("overfit", networks)


def test_members_of_an_overfit_network_keep_their_labels_more_often(overfit):
    found, arm = overfit
    found.attack({"noise": NoiseRobustness()})
    for i, (margins, member) in enumerate(zip(found.margins(arm, "noise")[:, 0], arm.member, strict=True)):
        assert metrics.auc(member, margins).value > 0.55, (
            i
        )  # 0.74 and 0.65 measured; gap attack 0.56 and 0.53


def test_a_swapper_before_real_networks_is_told_from_none(overfit):
    """The members whose labels a defender exchanges are found; without it hardly anybody is flagged."""
    _, arm = overfit
    target, member = arm.targets()[0], arm.member[0]
    flagged = SwapDetector()(target, None, None, 0) > 0
    assert flagged.double().mean() < 0.03
    keys = target.log_posteriors[0, member][:20]

    def swap(log_p):
        known = (log_p[..., None, :] == keys).all(-1).any(-1)
        return torch.where(known[..., None], log_p.roll(1, -1), log_p)

    swapped = member & (member.cumsum(0) <= 20)
    found = SwapDetector()(asking.serve(target, swap), None, None, 0) > 0
    assert found[swapped].double().mean() > 0.95 and found[~swapped].double().mean() < 0.03
