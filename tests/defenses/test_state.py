"""What a defender knows of its networks, and output defences that are put together from others."""

import pytest
import torch

from mialib import defenses
from mialib.data import Splits, splits
from mialib.defenses import state
from mialib.defenses.outputs import OneHot
from mialib.defenses.state import Chain, Each
from mialib.measures import metrics
from tests.study.test_arms import Shift


def answers(m=3, n=5, c=4):
    return torch.randn(m, n, c, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(
        -1
    )


def test_a_defender_knows_its_own_members_and_reserve(known, digits):
    networks, split, found = known
    assert len(found) == 2 and found.members.log_posteriors.shape == (2, 60, 10)
    for i in range(2):
        index = split.reserve[i].nonzero()[:, 0]
        assert torch.equal(found.reference.labels[i], digits.y[index]), i
        answers = networks[i](digits.inputs(index)).detach().double().log_softmax(-1)
        assert torch.allclose(found.reference.log_posteriors[i], answers, atol=1e-5), i
        assert torch.equal(found.reference.x[i], digits.inputs(index)), i
    without = Splits(split.member, split.test, split.reserve & False, split.seeds)
    with pytest.raises(ValueError, match="a network has none"):
        defenses.defender(networks, digits, without)


def test_rows_are_answers_labelled_with_what_was_predicted(known):
    views = known[2].reference
    rows, split = state.rows(views, torch.tensor([3, 4]), 0.2)
    assert torch.allclose(rows.x.view(2, 200, 10), views.log_posteriors.exp().float())
    assert torch.equal(rows.y.view(2, 200), views.log_posteriors.argmax(-1))
    assert split.counts() == [{"member": 160, "test": 0, "reserve": 40}] * 2
    own = torch.arange(400) // 200 == torch.arange(2)[:, None]
    assert torch.equal(split.member | split.reserve, own)
    assert not torch.equal(split.reserve[0, :200], split.reserve[1, 200:])  # drawn, and for each network anew


@pytest.mark.parametrize("held_out, counts", [(0.0, (20, 0)), (0.25, (15, 5))])
def test_a_share_of_the_rows_is_held_out(known, held_out, counts):
    seen = known[2].reference.rows(torch.arange(20).expand(2, -1))
    _, split = state.rows(seen, known[2].seeds, held_out)
    assert [(one["member"], one["reserve"]) for one in split.counts()] == [counts] * 2
    alone = state.rows(seen[1:], known[2].seeds[1:], held_out)[1]  # drawn by the network's own seed
    assert torch.equal(alone.member[0], split.member[1, 20:])


def test_learned_from_names_the_examples_of_the_rows_that_are_not_held_out(known):
    _, split, found = known
    _, of_rows = state.rows(found.reference, found.seeds, 0.2)
    learned = state.learned_from(split, 0.2)
    assert learned.sum(1).tolist() == [160, 160]
    for i, index in enumerate(splits.indices(split.reserve)):
        assert torch.equal(learned[i, index], of_rows.member[i].view(2, 200)[i]), i
        assert not bool((learned[i] & ~split.reserve[i]).any()), i
    assert torch.equal(state.learned_from(split, 0.0), split.reserve)


def test_a_leak_of_the_reference_set_is_not_thinned_by_what_was_held_out(digits, known):
    """An attack that tells what was learned from with an AUC of 0.76, and finds nothing in what was held out."""
    _, split, _ = known
    learned = state.learned_from(split, 0.2)
    generator = torch.Generator().manual_seed(0)
    # N(1, 1) against N(0, 1): an AUC of 0.76
    signal = torch.randn(split.member.shape, generator=generator, dtype=torch.float64) + learned.double()
    found = {}
    for name, part in (("learned", learned), ("all of it", None)):
        index, member = splits.candidates(splits.as_members(split, part), 0)
        scores = [metrics.auc(*pair).value for pair in zip(member, signal.gather(1, index), strict=True)]
        found[name] = sum(scores) / len(scores)
    assert found["learned"] == pytest.approx(0.762, abs=0.04)
    assert found["all of it"] == pytest.approx(0.8 * found["learned"] + 0.2 * 0.5, abs=0.03)  # 0.709


# Chains, and a defence for each network


def test_a_chain_is_one_after_the_other():
    log_p, first, second = answers(), Shift(torch.arange(3.0)), Shift(torch.tensor([0.5, 0.0, 1.0]))
    assert torch.equal(Chain((first, second))(log_p), second(first(log_p)))
    label = Chain((second, OneHot(), first))(log_p)
    assert torch.equal(
        label, first(OneHot()(second(log_p)))
    )  # the order counts, and not each need have a state
    assert not torch.equal(label, Chain((second, first, OneHot()))(log_p))
    assert Chain(())(log_p) is log_p


@pytest.mark.parametrize("models", [[1], [2, 0], slice(1, 3)], ids=str)
def test_a_part_of_a_chain_serves_a_part_of_the_networks(models):
    log_p, chain = (
        answers(),
        Chain((Shift(torch.arange(3.0)), OneHot(), Shift(torch.tensor([0.5, 0.0, 1.0])))),
    )
    assert torch.equal(chain[models](log_p[models]), chain(log_p)[models])
    assert chain[models].defenses[1] is chain.defenses[1]  # what has no state is the same for all


@pytest.mark.parametrize("models", [[1], [2, 0], slice(1, 3)], ids=str)
def test_each_network_is_served_by_a_defence_of_its_own(models):
    log_p, own = answers(), tuple(lambda p, k=k: (k * p).log_softmax(-1) for k in (1.0, 2.0, 3.0))
    served = Each(own)(log_p)
    assert torch.equal(served, torch.stack([one(p) for one, p in zip(own, log_p, strict=True)]))
    assert torch.equal(Each(own)[models](log_p[models]), served[models])


def test_as_many_answers_as_defences():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        Each((OneHot(),))(answers(2))
