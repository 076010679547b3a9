"""The report in a terminal."""

import pandas as pd
import pytest

from mialib.auditing import audit_answers, printed
from tests.auditing.conftest import made


def widest(text):
    return max(map(len, text.splitlines()))


@pytest.fixture(scope="module")
def five():
    """Five networks, with names as long as people write them."""
    names = [
        f"resnet18 pruned globally to {share} per cent and fine-tuned twice as long" for share in range(4)
    ]
    answers = {name: made(0.5, noise=noise)[0] for noise, name in enumerate(["original", *names])}
    columns = {names[0]: {"where its weights are to be found on the server": "s3://models/" + "a" * 90}}
    return audit_answers(answers, *made(0)[1:], control=names[3], columns=columns), names


def test_five_networks_with_long_names_fit_80_columns(five):
    report, names = five
    text = repr(report)
    assert widest(text) <= printed.WIDTH == 80
    assert widest(report.table.T.to_string()) > 300  # which is what would have been printed
    lines = text.splitlines()
    assert sum(line.startswith("accuracy on members") for line in lines) == 3  # two, two and one
    assert "nan" not in text
    for line in report.table.itertuples(index=False):
        assert f"{line.AUC}" in text


def test_a_table_by_hand():
    frame = pd.DataFrame(
        {"AUC": ["0.6", "0.71", "0.5"], "a title of more than twenty-nine": ["one two " * 4, 10**22, None]},
        ["a", "b", "c" * 30],
        dtype=object,
    )
    assert printed._tables(frame) == [
        "                      a                        b",
        "AUC                   0.6                      0.71",
        "a title of more than  one two one two one two  1" + "0" * 22,
        "twenty-nine           one two",
        "",
        "                      " + "c" * 23,
        "                      " + "c" * 7,
        "AUC                   0.5",
        "a title of more than",
        "twenty-nine",
        "",
    ]


def test_two_networks_stand_side_by_side(three):
    answers, *rest = three
    text = repr(audit_answers({name: answers[name] for name in ("original", "pruned")}, *rest))
    assert any(line.split() == ["original", "pruned"] for line in text.splitlines())
    assert widest(text) <= 80


def test_warnings_are_said_and_refusals_only_once(three):
    text = repr(audit_answers(*three, accuracy=0.99))
    assert text.startswith("No verdict: original is right for") and text.count("is right for") == 1
    assert "\nnote: " in text and "refused" not in text


def test_warnings_stand_before_notes(three):
    answers, *rest = three
    worse = {"original": answers["original"], "worse": answers["original"][:, ::-1]}
    lines = repr(audit_answers(worse, *rest)).splitlines()
    kinds = [line.split(":")[0] for line in lines if line.startswith(("warning: ", "note: "))]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"warning", "note"}
