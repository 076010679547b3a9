"""A notebook is followed to its end, at any size, and what was counted is what a run does."""

import json

import nbformat
import pytest
import yaml

from mialib import REPO_ROOT, cli, params, planning
from mialib.store import Store

NOTEBOOKS = sorted((REPO_ROOT / "notebooks").glob("*.ipynb"))


def written(folder, *cells):
    parameters = nbformat.v4.new_code_cell(
        "run: str = 'a'\nepochs: int = 1", metadata={"tags": ["parameters"]}
    )
    note = nbformat.v4.new_markdown_cell("Some words.")
    cells = [parameters, note, *map(nbformat.v4.new_code_cell, cells)]
    path = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


TRAIN = """
%matplotlib inline
from matplotlib.figure import Figure
from mialib import data, figures, models, outputs_root, params, training
from mialib.data import splits
parameters = params.check(globals())
training.use_processes(2)
pool = data.load("digits")
split = splits.target_shadow(len(pool), 1, 1, 0, 20)
networks = training.fit(models.make("small_cnn", pool), pool, split, training.Recipe(epochs, 8), what="some")
figures.save_all({"one": Figure()}, outputs_root() / "small")
print("nothing of it is shown")
"""


def test_a_notebook_is_counted_with_the_parameters_given(tmp_path, capsys, cache_root, monkeypatch):
    monkeypatch.setenv("MIALIB_OUTPUTS", str(tmp_path / "outputs"))
    made = planning.plan(written(tmp_path, TRAIN), {"run": "b", "epochs": 4})
    (one,) = made.counted.trainings.values()
    assert (one.networks, one.steps) == (2, 2 * 4 * 3) and made.ended is None
    assert not (tmp_path / "outputs").exists()
    assert capsys.readouterr().out == "" and not Store(cache_root).entries()
    total = made.table.iloc[-1]
    assert total["what"] == "total" and total["networks"] == 2 and total["steps"] == 24
    assert "some" in str(made) and "KB more in the cache" in str(made)


def test_a_cell_that_fails_ends_the_count_and_is_named(tmp_path):
    made = planning.plan(written(tmp_path, TRAIN, "1 / 0", "raise KeyError"), {"run": "b", "epochs": 1})
    assert made.ended == (4, "ZeroDivisionError: division by zero")
    assert "counted up to cell 4 of 5, which fails without results: ZeroDivisionError" in str(made)
    assert sum(one.networks for one in made.counted.trainings.values()) == 2


@pytest.fixture
def file(tmp_path):
    def made(notebook, **values):
        path = tmp_path / notebook / "toy.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return made


def test_the_command_refuses_what_run_refuses_and_goes_on_after_missing_data(file, tmp_path, capsys):
    assert cli.main(["plan", file("wang2020_compression", epochs=-1)]) == 2
    assert "epochs" in capsys.readouterr().err
    nowhere = file("wang2020_compression", dataset="att_faces", data_root=str(tmp_path), densities=None)
    assert cli.main(["plan", nowhere]) == 2
    said = capsys.readouterr()
    assert "att_faces.npz" in said.err and "total" not in said.out


def test_a_run_for_cuda_is_counted_where_there_is_none(tmp_path, file, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    wanted = {"device": "cuda", "precision": "tf32", "n_jobs": 3}
    assert planning._on_this_machine(wanted) == {"device": "cpu", "precision": "float32", "n_jobs": 1}
    assert planning._on_this_machine({"device": "cpu"}) == {}
    path = file("wang2020_compression", **COMPRESSION, device="cuda", densities=None)
    assert cli.main(["run", path]) == 2
    capsys.readouterr()
    assert cli.main(["plan", path]) == 0
    assert "device is 'cuda', and PyTorch sees none here" in capsys.readouterr().out


COMPRESSION = {
    "n_train": 60,
    "subset": 120,
    "n_models": 2,
    "epochs": 2,
    "admm_iterations": 2,
    "retrain_epochs": 1,
}
INVERSION = {
    "epochs": 2,
    "n_targets": 1,
    "n_shadows": 1,
    "n_train": 20,
    "n_reserve": 30,
    "purifier_epochs": 2,
}
INVERSION |= {"decoder_epochs": 1, "game_epochs": 1, "n_jobs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("wang2020_compression", COMPRESSION),
        ("yang2020_inversion", INVERSION),
    ],
)
def test_what_is_counted_is_what_a_run_leaves_in_the_cache(name, values, file, cache_root):
    path = file(name, **values, device="cpu")
    notebook = REPO_ROOT / "notebooks" / f"{name}.ipynb"
    wanted = {"run": "toy"} | params.read(path, notebook)
    made = planning.plan(notebook, wanted)
    assert made.ended is None
    assert cli.main(["run", path]) == 0
    store = Store(cache_root)
    entries = [store.get(key) for key in store.entries()]
    lengths = sorted(len(record["loss"]) for _, record in entries)
    counted = [epochs for (_, epochs, _), one in made.counted.trainings.items() for _ in range(one.networks)]
    assert lengths == sorted(counted)
    size = sum(t.numel() * t.element_size() for tensors, _ in entries for t in tensors.values())
    assert made.bytes == size
    if name == "wang2020_compression":  # no training in it depends on answers: all is found again
        again = planning.plan(notebook, wanted)
        assert again.ended is None
        assert sum(one.networks for one in again.counted.trainings.values()) == 0
        assert sum(one.cached for one in again.counted.trainings.values()) == len(entries)


RECIPES = {"audit_your_model"}  # somebody's own code trains there


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook", [one for one in NOTEBOOKS if one.stem not in RECIPES], ids=lambda path: path.stem
)
def test_every_notebook_is_counted_to_its_end(notebook, cache_root):
    made = planning.plan(notebook, {})
    assert made.ended is None and made.cells == len(json.loads(notebook.read_text())["cells"])
    assert sum(one.networks for one in made.counted.trainings.values()) > 20
    assert not Store(cache_root).entries()
