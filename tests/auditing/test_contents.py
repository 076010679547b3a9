"""The report as data: it has the form that its schema says."""

import json

import jsonschema
import pytest

from mialib.auditing import Shadows, audit_answers, contents

SCHEMA = json.loads(contents.schema())


def strict(schema):
    """The same schema, where fields that it does not name are refused."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "required" in schema and "properties" in schema else {}
    return closed | {key: strict(one) for key, one in schema.items()}


@pytest.fixture(scope="module")
def reports(three, halves):
    answers, *rest = three
    more = answers | {"longest": answers["longer"] + 0.1}
    return {
        "plain": (audit_answers(*three), None),
        "alone": (audit_answers({"a": answers["pruned"]}, *rest), None),
        "gated": (audit_answers(*three, control="longer"), "auc_increase over control > 0.02"),
        "undecided": (audit_answers(*three), "tpr_at_0.001_increase > 0.02"),
        "each": (
            audit_answers(more, *rest, control={"pruned": "longer"}, columns={"pruned": {"k": 7}}),
            None,
        ),
        "imitated": (audit_answers(*three, shadows=Shadows.from_answers(*halves[::-1])), None),
        "refused": (audit_answers(*three, accuracy=1.0), "auc_increase > 0.9"),
    }


def test_the_schema_is_one_and_has_the_number_of_the_content():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"]["const"] == contents.SCHEMA


@pytest.mark.parametrize("name", ["plain", "alone", "gated", "undecided", "each", "imitated", "refused"])
def test_reports_fit_the_schema_and_have_no_field_beside_it(reports, name):
    report, gate = reports[name]
    content = json.loads(report.to_json(gate=gate))
    jsonschema.Draft202012Validator(strict(SCHEMA)).validate(content)
    for lost in content:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: one for key, one in content.items() if key != lost}, SCHEMA)


def test_a_refused_audit_is_among_them(reports):
    assert reports["refused"][0].refused


def test_the_gates_outcome_stands_in_it(reports):
    report, gate = reports["gated"]
    found = json.loads(report.to_json(gate=gate))["gate"]
    assert found["condition"] == gate and found["outcome"] == "failed" and found["networks"] == ["pruned"]
    assert "rises over control by more than 0.02: pruned +" in found["text"]
    report, gate = reports["undecided"]
    assert json.loads(report.to_json(gate=gate))["gate"]["outcome"] == "cannot tell"
    assert report.content["gate"] is None


def test_each_network_has_its_control(reports):
    content = reports["each"][0].content
    assert content["control"] is None and contents.of(reports["gated"][0])["control"] == "longer"
    assert {name: one["control"] for name, one in content["networks"].items()} == {
        "original": None,
        "pruned": "longer",
        "longer": None,
        "longest": None,
    }
    assert list(content["networks"]["pruned"]["minus"]) == ["original", "longer"]
    assert list(content["networks"]["longest"]["minus"]) == ["original"]


def test_what_imitations_say_is_among_it(reports):
    content = reports["imitated"][0].content
    assert (
        content["imitations"] == 4 and content["networks"]["pruned"]["minus"]["original"]["anew"]["low"] > 0
    )
    assert (
        content["networks"]["pruned"]["holding_both"]["value"] > 0.5
        and content["networks"]["pruned"]["canaries"] is None
    )
    plain = reports["plain"][0].content
    assert plain["imitations"] == 0 and plain["networks"]["pruned"]["minus"]["original"]["anew"] is None
