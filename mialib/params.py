"""Parameters of a notebook: their meaning, their ranges, and clear errors before any work is done.

A name means the same in every notebook: small vocabularies (of the run, data, training, pruning ...) make up one,
`Vocabulary`. Words that only one notebook has (the arms of a comparison) stay with it: it names them in its call of
`check(globals(), arms="ABC")` after its parameters cell. `mialib run` checks a YAML file against both first.
"""

import ast
import difflib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # of pydantic's choice before Python 3.12

from mialib.compression import pruning, quantization, schemes
from mialib.data import own
from mialib.data.loaders import LOADERS
from mialib.models import classifiers

Count = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(ge=0, lt=1)]  # a sparsity
Strength = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Budget = Annotated[float, Field(ge=0, lt=1)]  # a share that may be nothing
Density = Annotated[float, Field(gt=0, le=1)]  # share of weights kept
Times = Annotated[float, Field(ge=1)]  # all weights / kept weights
Batch = Annotated[int, Field(ge=2)]
Tried = Annotated[list[Strength], Field(min_length=1)]  # strengths, of which one is chosen
Widths = Annotated[list[Count], Field(min_length=1)]  # of hidden layers
Optimizer = Literal["adam", "sgd"]
Pruner = Literal[pruning.METHODS]
Bits = Literal[quantization.WIDTHS]


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("the same value stands in it twice")
    return values


def _of(names: Collection[str], *forms: str) -> AfterValidator:
    """One of the names, or an address of one's own in one of the forms."""

    def check(value: str) -> str:
        if value in names:
            return value
        kind = value.partition(":")[0] + ":PATH" if value.startswith("folder:") else "module:function"
        if ":" not in value or kind not in forms:
            raise ValueError(f"unknown{nearest(value, names)}; valid are {', '.join((*names, *forms))}")
        own.check(value)
        return value

    return AfterValidator(check)


class Run(TypedDict, total=False):
    """What the run is called, and where it runs."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    precision: Literal["float32", "bf16"]
    device: Literal["auto", "cpu", "cuda"]
    n_jobs: Count
    seed: Annotated[int, Field(ge=0)]


class Data(TypedDict, total=False):
    """What is learned from, and by how many."""

    dataset: Annotated[str, _of(LOADERS, "folder:PATH", "module:function")]
    data_root: str | None
    subset: Count | None
    image_side: Annotated[int, Field(ge=8)] | None
    n_train: Count | None
    n_reserve: Count
    private_classes: Count | None
    n_models: Count
    n_targets: Count
    n_shadows: Count


class Training(TypedDict, total=False):
    """The networks and how they learn."""

    model: Annotated[str, _of(classifiers.NAMES, "module:function")]
    epochs: Count
    fine_tune_epochs: Count
    retrain_epochs: Count
    batch_size: Batch
    lr: Strength
    fine_tune_lr: Strength
    optimizer: Optimizer
    milestones: list[Count]
    fine_tune_milestones: list[Count]
    augment: bool
    weight_decay: Annotated[float, Field(ge=0)]
    early_stopping: bool


class Pruning(TypedDict, total=False):
    """Which weights go, and how."""

    pruner: Pruner
    pruners: list[Pruner]
    sparsity: Level
    sparsities: Annotated[list[Level], Field(min_length=1)]
    gamma_l1: Strength
    densities: list[Density] | None
    compression: Times | None
    compressions: list[Times]
    channel_density: Density
    admm_iterations: Count
    admm_epochs: Count
    rho: Strength
    rho_growth: Times


class Quantization(TypedDict, total=False):
    """Bit-widths, and how networks get to them."""

    bits: Annotated[list[Bits], Field(min_length=2), AfterValidator(_different)]
    headline_bits: Bits
    edge_bits: Literal[tuple(quantization.WHOLE)] | None
    families: list[Literal[schemes.FAMILIES]]
    search_tolerances: list[Budget]
    search_epochs: Count
    deploy: bool


class Defenses(TypedDict, total=False):
    """Defences in training, by strength."""

    ppb_strengths: list[Strength]
    adversarial_strengths: list[Strength]
    smoothings: list[Share]
    relax_strengths: list[Strength]
    relax_upper: Annotated[float, Field(gt=0, le=1)]
    mmd_strengths: list[Strength]
    dp_noises: list[Strength]
    dp_lrs: Tried
    dp_batch_sizes: Annotated[list[Batch], Field(min_length=1)]
    dp_clip: Strength
    dp_delta: Share
    stacking: bool
    selena_sub_models: Annotated[int, Field(ge=2)] | None
    selena_left_out: Count


class Purification(TypedDict, total=False):
    """Defences of the answer, and the games that train them."""

    purifier_widths: Widths
    purifier_epochs: Count
    purifier_lr: Strength
    game_epochs: Count
    game_updates: Count
    judge_width: Strength
    label_strengths: Tried
    inversion_strengths: Tried
    membership_strengths: Tried
    label_budget: Budget
    reformer_widths: Widths
    reformer_latent: Count
    reformer_lr: Strength
    reformer_strength: Strength
    table_strength: Strength
    swap_distance: Strength
    memguard_budgets: Annotated[list[Annotated[float, Field(gt=0, le=2)]], Field(min_length=1)]


class Attacks(TypedDict, total=False):
    """The attackers' networks and questions."""

    attack_optimizer: Optimizer
    attack_epochs: Count
    attack_lr: Strength
    samia_optimizer: Optimizer
    samia_epochs: Count
    samia_lr: Strength
    nsh_epochs: Count
    trainings: Count
    lira_models: Annotated[int, Field(ge=6, multiple_of=2)] | None
    decoder_width: Strength
    decoder_epochs: Count
    noisy_queries: Annotated[int, Field(ge=4, multiple_of=4)]


class Vocabulary(Run, Data, Training, Pruning, Quantization, Defenses, Purification, Attacks, total=False):
    """What each parameter may be. A notebook declares which of them it has, with its defaults."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


_VOCABULARY = TypeAdapter(Vocabulary)


def check(namespace: Mapping[str, Any], **words: Collection[str]) -> dict[str, Any]:
    """The parameters that a notebook declared with annotations, validated.

    Args:
        namespace: the notebook's `globals()`; the names annotated in its parameters cell are its parameters.
        words: of parameters that only this notebook has, each a list of some of these words: arms="ABC". They are
            read off the notebook by `words_of`, so they must be written out.

    Returns:
        name -> value, to be stored with the results.

    Raises:
        ValueError: naming each parameter that is wrong, what was found and what is valid.
    """
    names = [name for name in namespace["__annotations__"] if not name.startswith("_")]
    return validate({name: namespace[name] for name in names}, "the parameters cell", words)


def validate(
    values: Mapping[str, Any], where: str, words: Mapping[str, Collection[str]] | None = None
) -> dict[str, Any]:
    """`values` if every one is in the vocabulary and in range; `where` is named in the error, `words` as for `check`."""
    words = words or {}
    shared = {name: value for name, value in values.items() if name not in words}
    problems = _problems(_VOCABULARY, shared)
    for name in words.keys() & values.keys():
        some = Annotated[list[Literal[tuple(words[name])]], Field(min_length=1)]
        problems += _problems(TypeAdapter(TypedDict("Words", {name: some})), {name: values[name]})
    if problems:
        raise ValueError(f"{where}: " + "; ".join(problems))
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
    with own.beside(path.parent):
        return validate(values, str(path), words_of(notebook))


def words_of(notebook: Path) -> dict[str, Collection[str]]:
    """The words that only this notebook has: the keywords of its call of `check`."""
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "params.check(" not in source:
            continue
        lines = [line for line in source.splitlines() if not line.startswith("%")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.check":
                return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    return {}


def device(name: str) -> str:
    """ "cpu" or "cuda" for a parameter that may be "auto".

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA device; take 'auto' or 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def nearest(name: str, valid: Collection[str]) -> str:
    """', did you mean ...?' for the valid name that is closest, or nothing."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _problems(valid: TypeAdapter, values: Mapping[str, Any]) -> list[str]:
    try:
        valid.validate_python(values)
    except ValidationError as error:
        return [_explain(problem) for problem in error.errors()]
    return []


def _explain(problem: dict) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, list(Vocabulary.__annotations__))}"
    text = problem["msg"].removeprefix("Value error, ")
    hint = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = nearest(
            problem["input"], problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        )
    return f"{name} is {problem['input']!r}: {text[0].lower()}{text[1:]}{hint}"
