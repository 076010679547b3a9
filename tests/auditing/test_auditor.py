"""Audits of saved answers."""

import doctest
import inspect
import typing

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mialib
from mialib.auditing import Report, attacked, audit, audit_answers, auditor
from tests.auditing.conftest import made


@pytest.mark.parametrize("function", [audit, audit_answers], ids=lambda one: one.__name__)
def test_help_has_an_example_that_runs(function):
    assert getattr(mialib, function.__name__) is function
    found = doctest.DocTestFinder().find(function, function.__name__, globs={})
    assert sum(len(one.examples) for one in found) > 3
    for one in found:
        assert doctest.DocTestRunner().run(one).failed == 0


@pytest.mark.parametrize("function", [audit, audit_answers], ids=lambda one: one.__name__)
def test_editors_know_the_types(function):
    hints = typing.get_type_hints(function)
    assert set(hints) == {*inspect.signature(function).parameters, "return"} and hints["return"] is Report


def test_a_leak_is_found_and_its_numbers_are_scikit_learns(three):
    report = audit_answers(*three, control="longer")
    assert report.verdict("pruned") == "leaks more" and report.baseline == "original"
    for one in report.networks.values():
        assert one.judged.auc.value == pytest.approx(
            roc_auc_score(one.judged.member, one.judged.margin), abs=1e-12
        )
    answers, labels, member = three
    right = answers["pruned"].argmax(1) == labels
    assert report.networks["pruned"].accuracy[0].value == right[member].mean()
    assert report.networks["pruned"].accuracy[1].value == right[~member].mean()


def test_the_form_of_the_answers_changes_nothing(three):
    answers, labels, member = three
    kinds = {
        "original": answers["original"],
        "pruned": torch.from_numpy(answers["pruned"]).softmax(1),
        "longer": torch.from_numpy(answers["longer"]).log_softmax(1),
    }
    one, two = audit_answers(*three), audit_answers(kinds, np.eye(4)[labels], member.tolist())
    assert two.networks["pruned"].judged.auc.value == pytest.approx(
        one.networks["pruned"].judged.auc.value, abs=1e-9
    )
    assert any("pruned: posteriors, longer: log-posteriors" in finding.text for finding in two.findings)


def test_the_order_of_the_examples_changes_no_verdict(three):
    answers, labels, member = three
    order = np.random.default_rng(0).permutation(len(labels))
    turned = audit_answers({k: v[order] for k, v in answers.items()}, labels[order], member[order])
    assert turned.verdict("pruned") == "leaks more" and turned.verdict("longer") != "leaks more"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [1, 2]}, "must be a mapping"),
        ({"answers": {}}, "must be a mapping"),
        ({"answers": {"a": made(0)[0], "b": made(0)[0][:-1]}}, "same examples and classes"),
        (
            {"baseline": "orginal"},
            "baseline names 'orginal', did you mean 'original'.; the networks are original, pruned, longer",
        ),
        ({"control": "none"}, "control names 'none'"),
        ({"control": "original"}, "control and baseline are both 'original'"),
        ({"columns": {"nobody": {}}}, "columns names 'nobody'"),
    ],
)
def test_what_does_not_fit_is_named(three, change, message):
    given = dict(zip(("answers", "labels", "member"), three, strict=True))
    with pytest.raises(ValueError, match=message):
        audit_answers(**given | change)


def test_the_baseline_is_the_first_where_none_is_called_original(three):
    answers, *rest = three
    assert audit_answers({"dense": answers["original"], "int8": answers["longer"]}, *rest).baseline == "dense"


def test_one_network_alone_is_measured(three):
    answers, *rest = three
    report = audit_answers({"a": answers["pruned"]}, *rest)
    assert report.compared == [] and "0.5 is guessing" in report.sentences[0]
    report.check()  # nothing is compared, nothing rises


def test_findings_come_before_numbers(three):
    report = audit_answers(*three, accuracy=0.99)
    assert any(one.about == "accuracy" for one in report.findings)
    assert report.assumed == (attacked.BY_HALF, *auditor.ASSUMED)


# The networks themselves


@pytest.fixture(scope="module")
def networks():
    """An overfit network, one stopped early, its members and others."""
    torch.manual_seed(0)
    x = torch.randn(400, 20)
    y = torch.randint(0, 3, (400,))
    found = {}
    for name, steps in (("original", 60), ("early", 2)):
        network = torch.nn.Sequential(torch.nn.Linear(20, 128), torch.nn.ReLU(), torch.nn.Linear(128, 3))
        adam = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(steps):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(network(x[:200]), y[:200]).backward()
            adam.step()
        found[name] = network
    return found, (x[:200], y[:200]), (x[200:], y[200:])


def test_networks_give_what_their_saved_answers_give(networks):
    found, members, others = networks
    x, y = (torch.cat(pair) for pair in zip(members, others, strict=True))
    with torch.no_grad():
        answers = {name: network(x) for name, network in found.items()}
    saved = audit_answers(answers, y, torch.arange(400) < 200)
    asked = audit(found, members, others, batch_size=64)
    assert asked.networks["early"].judged.auc == saved.networks["early"].judged.auc
    assert asked.verdict("early") == "leaks less" and asked.sentences == saved.sentences


def test_a_control_may_be_a_network_or_a_name(networks):
    found, *data = networks
    by_name = audit(found | {"other": found["original"]}, *data, control="other")
    given = audit(found, *data, control=found["original"])
    assert (by_name.control, given.control) == ("other", "control")
    assert by_name.sentences[0] == given.sentences[0] and given.compared == ["early"]
    with pytest.raises(ValueError, match="rename"):
        audit(found | {"control": found["early"]}, *data, control=found["original"])


def test_networks_may_have_controls_of_their_own(networks):
    found, *data = networks
    more = found | {"copy": found["original"]}
    one = audit(more, *data, control={"early": found["original"], "copy": torch.nn.Linear(20, 3)})
    assert one.control == {"early": "control of early", "copy": "control of copy"}
    assert list(one.networks) == [*more, "control of early", "control of copy"]
    assert one.compared == ["early", "copy"] and one.pictures == {}


def test_pictures_of_the_most_exposed_are_kept():
    torch.manual_seed(0)
    x, y = torch.rand(120, 1, 8, 8), torch.randint(0, 3, (120,))
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    report = audit({"a": flat, "b": torch.nn.Sequential(flat)}, (x[:60], y[:60]), (x[60:], y[60:]))
    shown = report.worst("b")["example"]
    assert all(np.allclose(report.pictures[row], x[row], atol=1e-6) for row in shown)
    assert f"examples {shown[0]} (class" in report.gallery("b").alt
    assert report._repr_html_().count('alt="The pictures that the attack on') == 2


def test_a_network_that_is_not_steady_is_warned_of(networks):
    found, *data = networks
    report = audit({"original": lambda x: found["original"](x) + torch.randn(len(x), 3)}, *data)
    assert any(one.about == "unsteady" and one.kind == "warning" for one in report.findings)


def test_a_missing_network_is_told_before_the_data_are_read(networks):
    def read():
        raise AssertionError

    with pytest.raises(ValueError, match="no file or folder .*none.onnx"):
        audit({"original": networks[0]["early"], "pruned": "none.onnx"}, read, read)


def test_networks_are_a_mapping(networks):
    with pytest.raises(ValueError, match="must be a mapping from names to networks, found Sequential"):
        audit(networks[0]["early"], *networks[1:])


# What people get wrong


def test_exchanged_sets_have_no_verdict(three):
    answers, labels, member = three
    report = audit_answers({"original": answers["pruned"], "other": answers["pruned"]}, labels, ~member)
    assert "exchanged" in report.refused and report.sentences == [f"No verdict: {report.refused}"]


def test_a_network_that_is_much_worse_is_warned_of(three):
    answers, labels, member = three
    worse = answers["original"] + 3 * np.random.default_rng(1).normal(size=answers["original"].shape)
    report = audit_answers({"original": answers["original"], "worse": worse}, labels, member)
    assert [one.network for one in report.findings if "normalised as it wants them" in one.text] == ["worse"]


def test_rounding_is_told_and_not_taken_for_protection(three):
    answers, labels, member = three
    rounded = torch.from_numpy(answers["original"]).softmax(1).numpy().round(2)
    report = audit_answers({"original": answers["original"], "rounded": rounded}, labels, member)
    assert [one.network for one in report.findings if one.about == "rounded"] == ["rounded"]
    assert report.networks["rounded"].kind == "posteriors"


def test_the_control_says_nothing_of_a_network_that_was_not_changed_further(three):
    answers, labels, member = three
    copies = answers | {"copy": answers["original"]}
    said = audit_answers(copies, labels, member, control="longer").sentences
    assert sum("Against longer" in one for one in said) == 1


# Imitations


def test_a_recipe_is_run_and_its_imitations_find_more(networks, tmp_path):
    """Labels are noise: what is known of an example is known from the network alone."""
    found, members, others = networks

    def train(data):
        network = torch.nn.Sequential(torch.nn.Linear(20, 128), torch.nn.ReLU(), torch.nn.Linear(128, 3))
        adam = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(60):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
            adam.step()
        return network

    shadows = mialib.Shadows(
        train, lambda network, data: {"halved": Halved(network)}, n=4, folder=tmp_path, canaries=10
    )
    ours = {"original": found["original"], "halved": Halved(found["original"])}
    report = audit(ours, members, others, shadows=shadows)
    assert report.attacked.imitations == 4 and report.networks["original"].judged.auc.low > 0.8
    assert len(list(tmp_path.glob("*.npz"))) == 8 and report.attacked.canaries["halved"].auc.value > 0.9
    assert report.difference("halved").anew.low <= 0 <= report.difference("halved").anew.high
    assert any("4 imitations" in one for one in report.assumed)


class Halved(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) / 2


def test_nothing_is_trained_where_no_verdict_can_be_given(networks):
    found, members, _ = networks

    def never(data):
        raise AssertionError

    report = audit({"original": found["original"]}, members, members, shadows=mialib.Shadows(never))
    assert report.refused and report.attacked.imitations == 0
    assert any(one.text == auditor.NOT_TRAINED for one in report.findings)


def test_saved_answers_of_imitations_are_taken(three, halves):
    member, theirs = halves
    report = audit_answers(*three, shadows=mialib.Shadows.from_answers(theirs, member))
    assert report.verdict("pruned") == "leaks more" and report.difference("pruned").anew.low > 0
    with pytest.raises(ValueError, match="no answers of imitations of pruned, longer"):
        audit_answers(*three, shadows=mialib.Shadows.from_answers({"original": theirs["original"]}, member))


def test_shadows_of_another_kind_are_named(three):
    with pytest.raises(ValueError, match="shadows is a .*; it must be mialib.Shadows"):
        audit_answers(*three, shadows=[1])
    with pytest.raises(ValueError, match="their inputs are not given; call mialib.audit"):
        audit_answers(*three, shadows=mialib.Shadows(print))


def test_imitations_that_are_none_forbid_a_verdict(three, halves):
    member, theirs = halves
    noise = {name: np.random.default_rng(0).normal(size=one.shape) for name, one in theirs.items()}
    report = audit_answers(*three, shadows=mialib.Shadows.from_answers(noise, member))
    assert report.verdict("pruned") == "cannot tell" and "no good imitations" in report.refused
    assert report.outcome("auc_increase > 0.9").outcome == "cannot tell"


def test_a_copy_is_no_reason_to_fear_an_attacker_with_both(three):
    answers, *rest = three
    report = audit_answers(answers | {"copy": answers["original"] / 2}, *rest)
    assert not any("holds both" in one for one in report.sentences)
    assert not any("holding" in title for title in report.table.columns)


def test_rounded_probabilities_are_no_logits(three):
    """As a server sends them: rounded, in 32 bits; rows no longer sum to one."""
    answers, *rest = three
    posteriors = torch.from_numpy(answers["original"]).softmax(1).numpy()
    for digits in (1, 2, 3, 4):
        rounded = posteriors.astype(np.float32).round(digits)
        report = audit_answers({"original": posteriors, "rounded": rounded}, *rest)
        assert report.networks["rounded"].kind == "posteriors" and report.verdict("rounded") != "leaks more"
        assert any(f"rounded to {digits} digit" in one.text for one in report.findings)
    sigmoid = 1 / (1 + np.exp(-answers["original"]))
    report = audit_answers({"original": sigmoid}, *rest)
    assert any(one.kind == "warning" and "taken for logits" in one.text for one in report.findings)


def test_a_handful_of_examples_has_no_verdict(three):
    answers, labels, member = three
    few = np.r_[0:20, 780:800]
    report = audit_answers({name: one[few] for name, one in answers.items()}, labels[few], member[few])
    assert (
        "proves nothing either way" in report.refused
        and report.outcome("auc_increase > 0.02").outcome == "cannot tell"
    )


def test_wrong_labels_of_the_others_alone_are_warned_of(three):
    answers, labels, member = three
    labels = labels.copy()
    labels[~member] = (labels[~member] + 1) % 4
    report = audit_answers(*[{"original": answers["pruned"]}, labels, member])
    assert any("right for the others no more often than by chance" in one.text for one in report.findings)
