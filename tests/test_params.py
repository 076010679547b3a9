"""Parameters: every YAML file fits its notebook, and what is out of range is named."""

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


# The vocabulary


def test_valid_values_come_back_as_they_are():
    values = {"lr": 1e-3, "n_train": None, "sparsities": [0.0, 0.5], "pruners": ["l1_filter", "slimming_l1"]}
    assert params.validate(values, "here") == values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "here: unknown parameter 'epoch', did you mean 'epochs'"),
        ({"xyzzy": 3}, "unknown parameter 'xyzzy'$"),
        ({"epochs": "3"}, "epochs is '3': input should be a valid integer"),
        ({"epochs": 3.0}, "epochs is 3.0"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 0}, "epochs is 0: input should be greater than or equal to 1"),
        ({"lr": "1e-3"}, "lr is '1e-3': input should be a valid number"),  # YAML reads 1e-3 as text
        ({"lr": 0.0}, "lr is 0.0: input should be greater than 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"sparsity": 1.0}, "sparsity is 1.0: input should be less than 1"),
        ({"sparsity": -0.1}, "sparsity is -0.1: input should be greater than or equal to 0"),
        ({"sparsities": [0.5, 70]}, "sparsities.1 is 70: input should be less than 1"),
        ({"sparsities": []}, r"sparsities is \[\]"),
        ({"sparsities": 0.5}, "sparsities is 0.5: input should be a valid list"),
        ({"dataset": "cifar"}, "dataset is 'cifar'.*did you mean 'cifar10"),
        ({"dataset": "absent:load"}, "dataset is 'absent:load': no module absent"),
        ({"dataset": "folder:/no/such/folder"}, "folder:/no/such/folder: no folder"),
        ({"model": "folder:x"}, "model is 'folder:x': unknown; valid are .*small_cnn.*module:function$"),
        ({"model": "resnet-18"}, "model is 'resnet-18'.*did you mean 'resnet18'"),
        ({"pruners": ["l1_filtre"]}, "pruners.0 is 'l1_filtre'.*did you mean 'l1_filter'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"run": "../elsewhere"}, "run is '../elsewhere'"),
        ({"seed": -1}, "seed is -1"),
        ({"ppb_strengths": [4.0, 0.0]}, "ppb_strengths.1 is 0.0"),
        ({"adversarial_strengths": [-1.0]}, "adversarial_strengths.0 is -1.0"),
        ({"smoothings": [1.0]}, "smoothings.0 is 1.0"),
        ({"relax_upper": 1.5}, "relax_upper is 1.5"),
        ({"dp_noises": [0.0]}, "dp_noises.0 is 0.0"),
        ({"dp_batch_sizes": [1]}, "dp_batch_sizes.0 is 1"),
        ({"dp_delta": 1.0}, "dp_delta is 1.0"),
        ({"pruner": "l1_filters"}, "pruner is 'l1_filters'.*did you mean 'l1_filter'"),
        ({"bits": [8, 2.5]}, "bits.1 is 2.5"),
        ({"bits": [8]}, r"bits is \[8\]"),
        ({"bits": [8, 8]}, r"bits is \[8, 8\]: the same value stands in it twice"),
        ({"bits": [32, 8]}, "bits.0 is 32"),
        ({"lira_models": 7}, "lira_models is 7"),
        ({"headline_bits": 0}, "headline_bits is 0"),
        ({"edge_bits": 64}, "edge_bits is 64"),
        ({"families": ["fine tuned"]}, "families.0 is 'fine tuned'"),
        ({"mmd_strengths": [0.0]}, "mmd_strengths.0 is 0.0"),
        ({"search_tolerances": [3]}, "search_tolerances.0 is 3"),
        ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'"),
        ({"early_stopping": 1}, "early_stopping is 1: input should be a valid boolean"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_valid(values, words):
    with pytest.raises(ValueError, match=words):
        params.validate(values, "here")


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError, match="epochs is 0.*lr is -1"):
        params.validate({"epochs": 0, "lr": -1.0}, "here")


def test_words_of_one_notebook_stay_with_it():
    words = {"arms": "ABC"}
    assert params.validate({"arms": ["A", "C"]}, "here", words) == {"arms": ["A", "C"]}
    for wrong, found in ((["D"], "arms.0 is 'D'"), ([], r"arms is \[\]"), ("A", "arms is 'A'")):
        with pytest.raises(ValueError, match=f"here: epochs is 0.*{found}"):
            params.validate({"arms": wrong, "epochs": 0}, "here", words)
    with pytest.raises(ValueError, match="unknown parameter 'arms'"):
        params.validate({"arms": ["A"]}, "here")
    assert params.words_of(REPO_ROOT / "notebooks" / "wang2020_mcmia.ipynb") == {"arms": "ABCDEFGHIJK"}
    assert params.words_of(REPO_ROOT / "notebooks" / "yuan2022_pruning.ipynb") == {}


def test_what_may_be_none_is_said_and_nothing_else_may():
    assert params.validate({"subset": None, "n_train": None}, "here") == {"subset": None, "n_train": None}
    with pytest.raises(ValueError, match="here: epochs is None: input should be a valid integer"):
        params.validate({"epochs": None}, "here")


def test_check_reads_the_annotated_names_of_a_notebook():
    namespace: dict = {}
    exec("import os\nrun: str = 'a'\nepochs: int = 3\nother = 5\n_hidden: int = 0", namespace)
    assert params.check(namespace) == {"run": "a", "epochs": 3}
    namespace["epochs"] = "many"  # as papermill's injected cell would, without an annotation
    with pytest.raises(ValueError, match="the parameters cell: epochs is 'many'"):
        params.check(namespace)


@pytest.mark.parametrize("present, auto", [(False, "cpu"), (True, "cuda")])
def test_auto_takes_what_there_is(monkeypatch, present, auto):
    monkeypatch.setattr("torch.cuda.is_available", lambda: present)
    assert params.device("cpu") == "cpu" and params.device("auto") == auto


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert params.device("cuda") == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda'.*no CUDA device.*take 'auto' or 'cpu'"):
        params.device("cuda")


# The files


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_fits_its_notebook_and_is_named_after_its_run(path):
    values = params.read(path, notebook_of(path))  # raises for what is unknown or out of range
    assert values["run"] == path.stem
    assert set(values) <= set(papermill.inspect_notebook(str(notebook_of(path))))


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
    assert values["dataset"] == "digits"


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
    "relax_strengths": [0.5], "dp_noises": [1.0], "dp_lrs": [1e-3], "dp_batch_sizes": [8],
    "attack_epochs": 1, "samia_epochs": 1, "trainings": 1,
    "n_models": 2, "compressions": [2.0, 4.0], "compression": 2.0, "admm_iterations": 2, "admm_epochs": 1, "retrain_epochs": 1,
    "bits": [8, 2], "families": ["fine-tuned, activations too", "from scratch, activations too"],
    "n_reserve": 32, "purifier_epochs": 2, "game_epochs": 1, "game_updates": 1, "label_strengths": [0.2],
    "inversion_strengths": [1.0], "membership_strengths": [0.3], "reformer_widths": [8, 16], "reformer_latent": 2,
    "memguard_budgets": [1.0], "selena_sub_models": 3, "selena_left_out": 1, "decoder_width": 0.05, "decoder_epochs": 1,
    "judge_width": 0.1, "nsh_epochs": 1, "noisy_queries": 4,
    "search_tolerances": [], "mmd_strengths": [1.0], "lira_models": 6,  # the search: digits, which nbval runs
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
    toy = params.validate(
        values | {name: value for name, value in TOY.items() if name in declared},
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
