"""A study of networks that were trained elsewhere, from their saved answers: each network is an arm with one target."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mialib.asking import Views
from mialib.data import Dataset, Splits
from mialib.study.arms import Given
from mialib.study.study import Study


def of_answers(
    answers: Mapping[str, Tensor],
    labels: Tensor,
    member: Tensor,
    *,
    seed: int = 0,
    name: str = "outside",
    **columns,
) -> Study:
    """A study with an arm for each network, all of them attacked on the same candidates; there are no shadow models.

    Attack it with knowing="half". The inputs are not known to it: attacks that ask further questions cannot run.

    Args:
        answers: name -> log-posteriors, float64 (n, c), all about the same examples in the same order.
        labels, member: int64 (n,), the true classes; bool (n,), whether the networks have learned the example.
        seed: of the candidates' order, and of the half that an attacker is given.
        name: of the data, in the rows.
        columns: of all rows, see `Study`.

    Raises:
        ValueError: no network, answers of other shapes, or what `Views` and `Splits` refuse.
    """
    answers = {key: one[None] for key, one in answers.items()}
    study = _empty(answers, labels, member[None], 1, "own", seed, name, columns)
    return _answered(study, answers, labels)


def of_imitated(
    answers: Mapping[str, Tensor],
    labels: Tensor,
    member: Tensor,
    *,
    beside: str | None = None,
    seed: int = 0,
    name: str = "outside",
    **columns,
) -> Study:
    """A study of networks and of imitations of each, which an attacker trained: `roles.own_then_halves`.

    Target 0 of each arm is the network itself, the targets after it are its imitations.

    Args:
        answers: name -> log-posteriors, float64 (1 + s, n, c), those of the network first, then those of its s imitations.
        labels: int64 (n,).
        member: bool (1 + s, n), what the networks, and each imitation of them, have learned.
        beside: name of a network whose answers an attacker holds too. Each other one gets a second arm, `both_key`,
            which attacks that need `versions` can be run on.
        seed, name, columns: as of `of_answers`.

    Raises:
        ValueError: as `of_answers`; fewer than two imitations.
    """
    study = _empty(answers, labels, member, len(member), "own_then_halves", seed, name, columns)
    return _with_versions(_answered(study, answers, labels), answers, beside)


def of_canaries(
    answers: Mapping[str, Tensor],
    labels: Tensor,
    member: Tensor,
    *,
    seed: int = 0,
    name: str = "outside",
    **columns,
) -> Study:
    """A study of imitations on canaries, each of which one of a pair of imitations has learned: `roles.by_coins`.

    Every second imitation is a target.

    Args:
        answers: name -> log-posteriors, float64 (s, n, c), of its s imitations to n canaries.
        labels: int64 (n,), the wrong ones that they were learned with.
        member: bool (s, n).
        seed, name, columns: as of `of_answers`.

    Raises:
        ValueError: as `of_answers`; what `roles.by_coins` refuses.
    """
    study = _empty(answers, labels, member, len(member) // 2, "canaries", seed, name, columns)
    return _answered(study, answers, labels)


def both_key(key: str, beside: str) -> str:
    """The key of the arm of an attacker who holds two networks."""
    return f"{key}, with {beside}"


def _empty(answers, labels, member, n_targets, protocol, seed, name, columns) -> Study:
    shapes = {key: tuple(one.shape) for key, one in answers.items()}
    fit = (len(member), len(labels))
    if not answers or len(set(shapes.values())) > 1 or any(s[:2] != fit for s in shapes.values()):
        found = {key: shape[1:] if fit[0] == 1 else shape for key, shape in shapes.items()}
        raise ValueError(
            f"answers must be {'(n, c)' if fit[0] == 1 else (fit[0], 'n', 'c')} log-posteriors of each network to the same "
            f"{len(labels)} examples, found {found}"
        )
    classes = next(iter(answers.values())).shape[2]
    # instead of inputs, which nobody asks for
    places = torch.arange(len(labels), dtype=torch.float32)[:, None]
    pool = Dataset.of_features(name, places, labels, classes)
    seeds = torch.arange(len(member)) + seed
    nobody = torch.zeros_like(member)
    if protocol == "canaries":  # they are in no set of a model that lacks them
        chosen, split = torch.ones_like(member[0]), Splits(member, nobody, nobody, seeds)
    else:
        chosen, split = None, Splits(member, ~member, nobody, seeds)
    return Study(pool, split, n_targets, seed=seed, candidates=chosen, protocol=protocol, **columns)


def _answered(study: Study, answers: Mapping[str, Tensor], labels: Tensor) -> Study:
    """With an arm for each network; all models answer for the same candidates, and those that teach are all or none."""
    index, targets = study.roles.index[0], study.roles.targets
    for key, one in answers.items():
        seen = Views(one[:, index], labels[index].expand(len(one), -1))
        study.arm(
            key, Given([seen[[i]] for i in targets], seen if study.roles.shadows else None), variant=key
        )
    return study


def _with_versions(study: Study, keys: Iterable[str], beside: str | None) -> Study:
    for key in [key for key in keys if beside is not None and key != beside]:
        both = both_key(key, beside)
        study.arm(both, study.arms[key], beside=[study.arms[beside]], variant=both)
    return study
