"""The commands `mialib audit` and `mialib audit-answers`: what they print, write and return."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mialib import cli


@pytest.fixture
def saved(three, tmp_path):
    answers, labels, member = three
    np.savez(tmp_path / "answers.npz", labels=labels, member=member, **answers)
    return str(tmp_path / "answers.npz")


def test_saved_answers_are_audited(saved, tmp_path, capsys):
    page, content = tmp_path / "a.html", tmp_path / "a.json"
    wanted = ["audit-answers", saved, "--control", "longer", "--html", str(page), "--json", str(content)]
    assert cli.main(wanted) == 0
    assert capsys.readouterr().out.startswith("pruned leaks more than original")
    assert (
        page.read_text().startswith("<!DOCTYPE html>")
        and json.loads(content.read_text())["control"] == "longer"
    )


@pytest.mark.parametrize(
    ("gate", "status", "said"),
    [
        ("auc_increase > 0.6", 0, ""),
        ("auc_increase > 0.02", 3, "mialib: auc rises by more than 0.02: pruned +"),
        ("tpr_at_0.001_increase > 0.02", 4, "cannot be told"),
        ("auc > 0.02", 2, "mialib: the gate is 'auc > 0.02'; it must be"),
        ("auc_increase over longer > 0.02", 3, "mialib: auc rises over longer by more than 0.02: pruned +"),
        ("auc_increase over loner > 0.02", 2, "mialib: than names 'loner', did you mean 'longer'"),
        ("auc_increase over control > 0.02", 2, "none is given for pruned, longer"),
    ],
)
def test_the_gate_is_the_exit_status(saved, capsys, gate, status, said):
    assert cli.main(["audit-answers", saved, "--gate", gate]) == status
    assert said in capsys.readouterr().err


def test_controls_of_their_own_and_a_gate_over_them(saved, tmp_path, capsys):
    files = ["--html", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json")]
    gate = "auc_increase over control > 0.6"
    assert cli.main(["audit-answers", saved, "--control", "pruned=longer", "--gate", gate, *files]) == 0
    assert "gate passed: no rise of auc over control above 0.6" in capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["gate"]["outcome"] == "passed" and content["networks"]["pruned"]["control"] == "longer"
    assert "<b>gate passed</b>" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("command", ["audit", "audit-answers"])
def test_the_schema_is_printed(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--schema"])
    assert not ended.value.code and json.loads(capsys.readouterr().out)["title"]


@pytest.mark.parametrize(
    "options", [["none.npz"], ["{saved}", "--baseline", "orginal"], ["{saved}", "--accuracy", "92"]]
)
def test_bad_input_is_one_line(saved, capsys, options):
    assert cli.main(["audit-answers", *(one.replace("{saved}", saved) for one in options)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_networks_are_audited_as_they_are_written_down(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_the_audit.py").write_text(
        "from torch import nn\ndef network():\n    return nn.Linear(6, 3)\n"
    )
    torch.manual_seed(0)
    x = torch.randn(120, 6)
    y = x[:, :3].argmax(1)
    network = nn.Linear(6, 3)
    with torch.no_grad():
        network.weight.copy_(torch.eye(6)[:3] * 3)
    for name, scale in (("original", 1.0), ("halved", 0.5)):
        torch.save({key: scale * one for key, one in network.state_dict().items()}, tmp_path / f"{name}.pt")
    np.savez(tmp_path / "in.npz", x=x[:60].numpy(), y=y[:60].numpy())
    np.savez(tmp_path / "out.npz", x=x[60:].numpy(), y=y[60:].numpy())
    (tmp_path / "audit.yaml").write_text(
        "networks:\n"
        '  original: {factory: "mine_of_the_audit:network", weights: original.pt}\n'
        '  halved: {factory: "mine_of_the_audit:network", weights: halved.pt}\n'
        "members: in.npz\nnonmembers: out.npz\ngate: auc_increase > 0.9\nhtml: audit.html\n"
    )
    assert cli.main(["audit", "audit.yaml"]) == 0
    assert "halved" in capsys.readouterr().out and (tmp_path / "audit.html").exists()
    gate = ["--gate", "auc_increase over control > 0.9"]
    assert cli.main(["audit", "audit.yaml", *gate]) == 2
    assert "none is given for halved" in capsys.readouterr().err
    with (tmp_path / "audit.yaml").open("a") as file:
        file.write('control: {halved: {factory: "mine_of_the_audit:network", weights: original.pt}}\n')
    assert cli.main(["audit", "audit.yaml", *gate, "--json", "a.json"]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["networks"]["halved"]["control"] == "control"
    assert content["gate"]["condition"] == gate[1]
    (tmp_path / "audit.yaml").write_text("networks: {a: a.onnx}\n")
    assert cli.main(["audit", "audit.yaml"]) == 2
    assert "audit.yaml: members is missing" in capsys.readouterr().err
