"""A study of networks that were trained elsewhere, from their saved answers: each network is an arm with one target."""

from collections.abc import Mapping

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
    beside: str | None = None,
    seed: int = 0,
    name: str = "outside",
    **columns,
) -> Study:
    """A study with an arm for each network, all of them attacked on the same candidates; there are no shadow models.

    Attack it with knowing="half". The inputs are not known to it: attacks that ask further questions cannot run.

    Args:
        answers: name -> log-posteriors, float64 (n, c), all about the same examples in the same order.
        labels, member: int64 (n,), the true classes; bool (n,), whether the networks have learned the example.
        beside: name of a network whose answers an attacker holds too. Each other one gets a second arm, "name, with ...",
            which attacks that need `versions` can be run on.
        seed: of the candidates' order, and of the half that an attacker is given.
        name: of the data, in the rows.
        columns: of all rows, see `Study`.

    Raises:
        ValueError: no network, answers of other shapes, or what `Views` and `Splits` refuse.
    """
    shapes = {key: tuple(one.shape) for key, one in answers.items()}
    if not answers or len(set(shapes.values())) > 1 or any(s[:1] != (len(labels),) for s in shapes.values()):
        raise ValueError(
            f"answers must be (n, c) log-posteriors of each network to the same {len(labels)} examples, found {shapes}"
        )
    classes = next(iter(answers.values())).shape[1]
    places = torch.arange(len(labels), dtype=torch.float32)[
        :, None
    ]  # instead of inputs, which nobody asks for
    pool = Dataset.of_features(name, places, labels, classes)
    nobody = torch.zeros_like(member)[None]
    split = Splits(member[None], ~member[None], nobody, torch.tensor([seed]))
    study = Study(pool, split, 1, seed=seed, protocol="own", **columns)
    index = study.roles.index[0]
    for key, one in answers.items():
        study.arm(key, Given([Views(one[index][None], labels[index][None])]), variant=key)
    if beside is not None:
        for key in [key for key in answers if key != beside]:
            both = f"{key}, with {beside}"
            study.arm(both, study.arms[key], beside=[study.arms[beside]], variant=both)
    return study
