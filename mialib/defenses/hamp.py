"""HAMP: less confident training, and answers that carry the scores of random inputs.

In training, with entropy H(p) = -sum_c p_c log p_c and soft labels t,

    L = mean over examples of KL(t || p) - strength * H(p),        H(t) = threshold * log c

t gives the true class the most, and all others the same. A served answer has its classes in the order of the true answer
and the scores of an answer to random noise. So only the order is left of the true answer.

Source: Chen & Pattabiraman 2024, NDSS, arXiv:2307.01610, where threshold is gamma and strength alpha; public code
DependableSystemsLab/MIA_defense_HAMP, `location/train-hamp.py` and `location/lira-inference-defense.py`. Differences:

- their KL is PyTorch's default, which also divides by the classes: their alpha is strength / c, and their learning rate
  is that much larger (0.5 on Location with alpha 1 or less; 0.001 on CIFAR-10 in ethz-spylab/misleading-privacy-evals
  `hamp.py`).
- they lower the true class's share by steps of 0.01 until the threshold is passed; here it meets the threshold.
- they draw a random input anew for each question; here the same answer always gets the same one (`keyed`), from a store,
  since asking again must not tell more. They set all equal scores to one value; here each class keeps its own, and the
  predicted class stays the only largest.

The label stays, and with it everything that labels alone give away: a label-only attack sees the undefended answers. For
a wrongly classified example the order says how wrong it is. An attacker who knows the defence has shadow models served
alike.
"""

import functools
import math
from dataclasses import dataclass

import torch
from scipy import optimize
from torch import Tensor

from mialib import asking, streams
from mialib.data import Dataset
from mialib.defenses import keyed
from mialib.training import Batch, Forward, Population, Tensors, pick

THRESHOLD = 0.95  # as in the public code


@dataclass(frozen=True)
class HAMP:
    """The training loss; the equation is in the module's first lines.

    Args:
        strength: weight of the entropy, in units of the KL divergence, 0 or more; 0 leaves the soft labels alone.
        threshold: entropy of the soft labels, as a share of the largest possible, in [0, 1); 0 leaves the labels hard.

    Raises:
        ValueError: a value out of range.
    """

    strength: float
    threshold: float = THRESHOLD

    def __post_init__(self):
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"HAMP: strength is {self.strength!r}; it must be 0 or more, and finite")
        _check_threshold(self.threshold)

    def __call__(self, forward: Forward, params: Tensors, batch: Batch, step: int) -> Tensor:
        log_p = forward(params, batch.x).log_softmax(-1)
        classes = log_p.shape[-1]
        own = log_p.gather(-1, batch.y[..., None]).squeeze(-1)
        others = (log_p.sum(-1) - own) / (classes - 1)
        kept = true_share(self.threshold, classes)
        divergence = -(kept * own + (1 - kept) * others) - self.threshold * math.log(classes)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return (divergence - self.strength * entropy).mean(1)


@functools.cache
def true_share(threshold: float, classes: int) -> float:
    """The true class's share of a soft label whose entropy is threshold * log(classes), from 1 / classes to 1.

    Raises:
        ValueError: a threshold outside [0, 1), fewer than two classes.
    """
    _check_threshold(threshold)
    if classes < 2:
        raise ValueError(f"HAMP: soft labels need two classes or more, found {classes}")
    if threshold == 0:
        return 1.0

    def lacking(share):
        rest = 1 - share
        entropy = -share * math.log(share) - (rest * math.log(rest / (classes - 1)) if rest > 0 else 0.0)
        return entropy - threshold * math.log(classes)

    return float(optimize.brentq(lacking, 1 / classes, 1.0, xtol=1e-12))


@dataclass(frozen=True)
class Reordered:
    """Output defence of m networks, (m, n, c) -> (m, n, c): each answer keeps its order and gets scores of a random input.

    Among equal scores of an answer the first class comes first, as in its label.

    Args:
        scores: (m, r, c) float64, each network's log-posteriors of r random inputs, from the largest to the smallest; the
            largest of each is larger than all others.
        keys: one secret a network, for `keyed`.

    Raises:
        ValueError: scores that are not in this order, keys out of range, or not one a network.
    """

    scores: Tensor
    keys: tuple[int, ...]

    def __post_init__(self):
        steps = self.scores.diff(dim=-1)
        if self.scores.ndim != 3 or bool((steps > 0).any()) or not bool((steps[..., 0] < 0).all()):
            raise ValueError(
                f"HAMP: scores {tuple(self.scores.shape)} must be (networks, answers, classes), each answer falling from a "
                "single largest score"
            )
        for key in self.keys:
            keyed.check(key)
        if len(self.keys) != len(self.scores):
            raise ValueError(
                f"HAMP: {len(self.keys)} keys for the scores of {len(self.scores)} networks; one each is needed"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, models: slice | list[int]) -> "Reordered":
        """The defence of some of the networks only."""
        return Reordered(self.scores[models], pick(self.keys, models))

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        """The served answers, for the answers (m, n, c) float64.

        Raises:
            ValueError: answers of another number of networks or classes.
        """
        own = log_posteriors.shape[0], log_posteriors.shape[-1]
        if own != (len(self), self.scores.shape[-1]):
            raise ValueError(
                f"HAMP guards {len(self)} networks of {self.scores.shape[-1]} classes and was given answers of {own[0]} of "
                f"{own[1]}; index it by network first"
            )
        order = log_posteriors.sort(dim=-1, descending=True, stable=True).indices
        drawn = torch.stack(
            [
                scores.to(answers.device)[_row(answers, key, len(scores))]
                for scores, answers, key in zip(self.scores, log_posteriors, self.keys, strict=True)
            ]
        )
        return torch.empty_like(log_posteriors).scatter(-1, order, drawn)


def fit(
    population: Population, data: Dataset, seeds: Tensor, *, key: int = 0, count: int = 1000
) -> Reordered:
    """Ask each network about random inputs of its own, and keep their scores.

    Args:
        data: says what kind of inputs they are. For pictures every pixel is drawn evenly from 0 to 255. Each feature is
            drawn between its smallest and largest value in the data set, as a whole number if all values are: for
            Location 0 or 1, as in the public code.
        seeds: int64 (k,), the networks', as `Splits.seeds`.
        key: the secret; it and a network's seed decide what that network is asked, and its own key.
        count: random inputs for each network. Those whose two largest scores are equal are left out.

    Raises:
        ValueError: not one seed a network, a key out of range, no input, or a network that answers all inputs alike.
    """
    if len(seeds) != len(population):
        raise ValueError(f"HAMP: {len(seeds)} seeds for {len(population)} networks; one each is needed")
    if count < 1:
        raise ValueError(f"HAMP: count is {count}; at least one random input is needed")
    keys, found = keyed.own_keys(key, seeds), []
    for i, own in enumerate(keys):
        noise = random_inputs(data, count, streams.seed(own, "random inputs"))
        answers = asking.ask(population[[i]], noise, torch.arange(count), sensitive=False).log_posteriors[0]
        scores = answers.sort(dim=-1, descending=True).values
        found.append(scores[scores[:, 0] > scores[:, 1]])
    fewest = min(len(scores) for scores in found)
    if not fewest:
        raise ValueError(
            f"HAMP: a network's two largest scores are equal for all of {count} random inputs, so that none could stand "
            "for an answer and keep its label; take networks that tell inputs apart"
        )
    return Reordered(torch.stack([scores[:fewest] for scores in found]), keys)


def random_inputs(data: Dataset, count: int, seed: int) -> Dataset:
    """Inputs in the range of a data set's but otherwise unlike them, see `fit`. All are labelled 0."""
    generator = streams.generator(seed, "HAMP")
    if data.is_image:
        x = torch.randint(256, (count, *data.x.shape[1:]), generator=generator, dtype=torch.uint8)
    else:
        values = data.x.cpu().double()
        low, high = values.amin(0), values.amax(0)
        drawn = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
        if bool((values == values.round()).all()):
            x = (low + (drawn * (high - low + 1)).floor()).to(data.x.dtype)
        else:
            x = (low + drawn * (high - low)).to(data.x.dtype)
    y = torch.zeros(count, dtype=torch.int64, device=data.x.device)
    return Dataset("random inputs", x.to(data.x.device), y, data.num_classes, data.mean, data.std)


def _row(answers: Tensor, key: int, count: int) -> Tensor:
    """The number of the stored answer, of `count`, that stands for each of these (n, c), int64 (n,)."""
    return (keyed.uniform(answers, key, 1)[:, 0] * count).long().clamp(max=count - 1)


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(
            f"HAMP: threshold is {threshold!r}; it must be in [0, 1), a share of the largest entropy"
        )
