"""Device mistakes are found without a GPU: planted ones, those of all tests marked `cuda`, and of whole notebooks.

This file is read twice. As it stands it starts pytest with --standin, in a process of its own, since the stand-in changes
torch for good; there what is marked `cuda` runs. On a machine with CUDA that runs on CUDA too.
"""

import subprocess
import sys
from functools import partial

import joblib
import matplotlib.figure
import nbformat
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from mialib import REPO_ROOT, asking, figures, params, training
from mialib.attacks import inversion
from mialib.compression import pruning, quantization
from mialib.data import splits
from mialib.measures import metrics
from mialib.params import machine
from mialib.store import Store
from mialib.training import Recipe, population
from tests import standin
from tests.models.test_classifiers import CNN
from tests.training.test_population import largest_difference, mlp

# what no stand-in can do says so with these words, and is skipped
BEYOND = "no stand-in can do this"


@pytest.mark.skipif(not standin.works(), reason=f"torch {torch.__version__}, tried with {standin.TRIED}")
@pytest.mark.parametrize(
    "which", ["cuda and not slow", pytest.param("cuda and slow", marks=pytest.mark.slow)]
)
def test_all_that_is_marked_runs_on_the_standin(which):
    files = [
        str(path) for path in (REPO_ROOT / "tests").rglob("test_*.py") if "mark.cuda" in path.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "--standin", "-m", which, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *files], cwd=REPO_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED") and BEYOND not in line]
    assert not skipped, "take the fixture `accelerator` for the device: " + "\n".join(skipped)


# Training


def quantised(params):
    return {name: quantization.quantize(t, "dorefa", 4) if t.ndim > 2 else t for name, t in params.items()}


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [{"batched": False}, {"batched": True}, {"compress": quantised, "batched": True}],
    ids=["one by one", "batched", "quantised"],
)
def test_training_gives_the_weights_of_the_cpu(toy, tmp_path, accelerator, options, precision):
    if accelerator != standin.NAME and precision == "bf16":
        pytest.skip("only the stand-in computes bf16 in float32")
    split = splits.target_shadow(len(toy), 1, 2, seed=0, n_train=20)
    recipe = Recipe(epochs=3, batch_size=8)
    here = training.fit(mlp, toy, split, recipe, cache=Store(tmp_path / "here"), **options)
    fit = partial(training.fit, mlp, toy.to(accelerator), split, cache=Store(tmp_path / "there"), **options)
    there = fit(Recipe(epochs=3, batch_size=8, precision=precision))
    assert there.device.type == accelerator
    assert largest_difference(here, there.to("cpu")) <= (0 if accelerator == standin.NAME else 1e-3)


# Planted mistakes: each runs on the CPU, and is an error on the device


def as_it_was(monkeypatch):
    """What figures made of tensors before they asked where they lie."""
    monkeypatch.setattr(metrics, "numbers", partial(np.asarray, dtype=float))


def gallery(at, digits, monkeypatch):
    as_it_was(monkeypatch)
    return figures.gallery({"private": inversion.pixels(at(digits), torch.arange(3))})


def roc(at, digits, monkeypatch):
    as_it_was(monkeypatch)
    return figures.roc({"all": (np.arange(6) % 2, at(torch.arange(6.0)))})


def imshow(at, digits, monkeypatch):
    matplotlib.figure.Figure().subplots().imshow(at(digits).x[0, 0])


def scikit(at, digits, monkeypatch):
    LogisticRegression(max_iter=1000).fit(at(digits).x[:50].flatten(1) / 255, digits.y[:50])


def median(at, digits, monkeypatch):
    return np.median(at(torch.arange(3.0)))


def mask(at, digits, monkeypatch):
    networks = population.initial(CNN, [0])
    kept = pruning.mask(networks, "l1_unstructured", 0.5).kept
    return {name: at(networks).params[name] * one for name, one in kept.items()}


def order(at, digits, monkeypatch):
    return at(digits).y.index_select(0, torch.randperm(10))


def noise(at, digits, monkeypatch):
    x = at(digits).inputs(torch.arange(4))
    return x + torch.randn(x.shape)


def labels(at, digits, monkeypatch):
    x = at(torch.zeros(4, 10))
    return functional.cross_entropy(x, digits.y[:4])


def model(at, digits, monkeypatch):
    return asking.logits(population.initial(CNN, [0]), at(digits), torch.arange(4))


def pictures(at, digits, monkeypatch):
    networks = at(population.initial(CNN, [0]))
    return networks[0](digits.inputs(torch.arange(4)))


def inside_vmap(at, digits, monkeypatch):
    weights = torch.ones(2, 64, 3)
    return torch.vmap(torch.matmul)(at(digits).inputs(torch.arange(8).view(2, 4)).flatten(2), weights)


def closed_over_by_vmap(at, digits, monkeypatch):
    keep = torch.ones(64)
    return torch.vmap(lambda x: x * keep)(at(digits).inputs(torch.arange(4)).flatten(1))


def generator_of_the_cpu(at, digits, monkeypatch):
    return at(torch.zeros(3)).normal_(generator=torch.Generator())


def generator_of_the_device(at, digits, monkeypatch):
    return torch.rand(3, generator=torch.Generator(at(torch.zeros(1)).device))


def joined(at, digits, monkeypatch):
    return torch.cat([at(torch.zeros(2)), torch.zeros(2)])


def stacked(at, digits, monkeypatch):
    return torch.stack([at(torch.zeros(())), torch.zeros(())])


PLANTED = [gallery, roc, imshow, scikit, median, mask, order, noise, labels, model, pictures]
PLANTED += [inside_vmap, closed_over_by_vmap, generator_of_the_cpu, generator_of_the_device, joined, stacked]


@pytest.mark.parametrize("mistake", PLANTED)
def test_the_cpu_does_not_see_a_mistake(digits, monkeypatch, mistake):
    mistake(lambda thing: thing, digits, monkeypatch)


@pytest.mark.cuda
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(digits, monkeypatch, accelerator, mistake):
    with pytest.raises(
        (RuntimeError, TypeError), match="to numpy|same device|device type|generator|weight type"
    ):
        mistake(lambda thing: thing.to(accelerator), digits, monkeypatch)


@pytest.mark.cuda
def test_what_cuda_allows_is_no_mistake(accelerator):
    there = torch.arange(6.0, device=accelerator)
    assert there[torch.tensor([1, 4])].tolist() == [1, 4]  # an index of the CPU
    assert (there + torch.tensor(1.0)).sum().item() == 21  # a number
    assert torch.zeros(6).copy_(there).device.type == "cpu"
    drawn = torch.rand(3, generator=torch.Generator(accelerator), device=accelerator)
    assert drawn.device.type == accelerator and repr(drawn) and there.new_zeros(2).device == there.device


# Notebooks

TOYS = {
    "n_targets": 1, "n_shadows": 2, "n_models": 2, "n_train": 20, "n_reserve": 30, "epochs": 1, "fine_tune_epochs": 1, "retrain_epochs": 1,
    "admm_iterations": 2, "admm_epochs": 1, "augment": True, "early_stopping": True, "attack_epochs": 1, "samia_epochs": 1, "trainings": 1, "lira_models": 6, "bits": [8, 2],
    "search_epochs": 1, "sparsities": [0.7], "compressions": [2.0, 8.0], "purifier_epochs": 2, "game_epochs": 1, "game_updates": 1,
    "label_strengths": [1.0], "decoder_epochs": 1, "nsh_epochs": 1, "noisy_queries": 4, "stacking": True, "selena_sub_models": 3,
    "selena_left_out": 1, "adversarial_strengths": [1.0], "relax_strengths": [0.2], "mmd_strengths": [1.0], "dp_noises": [1.0], "dp_batch_sizes": [10],
    "ppb_strengths": [4.0], "smoothings": [0.3], "judge_width": 0.05, "decoder_width": 0.05, "memguard_budgets": [1.0],
    "pruners": ["l1_unstructured", "l1_filter", "slimming"], "families": ["after training", "fine-tuned, activations too", "from scratch"],
    "private_classes": 7, "subset": 600, "batch_size": 10, "n_jobs": 1, "run": "standin",
}  # fmt: skip


def execute(path, values):
    """Run the code of a notebook in this process, with values put in after its parameters."""
    namespace = {"__name__": path.stem}
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code":
            source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            exec(compile(source, f"{path.stem}[{number}]", "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update({name: value for name, value in values.items() if name in namespace})
    return namespace


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize(
    "path", sorted((REPO_ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_runs_on_the_device(path, monkeypatch, accelerator):
    for room in (machine, params):
        monkeypatch.setattr(room, "device", lambda name: accelerator)
    with joblib.parallel_config(backend="sequential"):
        namespace = execute(path, TOYS)
    assert namespace["device"] == accelerator
