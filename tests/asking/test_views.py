"""What an attacker sees of models, of which part, and what it cannot see: who the target's members are."""

import math
import re
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch

from mialib import asking, training
from mialib.asking import Inputs, Views
from mialib.attacks import blindmi, neural, threshold
from mialib.data import Splits, splits
from mialib.training import Recipe, population
from tests.asking.test_doors import Divided, flatter
from tests.models.test_classifiers import CNN

EVERY_ATTACK = dict(threshold.ATTACKS) | {"blindmi": blindmi.BlindMIDiff()} | neural.attacks(
    Recipe(1, 16), trainings=2
)  # fmt: skip


def test_views_hold_what_was_asked_for(toy, steep):
    index = torch.arange(10).view(2, 5)
    plain = asking.ask(steep, toy, index, sensitive=False)
    assert plain.sensitivity is None and plain.x is None and plain.query is None
    assert torch.equal(plain.labels, toy.y[index])
    full = asking.ask(steep[:1], toy, index[:1], probes=True)
    assert torch.equal(full.sensitivity, asking.sensitivity(steep[:1], toy, index[:1]))
    assert full.x.shape == toy.inputs(index[:1]).shape
    assert torch.equal(full.x[0], toy.inputs(index[0]))
    assert torch.allclose(full.query(full.x[0][None]), full.log_posteriors)
    both = asking.ask(steep, toy, index, probes=True)
    assert len(both) == 2 and torch.equal(both[1:].log_posteriors, both.log_posteriors[1:])


def test_queries_leave_the_models_as_they_are(digits):
    pop = population.initial(CNN, [0])
    before = {name: tensor.clone() for name, tensor in (pop.params | pop.buffers).items()}
    asking.ask(pop, digits, torch.arange(40)[None], probes=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in (pop.params | pop.buffers).items())


def test_serving_changes_the_answers_and_hides_the_sensitivity(toy, steep):
    seen = asking.ask(steep[:1], toy, torch.arange(5)[None], probes=True)
    served = asking.serve(seen, flatter)
    assert torch.equal(served.log_posteriors, flatter(seen.log_posteriors)) and served.sensitivity is None
    x = seen.x[0][None]
    assert torch.equal(served.query(x), flatter(seen.query(x)))


def inputs_of(seen):
    return torch.stack([seen.x[i] for i in range(len(seen))])


def test_each_model_is_asked_its_own_inputs(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False, probes=True)
    x = inputs_of(seen)
    assert torch.allclose(seen.query(x), seen.log_posteriors)
    assert not torch.allclose(seen.query(x.flip(0)), seen.log_posteriors, atol=1e-2)
    with pytest.raises(ValueError):
        seen.query(x[:1])  # two models, one batch


@pytest.mark.parametrize("part", [[1], slice(1, 2), [1, 0], slice(None)], ids=str)
def test_a_part_of_the_views_has_its_own_inputs_and_doors(toy, steep, part):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), probes=True)
    some = seen[part]
    assert torch.equal(inputs_of(some), inputs_of(seen)[part]) and torch.equal(some.labels, seen.labels[part])
    assert torch.equal(some.sensitivity, seen.sensitivity[part])
    assert torch.allclose(some.query(inputs_of(some)), seen.log_posteriors[part])


def test_a_part_of_the_views_asks_plain_functions_as_they_are():
    log_p = torch.zeros(3, 4, 2).log_softmax(-1).double()
    seen = Views(log_p, torch.zeros(3, 4).long(), x=torch.zeros(3, 4, 6), query=torch.exp)
    assert seen[[2]].query is torch.exp and seen[[2]].x.shape == (1, 4, 6)
    assert Views(log_p, seen.labels)[1:].query is None


@pytest.mark.parametrize("part", [[1], slice(0, 1), [1, 0]], ids=str)
def test_a_defence_with_one_state_a_model_is_sliced_with_the_views(toy, steep, part):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False, probes=True)
    served = asking.serve(seen, Divided(torch.tensor([2.0, 3.0]).double()))
    assert torch.equal(served.log_posteriors[1], (seen.log_posteriors[1] / 3).log_softmax(-1))
    some = served[part]
    assert torch.allclose(some.query(inputs_of(some)), served.log_posteriors[part])


def test_answers_are_the_views_without_inputs_and_door(toy, steep):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), probes=True)
    plain = seen.answers()
    assert plain.x is None and plain.query is None
    assert plain.log_posteriors is seen.log_posteriors and plain.sensitivity is seen.sensitivity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log_posteriors": torch.zeros(1, 4, 3)}, r"must be torch.float64; pass log_posteriors.double\(\)"),
        (
            {"log_posteriors": np.zeros((1, 4, 3))},
            "views: log_posteriors is a numpy.ndarray of float64, must be a torch",
        ),
        ({"sensitivity": np.zeros((1, 4, 3))}, "views: sensitivity is a numpy.ndarray"),
        ({"labels": torch.zeros(1, 4)}, r"labels is torch.float32, must be torch.int64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels must be \(1, 4\)"),
    ],
)
def test_views_refuse_what_does_not_fit(changes, words):
    common = {
        "log_posteriors": torch.zeros(1, 4, 3).log_softmax(-1).double(),
        "labels": torch.zeros(1, 4, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=words):
        Views(**common | changes)


ROWS = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)


def with_row(*values):
    """Answers of two models of which one row, that of model 1 and example 3, is another."""
    changed = ROWS.clone()
    changed[1, 3] = torch.tensor(values).double()
    return changed


NOT_POSTERIORS = {
    "a nan": (with_row(math.nan, 0.0, -math.inf), "holds nan"),
    "logits": (with_row(2.0, 1.0, -1.0), "sums to 10.48"),
    "posteriors": (with_row(0.5, 0.3, 0.2), "sums to 4.22"),
    "nothing": (with_row(-math.inf, -math.inf, -math.inf), "sums to 0"),
    "too much": (with_row(math.inf, 0.0, 0.0), "sums to inf"),
    "a sum beside one": (with_row(*torch.tensor([0.5, 0.3, 0.197]).log()), "sums to 0.997"),
}


@pytest.mark.parametrize("case", NOT_POSTERIORS)
def test_views_refuse_what_is_no_posterior_and_say_where(case):
    answers, words = NOT_POSTERIORS[case]
    found = f"views: 1 of 10 rows are no log-posteriors; that of model 1, example 3 {words}"
    with pytest.raises(ValueError, match=re.escape(found)):
        Views(answers, torch.zeros(2, 5, dtype=torch.int64))
    seen = Views(ROWS, torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=re.escape(found)):
        replace(seen, log_posteriors=answers)
    with pytest.raises(ValueError, match=re.escape(found.replace("views", "what <lambda> serves"))):
        asking.serve(seen, lambda log_p: answers)


@pytest.mark.parametrize(
    "answers",
    [
        with_row(0.0, -math.inf, -math.inf),
        with_row(*torch.tensor([0.3333, 0.3333, 0.3333]).log()),
        ROWS.exp().half().log().double(),
    ],
    ids=["one class", "rounded", "half precision"],
)
def test_views_take_classes_without_probability_and_rounded_posteriors(answers):
    assert torch.equal(Views(answers, torch.zeros(2, 5, dtype=torch.int64)).log_posteriors, answers)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_views_refuse_a_sensitivity_that_is_not_finite(value):
    moved = torch.zeros(2, 5, 3).double()
    moved[0, 1, 2] = value
    with pytest.raises(ValueError, match="1 of 30 numbers of the sensitivity are nan or infinite"):
        Views(ROWS, torch.zeros(2, 5, dtype=torch.int64), moved)


def test_answers_are_looked_at_once_and_parts_of_views_not_again(monkeypatch):
    looked, real = [], asking.posteriors.check_rows
    monkeypatch.setattr(
        asking.posteriors, "check_rows", lambda log_p, what: looked.append(what) or real(log_p, what)
    )
    seen = Views(ROWS, torch.zeros(2, 5, dtype=torch.int64), ROWS.exp(), query=torch.exp)
    parts = [seen[1:], seen[[0]].rows(torch.tensor([[2, 1]])), seen.answers(), asking.together([seen, seen])]
    assert looked == ["views"] and [len(part) for part in parts] == [1, 1, 2, 4]
    asking.serve(seen, flatter)
    assert looked == ["views", "what flatter serves"]


def test_views_behind_a_defence_do_not_hold_what_it_was_given():
    seen = Views(ROWS, torch.zeros(2, 5, dtype=torch.int64))
    held = [value for value in vars(asking.serve(seen, flatter)).values() if value is not None]
    flat = [one for value in held for one in (value if isinstance(value, tuple) else [value])]
    assert not any(one is seen.log_posteriors for one in flat)


def test_no_attack_judges_a_network_that_answers_with_nan(toy, steep):
    """BlindMI called all of its candidates members."""
    diverged = replace(steep, params={name: p * math.nan for name, p in steep.params.items()})
    with pytest.raises(ValueError, match="20 of 20 rows are no log-posteriors.*holds nan"):
        asking.ask(diverged, toy, torch.arange(10), sensitive=False, probes=True)


@pytest.mark.parametrize("models", [[], [0, 1]], ids=["none", "two"])
def test_a_target_is_one_model(toy, steep, models):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=False)
    seen[[1]].check_single()
    with pytest.raises(
        ValueError, match=f"target must be the views of one model.*found {len(models)} models"
    ):
        seen[models].check_single()


@pytest.mark.parametrize(
    ("part", "shared"), [([1, 2], True), ([2], True), (slice(1, 3), True), ([0, 2], False), ([2, 1], False)]
)
def test_models_that_follow_each_other_share_the_memory_of_all(part, shared):
    answers = torch.randn(3, 4, 5, dtype=torch.float64).log_softmax(-1)
    whole = Views(answers, torch.zeros(3, 4, dtype=torch.int64), torch.rand(3, 4, 5, dtype=torch.float64))
    some = whole[part]
    for name in ("log_posteriors", "labels", "sensitivity"):
        kept, mine = getattr(whole, name), getattr(some, name)
        assert torch.equal(mine, kept[part])
        assert (mine.untyped_storage().data_ptr() == kept.untyped_storage().data_ptr()) is shared
        sent = getattr(some.answers(), name)  # of others nothing goes along to other processes
        assert torch.equal(sent, mine) and sent.untyped_storage().nbytes() == mine.nbytes


@pytest.mark.parametrize("made", [True, False], ids=["a tensor", "on demand"])
def test_rows_are_each_models_own_choice_of_its_candidates(toy, steep, made):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), probes=True)
    if made:
        seen = replace(seen, x=inputs_of(seen))
    index = torch.tensor([[4, 0, 0], [1, 2, 3]])
    some = seen.rows(index)
    for i in range(2):
        own = index[i]
        assert torch.equal(some.log_posteriors[i], seen.log_posteriors[i][own]), i
        assert torch.equal(some.labels[i], seen.labels[i][own]), i
        assert torch.equal(some.sensitivity[i], seen.sensitivity[i][own]), i
        assert torch.equal(some.x[i], seen.x[i][own]), i
    assert torch.allclose(some.query(inputs_of(some)), some.log_posteriors)


def test_rows_of_bare_answers_are_bare():
    log_p = torch.rand(2, 5, 3).double().log_softmax(-1)
    some = Views(log_p, torch.zeros(2, 5, dtype=torch.int64)).rows(torch.tensor([[1], [4]]))
    assert torch.equal(some.log_posteriors, torch.stack([log_p[0, 1:2], log_p[1, 4:]]))
    assert some.sensitivity is some.x is some.query is None


def test_inputs_look_like_the_tensor_that_they_would_be(toy):
    index = torch.arange(10).view(2, 5)
    lazy, whole = Inputs(toy, index), toy.inputs(index)
    assert lazy.shape == whole.shape and lazy.ndim == whole.ndim
    assert torch.equal(lazy[1], whole[1]) and torch.equal(lazy[-1], whole[-1])
    assert isinstance(lazy[1:], Inputs) and torch.equal(lazy[[1, 0]][0], whole[1])


@pytest.mark.parametrize("sensitive", [True, False])
def test_targets_are_put_together_without_their_doors(toy, steep, sensitive):
    seen = asking.ask(steep, toy, torch.arange(10).view(2, 5), sensitive=sensitive, probes=True)
    joined = asking.together([seen[[1]], seen[[0]]])
    assert torch.equal(joined.log_posteriors, seen.log_posteriors[[1, 0]])
    assert torch.equal(joined.labels, seen.labels[[1, 0]])
    assert joined.x is None and joined.query is None
    if sensitive:
        assert torch.equal(joined.sensitivity, seen.sensitivity[[1, 0]])
    else:
        assert joined.sensitivity is None


# The target's members are not among what is seen


@pytest.fixture(scope="module")
def trained(digits):
    split = splits.target_shadow(len(digits), 1, 2, seed=0, n_train=40)
    return split, training.fit(CNN, digits, split, Recipe(3, 16))


@pytest.fixture(scope="module")
def exchanged(digits, trained):
    """What attacks see of the target as it is, and with its members and test examples exchanged in the split."""
    split, pop = trained
    swapped = Splits(
        torch.cat([split.test[:1], split.member[1:]]),
        torch.cat([split.member[:1], split.test[1:]]),
        split.reserve,
        split.seeds,
    )
    seen = []
    for one in (split, swapped):
        index, member = splits.candidates(one, seed=0)
        target = asking.ask(pop[:1], digits, index[:1], probes=True)
        seen.append((index, member, target, asking.ask(pop[1:], digits, index[1:])))
    return seen


def test_exchanging_members_and_nonmembers_leaves_the_candidates_order(exchanged):
    (index, member, *_), (other_index, other_member, *_) = exchanged
    assert torch.equal(index, other_index)
    assert torch.equal(member[0], ~other_member[0]) and torch.equal(member[1:], other_member[1:])


@pytest.mark.parametrize("name", EVERY_ATTACK)
def test_no_attack_can_tell_when_the_targets_members_are_exchanged(exchanged, name):
    margins = [EVERY_ATTACK[name](target, shadows, member[1:], 0) for _, member, target, shadows in exchanged]
    assert torch.equal(*margins)
    assert len(set(margins[0].tolist())) > 1  # and they are not all the same anyway


@pytest.mark.parametrize("name", EVERY_ATTACK)
def test_every_attack_gives_one_finite_margin_a_candidate_and_the_same_again(exchanged, name):
    _, member, target, shadows = exchanged[0]
    margins, again = (EVERY_ATTACK[name](target, shadows, member[1:], 0) for _ in range(2))
    assert margins.shape == (80,) and margins.dtype == torch.float64 and bool(margins.isfinite().all())
    assert torch.equal(margins, again)


@pytest.mark.slow
def test_processes_give_the_same_answers(digits, trained):
    split, pop = trained
    index, _ = splits.candidates(split, seed=0)
    alone = asking.ask(pop, digits, index)
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1):
        shared = asking.ask(pop, digits, index)
    assert torch.equal(alone.log_posteriors, shared.log_posteriors) and torch.equal(
        alone.sensitivity, shared.sensitivity
    )


def test_what_is_public_goes_with_its_models_and_is_served_alike(toy, steep):
    seen, known = (
        asking.ask(steep, toy, index, sensitive=False, probes=True)
        for index in (torch.arange(10).view(2, 5), torch.arange(10, 14).expand(2, -1))
    )
    both = replace(seen, public=known)
    assert torch.equal(both[[1]].public.log_posteriors, known.log_posteriors[1:])
    assert both.rows(torch.zeros(2, 1, dtype=torch.int64)).public is known and both.answers().public is None
    served = asking.serve(both, flatter)
    assert torch.equal(served.public.log_posteriors, flatter(known.log_posteriors))
    with pytest.raises(ValueError, match="public must be of 2 models, found 1"):
        replace(seen, public=known[[0]])


# Several versions


def with_others():
    """Views of two models with two other versions of each."""
    others = torch.stack([ROWS.flip(1), ROWS.flip(2)])
    return Views(ROWS, torch.arange(10).view(2, 5) % 3, ROWS.exp(), beside=others), others


def test_other_versions_go_where_their_models_and_candidates_go():
    seen, others = with_others()
    assert torch.equal(seen[[1]].beside, others[:, 1:]) and torch.equal(seen[1:].beside, others[:, 1:])
    index = torch.tensor([[4, 0], [2, 2]])
    assert torch.equal(seen.rows(index).beside[:, 1], others[:, 1][:, [2, 2]])
    assert torch.equal(seen.rows(index).beside[1, 0], others[1, 0][[4, 0]])
    assert seen.answers().beside is others
    assert torch.equal(asking.together([seen[[1]], seen[[0]]]).beside, others[:, [1, 0]])
    assert asking.together([replace(seen, beside=None)] * 2).beside is None
    assert asking.serve(seen, flatter).beside is None  # they were not served


def test_versions_are_put_beside_each_other_in_their_order():
    seen, others = with_others()
    first = replace(seen, beside=None)
    one, two = (replace(first, log_posteriors=other) for other in others)
    assert torch.equal(asking.with_versions(first, [one, two]).beside, others)
    assert torch.equal(asking.with_versions(asking.with_versions(first, [one]), [two]).beside, others)
    for other in (replace(one, labels=(one.labels + 1) % 3), one[[0]]):
        with pytest.raises(ValueError, match="versions of a model answer to the same candidates"):
            asking.with_versions(first, [other])


@pytest.mark.parametrize(
    "beside, words",
    [
        (ROWS, r"beside is \(2, 5, 3\), must be \('v', 2, 5, 3\)"),
        (ROWS[None, :1], r"beside is \(1, 1, 5, 3\)"),
        (torch.empty(0, 2, 5, 3).double(), r"beside is \(0, 2"),
        (ROWS[None].float(), "beside is torch.float32, must be torch.float64"),
        (torch.stack([ROWS, with_row(2.0, 1.0, -1.0)]), r"views: beside\[1\]: 1 of 10 rows are no log-post"),
    ],
    ids=["no axis", "fewer models", "none", "type", "logits"],
)
def test_views_refuse_versions_that_do_not_fit(beside, words):
    with pytest.raises(ValueError, match=words):
        Views(ROWS, torch.zeros(2, 5, dtype=torch.int64), beside=beside)


def test_versions_are_looked_at_once(monkeypatch):
    seen, _ = with_others()
    monkeypatch.setattr(asking.posteriors, "check_rows", None)
    assert [len(part) for part in (seen[1:], seen[[0]].rows(torch.tensor([[1]])), seen.answers())] == [
        1,
        1,
        2,
    ]
    assert asking.together([seen, seen]).beside.shape == (2, 4, 5, 3)
