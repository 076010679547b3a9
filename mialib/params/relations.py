"""Which parameters go together, whatever the data: each rule reads several that are in range by themselves."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

Values = Mapping[str, Any]
LARGEST_PULL = 1e6  # of ADMM; beyond it the loss is only the penalty, and soon no number in float32


def problems(values: Values, names: Collection[str]) -> dict[str, list[str]]:
    """Parameters that do not go together: name of the parameter to change -> problems, only for those that have some.

    Args:
        values: some or all parameters of a notebook, each in range by itself. A rule looks at those that are there.
        names: all parameters of the notebook, including those that are not in range: they tell which notebook it is.
    """
    found: dict[str, list[str]] = {}
    for rule in _RULES:
        for name, problem in rule(values, names):
            found.setdefault(name, []).append(problem)
    return found


def batches(values: Values, members: int) -> Iterator[tuple[str, str]]:
    """No batch can hold more examples than a network has members."""
    wanted = [("batch_size", values.get("batch_size", 0))]
    if values.get("dp_noises"):
        wanted += [("dp_batch_sizes", size) for size in values.get("dp_batch_sizes", ())]
    for name, size in wanted:
        if size > members:
            yield name, f"{name} holds {size}, and a network has {members} members; take at most as many"


def left_out(values: Values, members: int) -> Iterator[tuple[str, str]]:
    """Every sub-model of SELENA needs a member."""
    k, left = values.get("selena_sub_models"), values.get("selena_left_out")
    if k and left and left < k and members * (k - left) < k:
        yield (
            "selena_left_out",
            f"selena_left_out is {left}: {members} members, each left out of {left} of {k} sub-models, leave "
            "some of these none; lower it",
        )


def _members(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    n_train = values.get("n_train")
    if n_train is not None:
        yield from batches(values, n_train)
        yield from left_out(values, n_train)
    elif "n_train" in values and ("private_classes" in names or "n_models" in names):
        yield "n_train", "n_train is None: this notebook has no share of its own to take; write a number"


def _milestones(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, of in (("milestones", "epochs"), ("fine_tune_milestones", "fine_tune_epochs")):
        milestones, epochs = values.get(name), values.get(of)
        if milestones and milestones != sorted(set(milestones)):
            yield name, f"{name} is {milestones}: epochs at which the rate falls rise from one to the next"
        if milestones and epochs and max(milestones) >= epochs:
            yield (
                name,
                f"{name} is {milestones}: {of} is {epochs}, so that {max(milestones)} is never reached",
            )


def _chosen(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, of in (("sparsity", "sparsities"), ("compression", "compressions")):
        one, those = values.get(name), values.get(of)
        if one is not None and those and one not in those:
            yield name, f"{name} is {one}: it must be one of {of}, {those}"


def _first(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    # the notebook of purification, which has `stacking`, can leave rivals out; the others use the first strength
    if values.get("adversarial_strengths") == [] and "stacking" not in names:
        yield "adversarial_strengths", "adversarial_strengths is []: the first of them is looked at; name one"


def _sub_models(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    k, left = values.get("selena_sub_models"), values.get("selena_left_out")
    if k and left and left >= k:
        yield (
            "selena_left_out",
            f"selena_left_out is {left}: of selena_sub_models, {k}, at most {k - 1} can be left out",
        )


def _halves(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Models that come in pairs, one of which can be attacked by all others: only the notebook of canaries has them."""
    k, targets = values.get("n_models"), values.get("n_targets")
    if "reserve_share" not in names or k is None:
        return
    if k % 2 or k < 6:
        yield (
            "n_models",
            f"n_models is {k}: models come in pairs, three or more; take an even number from 6",
        )
    elif targets is not None and targets > k // 2:
        yield (
            "n_targets",
            f"n_targets is {targets}: of {k} models (n_models) one of each pair can be attacked, at most {k // 2}",
        )


# for each arm the parameter that holds the values it tries
_TRIED = {
    "PPB": "ppb_strengths",
    "RelaxLoss": "relax_strengths",
    "HAMP": "hamp_strengths",
    "MemGuard": "memguard_budgets",
    "DP-SGD": "dp_noises",
    "DP-SGD throughout": "dp_noises",
}


def _tried(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """An arm that is asked for needs a strength."""
    if "reserve_share" not in names:
        return
    for arm in values.get("arms", ()):
        if values.get(_TRIED.get(arm, "")) == []:
            yield (
                _TRIED[arm],
                f"{_TRIED[arm]} is []: arm {arm!r} (arms) needs one or more; name one, or leave the arm out",
            )


def _pull(values: Values, names: Collection[str]) -> Iterator[tuple[str, str]]:
    rho, growth, times = (values.get(name) for name in ("rho", "rho_growth", "admm_iterations"))
    if rho and growth and times and not _at_most(LARGEST_PULL, rho, growth, times - 1):
        yield (
            "rho_growth",
            f"rho_growth is {growth}: rho, {rho}, would be beyond {LARGEST_PULL:g} in the last of {times} "
            "iterations (admm_iterations); lower one of the three",
        )


def _at_most(limit: float, start: float, growth: float, times: int) -> bool:
    try:
        return start * growth**times <= limit
    except OverflowError:
        return False


_RULES: tuple[Callable[[Values, Collection[str]], Iterator[tuple[str, str]]], ...] = (
    _members,
    _milestones,
    _chosen,
    _first,
    _sub_models,
    _halves,
    _tried,
    _pull,
)
