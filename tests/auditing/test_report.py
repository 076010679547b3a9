"""The report: verdict, table, examples, gate, JSON."""

import json

import numpy as np
import pytest

from mialib.auditing import CannotTell, Finding, LeaksMore, Shadows, audit_answers, report
from mialib.measures import metrics
from tests.auditing.conftest import made


@pytest.fixture(scope="module")
def found(three):
    return audit_answers(*three, control="longer", columns={"pruned": {"sparsity": "70 %"}})


def test_it_says_the_verdict_first(found):
    assert found.sentences[0].startswith("pruned leaks more than original: ")
    assert found.sentences[1].startswith(
        "Against longer, trained further for as long but not compressed, pruned leaks more too"
    )
    assert " ".join(str(found).split()).startswith(" ".join(found.sentences))
    assert "verdict" in str(found) and found._repr_html_().startswith('<div class="mialib"><h1>')


def test_without_a_control_it_warns_in_one_sentence(three):
    alone = audit_answers(*three)
    assert alone.sentences[-1].startswith("No control was given") and alone.compared == ["pruned", "longer"]


def test_the_table_has_a_line_for_each_network(found):
    assert any(one.startswith("The best attack on original itself has an AUC of ") for one in found.sentences)
    table = found.table
    assert table.index.tolist() == ["original", "pruned", "longer"]
    assert table.loc["pruned", "sparsity"] == "70 %" and table.loc["pruned", "verdict"] == "leaks more"
    assert (
        table.loc["original", "AUC minus that of original"]
        == ""
        == table.loc["longer", "AUC minus that of longer"]
    )
    assert table.loc["pruned", "AUC minus that of original"].startswith("+0.")


def test_the_worst_by_hand(found):
    one, shown = found.networks["pruned"].judged, found.worst("pruned", 3)
    order = np.argsort(-np.where(one.member, one.margin, -np.inf), kind="stable")[:3]
    assert shown["example"].tolist() == one.example[order].tolist()
    for margin, wrongly in zip(shown["margin"], shown["others as suspicious"], strict=True):
        assert wrongly == pytest.approx((one.margin[~one.member] >= margin).mean())
    assert found.worst().equals(found.worst("pruned")) and found.classes().equals(found.classes("pruned"))
    with pytest.raises(ValueError, match="no network 'int8'; there are original, pruned, longer"):
        found.worst("int8")


def test_classes_by_hand(found):
    one, shown = found.networks["pruned"].judged, found.classes("pruned")
    assert len(shown) == 4 and shown["AUC"].is_monotonic_decreasing
    label = shown.index[0]
    here = one.label == label
    assert shown.loc[label, "AUC"] == metrics.auc(one.member[here], one.margin[here]).value
    assert shown.loc[label, "members"] == (one.member & here).sum()


def test_the_gate(found, three):
    with pytest.raises(LeaksMore, match="auc rises by more than 0.02: pruned"):
        found.check()
    found.check(max_increase=0.6)
    with pytest.raises(CannotTell, match="tpr_at_0.001.*pruned"):  # too few non-members
        found.check(metric="tpr_at_0.001")
    with pytest.raises(ValueError, match="metric is 'accuracy'; it must be one of auc, "):
        found.check(metric="accuracy")
    small = audit_answers({k: v for k, v in three[0].items() if k != "pruned"}, *three[1:])
    with pytest.raises(CannotTell):
        small.check(max_increase=0.0)


def test_a_gates_outcome_does_not_raise(found):
    assert found.outcome("auc_increase > 0.6") == (
        "auc_increase > 0.6",
        "passed",
        "no rise of auc above 0.6",
        [],
    )
    failed = found.outcome("auc_increase over control > 0.02")
    assert failed.outcome == "failed" and failed.networks == ["pruned"]
    assert found.outcome("tpr_at_0.001_increase > 0").outcome == "cannot tell"
    with pytest.raises(LeaksMore, match="rises over control by more than 0.02: pruned"):
        found.check(than="control")
    with pytest.raises(ValueError, match="than names 'loner', did you mean 'longer'"):
        found.outcome("auc_increase over loner > 0.02")


def test_each_network_may_have_its_own_control(three):
    """purified leaks as much as its control, which was changed for longer than that of pruned."""
    answers, labels, member = three
    four = answers | {"longest": made(2.0, noise=5)[0], "purified": made(2.0, noise=6)[0]}
    one = audit_answers(four, labels, member, control={"pruned": "longer", "purified": "longest"})
    assert one.compared == ["pruned", "purified"] and one.control_of("purified") == "longest"
    against = [text for text in one.sentences if text.startswith("Against")]
    assert "longer" in against[0] and "pruned leaks more too" in against[0]
    assert "longest" in against[1] and "leaks more too" not in against[1]
    cells = one.table["AUC minus that of its control"]
    assert cells["pruned"].endswith("] (longer)") and cells["purified"].endswith("] (longest)")
    assert cells["original"] == cells["longer"] == ""
    assert one.outcome("auc_increase over control > 0.1").networks == ["pruned"]
    assert one.outcome("auc_increase > 0.1").networks == ["pruned", "purified"]
    assert not any("No control was given" in text for text in one.sentences)


def test_networks_without_a_control_are_named(three):
    answers, *rest = three
    more = answers | {"int8": answers["original"] + 0.1}
    one = audit_answers(more, *rest, control={"pruned": "longer"})
    assert one.sentences[-1].startswith("No control was given for int8. Where a network was trained further")


def test_a_control_for_each_that_is_one_for_all_says_the_same(three):
    plain = audit_answers(*three, control="longer")
    each = audit_answers(*three, control={"pruned": "longer"})
    assert each.sentences == plain.sentences and each.compared == plain.compared


def test_answers_alone_have_no_gallery(found):
    with pytest.raises(ValueError, match="only answers were given"):
        found.gallery("pruned")


def test_what_is_refused_has_no_verdict(found):
    refused = report.Report(
        found.networks, "original", None, [Finding("refused", "overlap", "The sets overlap.")], [], 0.02, []
    )
    assert refused.sentences == ["No verdict: The sets overlap."]
    assert refused.verdict("pruned") == "cannot tell"
    with pytest.raises(CannotTell, match="The sets overlap"):
        refused.check()


def test_one_network_that_does_not_work_leaves_the_others_their_verdict(found):
    broken = [Finding("refused", "accuracy", "longer is at chance.", "longer")]
    one = report.Report(found.networks, "original", None, broken, [], 0.02, found.attacked)
    assert one.verdict("pruned") == "leaks more" and one.verdict("longer") == "cannot tell"
    assert "No verdict on longer: longer is at chance." in one.sentences and one.refused == ""
    with pytest.raises(CannotTell, match="longer is at chance"):
        one.check(max_increase=0.9)
    assert (
        report.Report(found.networks, "longer", None, broken, [], 0.02, found.attacked).refused
        == "longer is at chance."
    )


def test_json_holds_every_number_of_the_table(found, tmp_path):
    content = json.loads(found.to_json(tmp_path / "a.json"))
    assert content == json.loads((tmp_path / "a.json").read_text()) == found.content
    one = content["networks"]["pruned"]
    assert one["auc"]["value"] == found.networks["pruned"].judged.auc.value
    assert one["minus"]["original"]["auc"]["low"] == found.difference("pruned").auc.low
    assert one["tpr"]["0.001"]["value"] is None and one["columns"] == {"sparsity": "70 %"}
    assert content["verdict"] == found.sentences


# With imitations


@pytest.fixture(scope="module")
def with_imitations(three, halves):
    member, theirs = halves
    return audit_answers(*three, control="longer", shadows=Shadows.from_answers(theirs, member))


def test_it_says_what_to_expect_of_networks_trained_anew(with_imitations):
    said = with_imitations.sentences
    assert any(
        one.startswith("Where both are trained anew, pruned leaks more than original on average (+0.")
        for one in said
    )
    assert any("4 imitations of each" in one for one in said)
    table = with_imitations.table
    assert table.loc["pruned", "AUC minus that of original, trained anew"].startswith("+0.")
    assert table.loc["original", "AUC minus that of original, trained anew"] == ""
    assert table.loc["pruned", "AUC minus that of longer, trained anew"].startswith("+0.")


def test_without_imitations_nothing_is_said_of_new_networks(found):
    assert not any("trained anew" in one for one in (*found.sentences, *found.table.columns))


def test_who_holds_both_is_told_of_where_it_helps(with_imitations):
    more = with_imitations.more_by_both("pruned")
    assert more.low > 0  # the pruned network gives away what the original hides
    (said,) = (
        one
        for one in with_imitations.sentences
        if one.startswith("An attacker who holds both original and pruned")
    )
    assert f"{more.value:+.3f}" in said
    table = with_imitations.table
    assert (
        table.loc["original", "AUC, holding original too"]
        == ""
        != table.loc["pruned", "AUC, holding original too"]
    )
    assert float(table.loc["pruned", "epsilon at least, by members"]) > 0 and "AUC on canaries" not in table


def test_one_network_has_no_second(three):
    answers, *rest = three
    assert not any("holding" in one for one in audit_answers({"a": answers["pruned"]}, *rest).table.columns)


def test_the_brief_verdict_has_a_sentence_for_each_compared_network(found, three):
    (said,) = found.brief
    assert (
        said.startswith("**pruned** leaks more than original (+0.")
        and ", and leaks more than longer (+0." in said
    )
    assert audit_answers(*three, accuracy=1.0).brief[0].startswith("No verdict: ")
