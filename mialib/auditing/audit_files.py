"""An audit as it is written down: a YAML file that names the networks, their data and the gate.

networks:
  original: {factory: "mine:network", weights: original.pt}
  pruned: {factory: "mine:network", weights: pruned.safetensors}
  int8: int8.onnx
members: members.npz
nonmembers: others.npz
control: {factory: "mine:network", weights: longer.pt}
accuracy: 0.92
gate: auc_increase over control > 0.02
shadows: {train: "mine:train", compress: "mine:compress", n: 8, folder: shadows}  # optional: imitations, by your recipe

The control may be the name of a network above, or networks may have one each: `control: {pruned: longer, int8: null}`, where
null stands for a network that was not trained further and needs none.
"""

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from mialib.auditing import gate
from mialib.auditing.models import Checkpoint
from mialib.auditing.shadows import Shadows
from mialib.auditing.weights import near
from mialib.params import yaml_files
from mialib.params.vocabulary import nearest

NEEDED = ("networks", "members", "nonmembers")
NUMBERS = {"accuracy": (0, 1), "tolerance": (0, 1)}
TEXTS = ("baseline", "device", "gate", "html", "json")
WHOLE = {"batch_size": 1, "seed": 0}  # the least
KNOWN = (*NEEDED, "control", "shadows", *NUMBERS, *WHOLE, *TEXTS)
SHADOWS = tuple(one.name for one in fields(Shadows))


class Written(NamedTuple):
    """networks, data and options: arguments of `audit`. gate, html, json: what to do with the report; None: nothing."""

    arguments: dict
    gate: gate.Condition | None
    html: Path | None
    json: Path | None


def read(path: str | Path) -> Written:
    """An audit from a file; the files that it names lie beside it, or where an absolute path says.

    Raises:
        ValueError: all that is wrong with it, each with the file and the name.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"{path}: it does not exist{near(path.absolute())}; an audit is a YAML file, see 'mialib audit --help'"
        )
    try:
        values, problems = yaml_files.read(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    problems += [
        f"unknown {name!r}{nearest(name, KNOWN)}; valid are {', '.join(KNOWN)}"
        for name in values
        if name not in KNOWN
    ]
    problems += [f"{name} is missing" for name in NEEDED if name not in values]
    problems += _wrong(values) + _wrong_shadows(values.get("shadows"))
    if problems:
        raise ValueError("\n".join(f"{path}: {one}" for one in problems))
    folder = path.resolve().parent
    arguments = {
        name: values[name]
        for name in (*NUMBERS, *WHOLE, "baseline", "device")
        if values.get(name) is not None
    }
    arguments["networks"] = {str(name): _network(one, folder) for name, one in values["networks"].items()}
    for side in ("members", "nonmembers"):
        arguments[side] = _place(values[side], folder)
    if values.get("control") is not None:
        arguments["control"] = _control(values["control"], arguments["networks"], folder)
    if values.get("shadows") is not None:
        arguments["shadows"] = _shadows(values["shadows"], folder)
    condition = None if values.get("gate") is None else gate.condition(values["gate"])
    outputs = (None if values.get(name) is None else folder / values[name] for name in ("html", "json"))
    return Written(arguments, condition, *outputs)


def _wrong(values: dict) -> list[str]:
    """What is wrong with values that are there, a line each."""
    wrong = _wrong_networks(values)
    for name, (low, high) in NUMBERS.items():
        one = values.get(name)
        if one is not None and not (isinstance(one, int | float) and low <= one <= high):
            wrong.append(f"{name} is {one!r}; it must be a number from {low} to {high}")
    for name, least in WHOLE.items():
        one = values.get(name)
        if one is not None and not (isinstance(one, int) and not isinstance(one, bool) and one >= least):
            wrong.append(f"{name} is {one!r}; it must be a whole number of at least {least}")
    for name in (*TEXTS, "members", "nonmembers"):
        if values.get(name) is not None and not isinstance(values[name], str):
            wrong.append(f"{name} is {values[name]!r}; it must be a text")
    try:
        if isinstance(values.get("gate"), str):
            gate.condition(values["gate"])
    except ValueError as error:
        wrong.append(str(error))
    return wrong


def _wrong_networks(values: dict) -> list[str]:
    wrong = []
    networks = values.get("networks")
    if networks is not None and (not isinstance(networks, dict) or not networks):
        wrong.append(f"networks is {networks!r}; it must hold lines `name: network`")
    named = networks.items() if isinstance(networks, dict) else ()
    control = values.get("control")
    controls = control.items() if _is_each(control) else [("control", control)] if control is not None else ()
    needed = [(name, one) for name, one in controls if one is not None]  # null: it needs no control
    for name, one in [*named, *needed]:
        if not isinstance(one, str) and not (
            isinstance(one, dict) and set(one) <= {"factory", "weights"} and "factory" in one
        ):
            wrong.append(
                f"{name} is {one!r}; a network is the path of a file, or {{factory: 'module:function', weights: FILE}}"
            )
    if isinstance(networks, dict) and _is_each(control):
        wrong += [
            f"control names {name!r}{nearest(name, networks)}; the networks are {', '.join(map(str, networks))}"
            for name in control
            if name not in networks
        ]
    return wrong


def _wrong_shadows(shadows) -> list[str]:
    """What can be seen without importing the recipe."""
    if shadows is None:
        return []
    if not isinstance(shadows, dict) or "train" not in shadows:
        return [
            f"shadows is {shadows!r}; it must hold train: 'module:function', and may hold {', '.join(SHADOWS[1:])}"
        ]
    return [
        f"shadows has an unknown {name!r}{nearest(name, SHADOWS)}; valid are {', '.join(SHADOWS)}"
        for name in shadows
        if name not in SHADOWS
    ]


def _shadows(shadows: dict, folder: Path) -> Shadows:
    kept = shadows.get("folder")
    return Shadows(**shadows | {"folder": None if kept is None else folder / kept})


def _is_each(control) -> bool:
    """Whether it is {network: its control}, not one control for all."""
    return isinstance(control, dict) and not set(control) <= {"factory", "weights"}


def _control(control: str | dict, networks: dict, folder: Path) -> object:
    """A name among the networks, a network, or {network: either}; what is written alike is one network."""
    made = {}

    def placed(one):
        return one if isinstance(one, str) and one in networks else _network(one, folder)

    if not _is_each(control):
        return placed(control)
    return {
        str(name): None if one is None else made.setdefault(str(one), placed(one))
        for name, one in control.items()
    }


def _network(one: str | dict, folder: Path) -> Path | Checkpoint:
    if isinstance(one, str):
        return folder / one
    weights = one.get("weights")
    return Checkpoint(one["factory"], None if weights is None else folder / weights)


def _place(text: str, folder: Path) -> str | Path:
    """A file or folder beside the audit's own, or module:function as it is."""
    return text if ":" in text and not text.startswith("folder:") else folder / text.removeprefix("folder:")
