"""An audit as it is written down: a YAML file that names the networks, their data and the gate.

networks:
  original: {factory: "mine:network", weights: original.pt}
  pruned: {factory: "mine:network", weights: pruned.safetensors}
  int8: int8.onnx
members: members.npz
nonmembers: others.npz
control: {factory: "mine:network", weights: longer.pt}
accuracy: 0.92
gate: auc_increase > 0.02
"""

from pathlib import Path
from typing import NamedTuple

from mialib.auditing import gate
from mialib.auditing.models import Checkpoint
from mialib.params import yaml_files
from mialib.params.vocabulary import nearest

NEEDED = ("networks", "members", "nonmembers")
NUMBERS = {"accuracy": (0, 1), "tolerance": (0, 1)}
TEXTS = ("baseline", "device", "gate", "html", "json")
WHOLE = {"batch_size": 1, "seed": 0}  # the least
KNOWN = (*NEEDED, "control", *NUMBERS, *WHOLE, *TEXTS)


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
        raise ValueError(f"{path}: it does not exist; an audit is a YAML file, see 'mialib audit --help'")
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
    problems += _wrong(values)
    if problems:
        raise ValueError("\n".join(f"{path}: {one}" for one in problems))
    folder = path.resolve().parent
    arguments = {
        name: values[name]
        for name in (*NUMBERS, *WHOLE, "baseline", "device")
        if values.get(name) is not None
    }
    arguments["networks"] = {name: _network(one, folder) for name, one in values["networks"].items()}
    for side in ("members", "nonmembers"):
        arguments[side] = _place(values[side], folder)
    control = values.get("control")
    if control is not None:
        arguments["control"] = (
            control
            if isinstance(control, str) and control in arguments["networks"]
            else _network(control, folder)
        )
    condition = None if values.get("gate") is None else gate.condition(values["gate"])
    outputs = (None if values.get(name) is None else folder / values[name] for name in ("html", "json"))
    return Written(arguments, condition, *outputs)


def _wrong(values: dict) -> list[str]:
    """What is wrong with values that are there, a line each."""
    wrong = []
    networks = values.get("networks")
    if networks is not None and (not isinstance(networks, dict) or not networks):
        wrong.append(f"networks is {networks!r}; it must hold lines `name: network`")
    named = networks.items() if isinstance(networks, dict) else ()
    for name, one in [
        *named,
        *([("control", values["control"])] if values.get("control") is not None else []),
    ]:
        if not isinstance(one, str) and not (
            isinstance(one, dict) and set(one) <= {"factory", "weights"} and "factory" in one
        ):
            wrong.append(
                f"{name} is {one!r}; a network is the path of a file, or {{factory: 'module:function', weights: FILE}}"
            )
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


def _network(one: str | dict, folder: Path) -> Path | Checkpoint:
    if isinstance(one, str):
        return folder / one
    weights = one.get("weights")
    return Checkpoint(one["factory"], None if weights is None else folder / weights)


def _place(text: str, folder: Path) -> str | Path:
    """A file or folder beside the audit's own, or module:function as it is."""
    return text if ":" in text and not text.startswith("folder:") else folder / text.removeprefix("folder:")
