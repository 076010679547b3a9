"""metrics.json: written whole or not at all, and read back with its errors named."""

import json
import math

import numpy as np
import pytest

from mialib import reporting, study
from mialib.measures import Estimate, metrics
from mialib.reporting import Claim, claims


def save(path, rows=(), claims=(), parameters=None):
    about = {"torch": "2", "seconds": 1.0}
    return reporting.save(
        path,
        notebook="yuan2022_pruning",
        run="digits",
        parameters=parameters or {},
        rows=list(rows),
        claims=claims,
        provenance=about,
    )


def test_bare_decisions_have_null_low_fpr_figures_in_the_saved_file(tmp_path):
    member = np.arange(4000) % 2
    decisions = np.where(np.arange(4000) % 3, 1, -1)
    path = save(tmp_path / "deep" / "metrics.json", study.attack_rows(member, decisions, attack="gap"))
    values = {row["metric"]: row["value"] for row in reporting.load(path)["rows"]}
    assert values["tpr_at_0.01"] is None and values["tpr_at_0.001"] is None
    assert values["auc"] == metrics.auc(member, decisions).value


def test_save_and_load_are_a_round_trip(tmp_path):
    claim = {"claim": "a", "source": "b", "paper": "> 0", "ours": "+0.1", "verdict": "reproduced"}
    rows = [
        study.tidy_row("auc", Estimate(1 / 3, math.nan, math.inf), attack="nn"),
        study.tidy_row("test_accuracy", 0.9),
    ]
    path = save(tmp_path / "metrics.json", rows, [claim | {"margin": math.inf}], {"levels": [0.5, 0.7]})
    content = reporting.load(path)
    assert list(content) == ["notebook", "run", "parameters", "provenance", "rows", "claims"]
    assert content["rows"] == [rows[0] | {"low": None, "high": None}, rows[1]]
    assert content["claims"] == [claim] and content["parameters"] == {"levels": [0.5, 0.7]}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_save_refuses_nan_elsewhere_and_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "metrics.json")
    before = path.read_text()
    with pytest.raises(ValueError, match="parameters"):
        save(path, parameters={"lr": math.nan})
    with pytest.raises(ValueError, match="rows"):
        save(path, [study.tidy_row("auc", 0.5, level=math.nan)])
    with pytest.raises(ValueError, match="lacks columns"):
        save(path, [{"metric": "auc", "value": 0.5}])
    assert path.read_text() == before


def test_provenance_can_be_saved():
    about = reporting.provenance(12.345, "cpu")
    assert about.keys() == {"torch", "mialib", "python", "device", "commit", "seconds"}
    assert about["seconds"] == 12.3 and about["device"].startswith("cpu")
    assert json.dumps(about, allow_nan=False)
    assert about["commit"] is None or len(about["commit"].removesuffix("-dirty")) == 40


def test_claims_are_taken_from_the_table_that_compares_them(tmp_path):
    compared = claims.compare([Claim("a > b", "abstract", "a > b")], {"a > b": Estimate(0.1, 0.05, 0.15)})
    [claim] = reporting.load(save(tmp_path / "metrics.json", claims=compared))["claims"]
    assert list(claim) == ["claim", "source", "paper", "ours", "verdict"]  # how stable it is stays behind
    assert claim["verdict"] == "reproduced" and claim["ours"] == "+0.100 [+0.050, +0.150]"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results at .*metrics.json"):
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
