"""Whether a network can be pruned, cut, quantised, trained in private and inverted as the notebook is about to do it.

Each step is tried on an untrained network, where it would fail only after the training.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from mialib import streams
from mialib.compression import cardinality, channels, int8, pruning, quantized_relu
from mialib.defenses import differential_privacy
from mialib.models import decoders
from mialib.params.vocabulary import shown

Values = Mapping[str, Any]


def problems(
    values: Values, make_model: Callable[[], nn.Module], shape: tuple[int, ...], classes: int, own: bool
) -> Iterator[tuple[str, str]]:
    """The steps that cannot be done: (name of the parameter that asks for it, problem).

    Args:
        shape: of an input; classes: number of classes.
        own: it is a network of the user's own, of which nothing is known: it is exported too, which takes seconds.
    """
    steps = [*_pruned(values, make_model), *_changed(values, make_model, shape, classes)]
    if own and values.get("deploy"):
        steps.append(("deploy", partial(_export, make_model, shape)))
    expected = Exception if own else ValueError  # your own code may fail in any way
    for name, step in steps:
        try:
            step()
        except expected as error:
            yield name, f"{name} is {shown(values.get(name))}: {' '.join(str(error).split())}"


def _pruned(values: Values, make_model: Callable[[], nn.Module]) -> Iterator[tuple[str, Callable]]:
    levels = [*values.get("sparsities", ()), values.get("sparsity", 0.0)]
    at_most = max(levels)  # whatever it leaves, smaller levels leave too
    for pruner in values.get("pruners", ()):
        yield "pruners", partial(pruning.check, make_model, [(pruner, at_most)])
    if "pruner" in values:
        private = [differential_privacy.group_norm(make_model)] if "dp_noises" in values else []
        for form in dict.fromkeys((make_model, *private)):
            yield "pruner", partial(pruning.check, form, [(values["pruner"], at_most)])
    if values.get("densities") is not None:
        yield "densities", partial(cardinality.by_layer, make_model, values["densities"])
    elif "densities" in values or "compressions" in values:
        yield "model", partial(cardinality.everywhere, make_model, 2.0)


def _changed(
    values: Values, make_model: Callable[[], nn.Module], shape: tuple[int, ...], classes: int
) -> Iterator[tuple[str, Callable]]:
    if "channel_density" in values:
        yield "channel_density", partial(channels.groups, make_model, torch.zeros(2, *shape))
    if "bits" in values:
        yield "model", partial(quantized_relu.quantized, make_model, 4)
    if values.get("dp_noises"):
        yield "dp_noises", partial(_private, make_model)
    if "decoder_width" in values:
        yield "image_side", partial(decoders.make, shape, classes, values["decoder_width"])


def _private(make_model: Callable[[], nn.Module]) -> None:
    differential_privacy.DPSGD(1.0, 1.0).check(differential_privacy.group_norm(make_model))


def _export(make_model: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(streams.seed(0, "trial of an export"))
        int8.int8_model(make_model().eval(), torch.randn(8, *shape))
