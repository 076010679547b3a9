"""Every YAML file fits its notebook, and runs from top to bottom at toy size."""

import os
from pathlib import Path

import nbformat
import papermill
import pytest

from mialib import REPO_ROOT, params, reporting
from mialib.reporting import tables

FILES = sorted((REPO_ROOT / "params").glob("*/*.yaml"))


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def notebook_of(path):
    return REPO_ROOT / "notebooks" / f"{path.parent.name}.ipynb"


# The files


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_fits_its_notebook_and_is_named_after_its_run(path):
    values = params.read(path, notebook_of(path))  # raises for what is unknown or out of range
    assert values["run"] == path.stem
    assert set(values) <= set(papermill.inspect_notebook(str(notebook_of(path))))


QUICK = {"digits", "location", "mnist", "att_faces", "lfw_faces", "imagenette"}  # to be read, in a second


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_fits_the_data_that_are_at_hand_on_a_large_machine(path, monkeypatch):
    monkeypatch.setenv("MIALIB_DATA", str(data_root()))
    for name in ("is_available", "is_bf16_supported"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: True)
    monkeypatch.setattr(params.machine, "memory", lambda device: 2**37)
    values = params.read(path, notebook_of(path))
    if values.get("dataset", "digits") in QUICK:
        assert params.read(path, notebook_of(path), fitting=True) == values


@pytest.mark.parametrize(
    "path", sorted((REPO_ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_every_notebooks_defaults_are_in_the_vocabulary(path):
    cells = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    namespace: dict = {}
    exec(cells[0].source, namespace)
    values = params.check(namespace, **params.words_of(path))
    assert set(values) == set(papermill.inspect_notebook(str(path)))
    assert values.get("dataset", "digits") == "digits"  # an audit's data come with its recipe
    assert params.declared(path) == values


# Two notebooks on the same networks

SAME = ("yang2020_purification", "yang2020_inversion")


def defaults_of(name):
    """Parameter -> its line in the parameters cell, with type, default and comment."""
    cells = nbformat.read(REPO_ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    source = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    return {line.split(":")[0]: line for line in source.splitlines() if line.partition(":")[0].isidentifier()}


def test_two_notebooks_train_the_same_networks_by_default():
    first, second = (defaults_of(name) for name in SAME)
    shared = first.keys() & second.keys()
    assert len(shared) > 30 and second.keys() - first.keys() == {"decoder_epochs"}
    # the comment on `run` names the notebook's own folder
    assert {key: first[key] for key in shared - {"run"}} == {key: second[key] for key in shared - {"run"}}


def test_two_notebooks_train_the_same_networks_in_every_run():
    runs = [{path.stem for path in FILES if path.parent.name == name} for name in SAME]
    assert runs[0] == runs[1] and runs[0]
    shared = defaults_of(SAME[0]).keys() & defaults_of(SAME[1]).keys()
    for run in runs[0]:
        first, second = (
            params.read(
                REPO_ROOT / "params" / name / f"{run}.yaml", REPO_ROOT / "notebooks" / f"{name}.ipynb"
            )
            for name in SAME
        )
        assert {k: v for k, v in first.items() if k in shared} == {
            k: v for k, v in second.items() if k in shared
        }


# Every run from top to bottom, at toy size

TOY = {
    "subset": 256, "n_train": 16, "n_targets": 2, "n_shadows": 2, "epochs": 1, "fine_tune_epochs": 1, "batch_size": 8,
    "sparsities": [0.7], "ppb_strengths": [4.0], "adversarial_strengths": [1.0], "smoothings": [0.1],
    "relax_strengths": [0.5], "dp_noises": [1.0], "dp_epochs": 1, "dp_lrs": [1e-3], "dp_batch_sizes": [8],
    "attack_epochs": 1, "samia_epochs": 1, "trainings": 1,
    "n_models": 6, "n_canaries": 20, "hamp_strengths": [0.3], "compressions": [2.0, 4.0], "compression": 2.0, "admm_iterations": 2, "admm_epochs": 1, "retrain_epochs": 1,
    "bits": [8, 2], "families": ["fine-tuned, activations too", "from scratch, activations too"],
    "n_reserve": 32, "purifier_epochs": 2, "game_epochs": 1, "game_updates": 1, "label_strengths": [0.2],
    "inversion_strengths": [1.0], "membership_strengths": [0.3], "reformer_widths": [8, 16], "reformer_latent": 2,
    "memguard_budgets": [1.0], "selena_sub_models": 3, "selena_left_out": 1, "decoder_width": 0.05, "decoder_epochs": 1,
    "judge_width": 0.1, "nsh_epochs": 1, "noisy_queries": 4,
    "milestones": [], "fine_tune_milestones": [], "sparsity": 0.7, "search_tolerances": [], "mmd_strengths": [1.0], "lira_models": 6, "n_imitations": 4,  # the search: digits, which nbval runs
    "device": "cpu", "n_jobs": 1,
}  # fmt: skip
PLACES = {
    "digits": "",
    "cifar10": "cifar-10-batches-py",
    "location": "location/dataset_location.tgz",
    "mnist": "MNIST/raw",
    "imagenette": "imagenette-224",
    "att_faces": "faces/att_faces.npz",
    "lfw_faces": "faces/lfw_a_64x64_min5.npz",
}
# shape and number of classes, to stand in for what is not at hand
SHAPES = {
    "cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100), "svhn": ((3, 32, 32), 10), "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10), "chmnist": ((3, 32, 32), 8), "location": ((446,), 30),
    "purchase100": ((600,), 100), "texas100": ((6169,), 100), "imagenet": ((3, 64, 64), 10),
}  # fmt: skip
STAND_IN = """
import numpy as np
from mialib.data import loaders

def stand_in(root, shape={shape}, classes={classes}):
    y = np.arange(1500) % classes
    x = np.random.default_rng(0).integers(0, 256 if len(shape) > 1 else 2, (1500, *shape), dtype=np.uint8)
    channels = shape[0] if len(shape) > 1 else 1
    return loaders.Raw(x, y, classes, (0.5,) * channels, (0.5,) * channels)

loaders.LOADERS["{name}"] = stand_in
"""


def data_root():
    return Path(os.environ.get("MIALIB_DATA") or REPO_ROOT.parent / "shared" / "data")


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_run_works_from_top_to_bottom_at_toy_size(path, tmp_path, monkeypatch):
    notebook = nbformat.read(notebook_of(path), 4)
    declared = papermill.inspect_notebook(str(notebook_of(path)))
    values = params.read(path, notebook_of(path))
    here = {"precision": "float32"} if values["precision"] == "tf32" else {}  # tf32 is CUDA's alone
    toy = params.validate(
        values | {name: value for name, value in TOY.items() if name in declared} | here,
        "the toy run",
        params.words_of(notebook_of(path)),
    )
    dataset = toy.get("dataset", "digits")
    if not (dataset in PLACES and (data_root() / PLACES[dataset]).exists()):
        if dataset not in SHAPES:
            pytest.skip(f"{dataset} is not in {data_root()}, and nothing stands in for it")
        shape, classes = SHAPES[dataset]
        source = STAND_IN.format(name=dataset, shape=shape, classes=classes)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, tmp_path / "toy.ipynb")
    outputs = Path(os.environ["MIALIB_OUTPUTS"])
    monkeypatch.setenv("MIALIB_DATA", str(data_root()))
    papermill.execute_notebook(
        str(tmp_path / "toy.ipynb"),
        str(tmp_path / "executed.ipynb"),
        toy,
        kernel_name="python3",
        progress_bar=False,
    )
    content = reporting.load(outputs / path.parent.name / path.stem / "metrics.json")
    assert content["run"] == path.stem and content["parameters"]["epochs"] == 1
    assert content["rows"] and content["claims"]
    assert list((outputs / path.parent.name / path.stem / "figures").glob("*.png"))
    shown = {row["attack"] for row in content["rows"]} - {None}
    headline = tables.headline(content)
    assert all(attack in headline for attack in shown if not attack.endswith("_global"))
