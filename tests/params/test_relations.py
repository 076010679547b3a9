"""Parameters that do not go together are named, and those that do are not."""

import pytest

from mialib.params import relations


def problems(names=(), **values):
    found = relations.problems(values, {*values, *names})
    assert found.keys() <= values.keys()
    return "; ".join(problem for of_one in found.values() for problem in of_one)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"milestones": [5, 5], "epochs": 9}, "milestones is [5, 5]: epochs at which the rate falls rise"),
        ({"milestones": [5, 3], "epochs": 9}, "milestones is [5, 3]: epochs at which the rate falls rise"),
        ({"milestones": [5], "epochs": 5}, "milestones is [5]: epochs is 5, so that 5 is never reached"),
        (
            {"fine_tune_milestones": [1, 7], "fine_tune_epochs": 6},
            "fine_tune_epochs is 6, so that 7 is never",
        ),
        (
            {"sparsity": 0.6, "sparsities": [0.5, 0.7]},
            "sparsity is 0.6: it must be one of sparsities, [0.5, 0.7]",
        ),
        (
            {"compression": 3.0, "compressions": [2.0]},
            "compression is 3.0: it must be one of compressions, [2.0]",
        ),
        (
            {"batch_size": 32, "n_train": 20},
            "batch_size holds 32, and a network has 20 members; take at most as many",
        ),
        ({"dp_noises": [1.0], "dp_batch_sizes": [8, 50], "n_train": 20}, "dp_batch_sizes holds 50"),
        (
            {"adversarial_strengths": []},
            "adversarial_strengths is []: the first of them is looked at; name one",
        ),
        (
            {"selena_sub_models": 10, "selena_left_out": 10},
            "selena_left_out is 10: of selena_sub_models, 10, at most 9",
        ),
        ({"selena_sub_models": 25, "selena_left_out": 24, "n_train": 20}, "leave some of these none"),
        ({"rho": 1e-3, "rho_growth": 10.0, "admm_iterations": 30}, "rho, 0.001, would be beyond 1e+06"),
        ({"rho": 1.0, "rho_growth": 1e6, "admm_iterations": 10**6}, "rho_growth is 1000000.0"),
        ({"n_train": None, "private_classes": 7}, "n_train is None: this notebook has no share of its own"),
        ({"n_train": None, "n_models": 3}, "n_train is None"),
        ({"reserve_share": 0.1, "n_models": 7}, "n_models is 7: models come in pairs, three or more"),
        ({"reserve_share": 0.1, "n_models": 4}, "n_models is 4: models come in pairs, three or more"),
        (
            {"reserve_share": 0.1, "n_models": 8, "n_targets": 5},
            "n_targets is 5: of 8 models (n_models) one of each pair",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named(values, words):
    assert words in problems(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"milestones": [3, 8], "epochs": 9},
        {"milestones": [], "epochs": 1},
        {"milestones": [3]},
        {"sparsity": 0.5, "sparsities": [0.5, 0.7]},
        {"sparsity": 0.0},
        {"compression": None, "compressions": [2.0]},
        {"batch_size": 20, "n_train": 20},
        {"batch_size": 20, "n_train": None},
        {"dp_noises": [], "dp_batch_sizes": [50], "n_train": 20},
        {"adversarial_strengths": [], "stacking": True},
        {"selena_sub_models": None, "selena_left_out": 10},
        {"selena_sub_models": 25, "selena_left_out": 24, "n_train": 25},
        {"rho": 1e-3, "rho_growth": 3.0, "admm_iterations": 10},
        {"rho": 1e6, "rho_growth": 1e6, "admm_iterations": 1},
        {"n_train": None, "n_shadows": 2},
        {},
    ],
    ids=str,
)
def test_what_goes_together_passes(values):
    assert problems(**values) == ""


def test_a_notebook_is_known_by_the_names_of_what_is_not_sound_too():
    assert problems(["stacking"], adversarial_strengths=[]) == ""
    assert "n_train is None" in problems(["private_classes"], n_train=None)
