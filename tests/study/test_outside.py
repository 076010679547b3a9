"""A study from saved answers."""

import pytest
import torch

from mialib.attacks import threshold
from mialib.study import outside


@pytest.fixture(scope="module")
def saved():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=generator)
    member = torch.arange(60) < 25
    answers = {name: torch.randn(60, 3, generator=generator).double().log_softmax(1) for name in ("a", "b")}
    return answers, labels, member


def test_each_network_answers_for_its_examples_in_the_order_of_attack(saved):
    answers, labels, member = saved
    study = outside.of_answers(*saved, name="mine", model="cnn")
    index = study.roles.index[0]
    assert sorted(index.tolist()) == list(range(60)) and index.tolist() != list(range(60))
    for key in "ab":
        (target,) = study.arms[key].targets()
        assert torch.equal(target.log_posteriors[0], answers[key][index])
        assert torch.equal(target.labels[0], labels[index])
    assert torch.equal(study.member[0], member[index])
    study.attack({"confidence_global": threshold.ATTACKS["confidence_global"]}, knowing="half")
    row = study.rows[0]
    assert (row["dataset"], row["model"], row["protocol"]) == ("mine", "cnn", "known_half")
    assert {one["variant"] for one in study.rows} == {"a", "b"}
    who = study.attacker(study.arms["a"], knowing="half")
    assert torch.equal(member[who.scored[0]], who.member[0]) and len(who.scored[0]) == 31


def test_what_does_not_fit_is_refused(saved):
    answers, labels, member = saved
    with pytest.raises(ValueError, match="same 60 examples, found {}"):
        outside.of_answers({}, labels, member)
    with pytest.raises(ValueError, match="same 60 examples, found .*'b'"):
        outside.of_answers(answers | {"b": answers["b"][:-1]}, labels, member)


def test_imitations_stand_beside_the_network(saved):
    _, labels, member = saved
    generator = torch.Generator().manual_seed(1)
    answers = {
        name: torch.randn(5, 60, 3, generator=generator).double().log_softmax(2) for name in ("a", "b")
    }
    half = torch.rand(2, 60, generator=generator).argsort(1) < 30
    everyone = torch.cat([member[None], half[:1], ~half[:1], half[1:], ~half[1:]])
    study = outside.of_imitated(answers, labels, everyone, beside="a")
    assert list(study.arms) == ["a", "b", outside.both_key("b", "a")] and len(study) == 5
    index = study.roles.index[0]
    for number, target in enumerate(study.arms["b"].targets()):
        assert torch.equal(target.log_posteriors[0], answers["b"][number][index])
    assert torch.equal(study.arms["b"].shadows().log_posteriors, answers["b"][:, index])
    assert study.arms["b, with a"].answers.versions == 1
    with pytest.raises(ValueError, match=r"\(5, 'n', 'c'\).*same 60 examples.*\(4, 60, 3\)"):
        outside.of_imitated({"a": answers["a"][:4]}, labels, everyone)


def test_canaries_have_targets_of_their_own(saved):
    _, labels, _ = saved
    generator = torch.Generator().manual_seed(1)
    answers = torch.randn(6, 60, 3, generator=generator).double().log_softmax(2)
    coins = torch.rand(3, 60, generator=generator) < 0.5
    member = torch.stack([side for coin in coins for side in (coin, ~coin)])
    study = outside.of_canaries({"a": answers}, labels, member)
    assert study.roles.targets == [0, 2, 4] and study.roles.teachers[0] == [2, 3, 4, 5]
    index = study.roles.index[0]
    assert torch.equal(study.member, member[[0, 2, 4]][:, index])
    assert torch.equal(study.arms["a"].targets()[1].log_posteriors[0], answers[2][index])
