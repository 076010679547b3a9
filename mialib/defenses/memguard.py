"""MemGuard: noise on the answer that leaves the defender's own membership classifier undecided.

The defender trains a classifier h (the *defence classifier*) to tell the answers to members from the answers to
reference examples. Then, for each answer with log-posteriors z and label l = argmax z:

    phase I     min over e of  |h(z + e)| + 10 relu(max over j != l of (z + e)_j - (z + e)_l)
                               + c3 |softmax(z + e) - softmax(z)|_1           h in log-odds of being a member
    phase II    reply softmax(z + e) with probability min(budget / |softmax(z + e) - softmax(z)|_1, 1), else softmax(z)

Phase I goes in rounds with c3 = 0.1, 1, ..., 1e5. Each round starts at z and takes steps of length 0.1 along the gradient
until h has changed its mind and the label is l, at most 299 steps. The first round that fails is the last, and the noise
of the round before it is taken. So the label never changes, and the mean L1 distortion is at most the budget. The
probability is 0 if the noise does not bring h nearer to one half. Source: Jia et al. 2019, arXiv:1909.10594; constants
and stopping from the public code jinyuan-jia/MemGuard, `defense_framework.py` and `evaluate_nn_attack.py`.

As in the public code, h sees posteriors in order of size, not by class. What we do otherwise:
- h sorts the noisy answer anew at each step (the code keeps the order of the original answer while it searches), so the
  search flips what h says of the reply itself.
- Log-posteriors below -20 are lifted to -20 before the search: 299 steps of 0.1 could not reach them, and saturated
  answers would go unprotected. That moves posteriors by 2e-9 a class.
- h learns by Adam, 50 epochs (the code: SGD, 400), and both classes weigh the same even if their numbers differ.
- Phase II draws by the answer and a secret key (`keyed`), so the same query always gets the same reply. The budget
  holds in expectation over keys; answers with one fingerprint (all one-hot answers of a class) share their draw.

The search stops just beyond one half. So h with a threshold is not brought to guessing but to the reverse: on digits
from a balanced accuracy of 0.76 to 0.24 at budget 1. Only its confidence falls to one half. An attacker who learns
from served answers may learn the reverse; measure that one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mialib import progress, streams, training
from mialib.data import Dataset, splits
from mialib.defenses import keyed
from mialib.defenses.state import Defender
from mialib.models.layers import initialise, mlp
from mialib.store import Store
from mialib.training import Batch, Forward, Population, Recipe, Tensors, pick, tasks

RECIPE = Recipe(epochs=50, batch_size=64, lr=1e-3, weight_decay=0.0)

LABEL_WEIGHT = 10.0  # c2
DISTORTION_WEIGHTS = (0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5)  # c3, round by round
STEP, STEPS = 0.1, 299
UNDECIDED = 4e-5  # log-odds: within 1e-5 of one half there is nothing to hide
FLOOR = -20.0  # of the log-posteriors for which noise is searched
ROWS, ROWS_ELSEWHERE = 1024, 4096  # answers whose noise is searched together, on a CPU and on a device

# logarithms of posteriors up to a constant (n, c) -> log-odds of a member (n,)
Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MemGuard:
    """Output defence of m networks, (m, n, c) -> (m, n, c), each with a defence classifier of its own.

    Args:
        classifiers: one defence classifier a network.
        budget: largest mean L1 distance between served and true posteriors, from 0 (no defence) to 2.
        keys: one secret a network, for `keyed`.

    Raises:
        ValueError: a budget or a key out of range, or not one key a network.
    """

    classifiers: Population
    budget: float
    keys: tuple[int, ...]

    def __post_init__(self):
        _check_budget(self.budget)
        for key in self.keys:
            keyed.check(key)
        if len(self.keys) != len(self.classifiers):
            raise ValueError(
                f"MemGuard: {len(self.keys)} keys for {len(self.classifiers)} networks; one each is needed"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, models: slice | list[int]) -> "MemGuard":
        """The defence of some of the networks only."""
        return MemGuard(self.classifiers[models], self.budget, pick(self.keys, models))

    def __call__(self, log_posteriors: Tensor) -> Tensor:
        """The served answers, for the answers (m, n, c) float64.

        Raises:
            ValueError: answers of another number of networks.
        """
        if len(log_posteriors) != len(self):
            raise ValueError(
                f"MemGuard guards {len(self)} networks and was given answers of {len(log_posteriors)}; "
                "index it by network first"
            )
        if self.budget == 0:
            return log_posteriors
        device = self.classifiers.device
        here = device.type == "cpu"
        jobs = [
            (score, part, self.budget, key)
            for score, answers, key in zip(self.scores(), log_posteriors.to(device), self.keys, strict=True)
            for part in answers.split(ROWS if here else ROWS_ELSEWHERE)
        ]
        # in as many processes as joblib is set to: the networks' searches are independent
        calls = (tasks.Call(number, serve, job) for number, job in enumerate(jobs))
        served = progress.follow(
            tasks.in_order(calls, n_jobs=None if here else 1), "MemGuard, noise", "part", len(jobs)
        )
        return torch.cat(list(served)).view_as(log_posteriors).to(log_posteriors.device)

    def scores(self) -> list[Score]:
        """The score that each defence classifier gives an answer."""
        # in float64, so that the last bits of an answer do not decide which way the search goes
        return [partial(_score, module.double().requires_grad_(False)) for module in self.classifiers]


def fit(
    defender: Defender,
    budget: float,
    key: int = 0,
    recipe: Recipe = RECIPE,
    cache: Store | None = None,
    device: str = "cpu",
) -> MemGuard:
    """Train a defence classifier for each network on its answers to members and reference examples.

    Args:
        budget: largest mean L1 distortion, 0 to 2; the classifiers do not depend on it.
        key: the secret; each network's own key is made from it and the network's seed.
        cache: default: the store at its default place.
        device: where the classifiers learn and the noise is searched for.

    Raises:
        ValueError: a budget or a key out of range.
    """
    _check_budget(budget)  # before the training
    keys = keyed.own_keys(key, defender.seeds)
    members, reference = (ranked(known.log_posteriors) for known in (defender.members, defender.reference))
    x = torch.cat([members, reference], dim=1).float()
    k, n, c = x.shape
    y = (torch.arange(n) < members.shape[1]).long().repeat(k)
    rows = Dataset.of_features("answers to members and reference", x.flatten(0, 1), y, 2)
    counts = (reference.shape[1], members.shape[1])
    classifiers = training.fit(
        partial(classifier, c),
        rows.to(device),
        splits.blocks(
            torch.ones(k, n, dtype=torch.bool),
            torch.tensor(streams.seeds(defender.seeds.tolist(), "defence classifier")),
        ),
        recipe,
        objective=partial(balanced_cross_entropy, weights=tuple(n / (2 * count) for count in counts)),
        cache=cache,
        what="defence classifiers",
        kind="networks of defences",
    )
    return MemGuard(classifiers, budget, keys)


def classifier(num_classes: int) -> nn.Module:
    """The defence classifier: posteriors in order of size (b, c) -> (b, 2), column 1 = member; c-256-128-64-2.

    The public code ends in one sigmoid, ours in two logits.
    """
    return initialise(mlp((num_classes, 256, 128, 64, 2), dropouts=()))


def ranked(log_posteriors: Tensor) -> Tensor:
    """The posteriors in descending order, (..., c); adding a constant to an answer changes nothing."""
    # stable, so that which of two equals is pushed does not depend on the other rows
    return log_posteriors.softmax(-1).sort(dim=-1, descending=True, stable=True).values


def balanced_cross_entropy(
    forward: Forward, params: Tensors, batch: Batch, step: int, weights: tuple[float, float]
) -> Tensor:
    """Cross-entropy of each classifier, (k,), with a weight for each class."""
    logits = forward(params, batch.x)
    each = F.cross_entropy(
        logits.flatten(0, 1), batch.y.flatten(), logits.new_tensor(weights), reduction="none"
    )
    return each.view(batch.y.shape).mean(1)


def serve(score: Score, log_posteriors: Tensor, budget: float, key: int) -> Tensor:
    """Both phases for the answers of one network, (n, c) float64 -> (n, c)."""
    return _mixed(score, log_posteriors, noise_search(score, log_posteriors), budget, key)


def noise_search(score: Score, log_posteriors: Tensor) -> Tensor:
    """Phase I: the answers with the noise that was found, z + e as log-posteriors (n, c) float64.

    An answer comes back as it was if none is found, or if `score` is undecided about it: steps of fixed length can swing
    between the two largest classes until they are used up. Labels are kept, the first of equals being the label. Takes
    2 ms an answer of 10 classes on a CPU, nearly all of it in the classifier.
    """
    start = log_posteriors.clamp(min=FLOOR).log_softmax(-1)
    noisy = log_posteriors.clone()
    with torch.no_grad():
        rows = (score(start).abs() > UNDECIDED).nonzero()[:, 0]
    label = log_posteriors.argmax(-1, keepdim=True)
    for weight in DISTORTION_WEIGHTS:
        reached, moved = _round(score, start[rows], label[rows], weight)
        rows = rows[reached]
        noisy[rows] = moved
    return noisy


def _round(score: Score, start: Tensor, label: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Descend from each row of `start` (r, c) until `score` has changed its mind and the label is `label` (r, 1).

    Returns the positions of the rows that got there, ascending, and where they are, as log-posteriors.
    """
    rows, here, posteriors = torch.arange(len(start), device=start.device), start, start.softmax(-1)
    with torch.no_grad():
        side = score(start).sign()
    reached, moved = [rows[:0]], [start[:0]]
    for _ in range(STEPS + 1):  # the last turn only checks where the last step has led
        if len(rows) == 0:
            break
        with torch.enable_grad():
            here = here.detach().requires_grad_()
            odds = score(here)
            largest_other = here.scatter(-1, label, -torch.inf).amax(-1)
            lead = here.gather(-1, label)[:, 0] - largest_other
            distortion = (here.softmax(-1) - posteriors).abs().sum(-1)
            loss = odds.abs() + LABEL_WEIGHT * F.relu(-lead) + weight * distortion
            (gradient,) = torch.autograd.grad(loss.sum(), here)
        here, odds = here.detach(), odds.detach()
        answer = here.log_softmax(-1)
        there = (odds * side <= 0) & (answer.argmax(-1, keepdim=True) == label)[:, 0]
        largest = gradient.abs().amax(-1)
        left = ~there & (largest > 0)  # without a gradient there is no direction
        if not bool(left.all()):
            reached.append(rows[there])
            moved.append(answer[there])
            rows, here, gradient, largest = rows[left], here[left], gradient[left], largest[left]
            posteriors, label, side = posteriors[left], label[left], side[left]
        gradient = gradient / largest[:, None]  # first scaled to size one: the squares of tiny numbers vanish
        here = here - STEP * gradient / gradient.norm(dim=-1, keepdim=True)
    rows, order = torch.cat(reached).sort()
    return rows, torch.cat(moved)[order]


@torch.no_grad()
def _mixed(score: Score, answers: Tensor, noisy: Tensor, budget: float, key: int) -> Tensor:
    """Phase II: the noisy answer or the true one, so that the expected distortion is within the budget."""
    distortion = (noisy.exp() - answers.exp()).abs().sum(-1)
    nearer = score(noisy).abs() < score(answers).abs()  # to log-odds 0, which is one half
    probability = torch.where(nearer, budget / distortion, 0.0)
    draw = keyed.uniform(answers, key, 1)[..., 0]
    return torch.where((draw < probability)[:, None], noisy, answers)


def _score(module: nn.Module, z: Tensor) -> Tensor:
    logits = module(ranked(z))
    return logits[:, 1] - logits[:, 0]


def _check_budget(budget: float) -> None:
    if not 0 <= budget < math.inf:
        raise ValueError(
            f"MemGuard: budget is {budget}; the mean L1 distortion must be 0 or more (2 is the largest there is)"
        )
