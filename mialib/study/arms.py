"""Arms: the things a study compares. Their answers are asked for at first use and kept until they are forgotten."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mialib import asking
from mialib.asking import Door, Views, posteriors
from mialib.attacks import signals
from mialib.attacks.averaging import averaged, needs_door
from mialib.data import Dataset
from mialib.study.roles import Roles
from mialib.training import Population, pick
from mialib.training.hooks import OutputDefense

# one single-model Views for each target; the Views of all shadows, None if there are none
Sides = tuple[list[Views], Views | None]


class Answers:
    """The answers of targets and shadows: made at first use, kept until `forget`.

    sensitive: whether the sensitivity can be had.
    versions: how many other versions of each model answer beside it.
    """

    sensitive = False
    versions = 0

    def __init__(self):
        self._kept: Sides | None = None
        self._public: list[Views] | None = None

    def _make(self) -> Sides:
        """One single-model Views for each target, and the Views of all shadows."""
        raise NotImplementedError

    def _with_sensitivity(self) -> Sides:
        raise ValueError(
            "the sensitivity is asked of the networks themselves: it is not served, averaged or given"
        )

    def views(self, sensitive: bool = False) -> Sides:
        """One single-model Views for each target, and the Views of all shadows; with their sensitivity if wanted."""
        if self._kept is None:
            self._kept = self._make()
        if sensitive and self._kept[0][0].sensitivity is None:
            self._kept = self._with_sensitivity()
        return self._kept

    def _make_public(self, roles: Roles) -> list[Views]:
        return [
            one.public or _asked_openly(one, roles.data, roles.public(i))
            for i, one in enumerate(self.views()[0])
        ]

    def public(self, roles: Roles) -> list[Views]:
        """The views of each target on examples that are known not to be its members, `Roles.public`."""
        if self._public is None:
            self._public = self._make_public(roles)
        return self._public

    def remember(self) -> None:
        """From here on, keep the answers to further questions: others will ask the same of the same models."""

    def forget(self) -> None:
        """Free the answers; they are asked for again at the next use."""
        self._kept = self._public = None


class Given(Answers):
    """Answers that already exist.

    Args:
        targets: one single-model Views for each target, on its own shuffled candidates.
        shadows: Views of all shadow models; None, or the Views of no model, if there are none.
    """

    def __init__(self, targets: list[Views], shadows: Views | None = None):
        super().__init__()
        self._given = targets, shadows or None
        there = [one for one in (*targets, shadows) if one]
        self.sensitive = all(one.sensitivity is not None for one in there)
        self.versions = min(0 if one.beside is None else len(one.beside) for one in there)

    def _make(self) -> Sides:
        return self._given


class Asked(Answers):
    """Answers of networks, each asked about its own candidates.

    Args:
        networks: one for each model of the roles, in their order, or only for the targets, which then have no shadows.
            `compression.int8_networks` works too.
        other_members: they were trained on other members than the split's.
    """

    sensitive = True

    def __init__(self, networks: Population, roles: Roles, other_members: bool = False):
        super().__init__()
        if isinstance(networks, nn.Module) or not isinstance(networks, Sized):
            raise ValueError(
                f"found a {type(networks).__name__}; networks come as a population: "
                "training.population.stack(make_model, [module, ...])"
            )
        everyone = list(range(len(roles.index)))
        if len(networks) not in (len(everyone), len(roles.targets)):
            raise ValueError(
                f"found {len(networks)} networks; the study has {len(everyone)} models, of which {len(roles.targets)} are "
                "targets: give all of them, or the targets"
            )
        self.networks, self.roles, self.other_members = networks, roles, other_members
        self.complete = len(networks) == len(everyone)
        if isinstance(networks, Population) and networks.trained_on and not other_members:
            expected = roles.split if self.complete else roles.split[roles.targets]
            if networks.trained_on != expected.fingerprints():
                raise ValueError(
                    "these networks were trained on other members than the study's split says, so that what an attack "
                    "finds would mean nothing: give the split that they were trained with, or other_members=True where "
                    "others are to count as members"
                )
        self.models = everyone if self.complete else roles.targets
        self._seen: Views | None = None
        self._memory: list[dict] | None = None

    def _make(self) -> Sides:
        # all at once: the models share the processes
        index = self.roles.index[self.models]
        seen = asking.ask(self.networks, self.roles.data, index, sensitive=False, probes=True)
        self._seen = replace(seen, query=Door(self.networks, self._memory))
        return self._parts()

    def _parts(self) -> Sides:
        targets = [self._seen[[self.models.index(i)]] for i in self.roles.targets]
        there = self.complete and self.roles.shadows
        return targets, self._seen[self.roles.shadows] if there else None

    def _with_sensitivity(self) -> Sides:
        index = self.roles.index[self.models]
        seen, seed = self._seen.log_posteriors, self.roles.seed
        moved = asking.sensitivity(self.networks, self.roles.data, index, seed=seed, clean=seen)
        self._seen = replace(self._seen, sensitivity=moved)
        return self._parts()

    def _make_public(self, roles: Roles) -> list[Views]:
        if self.other_members:
            raise ValueError(
                "these networks were trained on other members than the split's, so it is not known which examples they "
                "have not learned: leave attacks that need public examples out of this study's suites"
            )
        return super()._make_public(roles)

    def remember(self) -> None:
        if self._memory is None:
            self._memory = [{} for _ in range(len(self.networks))]
        if self._seen is not None:
            self._seen = replace(self._seen, query=Door(self.networks, self._memory))
            self._kept = self._parts()

    def forget(self) -> None:
        super().forget()
        self._seen, self._memory = None, self._memory and [{} for _ in self._memory]


class Served(Answers):
    """Answers behind an output defence, log-posteriors (m, n, c) -> (m, n, c), indexed by model if it holds a state each.

    The shadows answer through it too, each through its own. Questions about the attacker's own inputs are answered
    likewise.
    """

    def __init__(self, before: Answers, defense: OutputDefense, roles: Roles):
        super().__init__()
        before.remember()
        self.before, self.defense, self.roles = before, defense, roles

    def _make(self) -> Sides:
        targets, shadows = self.before.views()
        pairs = zip(self.roles.targets, targets, strict=True)
        return (
            [asking.serve(one, pick(self.defense, [i])) for i, one in pairs],
            shadows and asking.serve(shadows, pick(self.defense, self.roles.shadows)),
        )

    def _make_public(self, roles: Roles) -> list[Views]:
        pairs = zip(self.roles.targets, self.before.public(roles), strict=True)
        return [asking.serve(one, pick(self.defense, [i])) for i, one in pairs]


class Averaged(Answers):
    """`averaging.averaged` answers: the attacker asks often, the shadows as often as the target."""

    def __init__(self, before: Answers, queries: int, epsilon: float, seed: int = 0):
        super().__init__()
        self.before, self.options = before, (queries, epsilon, seed)

    def _make(self) -> Sides:
        targets, shadows = self.before.views()
        for name, one in (*(("target", one) for one in targets), ("shadows", shadows)):
            if one is not None:
                needs_door(one, name)
        return (
            [averaged(one, *self.options) for one in targets],
            shadows and averaged(shadows, *self.options),
        )

    def _make_public(self, roles: Roles) -> list[Views]:
        return [averaged(one, *self.options) for one in self.before.public(roles)]


class Borrowed(Answers):
    """The targets of one arm, the shadows of another: a deployed network has no imitations of its own."""

    def __init__(self, targets: Answers, shadows: Answers):
        super().__init__()
        self.parts = targets, shadows
        self.sensitive = targets.sensitive and shadows.sensitive
        self.versions = targets.versions if targets.versions == shadows.versions else 0

    def _make(self) -> Sides:
        return self.parts[0].views()[0], self.parts[1].views()[1]

    def _with_sensitivity(self) -> Sides:
        return self.parts[0].views(True)[0], self.parts[1].views(True)[1]

    def _make_public(self, roles: Roles) -> list[Views]:
        return self.parts[0].public(roles)


def _asked_openly(target: Views, data: Dataset, index: Tensor) -> Views:
    """A target's answers at its door to rows of a data set, int64 (1, r)."""
    needs_door(target, "target")
    x = asking.Inputs(data, index)
    return Views(target.query(x[0][None]).double(), data.y.cpu()[index], x=x, query=target.query)


class Versions(Answers):
    """Answers of one version of each model, with those of others beside them: the original beside the compressed one.

    The sensitivity, and the door for questions about the attacker's own inputs, are those of the first version. There are
    shadows if all versions have some.
    """

    def __init__(self, first: Answers, others: Sequence[Answers]):
        super().__init__()
        self.first, self.others = first, others
        self.sensitive, self.versions = first.sensitive, first.versions + len(others)

    def _make(self) -> Sides:
        return self._joined(self.first.views())

    def _with_sensitivity(self) -> Sides:
        return self._joined(self.first.views(True))

    def remember(self) -> None:
        self.first.remember()
        self._kept = None  # with the old door

    def _joined(self, first: Sides) -> Sides:
        targets, shadows = zip(first, *(one.views() for one in self.others), strict=True)
        made = [asking.with_versions(own, others) for own, *others in zip(*targets, strict=True)]
        there = all(one is not None for one in shadows)
        return made, asking.with_versions(shadows[0], [*shadows[1:]]) if there else None


@dataclass(frozen=True)
class Arm:
    """One of the things a study compares. Two arms of a study are the same if their keys are.

    Args:
        key, label: its name in code, and its name in tables and pictures.
        columns: what its rows say of it, in the vocabulary of the results table.
        roles: which models are attacked, on which examples, and which models teach; answers: what these models say.
        networks: the networks under attack; None if only their answers are known.
        adversary: the name for an attacker who knows it: "adaptive" if something is defended, else None.
        before: the arm whose answers it serves; None if they are its own.
        keeps_labels: it serves the same labels as that arm.
    """

    key: str
    label: str = field(compare=False)
    columns: Mapping = field(compare=False, repr=False)
    roles: Roles = field(compare=False, repr=False)
    answers: Answers = field(compare=False, repr=False)
    networks: Population | None = field(compare=False, repr=False)
    adversary: str | None = field(compare=False, repr=False)
    before: "Arm | None" = field(compare=False, repr=False)
    keeps_labels: bool = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"arm {self.label!r}"

    def targets(self, sensitive: bool = False, public: bool = False) -> list[Views]:
        """The views of each target, on its own shuffled candidates; with public examples if wanted."""
        targets = self.answers.views(sensitive)[0]
        if not public:
            return targets
        pairs = zip(targets, self.answers.public(self.roles), strict=True)
        return [replace(one, public=known) for one, known in pairs]

    def shadows(self, sensitive: bool = False) -> Views:
        """The views of all shadow models, each on its own candidates.

        Raises:
            ValueError: the arm has none.
        """
        shadows = self.answers.views(sensitive)[1]
        if shadows is None:
            raise ValueError(
                f"arm {self.key!r} has no shadow models: name an arm that has, study.arm(..., shadows=arm), or attack "
                'with knowing="half"'
            )
        return shadows

    @property
    def member(self) -> Tensor:
        """Which of the targets' candidates are members, bool (targets, n)."""
        return self.roles.truth

    @property
    def log_posteriors(self) -> Tensor:
        """The targets' answers, (targets, n, c) float64."""
        return torch.cat([one.log_posteriors for one in self.targets()])

    def answer(self, data: Dataset, index: Tensor) -> Tensor:
        """The targets' answers to examples other than their candidates: log-posteriors (targets, n, c) float64.

        Args:
            index: int64 (n,) into a data set, or (targets, n), each target's own.
        """
        index = index.expand(len(self.targets()), -1)
        asked = zip(self.targets(), index, strict=True)
        return torch.cat([one.query(data.inputs(own).cpu()[None]) for one, own in asked])

    def signal(self, what: str) -> list[Tensor]:
        """The quantity that pictures show for each target's candidates, (n,) each.

        Args:
            what: "log-odds" of the true class, its "confidence" or its "sensitivity", or the log-odds of the "largest"
                posterior.
        """
        values = {
            "confidence": lambda target, y: posteriors.true_class(target.log_posteriors[0].exp(), y),
            "log-odds": lambda target, y: signals.confidence(target.log_posteriors[0], y),
            "largest": lambda target, y: signals.top1(target.log_posteriors[0], y),
            "sensitivity": lambda target, y: posteriors.true_class(target.sensitivity[0], y),
        }[what]
        return [values(target, target.labels[0]) for target in self.targets(what == "sensitivity")]

    @property
    def by_label(self) -> "Arm":
        """The arm that an attacker who sees only labels sees."""
        return self.before if self.keeps_labels and self.before is not None else self

    def forget(self) -> None:
        """Free the answers; they are asked for again at the next use."""
        self.answers.forget()
