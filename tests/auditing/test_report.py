"""The report: verdict, table, examples, gate, JSON."""

import json

import numpy as np
import pytest

from mialib.auditing import CannotTell, Finding, LeaksMore, audit_answers, report
from mialib.measures import metrics


@pytest.fixture(scope="module")
def found(three):
    return audit_answers(*three, control="longer", columns={"pruned": {"sparsity": "70 %"}})


def test_it_says_the_verdict_first(found):
    lines = str(found).splitlines()
    assert lines[0].startswith("pruned leaks more than original: ")
    assert lines[1].startswith("Against longer, changed as long but not compressed, pruned leaks more too")
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
    one = report.Report(found.networks, "original", None, broken, [], 0.02, [])
    assert one.verdict("pruned") == "leaks more" and one.verdict("longer") == "cannot tell"
    assert "No verdict on longer: longer is at chance." in one.sentences and one.refused == ""
    with pytest.raises(CannotTell, match="longer is at chance"):
        one.check(max_increase=0.9)
    assert (
        report.Report(found.networks, "longer", None, broken, [], 0.02, []).refused == "longer is at chance."
    )


def test_json_holds_every_number_of_the_table(found, tmp_path):
    content = json.loads(found.to_json(tmp_path / "a.json"))
    assert content == json.loads((tmp_path / "a.json").read_text()) == found.content
    one = content["networks"]["pruned"]
    assert one["auc"]["value"] == found.networks["pruned"].judged.auc.value
    assert one["minus"]["original"]["auc"]["low"] == found.difference("pruned").auc.low
    assert one["tpr"]["0.001"]["value"] is None and one["columns"] == {"sparsity": "70 %"}
    assert content["schema"] == report.SCHEMA and content["verdict"] == found.sentences
