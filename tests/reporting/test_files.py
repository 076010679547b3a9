"""What a run leaves behind: written whole or not at all, and read back to the last digit, with its errors named."""

import gzip
import json
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from mialib import reporting, study
from mialib.measures import Estimate, metrics
from mialib.reporting import Claim, claims

NONE = {"low": None, "high": None, "low_seeds": None, "high_seeds": None}


def save(folder, rows=(), claims=None, parameters=None, **more):
    about = {"torch": "2", "seconds": 1.0}
    return reporting.save(
        folder,
        notebook="yuan2022_pruning",
        run="digits",
        parameters=parameters or {},
        rows=list(rows),
        claims=claims,
        provenance=about,
        **more,
    )


def test_bare_decisions_have_no_low_fpr_figures_in_the_saved_file(tmp_path):
    member = np.arange(4000) % 2
    decisions = np.where(np.arange(4000) % 3, 1, -1)
    path = save(tmp_path / "deep", study.attack_rows(member, decisions, attack="gap"))
    values = {row["metric"]: row["value"] for row in reporting.load(path)["rows"]}
    assert values["tpr_at_0.01"] is None and values["tpr_at_0.001"] is None
    assert values["auc"] == metrics.auc(member, decisions).value


def test_no_file_names_a_place_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "data"))
    place = f"folder:{tmp_path}/data/alice"
    row = study.tidy_row("auc", 0.5, variant=place, attack="nn", target=0)
    path = save(tmp_path / "run", [row], parameters={"dataset": place, "more": [place]})
    content = reporting.load(path)
    assert content["parameters"] == {
        "dataset": "folder:$MIALIB_DATA/alice",
        "more": ["folder:$MIALIB_DATA/alice"],
    }
    assert content["rows"][0]["variant"] == "folder:$MIALIB_DATA/alice"
    written = path.read_text() + gzip.decompress((path.parent / "rows.csv.gz").read_bytes()).decode()
    assert str(tmp_path) not in written


# Rows


def rows_of_every_kind():
    generator = np.random.default_rng(0)
    odd = [1 / 3, 0.1 + 0.2, 1e-17, -5e-324, 123456789.123456789, 2.0, 1e150, *generator.normal(size=50)]
    rows = [study.tidy_row("auc", value, attack="nn", target=i, seed=0) for i, value in enumerate(odd)]
    rows += [
        study.tidy_row("auc", Estimate(1 / 3, math.nan, math.inf), attack="lira", target=0, level=0.7),
        study.tidy_row("nonzero_parameters", 12345, target=np.int64(1), level=4, n_members=20),
        study.tidy_row("auc", 0.5, variant='minus "a, b"\nand 3', attack="32", compression="none", class_=3),
    ]
    return rows


def test_rows_come_back_to_the_last_digit_and_ints_as_ints(tmp_path):
    rows = rows_of_every_kind()
    found = reporting.load(save(tmp_path, rows))["rows"][: len(rows)]
    expected = [
        row | {name: None for name in NONE if row[name] is not None and not math.isfinite(row[name])}
        for row in rows
    ]
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert [type(value) for value in one.values()] == [type(value) for value in other.values()]
        assert tuple(one) == study.COLUMNS


def test_rows_can_be_opened_with_pandas(tmp_path):
    save(tmp_path, rows_of_every_kind())
    table = pd.read_csv(tmp_path / "rows.csv.gz")
    assert list(table) == list(study.COLUMNS) and len(table) == len(rows_of_every_kind())
    assert table["value"][0] == 1 / 3 and table["attack"].isna().sum() == 1


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, rows_of_every_kind())
    first, second = ((tmp_path / name / "rows.csv.gz").read_bytes() for name in ("a", "b"))
    assert first == second and first[4:8] == bytes(4)  # no time of day


def test_means_over_targets_stand_in_the_json_and_follow_the_rows(tmp_path):
    rows = [study.tidy_row("auc", value, attack="gap", target=i) for i, value in enumerate((0.5, 0.75))]
    rows.append(study.tidy_row("search_seconds", 3.0))  # of no target
    path = save(tmp_path, rows)
    saved = json.loads(path.read_text())
    assert "rows" not in saved
    (mean,) = study.aggregate(rows[:2])
    assert saved["aggregates"] == [
        {name: one for name, one in mean.items() if one is not None}
    ]  # empty is left out
    assert saved["aggregates"][0]["value"] == 0.625
    assert reporting.load(path)["rows"] == [*rows, mean]
    assert len(path.read_text().splitlines()) == 12  # one aggregate a line


@pytest.mark.parametrize(
    "break_it", [lambda raw: raw[:-20], lambda raw: b"", lambda raw: b"rows", gzip.decompress]
)
def test_rows_that_are_not_whole_are_named(tmp_path, break_it):
    path = save(tmp_path, rows_of_every_kind())
    table = tmp_path / "rows.csv.gz"
    table.write_bytes(break_it(table.read_bytes()))
    with pytest.raises(ValueError, match=r"rows.csv.gz is not a whole table of rows.*run the notebook again"):
        reporting.load(path)


@pytest.mark.parametrize("place", [12, 100, -6], ids=["head", "middle", "checksum"])
def test_a_flipped_byte_is_found(tmp_path, place):
    path = save(tmp_path, rows_of_every_kind())
    table = tmp_path / "rows.csv.gz"
    raw = bytearray(table.read_bytes())
    raw[place] ^= 255
    table.write_bytes(raw)
    with pytest.raises(ValueError, match=r"rows.csv.gz is not a whole table of rows"):
        reporting.load(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("dataset,", "data,", "it has the columns .'data'"), ("0.3333", "0.33x33", "could not convert")],
    ids=["columns", "number"],
)
def test_a_table_of_other_things_is_named(tmp_path, old, new, words):
    path = save(tmp_path, rows_of_every_kind())
    table = tmp_path / "rows.csv.gz"
    text = gzip.decompress(table.read_bytes()).decode()
    table.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))
    with pytest.raises(ValueError, match=f"rows.csv.gz is not a whole table of rows .{words}"):
        reporting.load(path)


def test_rows_that_are_missing_are_named(tmp_path):
    path = save(tmp_path)
    (tmp_path / "rows.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no rows at .*rows.csv.gz, which metrics.json beside it"):
        reporting.load(path)


# All of it


def compared():
    paper = {"leak": Claim("a > b", "abstract", "a > b"), "more": Claim("more", "abstract", "a > b")}
    return claims.compare(paper, {"leak": Estimate(0.1, 0.05, 0.15)})


def test_save_and_load_are_a_round_trip(tmp_path):
    rows = rows_of_every_kind()
    path = save(tmp_path / "run", rows, compared(), {"levels": [0.5, 0.7]})
    assert path == tmp_path / "run" / "metrics.json"
    content = reporting.load(path)
    assert content.keys() == {"notebook", "run", "parameters", "provenance", "rows", "claims"}
    assert content["parameters"] == {"levels": [0.5, 0.7]} and content["notebook"] == "yuan2022_pruning"
    assert sorted(file.name for file in path.parent.iterdir()) == ["metrics.json", "rows.csv.gz"]


def test_claims_are_kept_by_key_without_how_stable_they_are(tmp_path):
    content = reporting.load(save(tmp_path, claims=compared()))
    assert list(content["claims"]) == ["leak", "more"]
    assert content["claims"]["leak"] == {
        "claim": "a > b",
        "source": "abstract",
        "paper": "a > b",
        "ours": "+0.100 [+0.050, +0.150]",
        "paired": "",
        "verdict": "reproduced",
        "margin": 0.05,
        "p": None,  # its test is not known
    }
    assert (
        content["claims"]["more"]["verdict"] == "not run" and content["claims"]["more"]["margin"] is None
    )  # infinite
    assert reporting.load(save(tmp_path))["claims"] == {}


def test_what_is_said_of_all_claims_is_the_same_of_stored_ones(tmp_path):
    content = reporting.load(save(tmp_path, claims=compared()))
    assert claims.stored_family(content["claims"]) == claims.family(compared())
    assert claims.stored_family({}) is None
    older = {key: {**claim, "x": 1} for key, claim in content["claims"].items()}
    del older["more"]["p"]
    assert claims.stored_family(older) is None


def test_margins_stand_beside_the_rows(tmp_path):
    ranks = {"pruned | samia ranks": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)}
    save(tmp_path, margins=ranks)
    with np.load(tmp_path / "margins.npz") as found:
        assert list(found) == list(ranks)
        np.testing.assert_array_equal(found["pruned | samia ranks"], ranks["pruned | samia ranks"])


def test_results_that_hold_their_rows_in_the_json_are_read_too(tmp_path):
    rows = [study.tidy_row("auc", 0.5, attack="gap", target=0)]
    claim = {"claim": "a > b", "source": "us", "paper": "a > b", "ours": "", "verdict": "not run"}
    old = {"notebook": "n", "run": "r", "parameters": {}, "provenance": {}}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(old | {"rows": rows + study.aggregate(rows), "claims": [claim]}))
    content = reporting.load(path)
    assert content == old | {"rows": rows + study.aggregate(rows), "claims": {"a > b": claim}}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"parameters": {"lr": math.nan}}, "parameters cannot be written"),
        ({"rows": [study.tidy_row("auc", 0.5, level=math.nan)]}, "rows cannot be written"),
        ({"rows": [study.tidy_row("auc", 0.5, level=math.inf)]}, "rows cannot be written"),
        ({"rows": [study.tidy_row("auc", 0.5) | {"level": "many"}]}, "rows cannot be written.*'many'"),
        ({"rows": [study.tidy_row("auc", True)]}, "rows cannot be written.*'True'"),
        ({"rows": [study.tidy_row("auc", 0.5, variant="")]}, "variant is '', which would be read as"),
        ({"rows": [study.tidy_row("auc", 0.5) | {"level": Fraction(1, 2)}]}, "rows cannot be written"),
        ({"rows": [{"metric": "auc", "value": 0.5}]}, "lacks columns"),
        ({"rows": [study.tidy_row("auc", 0.5) | {"colour": "red"}]}, "unknown ones .'colour'"),
    ],
    ids=["nan", "nan in a row", "inf", "text", "truth", "no text", "fraction", "lacking", "unknown"],
)
def test_what_cannot_be_written_is_refused_and_leaves_the_old_files(tmp_path, wrong, words):
    save(tmp_path, rows_of_every_kind(), compared())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=words):
        save(tmp_path, **wrong)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results at .*metrics.json"):
        reporting.load(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    "text, words",
    [('{"rows": [NaN]}', "NaN"), ('{"rows": [', "not valid"), ("{}", "lacks")],
    ids=["nan", "half a file", "no sections"],
)
def test_load_names_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        reporting.load(path)
