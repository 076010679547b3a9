"""An audit as it is written down."""

from pathlib import Path

import pytest

from mialib.auditing import Checkpoint, audit_files

WHOLE = """
networks:
  original: {factory: "mine:network", weights: original.pt}
  int8: nets/int8.onnx
members: members.npz
nonmembers: mine:others
control: {factory: "mine:network"}
accuracy: 0.9
seed: 3
gate: auc_increase > 0.02
html: audit.html
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "audit.yaml").write_text(text)
        return tmp_path / "audit.yaml"

    return write


def test_files_lie_beside_it(written, tmp_path):
    found = audit_files.read(written(WHOLE))
    folder = tmp_path.resolve()
    assert found.arguments == {
        "networks": {
            "original": Checkpoint("mine:network", folder / "original.pt"),
            "int8": folder / "nets/int8.onnx",
        },
        "members": folder / "members.npz",
        "nonmembers": "mine:others",
        "control": Checkpoint("mine:network"),
        "accuracy": 0.9,
        "seed": 3,
    }
    assert found.gate == ("auc", 0.02, None) and found.html == folder / "audit.html" and found.json is None


def test_a_control_may_be_named_and_paths_absolute(written):
    text = "networks: {a: /nets/a.onnx, b: b.onnx}\nmembers: folder:in\nnonmembers: /data/out\ncontrol: b\n"
    found = audit_files.read(written(text)).arguments
    assert found["control"] == "b" and found["networks"]["a"] == Path("/nets/a.onnx")
    assert found["members"].name == "in" and found["nonmembers"] == Path("/data/out")


def test_networks_may_have_controls_of_their_own(written, tmp_path):
    each = 'control: {int8: {factory: "mine:network", weights: a.pt}, other: longer}'
    text = WHOLE.replace('control: {factory: "mine:network"}', each)
    text = text.replace("  int8:", "  longer: longer.onnx\n  other: other.onnx\n  int8:")
    text = text.replace("auc_increase >", "auc_increase over control >")
    found = audit_files.read(written(text))
    assert found.arguments["control"] == {
        "int8": Checkpoint("mine:network", tmp_path.resolve() / "a.pt"),
        "other": "longer",
    }
    assert found.gate.than == "control"
    shared = text.replace("other: longer}", 'other: {factory: "mine:network", weights: a.pt}}')
    control = audit_files.read(written(shared)).arguments["control"]
    assert control["int8"] is control["other"]  # it is asked once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("members:", "member:"), "unknown 'member', .*'members'.*\n.*members is missing"),
        (("accuracy: 0.9", "accuracy: 90"), "accuracy is 90; it must be a number from 0 to 1"),
        (("seed: 3", "seed: -1"), "seed is -1; it must be a whole number of at least 0"),
        (("int8: nets/int8.onnx", "int8: 8"), "int8 is 8; a network is the path of a file"),
        (('{factory: "mine:network"}', "{weights: a.pt}"), "control is .*; a network is"),
        (('{factory: "mine:network"}', "{int7: a.onnx}"), "control names 'int7', did you mean 'int8'"),
        (('{factory: "mine:network"}', "{int8: 8}"), "int8 is 8; a network is the path of a file"),
        (("auc_increase > 0.02", "auc > 0.02"), "the gate is 'auc > 0.02'; it must be"),
        (("members.npz", "[1, 2]"), r"members is \[1, 2\]; it must be a text"),
        (("accuracy: 0.9", "accuracy: 0.9\naccuracy: 0.8"), "accuracy"),
    ],
)
def test_all_that_is_wrong_is_named_with_the_file(written, change, message):
    with pytest.raises(ValueError, match=f"(?s)audit.yaml: .*{message}"):
        audit_files.read(written(WHOLE.replace(*change)))


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: it does not exist"):
        audit_files.read(tmp_path / "none.yaml")
    (tmp_path / "audit.yaml").write_text("")
    with pytest.raises(ValueError, match="audti.yaml: it does not exist, did you mean 'audit.yaml'"):
        audit_files.read(tmp_path / "audti.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ValueError, match="found a list"):
        audit_files.read(tmp_path / "list.yaml")


RECIPE = "def train(data):\n    return 1\n\n\ndef compress(network, data):\n    return {}\n"


def test_a_recipe_for_imitations_may_be_written_down(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe_of_file.py").write_text(RECIPE)
    shadows = "shadows: {train: 'recipe_of_file:train', compress: 'recipe_of_file:compress', n: 4, folder: kept, canaries: 9}\n"
    found = audit_files.read(written(WHOLE + shadows)).arguments["shadows"]
    assert (found.n, found.folder, found.canaries) == (4, tmp_path.resolve() / "kept", 9)
    assert found.train(None) == 1 and found.compress(None, None) == {}


@pytest.mark.parametrize(
    ("shadows", "message"),
    [
        ("8", "shadows is 8; it must hold train"),
        ("{n: 4}", "shadows is {'n': 4}; it must hold train"),
        ("{train: 'a:b', foldr: x}", "shadows has an unknown 'foldr', did you mean 'folder'"),
        ("{train: 'no_such_module_there:b'}", "shadows: train: no module no_such_module_there"),
    ],
)
def test_recipes_that_cannot_be_are_named(written, shadows, message):
    with pytest.raises(ValueError, match=message):
        audit_files.read(written(f"{WHOLE}shadows: {shadows}\n"))
