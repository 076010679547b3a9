"""What each parameter may be: values that cannot end well are named with what is valid."""

import math

import pytest

from mialib.params import vocabulary


def problems(values, words=None):
    """All problems of `values`, in one line."""
    found = vocabulary.problems(values, words or {})
    assert found.keys() <= values.keys()
    return "; ".join(problem for of_one in found.values() for problem in of_one)


def test_valid_values_have_no_problems():
    values = {"lr": 1e-3, "n_train": None, "sparsities": [0.1, 0.5], "pruners": ["l1_filter", "slimming_l1"]}
    assert vocabulary.problems(values, {}) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "unknown parameter 'epoch', did you mean 'epochs'"),
        ({"epochs": "3"}, "epochs is '3': input should be a valid integer"),
        ({"epochs": 3.0}, "epochs is 3.0"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 0}, "epochs is 0: input should be greater than or equal to 1"),
        ({"lr": "1e-3"}, "lr is '1e-3': input should be a valid number"),
        ({"lr": 0.0}, "lr is 0.0: input should be greater than 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"sparsity": 1.0}, "sparsity is 1.0: input should be less than 1"),
        ({"sparsity": -0.1}, "sparsity is -0.1: input should be greater than or equal to 0"),
        ({"sparsities": [0.5, 70]}, "sparsities.1 is 70: input should be less than 1"),
        ({"sparsities": []}, "sparsities is []"),
        ({"sparsities": 0.5}, "sparsities is 0.5: input should be a valid list"),
        ({"dataset": "absent:load"}, "dataset is 'absent:load': no module absent"),
        ({"dataset": "folder:/no/such/folder"}, "folder:/no/such/folder: no folder"),
        ({"dataset": "folder:~nobody-of-that-name/x"}, "dataset is 'folder:~nobody-of-that-name/x'"),
        ({"dataset": "folder:" + "x" * 5000}, "dataset is 'folder:xxxx"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808: input should be less than 9223372036854775808"),
        ({"ppb_strengths": [4.0, 0.0]}, "ppb_strengths.1 is 0.0"),
        ({"adversarial_strengths": [-1.0]}, "adversarial_strengths.0 is -1.0"),
        ({"smoothings": [1.0]}, "smoothings.0 is 1.0"),
        ({"relax_upper": 1.5}, "relax_upper is 1.5"),
        ({"dp_noises": [0.0]}, "dp_noises.0 is 0.0"),
        ({"dp_batch_sizes": [1]}, "dp_batch_sizes.0 is 1"),
        ({"dp_delta": 1.0}, "dp_delta is 1.0"),
        ({"bits": [8, 2.5]}, "bits.1 is 2.5"),
        ({"bits": [8]}, "bits is [8]"),
        ({"bits": [32, 8]}, "bits.0 is 32"),
        ({"lira_models": 7}, "lira_models is 7"),
        ({"headline_bits": 0}, "headline_bits is 0"),
        ({"edge_bits": 64}, "edge_bits is 64"),
        ({"families": ["fine tuned"]}, "families.0 is 'fine tuned'"),
        ({"mmd_strengths": [0.0]}, "mmd_strengths.0 is 0.0"),
        ({"search_tolerances": [3]}, "search_tolerances.0 is 3"),
        ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'"),
        ({"early_stopping": 1}, "early_stopping is 1: input should be a valid boolean"),
        (
            {"n_train": 1},
            "n_train is 1: input should be greater than or equal to 10",
        ),  # BlindMI asks for 20 candidates
        ({"n_train": 9}, "n_train is 9"),
        ({"private_classes": 2}, "private_classes is 2: input should be greater than or equal to 3"),
        ({"sparsities": [0.0, 0.5]}, "sparsities.0 is 0.0: input should be greater than 0"),  # the control
        ({"compressions": [1.0, 2.0]}, "compressions.0 is 1.0: input should be greater than 1"),
        ({"n_targets": 100_000}, "n_targets is 100000: input should be less than or equal to 10000"),
        ({"n_shadows": 10**9}, "n_shadows is 1000000000"),
        ({"lira_models": 100_000}, "lira_models is 100000"),
        ({"judge_width": 1e9}, "judge_width is 1000000000.0: input should be less than or equal to 4"),
        ({"purifier_widths": [10**9]}, "purifier_widths.0 is 1000000000"),
        ({"data_root": ""}, "data_root is '': it would be the name of a folder; leave it null"),
        ({"run": 2024}, "run is 2024: input should be a valid string; write it in quotes"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_valid(values, words):
    assert words in problems(values)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"dataset": "cifar"}, "cifar10"),
        ({"model": "resnet-18"}, "resnet18"),
        ({"pruner": "l1_filters"}, "l1_filter"),
        ({"pruners": ["l1_filtre"]}, "l1_filter"),
        ({"weight_decai": 1.0}, "weight_decay"),
    ],
    ids=str,
)
def test_the_nearest_valid_word_is_named(values, nearest):
    assert f"did you mean {nearest!r}" in problems(values)


def test_what_is_like_no_name_is_not_guessed_at():
    assert problems({"xyzzy": 3}) == "unknown parameter 'xyzzy'"
    assert problems({"model": "folder:x"}).endswith(
        "module:function"
    )  # a list of what is valid, and no guess


def floats():
    """Every parameter that holds a number with a point or a list of such, as name -> makes a value of a number."""
    for name in vocabulary.Vocabulary.__annotations__:
        for wrap in (lambda one: one, lambda one: [one], lambda one: [0.25, one]):
            if (
                vocabulary.problems({name: wrap(0.5)}, {}) == {}
                or vocabulary.problems({name: wrap(2.5)}, {}) == {}
            ):
                yield pytest.param(name, wrap, id=f"{name} {wrap('x')}")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300], ids=str)
@pytest.mark.parametrize(("name", "wrap"), list(floats()))
def test_no_number_is_infinite_or_beyond_float32(name, wrap, value):
    assert f"{name}" in problems({name: wrap(value)})


def test_all_kinds_of_numbers_were_tried():
    tried = {one.values[0] for one in floats()}
    assert {"lr", "rho", "dp_noises", "judge_width", "gamma_l1", "weight_decay", "search_tolerances"} <= tried


@pytest.mark.parametrize(
    "name", ["ppb_strengths", "compressions", "pruners", "sparsities", "label_strengths", "dp_lrs"]
)
def test_a_list_that_something_is_chosen_from_is_not_empty(name):
    assert f"{name} is []" in problems({name: []})


@pytest.mark.parametrize(
    "name", ["milestones", "dp_noises", "search_tolerances", "mmd_strengths", "families"]
)
def test_what_can_be_left_out_may_be_empty(name):
    assert problems({name: []}) == ""


@pytest.mark.parametrize(
    "values",
    [
        {"bits": [8, 8]},
        {"pruners": ["l1_filter", "l2_filter", "l1_filter"]},
        {"sparsities": [0.5, 0.5]},
        {"dp_batch_sizes": [8, 8]},
        {"dp_noises": [1, 1.0]},
        {"families": ["from scratch"] * 2},
        {"search_tolerances": [0.1, 0.1]},
        {"memguard_budgets": [1.0, 1.0]},
        {"arms": ["A", "A"]},
    ],
    ids=str,
)
def test_no_list_holds_a_value_twice(values):
    assert "the same value stands in it twice" in problems(values, {"arms": "ABC"})


def test_settings_are_told_apart_by_six_digits():
    assert "the same first six digits" in problems({"ppb_strengths": [1.0, 1.0000001]})
    assert "the same first six digits" in problems({"ppb_strengths": [1, 1.0000001]})
    assert (
        problems({"ppb_strengths": [1.0, 1.00001]}) == problems({"dp_batch_sizes": [100_000, 100_001]}) == ""
    )


@pytest.mark.parametrize("name", ["purifier_widths", "reformer_widths", "densities"])
def test_layers_may_be_alike(name):
    assert problems({name: [1, 1]} if name != "densities" else {name: [0.5, 0.5]}) == ""


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "...",
        ".hidden",
        "my run",
        "run[1]",
        "läufchen",
        "a/b",
        "../elsewhere",
        "-x",
        "",
        "x\n",
        "x" * 101,
    ],
)
def test_a_run_names_a_folder_below_its_own(name):
    assert "a run names a folder" in problems({"run": name})


@pytest.mark.parametrize("name", ["location", "cifar10_resnet18", "2024-01-01", "v1.5", "_", "x" * 100])
def test_usual_names_are_a_runs(name):
    assert problems({"run": name}) == ""


def test_words_of_one_notebook_stay_with_it():
    words = {"arms": "ABC"}
    assert problems({"arms": ["A", "C"]}, words) == ""
    for wrong, found in ((["D"], "arms.0 is 'D'"), ([], "arms is []"), ("A", "arms is 'A'")):
        assert found in problems({"arms": wrong, "epochs": 0}, words)
    assert "unknown parameter 'arms'" in problems({"arms": ["A"]})


def test_what_may_be_none_is_said_and_nothing_else_may():
    assert problems({"subset": None, "n_train": None}) == ""
    assert problems({"epochs": None}) == "epochs is None: input should be a valid integer"


def test_problems_are_told_by_parameter():
    found = vocabulary.problems({"epochs": 0, "lr": -1.0, "seed": 1, "sparsities": [2, 3]}, {})
    assert {name: len(of_one) for name, of_one in found.items()} == {"epochs": 1, "lr": 1, "sparsities": 2}


@pytest.mark.parametrize("value", ["x" * 10_000, [0.5] * 10_000, 10**4000, {"a": ["b"] * 10_000}, object()])
def test_a_problem_is_a_line_not_a_page(value):
    assert len(problems({"lr": value})) < 250
    assert "\n" not in problems({"run": "a\nb" * 100})


def test_a_list_that_holds_itself_is_no_list_of_numbers():
    endless = []
    endless.append(endless)
    assert "sparsities.0 is [" in problems({"sparsities": endless})
