"""What the README promises, and that it stays short."""

import math
import re
import sys
import tomllib

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from mialib import REPO_ROOT, data, models, params, training
from mialib.asking import Views
from mialib.data import Dataset, Splits, own, splits
from mialib.study import Given, Study

README = (REPO_ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
YAML = re.search(r"```yaml\n(.*?)```", README, re.S).group(1)


def names_of(block):
    """What a block defines; run in a module of its own, as dataclasses want one."""
    module = type(sys)("typed")
    sys.modules["typed"] = module
    module.__dict__["__name__"] = "typed"
    exec(block, module.__dict__)  # the blocks are the project's own
    return module.__dict__


AUDIT, ATTACK, DEFENSE, MINE = BLOCKS
ARM = re.search(r"`(comparison\.arm\(.*?\))`", README).group(1)
posteriors = torch.tensor([[0.99, 0.01], [0.6, 0.4], [0.98, 0.02], [0.55, 0.45]], dtype=torch.float64)
member = torch.tensor([[True, False, True, False]])


@pytest.mark.parametrize("block", BLOCKS, ids=["audit", "attack", "defence", "data and network"])
def test_an_example_is_about_ten_lines(block):
    assert len([line for line in block.splitlines() if line.strip()]) <= 12


def test_the_example_audit_runs(tmp_path, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(400, 8)
    y = ((x[:, 0] > 0) ^ (torch.rand(400) < 0.2)).long()  # a fifth can only be learned by heart

    def train(data, steps=150):
        network = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 2))
        adam = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
            adam.step()
        return network

    def compress(network, data):
        early = train(data, 8)
        return {"pruned": early, "int8": early, "control": network}

    members = TensorDataset(x[:200], y[:200])
    made = {"model": train(members), "pruned": train(members, 8)}
    monkeypatch.chdir(tmp_path)
    torch.onnx.export(
        made["pruned"], (x[:2],), "int8.onnx", dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
    )
    given = {"train_set": members, "heldout_set": TensorDataset(x[200:], y[200:])}
    names = made | given | {"trained_further": made["model"], "train": train, "compress": compress}
    exec(AUDIT, names)
    assert (
        names["report"].verdict("pruned") == "leaks less"
        and (tmp_path / "audit.html").stat().st_size > 10_000
    )


@pytest.mark.parametrize("served", [False, True], ids=["plain", "behind the output defence"])
def test_the_example_attack_finds_an_obvious_member(served):
    four = Dataset.of_features("four", torch.zeros(4, 1), torch.zeros(4).long(), 2)
    both = member.expand(2, -1)
    comparison = Study(four, Splits(both, ~both, torch.zeros_like(both), torch.arange(2)), 1, protocol="own")
    index = comparison.roles.index
    target, shadow = (Views(posteriors.log()[i][None], torch.zeros(1, 4, dtype=torch.long)) for i in index)
    arm = original = comparison.arm("original", Given([target], shadow))
    if served:
        arm = eval(ARM, names_of(DEFENSE) | {"comparison": comparison, "original": original})
    comparison.attack({"sure_and_right": names_of(ATTACK)["sure_and_right"]}, [arm])
    found = comparison.margins(arm, "sure_and_right")[0, 0] > 0
    assert found.tolist() == member[0, index[0]].tolist()
    assert {row["attack"] for row in comparison.rows} == {"sure_and_right"}
    assert {row["defense"] for row in comparison.rows} == {"halved" if served else "none"}


def test_the_example_defence_halves_the_distance_to_uniform():
    served = names_of(DEFENSE)["Halved"]()(posteriors.log()[None])
    torch.testing.assert_close(served.exp()[0], (posteriors + 0.5) / 2)
    assert math.isfinite(names_of(DEFENSE)["Halved"]()(torch.tensor([[[0.0, -math.inf]]]).double()).sum())


def test_the_example_data_and_network_train(tmp_path, monkeypatch):
    folder = tmp_path / "yuan2022_pruning"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "wine.yaml").write_text(YAML)
    monkeypatch.setattr(sys, "path", list(sys.path))
    values = params.read(folder / "wine.yaml", REPO_ROOT / "notebooks" / "yuan2022_pruning.ipynb")
    with own.beside(folder):
        pool = data.load(values["dataset"])
        make_model = models.make(values["model"], pool)
    split = splits.target_shadow(len(pool), 1, 1, seed=0, n_train=values["n_train"])
    trained = training.fit(make_model, pool, split, training.Recipe(epochs=20, batch_size=8))
    assert (pool.name, pool.num_classes, len(trained)) == ("mine:wine", 3, 2)
    sys.modules.pop("mine", None)


def prose():
    """The README without code, tables, pictures, addresses and quoted references."""
    text = re.sub(r"```.*?```", "", README, flags=re.S)
    lines = [line for line in text.splitlines() if not line.startswith(("|", ">"))]
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", "\n".join(lines)))


def test_the_prose_stays_under_900_words():
    assert len(prose().split()) < 900


@pytest.mark.parametrize("row", [line for line in README.splitlines() if line.startswith("| [")])
def test_a_cell_of_the_results_has_at_most_25_words(row):
    cells = [re.sub(r"\]\([^)]*\)", "]", cell) for cell in row.strip("|").split("|")]
    assert max(len(cell.split()) for cell in cells) <= 25


def test_the_commands_stand_within_the_first_screens():
    assert README.index("## Two commands") < 3000


def test_the_python_versions_are_those_of_the_package():
    wanted = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11,<3.14" and "Python 3.11 to 3.13" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (REPO_ROOT / target).exists()


def test_ci_runs_exactly_the_test_line():
    line = re.search(r"^python3 -m venv .*pytest.*$", README, re.M)
    assert line, "the test line must stand on one line of the README"
    assert "README.md" in (REPO_ROOT / ".ci" / "run").read_text()
