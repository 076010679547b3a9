"""What an attacker gets to see of models: their answers to the candidates, and the doors for questions of their own."""

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
        query: query(x (m, b, ...)) -> log_posteriors (m, b, c), each model's answers to inputs of the attacker's own.
            Indexed by model if the m models differ, as `Door`.
        public: the same of other examples, of which the attacker knows that no model learned them, and on which nobody is
            attacked; m models too. Only for attacks that need them.

    Raises:
        ValueError: shapes or types that do not fit, rows that are no log-posteriors (`posteriors.check_rows`), or a
            sensitivity that is not finite.
    """

    log_posteriors: Tensor
    labels: Tensor
    sensitivity: Tensor | None = None
    x: "Tensor | Inputs | None" = None
    query: Callable[[Tensor], Tensor] | None = None
    # tensors that were looked at before, so that parts of views are not again; from then on its own two, and no others
    _valid: tuple[Tensor | None, ...] = field(default=(), repr=False, compare=False)
    public: "Views | None" = None

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
        object.__setattr__(self, "_valid", (self.log_posteriors, self.sensitivity))

    def _is_valid(self, tensor: Tensor | None) -> bool:
        return tensor is None or any(tensor is one for one in self._valid)

    def __len__(self) -> int:
        return len(self.log_posteriors)

    def __getitem__(self, models: slice | list[int]) -> "Views":
        whole = (self.log_posteriors, self.labels, self.sensitivity, self.x)
        parts = [None if part is None else part[models] for part in whole]
        public = None if self.public is None else self.public[models]
        return Views(*parts, pick(self.query, models), (parts[0], parts[2]), public)

    def check_single(self) -> None:
        """Raises ValueError for the views of more models than one, or of none, where a target's are needed."""
        if len(self) != 1:
            raise ValueError(f"target must be the views of one model, (1, n, c), found {len(self)} models")

    def answers(self) -> "Views":
        """The same without inputs, the door and what is public: small enough to be sent to other processes."""
        return replace(self, x=None, query=None, public=None)

    def rows(self, index: Tensor) -> "Views":
        """What is seen of some of the candidates: `index` int64 (m, r) into the n, for each model its own."""
        model = torch.arange(len(index))[:, None]
        x = self.x.rows(index) if isinstance(self.x, Inputs) else self.x
        answers = self.log_posteriors[model, index]
        moved = None if self.sensitivity is None else self.sensitivity[model, index]
        return Views(
            answers,
            self.labels[model, index],
            moved,
            x[model, index] if isinstance(x, Tensor) else x,
            self.query,
            (answers, moved),
            self.public,
        )


@dataclass(frozen=True)
class Inputs:
    """The normalised inputs of candidates (m, n), made on demand: dozens of views of one data set share its memory."""

    data: Dataset
    index: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size([*self.index.shape, *self.data.x.shape[1:]])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, models: int | slice | list[int]) -> "Tensor | Inputs":
        """The inputs of one model's candidates (n, ...), or those of some of the models, not yet made."""
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
        probes: also give the inputs and the door to query the models with inputs of the attacker's own.
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
    """What is seen of several models in one Views, without the doors to query them."""
    answers = torch.cat([target.log_posteriors for target in targets])
    labels = torch.cat([target.labels for target in targets])
    known = targets[0].sensitivity is not None
    moved = torch.cat([target.sensitivity for target in targets]) if known else None
    return Views(answers, labels, moved, _valid=(answers, moved))


def serve(served: Views, defense: OutputDefense) -> Views:
    """The views behind an output defence that maps log-posteriors to log-posteriors, without their sensitivity.

    A defence that holds one state a model is indexed by model and takes the answers of all of them, (m, n, c).

    Raises:
        ValueError: it serves rows that are no log-posteriors, here or when its door is asked; with its name.
    """
    answers = defense(served.log_posteriors)
    posteriors.check_rows(answers, served_by(defense))
    query = served.query and Guarded(served.query, defense)
    public = None if served.public is None else serve(served.public, defense)
    told = {"sensitivity": None, "query": query, "public": public}
    return replace(served, log_posteriors=answers, **told, _valid=(answers,))
