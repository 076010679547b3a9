"""Shadow models are trained by the user's recipe, one after another, and asked about the candidates."""

import io
import random
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from mialib import hashing, places, progress, store, streams
from mialib.auditing import answers as forms
from mialib.auditing import models
from mialib.auditing.shadow_plans import planned
from mialib.auditing.shadows import SavedShadows, Shadows
from mialib.data.tensors import kind_of
from mialib.params.vocabulary import nearest

SAID = "answers of "  # before a network's name, in a file
ENOUGH = 2  # imitations that have learned a candidate, and as many that have not


class Planted(NamedTuple):
    """Canaries in the imitations. answers: name -> log-posteriors float64 (s, c, classes). labels: int64 (c,), the wrong
    ones. member: bool (s, c)."""

    answers: Mapping[str, Tensor]
    labels: Tensor
    member: Tensor


class Imitations(NamedTuple):
    """What s imitations of each network say.

    candidates: int64 (r,), the examples that the networks are judged on, rows of what the user gave.
    answers: name -> log-posteriors float64 (s, r, classes); member: bool (s, r), what each imitation has learned of them.
    sizes: int64 (s,), how many examples each has learned.
    known: how many members all imitations have learned, so that nobody is judged on them.
    """

    candidates: Tensor
    answers: Mapping[str, Tensor]
    member: Tensor
    sizes: Tensor
    known: int = 0
    planted: Planted | None = None


def trained(
    shadows: Shadows,
    x: Tensor,
    labels: Tensor,
    member: Tensor,
    names: list[str],
    classes: int,
    seed: int,
    **how,
) -> Imitations:
    """Train the shadow models, or read what an interrupted audit kept of them, and ask them.

    Args:
        x, labels, member: the audited examples (m, ...), int64 (m,), bool (m,).
        names: of the networks, the baseline first.
        how: of `models.answers`.

    Raises:
        ValueError: too few examples, a recipe that gives other networks than `names`, answers of another shape, or a folder
            that holds answers of another recipe.
    """
    if places.LEFT_ALONE.get():
        times = shadows.n * (2 if shadows.canaries else 1)
        raise ValueError(
            f"shadows: the recipe is your own code, whose work cannot be counted; a run would run it {times} times more"
        )
    plain, plan = (
        planned(member, labels, classes, shadows.n, count, seed) for count in (0, shadows.canaries)
    )
    recipe = _Recipe(shadows, x, names, classes, seed, how)
    answers = recipe.answers("shadow", labels, plain.learned, plain.candidates)
    planted = None
    if shadows.canaries:
        taught = labels.clone()
        taught[plan.canaries] = plan.wrong
        said = recipe.answers("canaries", taught, plan.learned, plan.canaries)
        planted = Planted(said, plan.wrong, plan.learned[:, plan.canaries])
    return Imitations(
        plain.candidates,
        answers,
        plain.learned[:, plain.candidates],
        plain.learned.sum(1),
        int((member & plain.learned.all(0)).sum()),
        planted,
    )


class _Recipe(NamedTuple):
    """The user's recipe, and what it is run on."""

    shadows: Shadows
    x: Tensor
    names: list[str]
    classes: int
    seed: int
    how: dict

    def answers(self, kind: str, labels: Tensor, learned: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """Name -> log-posteriors float64 (s, r, classes), of imitations that learn `learned` bool (s, n), about rows `asked`."""
        said, made_of = [], self._made_of(kind, labels, asked)
        for i in progress.follow(
            range(len(learned)), "imitations" if kind == "shadow" else f"imitations, {kind}", "model"
        ):
            file = None if self.shadows.folder is None else Path(self.shadows.folder) / f"{kind}_{i:03}.npz"
            # not of what others learn: there may be more of them later
            mark = hashing.key(made_of=made_of, i=i, learned=learned[i])
            found = _kept(file, mark)
            if found is None:
                index = learned[i].nonzero()[:, 0]
                order = torch.randperm(
                    len(index),
                    generator=streams.generator(self.seed, "order of a shadow's examples", kind, i),
                )
                data = TensorDataset(self.x[index[order]], labels[index[order]])
                with _seeded(self.seed, kind, i):
                    found = _made(self.shadows, data, self.x[asked], self.names, i, self.how)
                _keep(file, mark, found)
            said.append({name: _recognised(found[name], self.classes, name, i) for name in self.names})
        return {name: torch.stack([one[name] for one in said]) for name in self.names}

    def _made_of(self, *of) -> str:
        """What all imitations of a kind have in common, hashed once; empty where nothing is kept."""
        if self.shadows.folder is None:
            return ""
        recipe = hashing.sources(self.shadows.train, self.shadows.compress)
        return hashing.key(recipe=recipe, x=self.x, of=list(of), names=self.names, seed=self.seed)


def given(shadows: SavedShadows, n: int, classes: int, names: list[str]) -> Imitations:
    """Imitations that the user trained.

    Raises:
        ValueError: networks without imitations, answers or memberships of other shapes, or no candidate that two imitations
            have learned and two have not.
    """
    lacking = [name for name in names if name not in shadows.answers]
    if lacking:
        raise ValueError(
            f"shadows: there are no answers of imitations of {', '.join(lacking)}; there are of {', '.join(map(str, shadows.answers))}"
        )
    member = forms.numbers_of(shadows.member, "shadows: member", f"(s, {n})")
    if member.ndim != 2 or member.shape[1] != n or not np.isin(member, (0, 1)).all():
        raise ValueError(
            f"shadows: member must be zeros and ones (s, {n}), a row for each imitation, found shape {member.shape}"
        )
    learned = torch.from_numpy(member == 1)
    s = len(learned)
    found = {}
    for name in names:
        array = forms.numbers_of(shadows.answers[name], f"shadows: answers[{name!r}]", f"({s}, {n}, classes)")
        if array.ndim not in (2, 3) or array.shape[:2] != (s, n):
            raise ValueError(
                f"shadows: answers[{name!r}] must be ({s}, {n}, classes), as member is ({s}, {n}), found {array.shape}"
            )
        found[name] = torch.stack([_recognised(one, classes, name, i) for i, one in enumerate(array)])
    count = learned.sum(0)
    candidates = ((count >= ENOUGH) & (s - count >= ENOUGH)).nonzero()[:, 0]
    if not len(candidates):
        raise ValueError(
            f"shadows: no example is a member of {ENOUGH} of the {s} imitations and no member of {ENOUGH} others; random halves "
            "of the examples make all of them candidates"
        )
    answers = {name: one[:, candidates] for name, one in found.items()}
    return Imitations(candidates, answers, learned[:, candidates], learned.sum(1), int((count == s).sum()))


def _made(shadows: Shadows, data: TensorDataset, x: Tensor, names: list[str], i: int, how: dict) -> dict:
    """Raw answers, name -> (r, classes), of one shadow and of what is made of it."""
    baseline, *others = names
    try:
        network = shadows.train(data)
        said = {baseline: _answers(network, x, baseline, i, how)}  # before anybody changes it
        compress = shadows.compress
        if isinstance(compress, Mapping):
            made = {name: one(network, data) for name, one in compress.items() if name in others}
        else:
            made = {} if compress is None else compress(network, data)
        _check_unchanged(network, x, said[baseline], baseline, how)
    except Exception as error:
        error.add_note(f"shadows: raised while shadow model {i + 1} of {shadows.n} was made")
        raise
    if not isinstance(made, Mapping):
        if len(others) != 1:
            raise ValueError(
                f"shadows: compress gave a {kind_of(made)}; it must give a mapping from names to networks, of {', '.join(others)}"
            )
        made = {others[0]: made}
    if lacking := [name for name in others if name not in made]:
        gives = (
            f"compress gives {', '.join(map(str, made)) or 'nothing'}"
            if compress
            else "no compress was given"
        )
        raise ValueError(
            f"shadows: {gives}{nearest(lacking[0], list(map(str, made)))}; it must give {', '.join(lacking)} too, since each audited "
            "network is compared with imitations of its own"
        )
    return said | {name: _answers(made[name], x, name, i, how) for name in others}


def _check_unchanged(network, x: Tensor, said: np.ndarray, name: str, how: dict) -> None:
    """Raises ValueError where `compress` has changed the network that it was given."""
    few = x[: how.get("batch_size", 256)]
    again = models.answers(network, few, name=name, **how)
    near = models.STEADY * np.abs(said[np.isfinite(said)]).max(initial=0.0)
    same = np.allclose(again, said[: len(few)], rtol=0, atol=near, equal_nan=True)
    if not same and models.is_steady(network, few, name=name, **how):
        raise ValueError(
            "shadows: compress has changed the network that it was given; let it work on a copy, copy.deepcopy(network)"
        )


def _answers(network, x: Tensor, name: str, i: int, how: dict) -> np.ndarray:
    return models.answers(network, x, name=f"{name} of shadow model {i + 1}", **how)


def _recognised(values, classes: int, name: str, i: int) -> Tensor:
    said = forms.recognised(values, f"{name} of shadow model {i + 1}").log_posteriors
    if said.shape[1] != classes:
        raise ValueError(
            f"shadows: {name} of shadow model {i + 1} answers with {said.shape[1]} classes, the network with {classes}"
        )
    return said


def _kept(file: Path | None, mark: str) -> dict | None:
    """What an interrupted audit kept of a shadow; None where there is nothing.

    Raises:
        ValueError: a file that cannot be read, or answers of something else.
    """
    if file is None or not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            own = str(arrays["mark"])
            found = {name[len(SAID) :]: arrays[name] for name in arrays.files if name.startswith(SAID)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file}: it cannot be read as answers of a shadow model ({error}); remove it, and that one is trained again"
        ) from error
    if own != mark:
        raise ValueError(
            f"{file}: this file holds answers of another recipe, other examples or other networks than now; name another folder, "
            "or remove the old files"
        )
    return found


def _keep(file: Path | None, mark: str, found: Mapping[str, np.ndarray]) -> None:
    if file is not None:
        content = io.BytesIO()
        np.savez(content, mark=np.array(mark), **{SAID + name: one for name, one in found.items()})
        store.write(file, content.getvalue())


@contextmanager
def _seeded(seed: int, kind: str, i: int) -> Iterator[None]:
    """Within it the global generators follow from the seed and the shadow's number; afterwards they are as they were."""
    before = random.getstate(), np.random.get_state()
    sequence = np.random.SeedSequence(streams.seed(seed, "numpy of a shadow", kind, i))
    with torch.random.fork_rng():
        torch.manual_seed(streams.seed(seed, "torch of a shadow", kind, i))
        random.seed(streams.seed(seed, "random of a shadow", kind, i))
        np.random.set_state(np.random.RandomState(np.random.MT19937(sequence)).get_state())
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
