"""What an attacker sees of models: their answers to the candidates, and doors for further questions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mialib import progress
from mialib.asking import posteriors
from mialib.asking.answers import log_posteriors, sensitivity
from mialib.asking.doors import Door, Guarded, served_by
from mialib.data import Dataset
from mialib.data.tensors import must_be_tensor
from mialib.training import Population, pick
from mialib.training.hooks import OutputDefense


@dataclass(frozen=True)
class Views:
    """What an attacker sees of m models, each on n candidates.

    Args:
        log_posteriors: (m, n, c) float64, may hold -inf behind an output defence.
        labels: (m, n) int64, the true classes.
        sensitivity: (m, n, c) float64, `answers.sensitivity`; None where the attacker may not query.
        x: (m, n, ...) float32, the candidates' normalised inputs; only for attacks that build probes from them. A
            tensor, or `Inputs`, which has its shape and makes x[i] when asked.
        query: query(x (m, b, ...)) -> log_posteriors (m, b, c), each model's answers to inputs that the attacker makes.
            Indexed by model if the m models differ, like `Door`.
        beside: (v, m, n, c) float64, the answers of v other versions of each model to the same candidates, for example of
            the original beside the compressed model; None where there is one version only.
        public: views of the same m models on other examples, which the attacker knows to be members of none and on which
            nobody is attacked. Only for attacks that need them.

    Raises:
        ValueError: shapes or types that do not fit, rows that are no log-posteriors (`posteriors.check_rows`), or a
            sensitivity that is not finite.
    """

    log_posteriors: Tensor
    labels: Tensor
    sensitivity: Tensor | None = None
    x: "Tensor | Inputs | None" = None
    query: Callable[[Tensor], Tensor] | None = None
    beside: Tensor | None = None
    public: "Views | None" = None
    # tensors that were checked before, so that parts of views are not checked again; only its own from then on
    _valid: tuple[Tensor | None, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self):
        must_be_tensor("log_posteriors", self.log_posteriors, torch.float64, "views: ")
        must_be_tensor("labels", self.labels, torch.int64, "views: ")
        if self.sensitivity is not None:
            must_be_tensor("sensitivity", self.sensitivity, torch.float64, "views: ")
        m, n, _ = self.log_posteriors.shape
        if self.labels.shape != (m, n):
            raise ValueError(
                f"views: labels must be {(m, n)} as the log-posteriors, found {tuple(self.labels.shape)}"
            )
        if self.public is not None and len(self.public) != m:
            raise ValueError(f"views: public must be of {m} models, found {len(self.public)}")
        if not self._is_valid(self.log_posteriors):
            posteriors.check_rows(self.log_posteriors, "views")
        if not self._is_valid(self.sensitivity) and not self.sensitivity.isfinite().all():
            count = int((~self.sensitivity.isfinite()).sum())
            raise ValueError(
                f"views: {count} of {self.sensitivity.numel()} numbers of the sensitivity are nan or infinite; valid are "
                "finite ones (asking.sensitivity), or None where it is not known"
            )
        if not self._is_valid(self.beside):
            self._check_beside()
        object.__setattr__(self, "_valid", (self.log_posteriors, self.sensitivity, self.beside))

    def _check_beside(self) -> None:
        must_be_tensor("beside", self.beside, torch.float64, "views: ")
        answers = self.log_posteriors.shape
        if self.beside.ndim != 4 or self.beside.shape[1:] != answers or not len(self.beside):
            raise ValueError(
                f"views: beside is {tuple(self.beside.shape)}, must be {('v', *answers)}: the answers of one other version "
                "or more, of the same models to the same candidates"
            )
        for number, answers in enumerate(self.beside):
            posteriors.check_rows(answers, f"views: beside[{number}]")

    def _is_valid(self, tensor: Tensor | None) -> bool:
        return tensor is None or any(tensor is one for one in self._valid)

    def __len__(self) -> int:
        return len(self.log_posteriors)

    def __getitem__(self, models: slice | list[int]) -> "Views":
        models = _run(models)
        whole = (self.log_posteriors, self.labels, self.sensitivity, self.x)
        parts = [None if part is None else part[models] for part in whole]
        beside = None if self.beside is None else self.beside[:, models]
        public = None if self.public is None else self.public[models]
        return Views(*parts, pick(self.query, models), beside, public, (parts[0], parts[2], beside))

    def check_single(self) -> None:
        """Raises ValueError for the views of more models than one, or of none, where a target's are needed."""
        if len(self) != 1:
            raise ValueError(f"target must be the views of one model, (1, n, c), found {len(self)} models")

    def answers(self) -> "Views":
        """The same without inputs, door and public examples: small enough to be sent to other processes."""
        answers, moved, beside = map(_alone, (self.log_posteriors, self.sensitivity, self.beside))
        return Views(answers, _alone(self.labels), moved, beside=beside, _valid=(answers, moved, beside))

    def rows(self, index: Tensor) -> "Views":
        """The views of some of the candidates: `index` int64 (m, r) into the n, for each model its own."""
        model = torch.arange(len(index))[:, None]
        x = self.x.rows(index) if isinstance(self.x, Inputs) else self.x
        answers = self.log_posteriors[model, index]
        moved = None if self.sensitivity is None else self.sensitivity[model, index]
        beside = None if self.beside is None else self.beside[:, model, index]
        return Views(
            answers,
            self.labels[model, index],
            moved,
            x[model, index] if isinstance(x, Tensor) else x,
            self.query,
            beside,
            self.public,
            (answers, moved, beside),
        )


def _run(models: slice | list[int]) -> slice | list[int]:
    """Consecutive numbers as a slice: a tensor's part is then a view of its memory, not a copy."""
    if isinstance(models, list) and models and models == list(range(models[0], models[0] + len(models))):
        return slice(models[0], models[0] + len(models)) if models[0] >= 0 else models
    return models


def _alone(part: Tensor | None) -> Tensor | None:
    """The tensor alone, so that memory of which it is only a part is not sent along."""
    return part if part is None or part.untyped_storage().nbytes() <= part.nbytes else part.clone()


@dataclass(frozen=True)
class Inputs:
    """The normalised inputs of candidates (m, n), made on demand: dozens of views share the memory of one data set."""

    data: Dataset
    index: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size([*self.index.shape, *self.data.x.shape[1:]])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, models: int | slice | list[int]) -> "Tensor | Inputs":
        """The inputs of one model's candidates (n, ...), or, not made yet, those of some of the models."""
        if not isinstance(models, int):
            return Inputs(self.data, self.index[models])
        return self.data.inputs(self.index[models].to(self.data.x.device)).cpu()

    def rows(self, index: Tensor) -> "Inputs":
        """The inputs of some of the candidates, `index` int64 (m, r)."""
        return Inputs(self.data, self.index.gather(1, index))


def ask(
    population: Population,
    data: Dataset,
    index: Tensor,
    *,
    sensitive: bool = True,
    probes: bool = False,
    remember: bool = False,
    seed: int = 0,
) -> Views:
    """What an attacker sees of the models on `index` int64 (m, n), or (n,), the same for all.

    Args:
        sensitive: also measure the sensitivity (10 further queries an example).
        probes: also give the inputs, and the door for questions about inputs that the attacker makes.
        remember: the door remembers its answers, see `Door`.
    """
    index = index.expand(len(population), -1)
    with progress.bar(1 + sensitive, "queries", "question") as bar:
        answers = log_posteriors(population, data, index)
        bar.update()
        moved = sensitivity(population, data, index, seed=seed, clean=answers) if sensitive else None
    seen = Views(answers, data.y.cpu()[index], moved)
    if not probes:
        return seen
    memory = [{} for _ in range(len(population))] if remember else None
    return replace(seen, x=Inputs(data, index), query=Door(population, memory))


def together(targets: list[Views]) -> Views:
    """The views of several models as one, without the doors to query them."""
    answers = torch.cat([target.log_posteriors for target in targets])
    labels = torch.cat([target.labels for target in targets])
    known = targets[0].sensitivity is not None
    moved = torch.cat([target.sensitivity for target in targets]) if known else None
    several = targets[0].beside is not None
    beside = torch.cat([target.beside for target in targets], 1) if several else None
    return Views(answers, labels, moved, beside=beside, _valid=(answers, moved, beside))


def with_versions(seen: Views, others: list[Views]) -> Views:
    """The views with the answers of other versions of the same models, added behind those that are beside already.

    Raises:
        ValueError: others of other models, candidates or classes.
    """
    for other in others:
        if other.log_posteriors.shape != seen.log_posteriors.shape or not (other.labels == seen.labels).all():
            raise ValueError(
                "views: versions of a model answer to the same candidates in the same order, and these have other labels "
                f"or shapes, {tuple(other.log_posteriors.shape)} beside {tuple(seen.log_posteriors.shape)}"
            )
    before = [] if seen.beside is None else [*seen.beside]
    return replace(seen, beside=torch.stack([*before, *(other.log_posteriors for other in others)]))


def serve(served: Views, defense: OutputDefense) -> Views:
    """The views behind an output defence that maps log-posteriors to log-posteriors, without sensitivity and versions.

    A defence that holds one state a model is indexed by model and gets the answers of all of them, (m, n, c).

    Raises:
        ValueError: the defence serves rows that are no log-posteriors, here or when its door is asked; names the defence.
    """
    answers = defense(served.log_posteriors)
    posteriors.check_rows(answers, served_by(defense))
    query = served.query and Guarded(served.query, defense)
    public = None if served.public is None else serve(served.public, defense)
    told = {"sensitivity": None, "query": query, "beside": None, "public": public}
    return replace(served, log_posteriors=answers, **told, _valid=(answers,))
