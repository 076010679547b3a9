"""The report as a page of its own: no script, no file beside it, nothing from a network; formulas are MathML."""

import base64
import html

import pandas as pd

from mialib import figures
from mialib.auditing.gate import Outcome
from mialib.figures import encoding

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --faint: #d5d5d5; --told: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --faint: #444444; --told: #242424; } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: break-word; }
.mialib h1 { font-size: 1.5rem; } .mialib h2 { font-size: 1.15rem; margin-top: 2rem; }
.mialib .verdict { font-size: 1.1rem; border-left: 4px solid currentColor; padding-left: 0.8rem; }
.mialib .wide { overflow-x: auto; } .mialib img { max-width: 100%; height: auto; background: #ffffff; }
.mialib table { border-collapse: collapse; font-size: 0.9rem; } .mialib th, .mialib td { padding: 0.25rem 0.6rem;
  border-bottom: 1px solid var(--faint, #d5d5d5); text-align: left; vertical-align: top; }
.mialib td { min-width: 4.5rem; } .mialib th { min-width: 5.5rem; }
.mialib .told { background: var(--told, #f3f3f3); padding: 0.5rem 0.8rem; margin: 0.5rem 0; }
@media print { :root { --ink: #000000; --paper: #ffffff; } .mialib .wide { overflow: visible; }
  .mialib table { font-size: 0.7rem; } .mialib h2 { break-after: avoid; } }
"""
_AUC = """<math display="block"><mtext>AUC</mtext><mo>=</mo><mi>P</mi><mo>(</mo><msub><mi>s</mi><mtext>member</mtext></msub><mo>&gt;</mo>
<msub><mi>s</mi><mtext>other</mtext></msub><mo>)</mo><mo>+</mo><mfrac><mn>1</mn><mn>2</mn></mfrac><mi>P</mi><mo>(</mo>
<msub><mi>s</mi><mtext>member</mtext></msub><mo>=</mo><msub><mi>s</mi><mtext>other</mtext></msub><mo>)</mo></math>"""

EASY = " Easy examples come first; to see those that were learned by heart takes imitations of the network."
ANEW = (
    "<p><i>Trained anew</i>: the mean difference between imitations of both networks, with an interval over their trainings. It says "
    "what to expect if the recipe is run again; the difference above it is that of these very networks.</p>"
)
EPSILON = (
    "<p><i>Epsilon at least</i>: a training that is (epsilon, 0.00001)-private with a smaller epsilon gives itself away that much in "
    "less than one audit of twenty. By members: if chance alone decided who is one. By canaries: examples that imitations learned "
    "with a wrong label, so by heart.</p>"
)


def of(report, outcome: Outcome | None = None) -> str:
    """A whole page, HTML 5, of a `report.Report`, with the outcome of a gate if there was one."""
    title = "Does it leak? " + ", ".join(report.networks)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>{body(report, outcome)}</body></html>\n"
    )


def body(report, outcome: Outcome | None = None) -> str:
    """The same without a page around it, for a notebook."""
    parts = [
        "<h1>Membership audit</h1>",
        *map(_paragraph, report.paragraphs),
        *([] if outcome is None else [_gate(outcome)]),
        *(
            f'<p class="told"><b>{one.kind}</b>: {html.escape(one.text)}</p>'
            for one in report.findings
            if one.kind == "warning"
        ),
        "<h2>Each network</h2>",
        _table(report.table.T),
        "<p>Numbers in brackets: 95 % intervals. AUC: the chance that the attacker's score <i>s</i> of a member is above that of "
        f'another example, 0.5 is guessing.</p><div class="wide">{_AUC}</div>'
        "<p>TPR at 1 % FPR: the share of members found while one other example in a hundred is accused wrongly.</p>",
        *([ANEW] if report.attacked.imitations else []),
        EPSILON,
        "<h2>How many members at how few false alarms</h2>",
        _picture(report),
        *(part for name in (report.baseline, *report.compared) for part in _exposed(report, name)),
        "<h2>What this rests on</h2><ul>",
        *(f"<li>{html.escape(one)}</li>" for one in report.assumed),
        *(f"<li>{html.escape(one.text)}</li>" for one in report.findings if one.kind == "note"),
        "</ul>",
    ]
    return f'<div class="mialib">{"".join(parts)}</div>'


def _paragraph(sentences: list[str]) -> str:
    first, *rest = map(html.escape, sentences)
    return f'<p class="verdict"><b>{first}</b> {" ".join(rest)}</p>'


def _gate(outcome: Outcome) -> str:
    return (
        f'<p class="told"><b>gate {outcome.outcome}</b>: {html.escape(outcome.text)}. What must not be: '
        f"<code>{html.escape(outcome.condition)}</code></p>"
    )


def _table(frame: pd.DataFrame, **how) -> str:
    frame = frame.map(_unbroken)
    return f'<div class="wide">{frame.to_html(border=0, justify="left", float_format="%.3f", **how)}</div>'


def _unbroken(cell):
    """An interval stays on one line; it may stand below its number."""
    return cell.replace(", ", ",\N{NO-BREAK SPACE}") if isinstance(cell, str) and "[" in cell else cell


def _picture(report) -> str:
    return _drawn(
        figures.roc({name: (one.judged.member, one.judged.margin) for name, one in report.networks.items()})
    )


def _drawn(picture: figures.Picture) -> str:
    content = base64.b64encode(encoding.png(picture)).decode()
    return f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{content}">'


def _exposed(report, name: str) -> list[str]:
    shown = report.worst(name, 5)
    by_class = report.classes(name).head(5)
    parts = [
        f"<h2>Most exposed in {html.escape(name)}</h2><p>Members that the attack is surest of, by its margin (above 0: called a "
        "member); <i>others as suspicious</i>: the share of non-members with a margin as large or larger."
        f"{'' if report.attacked.imitations else EASY}</p>",
        _table(shown, index=False),
    ]
    if report.pictures:
        parts += [
            "<p>How they look, by their numbers, and below them the others that it takes for members most surely, whose numbers are "
            "counted on after those of the members. Pictures that were normalised are stretched to full contrast.</p>",
            _drawn(report.gallery(name)),
        ]
    return (
        parts
        if by_class.empty
        else [*parts, "<p>By class, the most exposed first:</p>", _table(by_class.reset_index(), index=False)]
    )
