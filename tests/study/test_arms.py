"""Arms: asked at first use and only what is needed, served, averaged, borrowed, forgotten."""

import math

import pytest
import torch

from mialib import asking, models, study
from mialib.attacks import threshold
from mialib.data import splits
from mialib.defenses import outputs
from mialib.defenses.state import Chain
from mialib.study import Averaged, Study
from mialib.study.arms import Asked
from mialib.training import population


def halve(log_p):
    """An output defence: the posteriors' square roots, normalised."""
    return (log_p / 2).log_softmax(-1)


class Shift:
    """Adds its own amount to the first class's log-posterior of each network."""

    def __init__(self, amounts):
        self.amounts = amounts

    def __getitem__(self, models):
        return Shift(self.amounts[models])

    def __call__(self, log_posteriors):
        assert len(log_posteriors) == len(self.amounts)
        moved = log_posteriors.clone()
        moved[..., 0] += self.amounts[:, None]
        return moved.log_softmax(-1)


def every(arm):
    """The views of all targets, then those of the shadows."""
    return [*arm.targets(), arm.shadows()]


@pytest.fixture
def questions(monkeypatch):
    """What was asked so far, in order."""
    asked = []
    for name in ("log_posteriors", "sensitivity"):
        real = getattr(asking, name)

        def counted(*arguments, name=name, real=real, **options):
            asked.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(asking.answers, name, counted)
        monkeypatch.setattr(asking, name, counted)
        monkeypatch.setattr(asking.views, name, counted)
    return asked


# Asking


def test_each_model_is_asked_about_its_own_candidates(known):
    networks, dataset, split = known
    found = Study(dataset, split, 1, protocol="own", seed=3)
    arm = found.arm("a", networks)
    [target], shadows = arm.targets(sensitive=True), arm.shadows()
    assert target.log_posteriors.shape == (1, 12, 3) and target.sensitivity.shape == (1, 12, 3)
    right = target.log_posteriors[0].argmax(-1) == target.labels[0]
    assert int(right[arm.member[0]].sum()) == 6 and int(right[~arm.member[0]].sum()) == 3
    for one in (target, shadows):
        assert torch.allclose(one.query(one.x[0][None]), one.log_posteriors)
    assert torch.equal(arm.log_posteriors, target.log_posteriors)


def test_an_arm_is_asked_at_first_use_once_and_only_what_is_needed(known, questions):
    networks, dataset, split = known
    found = Study(dataset, split, 1, protocol="own")
    arm = found.arm("a", networks)
    served = found.arm("served", arm, behind=halve, defense="temperature")
    assert questions == []
    arm.targets(), arm.shadows(), served.targets()
    assert questions == ["log_posteriors"]
    before = arm.targets()[0].log_posteriors
    arm.targets(sensitive=True), arm.shadows(sensitive=True)
    assert questions == ["log_posteriors", "sensitivity"]  # the answers are not asked for again
    assert torch.equal(arm.targets()[0].log_posteriors, before)
    arm.forget()
    arm.targets()
    assert questions == ["log_posteriors", "sensitivity", "log_posteriors"]


def test_signals_are_those_of_the_true_class(known):
    networks, dataset, split = known
    arm = Study(dataset, split, 1, protocol="own").arm("a", networks)
    right = arm.log_posteriors[0].argmax(-1) == arm.targets()[0].labels[0]
    sure = torch.tensor(9.0).double().exp() / (2 + math.e**9)
    assert torch.allclose(arm.signal("confidence")[0][right], sure)
    assert torch.allclose(arm.signal("log-odds")[0][right], torch.logit(sure), atol=1e-4)
    assert torch.allclose(arm.signal("largest")[0], torch.logit(sure), atol=1e-4)
    assert arm.signal("sensitivity")[0].shape == (12,)
    with pytest.raises(KeyError):
        arm.signal("entropy")


def test_too_many_or_too_few_networks_are_named(setting, digits):
    networks, split, *_ = setting
    with pytest.raises(ValueError, match="found 3 networks; the study has 4 models, of which 2 are targets"):
        Study(digits, split, 2, protocol="d1_d2_d3").arm("a", networks[:3])


# Behind a defence


def test_a_defence_serves_targets_and_shadows_alike(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve, defense="temperature", defense_strength=2.0)
    assert plain.columns["defense"] == "none" and plain.targets()[0].sensitivity is not None  # left as it was
    assert (served.columns["defense"], served.columns["defense_strength"]) == ("temperature", 2.0)
    for before, after in zip(every(plain), every(served), strict=True):
        assert torch.equal(after.log_posteriors, halve(before.log_posteriors))
        assert after.labels is before.labels and after.sensitivity is None
    target = served.targets()[0]
    x = target.x[0][None]
    assert torch.equal(target.query(x), halve(plain.targets()[0].query(x)))  # probes are answered alike
    assert served.before is plain and plain.before is None


def test_each_model_is_served_by_its_own_state(setting):
    networks, split, found, plain = setting
    shift = Shift(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    served = found.arm("own states", plain, behind=shift, defense="shift")
    for i, (before, after) in enumerate(zip(plain.targets(), served.targets(), strict=True)):
        assert torch.equal(after.log_posteriors, shift[[i]](before.log_posteriors)), i
        x = before.x[0][None, :3]
        assert torch.equal(after.query(x), shift[[i]](before.query(x))), i  # questions of the attacker's own
    assert torch.equal(served.shadows().log_posteriors, shift[2:](plain.shadows().log_posteriors))


def test_a_chain_of_defences_serves_as_one_after_the_other(setting):
    _, _, found, plain = setting
    one, two = Shift(torch.arange(4.0)), Shift(torch.tensor([0.5, 0.0, 1.0, 2.0]))
    both = found.arm("both", plain, behind=Chain((one, two)))
    step = found.arm("two steps", found.arm("one step", plain, behind=one), behind=two)
    for a, b in zip(every(both), every(step), strict=True):
        assert torch.equal(a.log_posteriors, b.log_posteriors)


def test_answers_that_are_served_are_drawn_once(made):
    draws = []

    def noisy(log_p):
        draws.append(len(log_p))
        return log_p

    arm = made.arm("noisy", made.made("plain"), behind=noisy)
    for _ in range(2):
        arm.targets(), arm.shadows()
    assert draws == [1, 1, 3]  # both targets, then all shadows


def test_what_is_served_is_remembered_by_the_models_before(setting, monkeypatch):
    networks, split, *_ = setting
    found = Study(setting[2].roles.data, split, 2, protocol="d1_d2_d3")
    plain = found.arm("plain", networks)
    x = plain.targets()[0].x[0][None, :4]
    first = plain.targets()[0].query(x)
    found.arm("served", plain, behind=halve)
    assert torch.allclose(plain.targets()[0].query(x), first)

    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr("mialib.asking.doors.in_batches", never)
    assert torch.allclose(plain.targets()[0].query(x), first)


def test_labels_that_a_defence_keeps_are_seen_of_the_arm_before(made):
    plain = made.made("plain")
    kept = made.arm("kept", plain, behind=halve, keeps_labels=True)
    assert kept.by_label is plain and plain.by_label is plain
    assert made.arm("changed", plain, behind=halve).by_label.key == "changed"


# Shadows of another, and averages


@pytest.mark.parametrize("shadows", [None, slice(0)], ids=["none", "of no model"])
def test_given_answers_without_shadows_are_attacked_by_who_knows_half(made, shadows):
    views = made.answers(0)
    targets = [views[[i]] for i in made.roles.targets]
    arm = made.arm("given", study.Given(targets, shadows and views[shadows]))
    attack = {"confidence": threshold.confidence}
    with pytest.raises(ValueError, match="arm 'given' has no shadow models.*attack with knowing=\"half\""):
        made.attack(attack, [arm])
    made.attack(attack, [arm], knowing="half")
    assert {row["n_shadows"] for row in made.rows if row["attack"] == "confidence"} == {0}
    averaged = made.arm("averaged", Averaged(arm.answers, 2, epsilon=0.0))
    made.attack(attack, [averaged], knowing="half")


def test_the_targets_alone_borrow_the_shadows_of_another(setting, digits):
    networks, split, *_ = setting
    found = Study(digits, split, 2, protocol="d1_d2_d3")
    full = found.arm("full", networks)
    alone = found.arm("alone", networks[:2])
    with pytest.raises(ValueError, match="arm 'alone' has no shadow models"):
        alone.shadows()
    lent = found.arm("lent", networks[:2], shadows=full)
    assert lent.shadows() is full.shadows()
    for one, other in zip(lent.targets(sensitive=True), full.targets(sensitive=True), strict=True):
        assert torch.equal(one.log_posteriors, other.log_posteriors)
        assert torch.equal(one.sensitivity, other.sensitivity)
    assert lent.shadows(sensitive=True).sensitivity is not None


@pytest.fixture
def asked(digits):
    split = splits.target_shadow(len(digits), 2, 1, seed=0, n_train=20)

    found = Study(digits, split, 2)
    return found, found.arm(
        "plain", population.initial(models.make("small_cnn", digits), split.seeds.tolist())
    )


def test_who_asks_often_averages_noise_away_on_both_sides(asked):
    found, plain = asked
    generator = torch.Generator().manual_seed(0)

    def noisy(log_p):
        noise = torch.randn(log_p.shape, generator=generator, dtype=torch.float64)
        return (log_p + 0.5 * noise).log_softmax(-1)

    once = found.arm("once", plain, behind=noisy, defense="noise")
    often = found.arm("often", Averaged(once.answers, 100, 0.0))

    def distance(a, b):
        return float((a.log_posteriors.exp() - b.log_posteriors.exp()).abs().mean())

    for true, one, many in zip(every(plain), every(once), every(often), strict=True):
        assert distance(true, many) < 0.25 * distance(true, one)


def test_deterministic_networks_answer_the_same_when_asked_again(asked):
    found, plain = asked
    again = found.arm("again", Averaged(plain.answers, 2, 0.0))
    for one, two in zip(every(plain), every(again), strict=True):
        assert torch.allclose(one.log_posteriors, two.log_posteriors, atol=1e-5)


def test_what_cannot_be_asked_is_refused_before_the_first_question(made):
    plain = made.made("plain", probes=False)
    with pytest.raises(ValueError, match="target.x is needed"):
        made.arm("averaged", Averaged(plain.answers, 2, 0.0)).targets()


def test_the_sensitivity_is_had_of_networks_alone(made):
    plain = made.made("plain")
    served = made.arm("served", plain, behind=halve)
    assert plain.answers.sensitive and not served.answers.sensitive and Asked.sensitive
    with pytest.raises(ValueError, match="the sensitivity is asked of the networks themselves"):
        served.targets(sensitive=True)


def test_two_arms_are_the_same_if_their_keys_are(made):
    a, b = made.made("a"), made.made("b")
    assert a == a and a != b and len({a, b, a}) == 2
    with pytest.raises(AttributeError):
        a.key = "c"
    assert str(study.Study.arm(made, "c", a, "A label")) == "arm 'A label'"


def test_an_arm_answers_about_other_examples_as_it_serves(setting, digits):
    networks, split, found, plain = setting
    one = found.arm("shifted, asked", plain, behind=Shift(torch.arange(4.0).double()))
    index = splits.indices(split.reserve[:2])
    expected = asking.log_posteriors(networks[:2], digits, index)
    assert torch.equal(plain.answer(digits, index), expected)
    torch.testing.assert_close(one.answer(digits, index), Shift(torch.arange(2.0).double())(expected))
    assert torch.equal(
        plain.answer(digits, index[0])[1], asking.log_posteriors(networks[[1]], digits, index[0])[0]
    )


def test_public_examples_are_asked_at_first_use_once_and_through_what_stands_before(setting):
    networks, split, found, arm = setting
    study_ = Study(found.roles.data, split, 2, protocol="d1_d2_d3")
    arm = study_.arm("none", networks)
    served = study_.arm("served", arm, behind=outputs.OneHot())
    with asking.tally() as asked:
        assert served.targets()[1].public is None and asked.inputs == 0
        known = [one.public for one in served.targets(public=True)]
        count = [int((~(split.member | split.test))[i].sum()) for i in (0, 1)]
        assert asked.inputs == sum(count) and [one.labels.shape[1] for one in known] == count
        plain = [one.public for one in arm.targets(public=True)]
        assert asked.inputs == sum(count)
    for one, other in zip(known, plain, strict=True):
        assert torch.equal(one.log_posteriors, outputs.OneHot()(other.log_posteriors))
        assert one.log_posteriors.exp().max(-1).values.min() == 1
    averaged = study_.arm("averaged", Averaged(arm.answers, 2, 0.1))
    again = averaged.targets(public=True)[0].public
    assert not torch.equal(again.log_posteriors, plain[0].log_posteriors)
    arm.forget()
    assert torch.equal(arm.targets(public=True)[0].public.log_posteriors, plain[0].log_posteriors)


def test_nobody_knows_what_is_public_where_others_are_members(setting):
    networks, split, found, _ = setting
    reserve = Study(found.roles.data, splits.as_members(split), 2, protocol="d1_d2_d3")
    arm = reserve.arm("none", networks, other_members=True)
    served = reserve.arm("served", arm, behind=outputs.OneHot())
    for one in (arm, served):
        with pytest.raises(ValueError, match="trained on other members than the split's"):
            one.targets(public=True)


def test_several_versions_answer_side_by_side_targets_and_shadows_alike(made):
    first, one, two = (made.made(key, seed) for seed, key in enumerate("abc"))
    pair = made.arm("pair", first, beside=[one, two])
    for found, own, *others in (
        (pair.shadows(), first.shadows(), one.shadows(), two.shadows()),
        *zip(pair.targets(), first.targets(), one.targets(), two.targets(), strict=True),
    ):
        assert torch.equal(found.log_posteriors, own.log_posteriors)
        assert torch.equal(found.beside, torch.stack([other.log_posteriors for other in others]))
    assert pair.columns == first.columns | {"variant": "pair"} and pair.networks is first.networks
    assert [arm.answers.versions for arm in (first, pair)] == [0, 2]
    assert torch.equal(pair.shadows(True).sensitivity, first.shadows(True).sensitivity)
    assert pair.shadows(True).beside.shape[0] == 2
    more = made.arm("more", pair, beside=[first])
    assert more.answers.versions == 3
    assert torch.equal(more.shadows().beside[2], first.shadows().log_posteriors)
    with pytest.raises(ValueError, match="found 'a' .str.; an arm is needed"):
        made.arm("wrong", first, beside=["a"])


def test_what_is_served_or_averaged_is_one_version(made):
    pair = made.arm("pair", made.made("a"), beside=[made.made("b", 1)])
    served = made.arm("served", pair, behind=halve, defense="temperature")
    averaged = study.Averaged(pair.answers, 2, 0.0)
    for answers in (served.answers, averaged):
        assert answers.versions == 0 and answers.views()[0][0].beside is None
    again = made.arm("both served", served, beside=[made.arms["b"]])
    assert torch.equal(again.targets()[0].beside[0], made.arms["b"].targets()[0].log_posteriors)
    # before a version is served it remembers what it is asked
    assert pair.targets()[0].query is made.arms["a"].targets()[0].query


def test_versions_of_given_and_of_borrowed_answers_are_counted(made):
    pair = made.arm("pair", made.made("a"), beside=[made.made("b", 1)])
    given = study.Given(pair.targets(), pair.shadows())
    assert given.versions == 1 and study.Given(pair.targets()).versions == 1
    assert study.Given(pair.targets(), made.arms["a"].shadows()).versions == 0
    assert made.arm("c", given, shadows=pair).answers.versions == 1
    assert made.arm("d", given, shadows=made.arms["a"]).answers.versions == 0


def test_there_are_shadows_where_all_versions_have_some(made):
    alone = made.arm("alone", study.Given(made.made("a").targets()))
    pair = made.arm("pair", made.arms["a"], beside=[alone])
    with pytest.raises(ValueError, match="arm 'pair' has no shadow models"):
        pair.shadows()
