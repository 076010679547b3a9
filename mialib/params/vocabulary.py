"""The valid values of each parameter, by itself.

A name means the same in every notebook: small vocabularies (of the run, data, training, pruning ...) make up one,
`Vocabulary`. Words that only one notebook has (the arms of a comparison) stay with it, see `checking.check`. A bound
stands where values beyond it cannot end well: they are no numbers in float32, or fill any memory.
"""

import difflib
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from mialib.attacks import blindmi
from mialib.compression import pruning, quantization, schemes
from mialib.data import own
from mialib.data.loaders import LOADERS
from mialib.models import classifiers
from mialib.training.precision import PRECISIONS

# BlindMI needs that many candidates, half of which are members
FEWEST_MEMBERS = blindmi.BlindMIDiff().probes // 2
FEWEST_CLASSES = 3  # Top3-NN looks at three posteriors
# words for null, none of which is the name of a data root
NOTHING = ("", "None", "none", "NONE", "null", "Null", "NULL", "nil", "~")

_RUN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def _run(name: str) -> str:
    if not _RUN.fullmatch(name):
        raise ValueError(
            "a run names a folder: at most 100 of the letters a to z and A to Z, digits, _, - and dots, "
            "the first a letter, a digit or _"
        )
    return name


def _folder(name: str) -> str:
    if name.strip() in NOTHING:
        raise ValueError("it would be the name of a folder; leave it null, or write ./ before the name")
    return name


def _recipe(module: str) -> str:
    try:
        own.check(f"{module}:train")
    except ValueError as error:
        raise ValueError(
            str(error).replace("an address is module:function, both", "a recipe is a module's name, of")
        ) from None
    return module


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("the same value stands in it twice")
    if any(isinstance(value, float) for value in values) and len({f"{one:g}" for one in values}) < len(
        values
    ):
        raise ValueError("two of its values have the same first six digits, by which settings are told apart")
    return values


def _of(names: Collection[str], *forms: str) -> AfterValidator:
    """One of the names, or an address of your own in one of the forms."""

    def check(value: str) -> str:
        if value in names:
            return value
        kind = value.partition(":")[0] + ":PATH" if value.startswith("folder:") else "module:function"
        if ":" not in value or kind not in forms:
            raise ValueError(f"unknown{nearest(value, names)}; valid are {', '.join((*names, *forms))}")
        try:
            own.check(value)
        except (OSError, RuntimeError) as error:  # a path that no system takes, or the home of no user
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(check)


Count = Annotated[int, Field(ge=1, le=1_000_000)]
Networks = Annotated[int, Field(ge=1, le=10_000)]  # kept at once
Examples = Annotated[int, Field(ge=1, le=1_000_000_000)]
Level = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # a sparsity
Strength = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]  # learning rate
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Budget = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # a share that may be 0
Density = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]  # share of weights kept
Compression = Annotated[float, Field(gt=1, le=1e6, allow_inf_nan=False)]  # all weights / kept weights
Width = Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)]  # a network's, against the published one
Batch = Annotated[int, Field(ge=2, le=1_000_000)]
Units = Annotated[int, Field(ge=1, le=16_384)]  # of a hidden layer
Widths = Annotated[list[Units], Field(min_length=1, max_length=32)]  # of hidden layers
Different = AfterValidator(_different)
Some = Field(min_length=1)
Strengths = Annotated[list[Strength], Different]
Tried = Annotated[list[Strength], Some, Different]  # strengths, one of which is chosen
Optimizer = Literal["adam", "sgd"]
Pruner = Literal[pruning.METHODS]
Bits = Literal[quantization.WIDTHS]


class Run(TypedDict, total=False):
    """The name of the run, and where it runs."""

    run: Annotated[str, AfterValidator(_run)]
    precision: Literal[PRECISIONS]
    device: Literal["auto", "cpu", "cuda"]
    n_jobs: Count
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Data(TypedDict, total=False):
    """The data, and how many examples and networks use it."""

    dataset: Annotated[str, _of(LOADERS, "folder:PATH", "module:function")]
    data_root: Annotated[str, AfterValidator(_folder)] | None
    subset: Examples | None
    image_side: Annotated[int, Field(ge=8, le=4096)] | None
    n_train: Annotated[int, Field(ge=FEWEST_MEMBERS, le=1_000_000_000)] | None
    n_reserve: Annotated[int, Field(ge=10, le=1_000_000_000)]
    private_classes: Annotated[int, Field(ge=FEWEST_CLASSES, le=1_000_000)] | None
    n_models: Networks
    n_targets: Networks
    n_shadows: Networks
    n_canaries: Examples | None
    reserve_share: Annotated[float, Field(ge=0.01, le=0.9)]


class Training(TypedDict, total=False):
    """The networks and how they learn."""

    model: Annotated[str, _of(classifiers.NAMES, "module:function")]
    epochs: Count
    fine_tune_epochs: Count
    retrain_epochs: Count
    batch_size: Batch
    lr: Rate
    fine_tune_lr: Rate
    optimizer: Optimizer
    milestones: list[Count]
    fine_tune_milestones: list[Count]
    augment: bool
    weight_decay: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    early_stopping: bool


class Pruning(TypedDict, total=False):
    """Which weights are pruned, and how."""

    pruner: Pruner
    pruners: Annotated[list[Pruner], Some, Different]
    sparsity: Level
    sparsities: Annotated[list[Share], Some, Different]  # 0 is the control, which always runs
    gamma_l1: Strength
    densities: Annotated[list[Density], Some] | None
    compression: Compression | None
    compressions: Annotated[list[Compression], Some, Different]
    channel_density: Density
    admm_iterations: Count
    admm_epochs: Count
    rho: Strength
    rho_growth: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)]


class Quantization(TypedDict, total=False):
    """Bit-widths, and the ways in which networks get them."""

    bits: Annotated[list[Bits], Field(min_length=2), Different]
    headline_bits: Bits
    edge_bits: Literal[tuple(quantization.WHOLE)] | None
    families: Annotated[list[Literal[schemes.FAMILIES]], Different]
    search_tolerances: Annotated[list[Budget], Different]
    search_epochs: Count
    deploy: bool


class Defenses(TypedDict, total=False):
    """Defences in training, by strength."""

    ppb_strengths: Tried
    adversarial_strengths: Strengths
    smoothings: Annotated[list[Share], Different]
    relax_strengths: Strengths
    relax_upper: Density
    hamp_strengths: Strengths
    hamp_threshold: Budget
    mmd_strengths: Strengths
    dp_noises: Strengths
    dp_epochs: Count
    dp_lrs: Annotated[list[Rate], Some, Different]
    dp_batch_sizes: Annotated[list[Batch], Some, Different]
    dp_clip: Strength
    dp_delta: Share
    stacking: bool
    selena_sub_models: Annotated[int, Field(ge=2, le=1000)] | None
    selena_left_out: Count


class Purification(TypedDict, total=False):
    """Defences of the answers, and the games that train them."""

    purifier_widths: Widths
    purifier_epochs: Count
    purifier_lr: Rate
    game_epochs: Count
    game_updates: Count
    judge_width: Width
    label_strengths: Tried
    inversion_strengths: Tried
    membership_strengths: Tried
    label_budget: Budget
    reformer_widths: Widths
    reformer_latent: Units
    reformer_lr: Rate
    reformer_strength: Strength
    table_strength: Strength
    swap_distance: Strength
    memguard_budgets: Annotated[
        list[Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)]], Some, Different
    ]


class Attacks(TypedDict, total=False):
    """The attackers' networks and questions."""

    attack_optimizer: Optimizer
    attack_epochs: Count
    attack_lr: Rate
    samia_optimizer: Optimizer
    samia_epochs: Count
    samia_lr: Rate
    nsh_epochs: Count
    trainings: Annotated[int, Field(ge=1, le=1000)]
    lira_models: Annotated[int, Field(ge=6, le=10_000, multiple_of=2)] | None
    decoder_width: Width
    decoder_epochs: Count
    noisy_queries: Annotated[int, Field(ge=4, le=10_000, multiple_of=4)]


class Audit(TypedDict, total=False):
    """An audit of networks by somebody's recipe."""

    recipe: Annotated[str, AfterValidator(_recipe)]
    controls: dict[str, str | None] | None
    expected_accuracy: Density | None
    tolerance: Budget
    n_imitations: Annotated[int, Field(ge=4, le=1000, multiple_of=2)]  # they come in pairs
    answers_folder: Annotated[str, AfterValidator(_folder)] | None
    threads: Annotated[int, Field(ge=1, le=1024)] | None


class Vocabulary(
    Run, Data, Training, Pruning, Quantization, Defenses, Purification, Attacks, Audit, total=False
):
    """The valid values of each parameter. A notebook declares which of them it has, with its defaults."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


_VOCABULARY = TypeAdapter(Vocabulary)
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlist, _SHOWN.maxlevel = 8, 3


def problems(values: Mapping[str, Any], words: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """What is wrong with each of `values` by itself: name -> problems, only for those that have some.

    Args:
        words: for parameters that only one notebook has, each a list of some of these words.
    """
    found = _found(_VOCABULARY, {name: value for name, value in values.items() if name not in words})
    for name in words.keys() & values.keys():
        some = Annotated[list[Literal[tuple(words[name])]], Some, Different]
        found |= _found(TypeAdapter(TypedDict("Words", {name: some})), {name: values[name]})
    return found


def nearest(name: str, valid: Collection[str]) -> str:
    """', did you mean ...?' for the valid name that is closest, or nothing."""
    close = difflib.get_close_matches(str(name)[:100], valid, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """A value as a message shows it: on one line, and not longer than a line."""
    return _SHOWN.repr(value)


def _found(valid: TypeAdapter, values: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        valid.validate_python(values)
    except ValidationError as error:
        for problem in error.errors():
            found.setdefault(str(problem["loc"][0]), []).append(_explain(problem))
    return found


def _explain(problem: dict) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {shown(name)}{nearest(name, list(Vocabulary.__annotations__))}"
    value, text, hint = problem["input"], problem["msg"].removeprefix("Value error, "), ""
    if problem["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
    elif problem["type"] == "string_type" and value is not None:
        hint = "; write it in quotes"
    return f"{name} is {shown(value)}: {text[0].lower()}{text[1:]}{hint}"
