"""The page of all results: each row by hand, and the committed page is what the results say now."""

import re

import pytest

from mialib import REPO_ROOT, cli, reporting, study
from mialib.measures import Estimate
from mialib.reporting import Claim, claims, overview

OUTPUTS = REPO_ROOT / "outputs"
ORIGINAL = {"compression": "none", "defense": "none", "protocol": "home"}
PRUNED = ORIGINAL | {"compression": "l1_filter", "level": 0.5}
PPB = PRUNED | {"defense": "ppb", "defense_strength": 4.0}
SHADOW = {"knowledge": "shadow", "n_shadows": 2}
KNOWN = {"knowledge": "known_members", "n_shadows": 0}


def rows_of(metric, *values, **columns):
    """A row for each target."""
    return [study.tidy_row(metric, value, target=i, seed=0, **columns) for i, value in enumerate(values)]


def accuracy(setting, *values):
    return rows_of("test_accuracy", *values, **setting)


def page(tmp_path, rows, claims=None, run="r", **sections):
    """The page of one run of the notebook n."""
    found = {"parameters": {}, "provenance": {}} | sections
    reporting.save(tmp_path / "n" / run, notebook="n", run=run, rows=rows, claims=claims, **found)
    return overview.results_page(tmp_path)


def table_of(text, title="n, r"):
    """Setting -> cells by heading, of the table under a title."""
    lines = text.split(f"## {title}\n", 1)[1].split("\n## ")[0].splitlines()
    heading, _, *lines = (
        [c.strip() for c in line.strip("|").split(" | ")] for line in lines if line[:1] == "|"
    )
    names = [line[0] for line in lines]
    assert len(set(names)) == len(names), "two settings share a name"
    return {line[0]: dict(zip(heading[1:], line[1:], strict=True)) for line in lines}


def test_the_row_of_a_setting_by_hand(tmp_path):
    rows = accuracy(ORIGINAL, 0.8, 0.7) + rows_of("generalization_gap", 0.1, 0.2, **ORIGINAL)
    for attack, values in {"gap": (0.5, 0.6), "samia": (0.7, 0.8), "confidence": (0.9, 0.5)}.items():
        rows += rows_of("auc", *values, attack=attack, **ORIGINAL, **SHADOW)
        rows += rows_of("tpr_at_0.01", *(value / 10 for value in values), attack=attack, **ORIGINAL, **SHADOW)
    # what is left out: a class, an attacker with a wrong belief, a paired difference, another measure
    rows += rows_of("auc", 1.0, 1.0, attack="gap", class_=3, **ORIGINAL, **SHADOW)
    rows += rows_of("auc", 1.0, 1.0, attack="gap", attacker_compression="l1_filter", **ORIGINAL, **SHADOW)
    rows += rows_of("auc", 1.0, 1.0, attack="gap", attacker_level=0.5, **ORIGINAL, **SHADOW)
    rows += rows_of("auc_difference", 1.0, 1.0, attack="gap", variant="minus control", **ORIGINAL, **SHADOW)
    rows += rows_of("balanced_accuracy", 1.0, 1.0, attack="gap", **ORIGINAL, **SHADOW)
    rows += rows_of("auc", 1.0, 1.0, attack="gap", variant="of no network", **ORIGINAL, **SHADOW)
    assert table_of(page(tmp_path, rows)) == {
        "original": {
            "test accuracy": "0.750",
            "gap": "0.150",
            "best attack in hindsight": "samia, of 3",
            "AUC": "0.750",
            "TPR at 1% FPR": "0.075",
            "AUC of confidence": "0.700",
            "AUC of samia": "0.750",
        }
    }


def test_what_is_not_resolved_stays_empty_and_is_never_the_best(tmp_path):
    rows = accuracy(ORIGINAL, 0.8, 0.7) + accuracy(PRUNED, 0.8, None)
    rows += rows_of(
        "auc", None, 0.9, attack="samia", **ORIGINAL, **SHADOW
    )  # the mean of the rest would flatter
    rows += rows_of("auc", 0.6, 0.6, attack="gap", **ORIGINAL, **SHADOW)
    rows += rows_of("tpr_at_0.01", None, 0.1, attack="gap", **ORIGINAL, **SHADOW)
    rows += rows_of("auc", 0.6, 0.8, attack="samia", **PRUNED, **SHADOW)
    rows += rows_of("tpr_at_0.01", 0.0, 0.0, attack="samia", **PRUNED, **SHADOW)
    table = table_of(page(tmp_path, rows))
    names = ("test accuracy", "best attack in hindsight", "AUC", "TPR at 1% FPR", "AUC of samia")
    assert [table["original"][name] for name in names] == ["0.750", "gap, of 2", "0.600", "", ""]
    assert [table["l1_filter 0.5"][name] for name in names] == ["", "samia, of 1", "0.700", "0.000", "0.700"]


def test_attackers_have_columns_of_their_own(tmp_path):
    rows = accuracy(ORIGINAL, 0.9, 0.9) + accuracy(PPB, 0.8, 0.8)
    half = {"protocol": "known half"}  # of the attack: the networks are the same
    for value, attack, columns in (
        (0.61, "gap", ORIGINAL | SHADOW),
        (0.62, "gap", PPB | SHADOW | {"adversary": "adaptive"}),
        (0.63, "samia", PPB | SHADOW | {"adversary": "adaptive"}),
        (0.64, "gap", PPB | SHADOW | {"adversary": "unaware"}),
        (0.65, "gap", PPB | KNOWN | half | {"adversary": "adaptive"}),
        (0.66, "gap", PPB | KNOWN | half | {"adversary": "unaware"}),  # not on the page
        (0.67, "gap", ORIGINAL | KNOWN | half),
    ):
        rows += rows_of("auc", value, value, attack=attack, **columns)
    table = table_of(page(tmp_path, rows))
    names = ("best attack in hindsight", "AUC")
    names = [f"{who}{name}" for who in ("", "unaware: ", "known members: ") for name in names]
    assert [table["original"][name] for name in names] == ["gap, of 1", "0.610", "", "", "gap, of 1", "0.670"]
    assert [table["l1_filter 0.5: ppb 4"][name] for name in names] == [
        *("samia, of 2", "0.630", "gap, of 1", "0.640", "gap, of 1", "0.650")
    ]


@pytest.mark.parametrize("columns", [{"n_shadows": 9}, {"adversary": "adaptive"}], ids=str)
def test_two_kinds_of_rows_never_share_a_cell(tmp_path, columns):
    rows = accuracy(ORIGINAL, 0.9) + rows_of("auc", 0.6, attack="gap", **ORIGINAL, **SHADOW)
    rows += rows_of("auc", 0.7, attack="gap", **ORIGINAL | SHADOW | columns)
    with pytest.raises(ValueError, match="tell them apart by variant"):
        page(tmp_path, rows)


def test_two_settings_never_share_a_name(tmp_path):
    quantised = [ORIGINAL | {"compression": "dorefa", "level": bits} for bits in (2.0, 32.0)]
    named = {
        "original": ORIGINAL,
        "l1_filter 0.5": PRUNED,
        "l1_filter 0.5: longer": PRUNED | {"variant": "longer"},
        "longer": ORIGINAL | {"variant": "longer"},
        "longer, random halves": ORIGINAL | {"variant": "longer", "protocol": "random_halves"},
        "dorefa, 2 bits: fine-tuned": quantised[0] | {"variant": "fine-tuned"},
        "control: fine-tuned": quantised[1] | {"variant": "fine-tuned"},
        "l1_filter 0.5: ppb 4": PPB,
        "l1_filter 0.5: ppb 4 as released": PPB | {"variant": "as released"},
        "memguard 1": ORIGINAL | {"defense": "memguard", "defense_strength": 1.0, "variant": "MemGuard 1"},
        # two controls would have one name
        "control (dorefa, 32.0, none, home)": quantised[1],
        "control (l1_filter, 0.0, none, home)": PRUNED | {"level": 0.0},
    }
    rows = []
    for number, setting in enumerate(named.values()):
        rows += accuracy(setting, number / 100, number / 100)
        rows += rows_of("auc", 0.5 + number / 100, 0.5 + number / 100, attack="gap", **setting, **SHADOW)
    found = {
        name: (cells["test accuracy"], cells["AUC"]) for name, cells in table_of(page(tmp_path, rows)).items()
    }
    assert found == {name: (f"{i / 100:.3f}", f"{0.5 + i / 100:.3f}") for i, name in enumerate(named)}


def test_a_run_without_attacks_shows_its_models(tmp_path):
    rows = accuracy(ORIGINAL, 0.9, 0.8) + rows_of("nonzero_parameters", 20, 10, **ORIGINAL)
    assert table_of(page(tmp_path, rows)) == {
        "original": {"nonzero parameters": "15", "test accuracy": "0.850"}
    }


def test_claims_of_all_runs_stand_in_one_table_and_are_safe(tmp_path):
    paper = {key: Claim(text, "a <b> | c", "A > B") for key, text in (("1", "first *"), ("2", "second"))}
    ours = Estimate(0.1, 0.05, 0.15)
    found = {"a": claims.compare({"1": paper["1"]}, {"1": ours}), "b": claims.compare(paper, {"2": ours})}
    page(tmp_path, accuracy(ORIGINAL, 0.9), found["a"], run="a")
    text = page(tmp_path, accuracy(ORIGINAL, 0.9), found["b"], run="b")
    lines = text.split("## n, claims\n\n")[1].splitlines()
    assert lines == [
        "| claim | source | paper | a | b |",
        "| --- | --- | --- | --- | --- |",
        r"| first \* | a &lt;b&gt; \| c | A &gt; B | reproduced: +0.100 [+0.050, +0.150] | not run |",
        r"| second | a &lt;b&gt; \| c | A &gt; B |  | reproduced: +0.100 [+0.050, +0.150] |",
        "",
        *(f"- {run}: {claims.family(of)}" for run, of in found.items()),
    ]


def test_what_made_the_results_and_links_to_what_is_there(tmp_path):
    given = {"dataset": "digits", "model": "lenet5", "n_shadows": 2, "data_root": "/home/somebody"}
    made = {"device": "cpu", "torch": "2.9", "commit": "0123456789-dirty", "seconds": 90.0}
    (tmp_path / "n" / "r" / "figures").mkdir(parents=True)
    text = page(tmp_path, accuracy(ORIGINAL, 0.9, 0.8), parameters=given, provenance=made)
    assert "\n- **n**: [r](#n-r) ([figures/](n/r/figures/)); [claims](#n-claims)\n" in text
    origin = "dataset: digits; model: lenet5; targets: 2; shadow models: 2; device: cpu; torch: 2.9"
    assert f"## n, r\n\n{origin}; commit: 0123456 with changes; minutes: 1.5\n" in text
    assert "somebody" not in text and str(tmp_path) not in text


def test_a_long_table_is_folded(tmp_path):
    rows = [row for i in range(41) for row in accuracy(ORIGINAL | {"variant": f"v{i}"}, 0.5)]
    assert "<details>" not in page(tmp_path, rows[:40])
    text = page(tmp_path, rows)
    assert "<details><summary>41 rows</summary>\n\n|" in text and "|\n\n</details>\n" in text
    assert len(table_of(text)) == 41


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    text = page(tmp_path, accuracy(ORIGINAL, 0.9))
    monkeypatch.setenv("MIALIB_OUTPUTS", str(tmp_path))
    assert cli.main(["overview"]) == 0
    assert (tmp_path / "README.md").read_text() == text
    assert capsys.readouterr().out.strip() == str(tmp_path / "README.md")


@pytest.fixture(scope="module")
def committed():
    if not any(OUTPUTS.glob("*/*/metrics.json")):
        pytest.skip("outputs/ is absent")
    return (OUTPUTS / "README.md").read_text()


def test_the_committed_page_is_what_the_results_say_now(committed):
    assert committed == overview.results_page(OUTPUTS), "run: mialib overview"


def test_every_link_and_every_row_of_the_committed_page_leads_to_one_thing(committed):
    titles = re.findall(r"^## (.*)$", committed, re.M)
    anchors = {title.replace(", ", "-").lower() for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", committed)
    assert links and all((OUTPUTS / link).exists() or link[1:] in anchors for link in links)
    for title in titles:
        assert table_of(committed, title)


def test_a_run_of_inversion_alone_has_errors_and_no_attacks_on_membership(tmp_path):
    served = ORIGINAL | {"defense": "one_hot"}
    rows = accuracy(ORIGINAL, 0.8, 0.7) + accuracy(served, 0.8, 0.7)
    drawn = {"attack": "inversion"} | SHADOW
    rows += rows_of("member_inversion_error", 0.02, 0.04, **ORIGINAL, **drawn)
    rows += rows_of("member_inversion_error", 0.05, 0.07, **served, **drawn, adversary="adaptive")
    rows += rows_of("member_inversion_error", 0.09, 0.11, **served, **drawn, adversary="unaware")
    found = table_of(page(tmp_path, rows))
    assert found["original"] == {
        "test accuracy": "0.750", "inversion error": "0.030", "unaware: inversion error": ""
    }  # fmt: skip
    assert found["one_hot"] == {
        "test accuracy": "0.750", "inversion error": "0.060", "unaware: inversion error": "0.100"
    }  # fmt: skip
