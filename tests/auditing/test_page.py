"""The page: whole, and without anything from elsewhere."""

import re
from html.parser import HTMLParser

import pytest

from mialib.auditing import LeaksMore, audit_answers, page


class Balanced(HTMLParser):
    """Counts open elements; those that are never closed are left out."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def text(three):
    answers, *rest = three
    return page.of(audit_answers({"original": answers["original"], "<b>&": answers["pruned"]}, *rest))


def test_it_is_one_page_that_loads_nothing(text):
    reader = Balanced()
    reader.feed(text)
    assert reader.open == [] and text.startswith("<!DOCTYPE html>")
    loaded = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert loaded and all(one.startswith("data:image/png;base64,") for one in loaded)
    assert "<script" not in text and "url(" not in text and "@import" not in text


def test_it_says_what_the_report_says_and_names_are_escaped(text):
    reader = Balanced()
    reader.feed(text)
    words = "".join(reader.words)
    assert "<b>& leaks more than original" in words and "<b>& " not in text
    assert re.search(r'<img alt="ROC curves[^"]+"', text) and "<math" in text


def test_dark_mode_phones_and_print_are_thought_of(text):
    for need in ("prefers-color-scheme: dark", "@media print", "width=device-width", "overflow-x: auto"):
        assert need in text


@pytest.mark.parametrize(
    ("gate", "outcome"), [("auc_increase > 0.9", "gate passed"), ("auc_increase > 0.02", "gate failed")]
)
def test_a_gate_stands_in_it_if_there_was_one(three, tmp_path, gate, outcome):
    report = audit_answers(*three)
    report.to_html(tmp_path / "a.html", gate=gate)
    text = (tmp_path / "a.html").read_text()
    assert f"<b>{outcome}</b>" in text and f"<code>{gate.replace('>', '&gt;')}</code>" in text
    with pytest.raises(LeaksMore):
        report.check()
    assert "<b>gate" not in page.of(report)  # nothing is left of it


def test_what_is_said_of_one_network_stands_together(three):
    report = audit_answers(*three, control="longer")
    paragraphs = re.findall(r'<p class="verdict"><b>(.*?)</b>(.*?)</p>', page.of(report))
    assert [first.split()[0] for first, _ in paragraphs] == ["pruned", "The"]
    assert "Against longer" in paragraphs[0][1]


def test_an_interval_is_not_broken(text):
    assert re.search(r"<td>0\.\d{3} \[0\.\d{3},\N{NO-BREAK SPACE}0\.\d{3}\]</td>", text)
