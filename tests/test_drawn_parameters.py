"""Parameter files drawn at random: each is refused before a kernel starts, line by line, or runs to its end."""

import contextlib
import io
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from mialib import REPO_ROOT, cli, params, running
from mialib.compression import pruning, quantization, schemes

NOTEBOOKS = {path.stem: path for path in sorted((REPO_ROOT / "notebooks").glob("*.ipynb"))}
DEFAULTS = {name: params.declared(path) for name, path in NOTEBOOKS.items()}
WORDS = {name: params.words_of(path) for name, path in NOTEBOOKS.items()}


def drawing(examples, **options):
    """The same draws on every machine; failures are shrunk where they are found, and kept nowhere."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=checks,
        **options,
    )


# Whatever people write

NUMBERS = [-1, 0, 1, 2, 3, 8, 10, 16, 32, 100, 1000, 10**6, 10**12, 2**63 - 1, 2**63, 10**30]
POINTS = [-1.0, 0.0, 1e-320, 1e-9, 0.1, 0.5, 0.7, 1.0, 2.0, 4.0, 1e6, 1e300, math.inf, -math.inf, math.nan]
TEXTS = [
    "",
    "None",
    "null",
    "~",
    "x",
    "digits",
    "location",
    "a b",
    "é",
    "..",
    "folder:nowhere",
    "absent:load",
    "a:b:c",
]
TEXTS += [
    "small_cnn",
    "columnfc",
    "resnet8",
    "resnet20",
    "sgd",
    "bf16",
    "cuda",
    "cpu",
    "A",
    "l1_filter",
    "slimming",
    "\n",
]
ANYTHING = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(POINTS),
    st.sampled_from(TEXTS),
    st.text(max_size=10),
    st.integers(),
    st.floats(),
    st.sampled_from([None, True, False, [], {}, [[]], [None], {"a": 1}]),
)


def near(default):
    """Values like the default: itself, others of its kind, and lists of them."""
    if isinstance(default, list):
        one = st.sampled_from(default) if default else st.sampled_from([1, 2, 0.5, 1.0])
        return st.one_of(st.just(default), st.lists(one, max_size=4), st.lists(ANYTHING, max_size=3))
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int | float):
        return st.one_of(st.just(default), st.sampled_from(NUMBERS if isinstance(default, int) else POINTS))
    return st.one_of(st.just(default), st.sampled_from(TEXTS))


@st.composite
def written(draw):
    """A notebook, and the bytes of a file for it: some of its parameters, mostly in range, and how it is written."""
    name = draw(st.sampled_from(list(NOTEBOOKS)))
    chosen = draw(st.lists(st.sampled_from(list(DEFAULTS[name])), max_size=6, unique=True))
    values = {
        one: draw(st.one_of(near(DEFAULTS[name][one]), near(DEFAULTS[name][one]), ANYTHING)) for one in chosen
    }
    values.pop("run", None) if draw(st.booleans()) else None
    if draw(st.integers(0, 9)) == 0:
        values[draw(st.text(max_size=6))] = 1
    text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    how = draw(st.integers(0, 19))
    if how == 0:
        text += draw(
            st.sampled_from(
                ["epochs: 1\nepochs: 2", "lr: 1e-4", "\tx: 1", "seed: None", "- a", "a: [", "a: *b"]
            )
        )
    encoding = {1: "utf-16", 2: "latin-1", 3: "utf-8-sig"}.get(how, "utf-8")
    return name, text.encode(encoding, errors="replace")


def refused_or_run(folder, monkeypatch, examples):
    """Draws files and gives them to `mialib run`; how many were accepted and refused."""
    ran, ended = [], {0: 0, 2: 0}
    monkeypatch.setattr(running, "execute", lambda notebook, values: ran.append(values) or 0)
    monkeypatch.setattr("mialib.data.download.pooch.retrieve", lambda *a, **k: pytest.fail("it downloads"))

    @drawing(examples)
    @given(written())
    def run(drawn):
        name, content = drawn
        path = folder / name / "drawn.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        ran.clear()
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = cli.main(["run", str(path)])
        ended[status] += 1
        if status == 0:
            (values,) = ran
            assert said.getvalue() == "" and values["run"] == "drawn"
            numbers = [
                one for value in values.values() for one in (value if isinstance(value, list) else [value])
            ]
            assert all(math.isfinite(one) for one in numbers if isinstance(one, float))
        else:
            lines = said.getvalue().splitlines()
            assert not ran and lines and all(line.startswith(f"mialib: {path}: ") for line in lines)

    run()
    return ended


def test_a_drawn_file_is_refused_line_by_line_or_accepted(tmp_path, monkeypatch):
    ended = refused_or_run(tmp_path, monkeypatch, 60)
    assert min(ended.values()) >= 6  # both happen


@pytest.mark.slow
def test_a_thousand_drawn_files_are_refused_or_accepted(tmp_path, monkeypatch):
    ended = refused_or_run(tmp_path, monkeypatch, 1000)
    assert min(ended.values()) >= 100


# What is accepted runs to its end


def some(values, fewest=1, most=2):
    return st.lists(st.sampled_from(values), min_size=fewest, max_size=most, unique=True)


def one(*values):
    return st.sampled_from(values)


SMALL = {
    "subset": one(None, None, 300, 120), "image_side": one(None, None, 9), "model": one("small_cnn", "small_cnn", "lenet5", "resnet8"),
    "n_train": one(10, 12, 20, None), "n_targets": one(1, 2), "n_shadows": one(1, 2), "n_models": one(1, 2, 6, 6), "n_canaries": one(10, 20),
    "reserve_share": one(0.1, 0.4), "hamp_strengths": some([0.01, 2.0], 0), "hamp_threshold": one(0.1, 0.95), "n_reserve": one(10, 30),
    "private_classes": one(None, 3, 5, 9), "epochs": one(1, 2), "fine_tune_epochs": one(1, 2), "retrain_epochs": one(1, 2),
    "batch_size": one(2, 8, 10), "optimizer": one("adam", "sgd"), "lr": one(1e-6, 1e-3, 0.1), "fine_tune_lr": one(1e-4, 0.1),
    "milestones": one([], [1]), "fine_tune_milestones": one([], [1]), "augment": st.booleans(), "weight_decay": one(0.0, 5e-4, 1),
    "early_stopping": st.booleans(), "pruner": st.sampled_from(pruning.METHODS), "pruners": some(pruning.METHODS),
    "sparsity": one(0.0, 0.5, 0.9), "sparsities": some([0.001, 0.5, 0.9]), "gamma_l1": one(1e-6, 1.0),
    "densities": one(None, [0.5, 0.5, 0.5, 0.5], [1e-6, 1.0, 0.1, 0.1]), "compression": one(None, 2.0), "compressions": some([1.01, 2.0, 1e4]),
    "channel_density": one(0.01, 0.5, 1.0), "admm_iterations": one(1, 2), "admm_epochs": one(1, 2), "rho": one(1e-9, 1e-3, 10.0),
    "rho_growth": one(1.0, 3.0), "bits": some(quantization.WIDTHS, 2, 2), "headline_bits": st.sampled_from(quantization.WIDTHS),
    "edge_bits": one(None, 8, 2), "families": some(schemes.FAMILIES, 0, 2), "search_tolerances": one([], [], [0.5]), "search_epochs": one(1),
    "deploy": one(False, False, True), "ppb_strengths": some([0.1, 4.0, 1000.0]), "adversarial_strengths": some([0.1, 2.0], 0), "smoothings": some([0.01, 0.9], 0),
    "relax_strengths": some([0.1, 2.0], 0), "relax_upper": one(0.1, 1.0), "mmd_strengths": some([1e-3, 5.0], 0), "dp_noises": some([0.01, 1.0, 50.0], 0),
    "dp_epochs": one(1), "dp_lrs": some([1e-3, 0.1], 1, 1), "dp_batch_sizes": some([2, 10], 1, 1), "dp_clip": one(1e-3, 1.0), "dp_delta": one(1e-9, 0.1),
    "stacking": st.booleans(), "selena_sub_models": one(None, None, 3), "selena_left_out": one(1, 2), "purifier_widths": one([1], [7, 4, 7]),
    "purifier_epochs": one(1, 2), "purifier_lr": one(1e-3, 0.1), "game_epochs": one(1), "game_updates": one(1, 2), "judge_width": one(0.001, 0.1),
    "label_strengths": some([0.01, 10.0], 1, 1), "inversion_strengths": some([0.1, 100.0], 1, 1), "membership_strengths": some([0.1, 100.0], 1, 1),
    "label_budget": one(0.0, 0.5), "reformer_widths": one([1], [8, 16]), "reformer_latent": one(1, 3), "reformer_lr": one(1e-3, 0.1),
    "reformer_strength": one(1e-6, 1.0), "table_strength": one(1.0, 1000.0), "swap_distance": one(1e-9, 1.0), "memguard_budgets": some([0.01, 2.0], 1, 1),
    "decoder_width": one(0.001, 0.05), "decoder_epochs": one(1), "attack_optimizer": one("adam", "sgd"), "attack_epochs": one(1, 2),
    "attack_lr": one(1e-4, 0.1), "samia_optimizer": one("adam", "sgd"), "samia_epochs": one(1), "samia_lr": one(1e-4, 0.1), "nsh_epochs": one(1),
    "trainings": one(1, 2), "lira_models": one(None, None, 6), "noisy_queries": one(4, 8), "precision": one("float32", "bf16"),
    "seed": one(0, 7, 2**32, 2**63 - 1),
}  # fmt: skip
FIXED = {"device": "cpu", "n_jobs": 1, "dataset": "digits"}


@st.composite
def toys(draw, name):
    """Parameters at toy size that the notebook's check accepts."""
    values = {key: draw(SMALL[key]) for key in DEFAULTS[name] if key in SMALL}
    values |= {key: draw(some(words, 1, 4)) for key, words in WORDS[name].items()}
    values |= {key: value for key, value in FIXED.items() if key in DEFAULTS[name]}
    if values["n_train"] is None:
        values["subset"] = 121  # of all digits, 45 % of a half are no toy
    try:
        params.validate(values, "drawn", WORDS[name])
    except params.Refused:
        assume(False)
    assume(not params.fits.problems(values, values))
    return values


def ends(name, values, folder):
    """Whether the notebook ends with these values; what it says lies in `folder` and on the screen."""
    path = Path(folder) / name / "toy.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return cli.main(["run", str(path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_accepted_runs_to_its_end(name, tmp_path):
    @drawing(2, phases=[Phase.generate])  # shrinking would take hours
    @given(toys(name))
    def run(values):
        assert ends(name, values, tmp_path), values

    run()
