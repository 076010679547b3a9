"""Shadow models of an audit: the user's own recipe, or the answers of shadow models that they trained themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from mialib.data import own
from mialib.data.tensors import kind_of

LEAST = 4  # shadows: two that have a candidate as a member, and two that do not


@dataclass(frozen=True)
class Shadows:
    """An attacker's imitations of your networks: your recipe, run `n` times on other members.

        def train(data):  # a TensorDataset of (x, y)
            return trained_on(data)

        def compress(network, data):
            return {"pruned": pruned(network, data), "control": trained_further(network, data)}

        mialib.audit(networks, members, nonmembers, control="control", shadows=mialib.Shadows(train, compress, folder="kept"))

    Args:
        train: data -> network, as the baseline was made. `data` is a `TensorDataset` of (x, y), on the CPU, as many examples
            as your network was trained on, in random order. The global random generators of Python, numpy and torch are
            seeded before each call. The network may have any form that `mialib.audit` takes.
        compress: (network, data) -> {name: network} for all audited networks but the baseline, the control among them; or
            {name: (network, data) -> network}. It must leave the network that it is given as it is. None where only the
            baseline is audited.
        n: how many, an even number of at least 4. Each takes as long as your own training and compression.
        folder: where the answers of each are kept as it is done, so that an interrupted audit goes on; None: they are not
            kept. Answers of another recipe, or of other examples, are refused: they are recognised by the text of your
            functions and of what these call, not by values that they read from elsewhere.
        canaries: how many examples that your networks were not trained on are planted with a wrong label, to see what your
            recipe leaks of what can only be learned by heart, and to bound its epsilon from below. They are planted into `n`
            further imitations, since wrong labels make bad imitations of your networks; so everything takes twice as long.
            A hundred and more can prove something. 0: none.

    Functions may be given as "module:function".

    Raises:
        ValueError: no functions, an `n` that is odd or below 4, canaries that are no number from 0.
    """

    train: Callable | str
    compress: Callable | str | Mapping[str, Callable | str] | None = None
    n: int = 8
    folder: str | Path | None = None
    canaries: int = 0

    def __post_init__(self):
        object.__setattr__(self, "train", _function(self.train, "train"))
        object.__setattr__(self, "compress", _compression(self.compress))
        if isinstance(self.n, bool) or not isinstance(self.n, Integral) or self.n < LEAST or self.n % 2:
            raise ValueError(
                f"shadows: n is {self.n!r}; it must be an even number of at least {LEAST}, since they come in pairs"
            )
        if isinstance(self.canaries, bool) or not isinstance(self.canaries, Integral) or self.canaries < 0:
            raise ValueError(f"shadows: canaries is {self.canaries!r}; it must be a whole number, 0 for none")

    @staticmethod
    def from_answers(answers: Mapping[str, object], member) -> "SavedShadows":
        """Shadow models that you trained yourself, by what they say: see `SavedShadows`."""
        return SavedShadows(answers, member)


@dataclass(frozen=True)
class SavedShadows:
    """What shadow models say about the audited examples.

    Args:
        answers: name of the network -> logits, posteriors or log-posteriors (s, n, classes) of its s imitations, about the
            audited examples in their order: members, then non-members.
        member: (s, n), 1 or True where an imitation has learned the example; the same for the imitations of all networks,
            since those of a compressed network are compressed ones. Drawn without a look at who your own members are:
            best random halves in pairs, the second of a pair with what the first lacks. Examples that fewer than two have
            learned, or all but fewer than two, are not judged.
    """

    answers: Mapping[str, object]
    member: object

    def __post_init__(self):
        if not isinstance(self.answers, Mapping) or not self.answers:
            raise ValueError(
                f"shadows: answers must be a mapping from names to (s, n, classes), found {kind_of(self.answers)}"
            )


def _compression(given) -> Callable | dict[str, Callable] | None:
    if isinstance(given, Mapping):
        return {str(name): _function(one, f"compress[{name!r}]") for name, one in given.items()}
    return None if given is None else _function(given, "compress")


def _function(given, name: str) -> Callable:
    if isinstance(given, str):
        try:
            return own.function(given)
        except ValueError as error:
            raise ValueError(f"shadows: {name}: {error}") from error
    if not callable(given):
        raise ValueError(
            f"shadows: {name} is a {kind_of(given)}; it must be a function or its address, module:function"
        )
    return given
