"""How much an allocation of bit-widths leaks and how accurate it is, on shadow models: asked by `compression.bit_search`."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from mialib import asking
from mialib.attacks import signals, threshold
from mialib.compression import Quantizer, Scheme, bit_search, schemes
from mialib.compression.bit_search import Measured
from mialib.data import Dataset, Splits, splits
from mialib.measures import decisions
from mialib.store import Store
from mialib.training import Population, Recipe
from mialib.training.hooks import Augment


def measured_on_shadows(
    make_model: Callable[[], nn.Module],
    data: Dataset,
    split: Splits,
    start: Population,
    recipe: Recipe,
    *,
    augment: Augment | None = None,
    cache: Store | None = None,
) -> Callable[[Mapping[str, float]], Measured]:
    """A `measure` for `bit_search.search` that asks nothing twice (`bit_search.remembered`).

    Shadow models are fine-tuned with DoReFa weights of these widths. The leak is the advantage of one cheap attack,
    modified entropy with the single threshold that is best for them, on their own members and test examples. The
    accuracy is that on their reserve, averaged over them. Targets have no part in it.

    Args:
        split, start: of the shadow models alone; fine-tuning begins from `start`.
        recipe: of the fine-tuning.
        cache: where the two numbers are kept; default: the store at its default place.
    """
    measure = partial(_leak_and_accuracy, make_model, data, split, start, recipe, augment)
    made_of = {"split": [split.member, split.test, split.reserve], "start": start.keys or start.params}
    return bit_search.remembered(
        measure, cache, **made_of, recipe=recipe, augment=augment, data=data.fingerprint
    )


def _leak_and_accuracy(make_model, data, split, start, recipe, augment, widths) -> tuple[float, float]:
    scheme = Scheme(Quantizer("dorefa", widths))
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # thousands of networks, of each of which two numbers are kept
        tried = schemes.aware(
            make_model,
            data,
            split,
            recipe,
            scheme,
            start,
            augment=augment,
            cache=Store(folder),
            what="allocation",
        )
    index, member = splits.candidates(split, 0)
    seen = asking.ask(tried, data, index, sensitive=False)
    signal, member = signals.modified_entropy(seen.log_posteriors, seen.labels).flatten(), member.flatten()
    leak = decisions.advantage(member, signal - threshold.best_threshold(signal, member)).value
    return leak, float(asking.accuracy(tried, data, split.reserve).mean())
