"""Neural attacks: a network learns from the shadow models what members look like, and judges the target's candidates.

    margin = logit(member) - logit(non-member), from features of the target's answer

The attack networks are a population like any other, trained by the one training loop on one row for each shadow model and
candidate. All trainings run together, beside those for other shadows (`fit_all`). Each network is cached under the hash
of its own rows, so further targets, and attackers who share their shadow models, cost no training. Source: Yuan & Zhang
2022, public code mia_prune `attackers.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mialib import asking, training
from mialib.asking import Views
from mialib.asking.posteriors import with_label
from mialib.attacks import signals
from mialib.data import Dataset, Joined
from mialib.models import attack_networks
from mialib.store import Store
from mialib.training import Population, Recipe


def schedule(epochs: int, lr: float, optimizer: str, batch_size: int = 128) -> Recipe:
    """The official schedule at another length: the rate falls to a tenth at one half and at three quarters of the epochs.

    Training is in bf16 (autocast), which takes two thirds of the time on a CPU; the networks judge in float32.
    """
    milestones = (epochs // 2, epochs * 3 // 4)
    return Recipe(epochs, batch_size, lr, 5e-4, optimizer, milestones=milestones, precision="bf16")


# bytes of rows that learn as one population: of 100 classes with 135,000 rows, 162 MB a lesson, six lessons at a time
TOGETHER = 2**30

SCHEDULE = schedule(epochs=100, lr=1e-3, optimizer="sgd")  # mia_prune: SGD with momentum 0.9, batches of 128


def posteriors(views: Views) -> Tensor:
    """f(x), (m, n, c): the features of NN, the attack without labels."""
    return views.log_posteriors.exp().float()


def top3(views: Views) -> Tensor:
    """The three largest posteriors in descending order, (m, n, 3).

    Raises:
        ValueError: fewer than three classes.
    """
    if views.log_posteriors.shape[-1] < 3:
        raise ValueError(
            f"top3_nn needs 3 classes or more, found {views.log_posteriors.shape[-1]}; leave it out here"
        )
    return posteriors(views).topk(3, dim=-1).values


def ranked(views: Views) -> Tensor:
    """All posteriors in descending order, (m, n, c), without the classes they belong to."""
    return posteriors(views).sort(dim=-1, descending=True).values


def posteriors_and_label(views: Views) -> Tensor:
    """f(x) and the one-hot true class, (m, n, 2c)."""
    return with_label(posteriors(views), views.labels)


def log_posteriors_and_label(views: Views) -> Tensor:
    """Log-posteriors in tens of nats, none below -5, and the one-hot true class, (m, n, 2c).

    As plain posteriors, the answers of a saturated network would all look alike to a network in float32.
    """
    return with_label(views.log_posteriors.clamp(min=-50.0).float() / 10, views.labels)


def samia_features(views: Views) -> Tensor:
    """f(x), the sensitivity s(x) and the one-hot true class, (m, n, 3c): one token (f_c, s_c, y_c) for each class.

    Raises:
        ValueError: the views hold no sensitivity.
    """
    if views.sensitivity is None:
        raise ValueError(
            "samia needs the sensitivity, and these views hold none; take asking.ask(..., sensitive=True)"
        )
    return torch.cat([posteriors(views), with_label(views.sensitivity.float(), views.labels)], dim=-1)


@dataclass(frozen=True)
class NeuralAttack:
    """attack(target, shadows, shadow_member, seed) -> margins; `seed` is the number of one of the trainings.

    Args:
        name: shown on the progress bar.
        features: features(views) -> float32 (m, n, d).
        network: network(d) -> constructor of the attack network, without arguments.
        recipe: how the network is trained.
        trainings: how many networks are trained on the same rows; `seed` runs from 0 to trainings - 1.
        device: where they are trained and asked.
        cache: default: the store at its default place.
        needs: what the features read beside posteriors and labels, see `training.hooks.NEEDS`.
        batched: as in `training.fit`: all networks at once under vmap, one by one, or as the engine chooses.
    """

    name: str
    features: Callable[[Views], Tensor]
    network: Callable[[int], Callable[[], nn.Module]]
    recipe: Recipe = SCHEDULE
    trainings: int = 3
    device: str = "cpu"
    cache: Store | None = None
    needs: frozenset[str] = frozenset()
    batched: bool | None = None

    def __call__(self, target: Views, shadows: Views, shadow_member: Tensor, seed: int = 0) -> Tensor:
        """Margins float64 (n,) from the network of training number `seed`."""
        if not 0 <= seed < self.trainings:
            raise ValueError(
                f"{self.name}: seed is {seed}; the attack has trainings 0 to {self.trainings - 1}"
            )
        return self.judge(self.fit(shadows, shadow_member, [seed]), target)[0, 0]

    def judge(self, networks: Population, targets: Views) -> Tensor:
        """Margins of the candidates of m targets by each trained attack network, (m, trainings, n) float64."""
        rows = self._rows(targets, torch.zeros(targets.labels.shape, dtype=torch.bool)).to(self.device)
        logits = asking.logits(networks, rows, torch.arange(len(rows))).double()
        margins = logits[..., 1] - logits[..., 0]
        return margins.unflatten(1, targets.labels.shape).transpose(0, 1)

    def fit(self, shadows: Views, shadow_member: Tensor, seeds: list[int] | None = None) -> Population:
        """The trained attack networks, of the trainings `seeds` or, by default, of all."""
        return self.fit_all([(shadows, shadow_member)], seeds)[0]

    def fit_all(
        self, lessons: Sequence[tuple[Views, Tensor]], seeds: list[int] | None = None
    ) -> list[Population]:
        """What `fit` gives for each of the lessons, (shadows, shadow_member); lessons with equally many rows learn together.

        Each network learns from its own rows and is stored under them; its initial weights and batches are the same as
        alone. (Under vmap all draw their dropout from one stream, so there it is another draw.) Lessons learn in groups
        of at most `TOGETHER` bytes of rows; a larger lesson learns alone. A group is in memory twice while its rows are
        joined, then once, whatever the number of trainings: 146 MB for 9 lessons of 135,000 rows of 30 features. Masks
        take a byte for each network and row of any, three times: 98 MB for 27 networks.
        """
        seeds = list(range(self.trainings)) if seeds is None else seeds
        networks: dict[str, Population] = {}
        waiting: dict[torch.Size, dict[str, Dataset]] = {}
        names = []
        for lesson in lessons:
            rows = self._rows(*lesson)
            group = waiting.setdefault(rows.x.shape, {})
            names.append(rows.fingerprint)
            if rows.fingerprint in networks or rows.fingerprint in group:
                continue  # equal lessons are learned once
            if group and (1 + len(group)) * rows.x.numel() * rows.x.element_size() > TOGETHER:
                networks |= self._learn(group, seeds)
            group[rows.fingerprint] = rows
        for group in waiting.values():
            networks |= self._learn(group, seeds)
        return [networks[name] for name in names]

    def _learn(self, group: dict[str, Dataset], seeds: list[int]) -> dict[str, Population]:
        """The networks of equally large lessons, by the name of the lesson; `group` is emptied."""
        names = list(group)
        joined = Joined.of(list(group.values())).to(self.device)
        group.clear()
        learned = training.fit(
            self.network(joined.x.shape[1]),
            joined,
            joined.everyone(seeds),
            self.recipe,
            cache=self.cache,
            what=f"attack networks {self.name}",
            kind="attack networks",
            batched=self.batched,
        )
        return {name: learned[i * len(seeds) : (i + 1) * len(seeds)] for i, name in enumerate(names)}

    @property
    def together(self) -> bool:
        """Whether all networks learn together in one process; else they are tasks for several."""
        return self.device != "cpu" if self.batched is None else self.batched

    def _rows(self, views: Views, member: Tensor) -> Dataset:
        signals.check_member(member, views.labels, "membership", f"{self.name}: ")
        x = self.features(views).flatten(0, 1).contiguous()
        return Dataset.of_features(self.name, x, member.flatten().long(), 2)


def _mlp(features: int) -> Callable[[], nn.Module]:
    return partial(attack_networks.attack_mlp, features)


def _samia(features: int) -> Callable[[], nn.Module]:
    return partial(attack_networks.samia_network, features // 3)


def _nsh(features: int, width: float) -> Callable[[], nn.Module]:
    return partial(attack_networks.nsh_network, features // 2, width)


def attacks(recipe: Recipe = SCHEDULE, **options) -> dict[str, NeuralAttack]:
    """The four neural attacks by name; `options` are further fields of NeuralAttack (trainings, device, cache)."""
    return {
        "nn": NeuralAttack("nn", posteriors, _mlp, recipe, **options),
        "top3_nn": NeuralAttack("top3_nn", top3, _mlp, recipe, **options),
        "nn_class": NeuralAttack("nn_class", posteriors_and_label, _mlp, recipe, **options),
        "samia": NeuralAttack(
            "samia", samia_features, _samia, recipe, needs=frozenset({"sensitivity"}), **options
        ),
    }


def ranked_nn(recipe: Recipe = SCHEDULE, **options) -> NeuralAttack:
    """The attack network of `attacks`, on ranked posteriors; Salem et al. 2019, arXiv:1806.01246, use the first three."""
    return NeuralAttack("ranked_nn", ranked, _mlp, recipe, **options)


def nsh(recipe: Recipe = SCHEDULE, width: float = 1.0, logs: bool = False, **options) -> NeuralAttack:
    """The attack of Nasr, Shokri & Houmansadr 2018: separate branches for posterior and label, `attack_networks.nsh_network`.

    logs: it sees log-posteriors instead of posteriors and is called nsh_log; this is not theirs.
    """
    name, features = ("nsh_log", log_posteriors_and_label) if logs else ("nsh", posteriors_and_label)
    return NeuralAttack(name, features, partial(_nsh, width=width), recipe, **options)
