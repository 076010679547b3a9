"""Output defences with one state a model before targets and shadows, and the rows on what they did."""

import pytest
import torch

from mialib import measures, models, study
from mialib.attacks import inversion
from mialib.data import splits
from mialib.defenses.state import Chain
from mialib.training import population


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


@pytest.fixture(scope="module")
def setting(digits):
    split = splits.d1_d2_d3(len(digits), 30, 20, 30, seed=0, n_models=4)
    networks = population.initial(models.make("small_cnn", digits), split.seeds.tolist())
    return networks, split, study.observe(networks, digits, split, 2, sensitive=False, defense="none")


def test_each_model_is_served_by_its_own(setting):
    _, _, seen = setting
    shift = Shift(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    served = seen.served(shift, defense="shift")
    for i, (before, after) in enumerate(zip(seen.targets, served.targets, strict=True)):
        assert torch.equal(after.log_posteriors, shift[[i]](before.log_posteriors))
        x = before.x[0][None, :3]
        assert torch.equal(after.query(x), shift[[i]](before.query(x)))  # questions of the attacker's own
    assert torch.equal(served.shadows.log_posteriors, shift[2:](seen.shadows.log_posteriors))
    assert served.columns["defense"] == "shift" and served.shadow_member is seen.shadow_member


def test_the_known_half_of_a_served_target_is_served(setting):
    _, split, seen = setting
    served = seen.served(Shift(torch.arange(4.0)))
    half = study.known_half(served, split)
    answers = {tuple(row) for row in served.targets[1].log_posteriors[0].tolist()}
    for part in (half.targets[1].log_posteriors[0], half.shadows.log_posteriors[1]):
        assert {tuple(row) for row in part.tolist()} <= answers
    with pytest.raises(ValueError, match="serve those, then take the known half"):
        study.known_half(seen, split).served(Shift(torch.arange(4.0)))


def test_a_chain_is_one_after_the_other(setting):
    _, _, seen = setting
    one, two = Shift(torch.arange(4.0)), Shift(torch.tensor([0.5, 0.0, 1.0, 2.0]))
    both = seen.served(Chain((one, two)))
    step = seen.served(one).served(two)
    for a, b in zip([*both.targets, both.shadows], [*step.targets, step.shadows], strict=True):
        assert torch.equal(a.log_posteriors, b.log_posteriors)
    untouched = seen.served(Chain(()))
    assert torch.equal(untouched.shadows.log_posteriors, seen.shadows.log_posteriors)


def test_rows_on_answers_are_of_each_side(setting):
    _, _, seen = setting
    served = seen.served(Shift(torch.full((4,), 2.0)), defense="shift")
    rows = study.dispersion(served) + study.distortion(served, seen)
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    member = seen.member[1]
    before, after = (one.targets[1].log_posteriors[0] for one in (seen, served))
    assert value["member_distortion", 1] == float(measures.distortion(before[member], after[member]))
    assert value["test_label_loss", 1] == float(measures.label_loss(before[~member], after[~member]))
    assert value["test_entropy", 1] == float(measures.spread(after[~member]).entropy)
    assert value["member_beyond_the_label", 1] == float(measures.beyond_the_label(after[member]))
    assert {row["defense"] for row in rows} == {"shift"}


def test_rows_on_pictures_are_of_each_side(setting, digits):
    networks, split, seen = setting
    index, _ = splits.candidates(split[:2], 0)
    truth = inversion.pixels(digits, index)
    drawn = truth.clone()
    drawn[~seen.member] = 0.5
    rows = study.rebuilt(seen, drawn, truth, {"attack": "inversion"}, networks[:1], digits)
    value = {(row["metric"], row["target"]): row["value"] for row in rows}
    assert value["member_inversion_error", 0] == 0 and value["member_ssim", 0] == pytest.approx(1)
    expected = float((truth[1][~seen.member[1]] - 0.5).square().mean())
    assert value["test_inversion_error", 1] == pytest.approx(expected, abs=1e-6)
    right = (
        networks[0](digits.inputs(index[0][seen.member[0]])).argmax(1) == digits.y[index[0][seen.member[0]]]
    )
    assert value["member_named", 0] == pytest.approx(float(right.double().mean()))


def test_remembered_answers_are_those_of_the_model(setting, digits):
    networks, split, seen = setting
    kept = study.observe(networks, digits, split, 2, sensitive=False, remember=True)
    x = seen.shadows.x[0][None, :4].expand(2, -1, -1, -1, -1)
    for _ in range(2):
        assert torch.allclose(kept.shadows.query(x), seen.shadows.query(x))
