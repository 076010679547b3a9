"""Which code is reached: every edit that makes a difference retrains what it touches, and nothing else."""

import functools

import pytest

from mialib import reach, training
from mialib.attacks import signals
from mialib.compression import pruning
from mialib.compression.admm import ADMM
from mialib.compression.cardinality import everywhere
from mialib.compression.gradual import Gradual
from mialib.defenses import adversarial, differential_privacy, losses
from mialib.hashing import sources
from mialib.models import classifiers
from mialib.training import fitting
from tests.test_hashing import module

NETWORK = functools.partial(classifiers.small_cnn, in_channels=1, num_classes=10, image_size=8)
TRAINED = fitting._CODE
HOOKS = {
    "plain": (NETWORK, training.cross_entropy),
    "ADMM": (NETWORK, training.cross_entropy, ADMM(everywhere(NETWORK, 4.0), 3)),
    "gradual": (NETWORK, training.cross_entropy, Gradual(everywhere(NETWORK, 4.0), 9, 3)),
    "game": (NETWORK, training.cross_entropy, adversarial.AdversarialRegularization(1.0, 10)),
    "PPB": (NETWORK, losses.PPB(4.0)),
    "DP-SGD": (
        differential_privacy.group_norm(NETWORK),
        training.cross_entropy,
        differential_privacy.DPSGD(1.0),
    ),
}
EDITS = [
    ("compression.pruning", "scores < threshold", "scores > threshold", {"ADMM", "gradual"}),
    ("compression.cardinality", "1 - d)", "1 - d / 2)", {"ADMM", "gradual"}),
    ("compression.admm", "self.rho / 2", "self.rho / 3", {"ADMM"}),
    ("compression.gradual", ") ** 3", ") ** 2", {"gradual"}),
    ("defenses.player", "torch.optim.Adam(", "torch.optim.SGD(", {"game"}),
    ("asking.posteriors", "torch.cat([values, ", "torch.cat([-values, ", {"game"}),
    ("models.attack_networks", "(0.2, 0.2)", "(0.3, 0.2)", {"game"}),
    ("defenses.losses", "logits.shape[1] // 2", "logits.shape[1] // 3", {"PPB"}),
    ("defenses.differential_privacy", "AT_ONCE = 2**22", "AT_ONCE = 2**21", {"DP-SGD"}),
    ("defenses.differential_privacy", "norms + 1e-6", "norms + 1e-5", {"DP-SGD"}),
    ("training.loop", "lr * 0.1 **", "lr * 0.2 **", set(HOOKS)),
    ("training.objectives", ".mean(1)", ".sum(1)", set(HOOKS)),
    ("training.checkpoints", "accuracy > self.accuracy", "accuracy >= self.accuracy", set(HOOKS)),
    ("training.recipe", "rest > 1", "rest > 0", set(HOOKS)),
    ("training.population", "squeeze(0)", "squeeze(0) + 0", set(HOOKS)),
    ("models.layers", "xavier_normal_", "xavier_uniform_", set(HOOKS)),
    ("models.classifiers", "widths = (width, 2 * width", "widths = (width, 3 * width", set(HOOKS)),
    ("data.datasets", "batch.div_(255)", "batch.div_(256)", set(HOOKS)),
    ("data.splits", "mask.nonzero()[:, 1]", "mask.nonzero()[:, 0]", set(HOOKS)),
    # what no training reaches, and what changes nothing
    ("models.classifiers", "nn.Conv2d(in_channels, 20, 5", "nn.Conv2d(in_channels, 21, 5", set()),
    ("models.classifiers", '"small_cnn": 8', '"small_cnn": 9', set()),
    ("training.loop", "# dropout draws", "# what dropout draws", set()),
    ("training.loop", "Train the models of one shard together", "Train them", set()),
    ("training.loop", "losses: list[float], split: Splits", "losses, split", set()),
    ("data.splits", "0.45 * len(order)", "0.44 * len(order)", set()),
    ("defenses.losses", "def flattening", "def flattened", set()),
    ("defenses.keyed", "STEP = 0.01", "STEP = 0.02", set()),
    ("compression.pruning", '"l1_global"', '"l1_everywhere"', set()),
    ("attacks.threshold", "tied, -1)", "tied, -2)", set()),
]


def hashes():
    reach.forget()
    return {name: sources(*TRAINED, *hooks) for name, hooks in HOOKS.items()}


@pytest.fixture(scope="module")
def before():
    return hashes()


@pytest.mark.parametrize(
    ("module", "old", "new", "retrained"), EDITS, ids=[f"{e[0]}: {e[1]} -> {e[2]}"[:60] for e in EDITS]
)
def test_an_edit_retrains_what_reaches_it_and_nothing_else(before, monkeypatch, module, old, new, retrained):
    read = reach._text

    def edited(name):
        text = read(name)
        if name == f"mialib.{module}":
            assert old in text
            text = text.replace(old, new)
        return text

    monkeypatch.setattr(reach, "_text", edited)
    after = hashes()
    assert {name for name in before if after[name] != before[name]} == retrained
    reach.forget()


def test_names_are_followed_through_the_rooms_and_no_further_than_they_lead():
    reached = reach.reached(losses.LabelSmoothing(0.1), training.fit)
    assert ("mialib.defenses.losses", "LabelSmoothing") in reached
    assert ("mialib.training.loop", "Shard") in reached
    assert not any(module.startswith(("mialib.attacks", "torch", "mialib.figures")) for module, _ in reached)
    assert ("mialib.defenses.losses", "PPB") not in reached


def test_a_name_that_a_module_passes_on_is_followed_to_where_it_is_defined():
    # signals has `true_class` from asking.posteriors
    assert ("mialib.asking.posteriors", "true_class") in reach.reached(signals.confidence_gap)
    assert reach._targets("mialib.attacks.signals", "true_class") == {
        ("mialib.asking.posteriors", "true_class")
    }


def test_a_module_as_a_value_counts_whole():
    assert reach.reached(pruning) > {("mialib.compression.pruning", reach.WHOLE)}


def test_a_users_module_counts_whole_and_what_it_imports_from_here_by_name(tmp_path, monkeypatch):
    text = "from mialib.models.layers import initialise\n\nWIDTH = 3\n\n\ndef net():\n    return initialise\n"
    mine = module(tmp_path, monkeypatch, "mine_one", text)
    other = module(tmp_path, monkeypatch, "mine_two", text.replace("WIDTH = 3", "WIDTH = 4"))
    assert reach.reached(mine.net) == {("mine_one", reach.WHOLE), ("mialib.models.layers", "initialise")}
    assert sources(mine.net) != sources(other.net)


def test_a_library_is_not_followed_whichever_environment_it_lies_in(tmp_path, monkeypatch):
    installed = tmp_path / "another" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    module(installed, monkeypatch, "their_library", "def twice(x):\n    return 2 * x\n")
    text = "import their_library\n\n\ndef net():\n    return their_library.twice(3)\n"
    mine = module(tmp_path, monkeypatch, "mine_with_a_library", text)
    assert reach.reached(mine.net) == {("mine_with_a_library", reach.WHOLE)}


def test_what_is_read_once_is_remembered(before):
    """A key costs some milliseconds, so that asking the cache is cheap."""
    hashes()
    read = []
    hashing_text, reach._text = reach._text, lambda name: read.append(name) or hashing_text(name)
    try:
        for hooks in HOOKS.values():
            sources(*TRAINED, *hooks)
    finally:
        reach._text = hashing_text
    assert read == []


def test_a_users_package_is_followed_by_its_relative_imports(tmp_path, monkeypatch):
    for name, text in {"__init__": "from .nets import build", "nets": "def build():\n    return 1"}.items():
        (tmp_path / "own_package").mkdir(exist_ok=True)
        (tmp_path / "own_package" / f"{name}.py").write_text(text)
    (tmp_path / "own_recipe.py").write_text(
        "import own_package\n\ndef train(data):\n    return own_package.build()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_recipe

    assert ("own_package.nets", "*") in reach.reached(own_recipe.train)


def test_packages_of_another_environment_are_not_followed(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "elsewhere" / "__init__.py").write_text("def tool():\n    return 1")
    (tmp_path / "own_script.py").write_text(
        "import elsewhere\n\ndef train(data):\n    return elsewhere.tool()"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(tmp_path)
    import own_script

    assert {module for module, _ in reach.reached(own_script.train)} == {"own_script"}
