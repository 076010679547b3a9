"""Parameters of a notebook: their meaning, their ranges, and clear errors before any work is done.

Every notebook draws its parameters from one vocabulary, `Vocabulary`, so that a name means the same everywhere. A
notebook calls `check(globals())` after its parameters cell; `mialib run` checks a YAML file against the notebook first.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mialib.compression import pruning, quantization, schemes
from mialib.data.loaders import LOADERS
from mialib.models import classifiers

Count = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(ge=0, lt=1)]  # a sparsity
Strength = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Density = Annotated[float, Field(gt=0, le=1)]  # share of weights kept
Times = Annotated[float, Field(ge=1)]  # all weights / kept weights
Tried = Annotated[list[Strength], Field(min_length=1)]  # strengths, of which one is chosen
Widths = Annotated[list[Count], Field(min_length=1)]  # of hidden layers
Sets = Literal[tuple(LOADERS)]
Nets = Literal[tuple(classifiers.NAMES)]
Pruner = Literal[pruning.METHODS]
Bits = Literal[quantization.WIDTHS]


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("the same value stands in it twice")
    return values


class Vocabulary(BaseModel):
    """What each parameter may be. All are optional here: a notebook declares which it has, with its defaults."""

    model_config = ConfigDict(extra="forbid", strict=True)

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = None
    dataset: Sets = None
    data_root: str | None = None
    subset: Count | None = None
    image_side: Annotated[int, Field(ge=8)] | None = None
    model: Nets = None
    n_train: Count | None = None
    n_reserve: Count = None
    private_classes: Count | None = None
    n_models: Count = None
    n_targets: Count = None
    n_shadows: Count = None
    epochs: Count = None
    fine_tune_epochs: Count = None
    batch_size: Annotated[int, Field(ge=2)] = None
    lr: Strength = None
    fine_tune_lr: Strength = None
    optimizer: Literal["adam", "sgd"] = None
    milestones: list[Count] = None
    fine_tune_milestones: list[Count] = None
    augment: bool = None
    weight_decay: Annotated[float, Field(ge=0)] = None
    early_stopping: bool = None
    pruners: list[Pruner] = None
    sparsities: Annotated[list[Level], Field(min_length=1)] = None
    sparsity: Level = None
    gamma_l1: Strength = None
    densities: list[Density] | None = None
    compression: Times | None = None
    compressions: list[Times] = None
    channel_density: Density = None
    admm_iterations: Count = None
    admm_epochs: Count = None
    rho: Strength = None
    rho_growth: Times = None
    retrain_epochs: Count = None
    bits: Annotated[list[Bits], Field(min_length=2), AfterValidator(_different)] = None
    headline_bits: Bits = None
    edge_bits: Literal[tuple(quantization.WHOLE)] | None = None
    families: list[Literal[schemes.FAMILIES]] = None
    search_tolerances: list[Annotated[float, Field(ge=0, lt=1)]] = None
    search_epochs: Count = None
    mmd_strengths: list[Strength] = None
    lira_models: Annotated[int, Field(ge=6, multiple_of=2)] | None = None
    deploy: bool = None
    arms: Annotated[list[Literal[tuple("ABCDEFGHIJK")]], Field(min_length=1)] = None
    pruner: Pruner = None
    ppb_strengths: list[Strength] = None
    adversarial_strengths: list[Strength] = None
    smoothings: list[Share] = None
    relax_strengths: list[Strength] = None
    relax_upper: Annotated[float, Field(gt=0, le=1)] = None
    dp_noises: list[Strength] = None
    dp_lrs: Annotated[list[Strength], Field(min_length=1)] = None
    dp_batch_sizes: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] = None
    dp_clip: Strength = None
    dp_delta: Share = None
    purifier_widths: Widths = None
    purifier_epochs: Count = None
    purifier_lr: Strength = None
    game_epochs: Count = None
    game_updates: Count = None
    judge_width: Strength = None
    nsh_epochs: Count = None
    label_strengths: Tried = None
    inversion_strengths: Tried = None
    membership_strengths: Tried = None
    label_budget: Annotated[float, Field(ge=0, lt=1)] = None
    reformer_widths: Widths = None
    reformer_latent: Count = None
    reformer_lr: Strength = None
    reformer_strength: Strength = None
    table_strength: Strength = None
    swap_distance: Strength = None
    memguard_budgets: Annotated[list[Annotated[float, Field(gt=0, le=2)]], Field(min_length=1)] = None
    stacking: bool = None
    selena_sub_models: Annotated[int, Field(ge=2)] | None = None
    selena_left_out: Count = None
    decoder_width: Strength = None
    decoder_epochs: Count = None
    noisy_queries: Annotated[int, Field(ge=4, multiple_of=4)] = None
    attack_optimizer: Literal["adam", "sgd"] = None
    attack_epochs: Count = None
    attack_lr: Strength = None
    samia_optimizer: Literal["adam", "sgd"] = None
    samia_epochs: Count = None
    samia_lr: Strength = None
    trainings: Count = None
    precision: Literal["float32", "bf16"] = None
    device: Literal["auto", "cpu", "cuda"] = None
    n_jobs: Count = None
    seed: Annotated[int, Field(ge=0)] = None


def check(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a notebook declared with annotations, validated.

    Args:
        namespace: the notebook's `globals()`; the names annotated in its parameters cell are its parameters.

    Returns:
        name -> value, to be stored with the results.

    Raises:
        ValueError: naming each parameter that is wrong, what was found and what is valid.
    """
    names = [name for name in namespace["__annotations__"] if not name.startswith("_")]
    return validate({name: namespace[name] for name in names}, "the parameters cell")


def validate(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` if every one is in the vocabulary and in range; `where` is named in the error."""
    try:
        Vocabulary(**values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(problems)) from None
    return dict(values)


def read(path: str | Path, notebook: str | Path) -> dict[str, Any]:
    """The parameters in a YAML file, checked against the notebook that they are for.

    Raises:
        FileNotFoundError: the file or its notebook is missing.
        ValueError: not a mapping, a name that the notebook does not declare (with the nearest one), a value out of range.
    """
    path, notebook = Path(path), Path(notebook)
    for file, role in ((path, "parameter file"), (notebook, "notebook")):
        if not file.is_file():
            raise FileNotFoundError(
                f"{role} {file} does not exist; parameters stand in params/<notebook>/<run>.yaml"
            )
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold lines `name: value`, found a {type(values).__name__}")
    import papermill  # here, so that notebooks, which import this module, do without it

    declared = list(papermill.inspect_notebook(str(notebook)))
    for name in values:
        if name not in declared:
            raise ValueError(
                f"{path}: unknown parameter {name!r}{nearest(name, declared)}; {notebook.name} declares {declared}"
            )
    return validate(values, str(path))


def device(name: str) -> str:
    """ "cpu" or "cuda" for a parameter that may be "auto".

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA device; take 'auto' or 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def nearest(name: str, valid: list[str]) -> str:
    """', did you mean ...?' for the valid name that is closest, or nothing."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _explain(problem: dict) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, list(Vocabulary.model_fields))}"
    hint = (
        nearest(
            problem["input"],
            list(problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")),
        )
        if problem["type"] == "literal_error" and isinstance(problem["input"], str)
        else ""
    )
    return f"{name} is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}{hint}"
