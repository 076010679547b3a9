"""Work is counted and none of it done; afterwards everything is as it was."""

import importlib
import sys

import pytest
import torch

import mialib
from mialib import asking, counting, data, models, pace, places, store, training
from mialib.asking import Door, answers
from mialib.attacks import averaging
from mialib.compression import bit_search
from mialib.data import loaders, splits
from mialib.defenses.differential_privacy import DPSGD, group_norm
from mialib.store import Store
from mialib.study import choices
from mialib.training import Recipe, fitting, population


@pytest.fixture
def split(digits):
    return splits.target_shadow(len(digits), 2, 1, 0, 40)


@pytest.fixture
def make_model(digits):
    return models.make("small_cnn", digits)


def test_steps_examples_and_bytes_are_those_of_a_real_training(digits, split, make_model, cache_root):
    recipe = Recipe(3, 16)
    with counting.counting() as counted:
        untrained = training.fit(make_model, digits, split, recipe, watch=("reserve",), what="some")
        training.fit(make_model, digits, split, recipe, watch=("reserve",), what="the same again")
    assert counted.trainings.keys() == {("some", 3, 16)}
    one = counted.trainings["some", 3, 16]
    tensors = population.initial(make_model, [0])
    size = sum(t.numel() * t.element_size() for t in (tensors.params | tensors.buffers).values())
    assert (one.networks, one.cached, one.steps, one.examples) == (3, 0, 3 * 3 * 3, 3 * 3 * 40)
    assert one.bytes == 3 * size and one.seconds > 0 and counted.pace.measuring > 0
    assert len(untrained) == 3 and untrained.trained_on == split.fingerprints()
    assert not Store(cache_root).entries()
    trained = training.fit(make_model, digits, split, recipe, watch=("reserve",))
    assert trained.keys == untrained.keys  # what is trained next has the same key in a run
    assert trained.records[0].keys() == untrained.records[0].keys()
    assert {n: t.shape for n, t in trained.params.items()} == {
        n: t.shape for n, t in untrained.params.items()
    }


def test_what_lies_in_the_cache_is_loaded_and_not_counted(digits, split, make_model):
    trained = training.fit(make_model, digits, split[:2], Recipe(1, 16))
    with counting.counting() as counted:
        found = training.fit(make_model, digits, split[:2], Recipe(1, 16), what="two")
        training.fit(make_model, digits, split, Recipe(1, 16), what="three")
    assert all(torch.equal(found.params[name], trained.params[name]) for name in trained.params)
    two, three = counted.trainings["two", 1, 16], counted.trainings["three", 1, 16]
    assert (two.networks, two.cached, two.steps) == (0, 2, 0)
    assert (three.networks, three.cached, three.steps) == (1, 0, 3)


def test_batches_that_vary_are_drawn(digits, split, make_model):
    with counting.counting() as counted:
        private = {"descent": DPSGD(1.0)}
        training.fit(group_norm(make_model), digits, split, Recipe(2, 10), what="private", **private)
    one = counted.trainings["private", 2, 10]
    assert one.steps == 3 * 2 * 4 and one.examples % 2 == 0 and 120 <= one.examples <= 360


def test_processes_share_out_the_time(digits, split, make_model, monkeypatch):
    monkeypatch.setattr(pace.Pace, "training", lambda *_: 10.0)
    seconds = []
    for jobs in (1, 2, 4):
        with counting.counting(jobs) as counted:
            training.fit(make_model, digits, split, Recipe(1, 16), what="three")
        seconds.append(counted.trainings["three", 1, 16].seconds)
    assert seconds == [30.0, 20.0, 10.0]


def test_who_waits_for_an_accuracy_waits_to_the_end(digits, split, make_model):
    with counting.counting():
        found = training.fit(make_model, digits, split, Recipe(10, 16), watch=("reserve",))
    assert choices.epochs_to_reach(found, 0.0) == 9  # ten are the original, which is there already


def test_answers_are_posteriors_that_depend_on_network_and_input_alone(digits, split, make_model):
    index = torch.arange(100)
    with counting.counting() as counted:
        networks = training.fit(make_model, digits, split, Recipe(1, 16))
        said = asking.log_posteriors(networks, digits, index)
        by_door = Door(networks)(digits.inputs(index).expand(3, -1, -1, -1, -1))
        views = asking.ask(networks, digits, index[:10])
    assert torch.allclose(said.exp().sum(-1), torch.ones(3, 100).double())
    assert torch.allclose(said, by_door, atol=1e-2)
    assert torch.equal(views.log_posteriors, said[:, :10])
    assert (views.sensitivity >= 0).all() and views.sensitivity.shape == (3, 10, 10)
    assert len(said[0].argmax(-1).unique()) > 5 and not torch.allclose(said[0], said[1])
    asked = {what: one.examples for what, one in counted.questions.items()}
    assert asked == {
        "answers": 3 * 110,
        counting.QUESTIONS: 300,
        "sensitivity, 10 further answers each": 3 * 10 * 10,
    }


def test_copies_are_counted_once_where_they_are_remembered(digits, split, make_model):
    change = averaging.gaussian(torch.full((4,), 0.1))
    with counting.counting() as counted:
        networks = training.fit(make_model, digits, split, Recipe(1, 16))
        for remember, times in ((True, 1), (False, 3)):
            views = asking.ask(
                networks, digits, torch.arange(6), sensitive=False, probes=True, remember=remember
            )
            for _ in range(2):
                shares = averaging.of_copies(views, 4, change, lambda answers, *_: answers.exp().mean((0, 2)))
            assert shares.shape == (3, 6)
            assert counted.questions[counting.QUESTIONS].examples == times * 3 * 6 * 4


@pytest.mark.parametrize("tolerances", [1, 2])
def test_a_search_counts_all_its_allocations(digits, split, make_model, tolerances):
    layers, choices_ = ["a", "b", "c"], (8, 4, 2)

    def measure(bits):
        training.fit(
            make_model, digits, split[:1], Recipe(1, 16), cache=Store("thrown away"), what="allocation"
        )
        return 0.5, 0.5

    with counting.counting() as counted:
        for _ in range(tolerances):
            bit_search.search(layers, choices_, measure, 0.1)
    one = counted.trainings["allocation", 1, 16]
    at_most = bit_search.at_most(3, 3)
    assert one.networks == at_most + (tolerances - 1) * (at_most - 1) and one.bytes == 0


def test_all_is_as_it_was_afterwards():
    def everywhere():
        modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "mialib"}
        return {(name, key): value for name, module in modules.items() for key, value in vars(module).items()}

    with counting.counting():  # what is imported with it
        pass
    before, threads = everywhere(), torch.get_num_threads()
    with pytest.raises(KeyError), counting.counting():
        assert bit_search.search is not before["mialib.compression.bit_search", "search"]
        raise KeyError
    assert {key: id(value) for key, value in everywhere().items()} == {
        key: id(value) for key, value in before.items()
    }
    for variable, outside in ((fitting.INSTEAD, None), (answers.INSTEAD, None), (places.LEFT_ALONE, False)):
        assert variable.get() is outside
    assert torch.get_num_threads() == threads


def test_what_has_a_stand_in_is_found_in_its_module_by_all_who_call_it():
    for room in mialib.ROOMS:
        for file in sorted((mialib.REPO_ROOT / "mialib" / room).glob("*.py")):
            importlib.import_module(f"mialib.{room}.{file.stem}".removesuffix(".__init__"))
    stand_ins = counting._Counter(1).stand_ins()
    places_of = {(module.__name__, name) for module, name, _ in stand_ins}
    functions = {id(getattr(module, name)) for module, name, _ in stand_ins}
    elsewhere = {
        (module, name)
        for module in list(sys.modules)
        if module.split(".")[0] == "mialib"
        for name, value in vars(sys.modules[module]).items()
        if id(value) in functions
    }
    assert elsewhere == places_of


def test_nothing_is_written(digits, split, make_model, tmp_path, cache_root):
    with counting.counting():
        store.write(tmp_path / "results" / "one", b"x")
        assert not Store(cache_root).ready()
        training.fit(make_model, digits, split, Recipe(1, 16))
    assert not (tmp_path / "results").exists() and not Store(cache_root).entries()


def test_a_curve_that_a_cached_network_lacks_trains_it_again(digits, split, make_model):
    with counting.counting() as counted:
        for watch in ((), (), ("test",), ("test",), ()):
            training.fit(make_model, digits, split, Recipe(1, 16), watch=watch, what="some")
    one = counted.trainings["some", 1, 16]
    assert one.networks == 2 * 3  # as each would be, and kept in the same place
    tensors = population.initial(make_model, [0])
    assert one.bytes == 3 * sum(
        t.numel() * t.element_size() for t in (tensors.params | tensors.buffers).values()
    )


def test_missing_data_are_noise_of_the_published_size_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("mialib.data.download.pooch.retrieve", lambda *a, **k: pytest.fail("it downloads"))
    with counting.counting() as counted:
        noise = data.load("location", tmp_path, subset=300)
        assert noise.x.shape == (300, 446) and noise.num_classes == 30
        assert len(counted.missing) == 1 and "dataset_location.tgz" in counted.missing[0]
        with pytest.raises(counting.NoData, match="att_faces.npz"):
            data.load("att_faces", tmp_path)
    assert not list(tmp_path.iterdir()) and "location" in loaders.LOADERS
