"""Where large work is done: in processes of this machine, on workers of Dask, or as jobs of SLURM.

Three environment variables say it, which `mialib run --backend ... --address ... --workers ...` sets: `MIALIB_BACKEND`,
`MIALIB_ADDRESS` and `MIALIB_WORKERS`. Networks, also those of attacks, are trained there; questions are asked and noise is
searched for in processes of the machine on which the notebook runs.

    dask     tcp://host:8786 is the address of a scheduler; without one, workers are started on this machine
    slurm    the address holds what `sbatch` is told, slurm:partition=gpu,timeout_min=600,gpus_per_node=1, or is "local":
             jobs are then processes of this machine, as a trial
"""

import difflib
import importlib.util
import os
import re
from typing import NamedTuple

BACKENDS = ("local", "dask", "slurm")
VARIABLES = {"backend": "MIALIB_BACKEND", "address": "MIALIB_ADDRESS", "workers": "MIALIB_WORKERS"}
_MODULES = {"dask": "distributed", "slurm": "submitit"}
_SCHEDULER = re.compile(r"([a-z]+://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")
_CLUSTERS = ("slurm", "local")


class Place(NamedTuple):
    """Where large work is done; `workers` None: as many as there are, or as many as processes are asked for here."""

    backend: str = "local"
    address: str | None = None
    workers: int | None = None

    def variables(self) -> dict[str, str]:
        """The environment that says this; an empty variable says nothing."""
        return {
            VARIABLES[name]: "" if value is None else str(value) for name, value in self._asdict().items()
        }


def check(backend: str, address: str | None = None, workers: int | None = None) -> None:
    """Check what was chosen, before any work; nothing is connected to.

    Raises:
        ValueError: an unknown backend; fewer than one worker; an address that the backend has not.
        ModuleNotFoundError: the backend's extra is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f"backend is {backend!r}{_nearest(backend, BACKENDS)}; valid are {', '.join(BACKENDS)}"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    if backend == "local":
        if address:
            raise ValueError(
                f"address is {address!r}, and the backend is local, which has none; leave it out or take dask or slurm"
            )
        return
    module = _MODULES[backend]
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(
            f"backend is {backend!r}, and {module} is not installed: pip install 'mialib[{backend}]'",
            name=module,
        )
    if backend == "slurm":
        slurm_options(address)
    elif address and not _SCHEDULER.fullmatch(address):
        raise ValueError(
            f"address is {address!r}; valid is a Dask scheduler's, as tcp://host:8786, or none for workers on this machine"
        )


def chosen(backend: str | None = None, address: str | None = None, workers: int | None = None) -> Place:
    """What is said here; what is not, the environment variables say. All is checked.

    Where the variables name another backend than is said here, their address and workers are that one's, and are left out.

    Raises:
        ValueError, ModuleNotFoundError: see `check`; the message begins with the variables that have a part in it.
    """
    given = {"backend": backend, "address": address, "workers": workers}
    given = {name: value for name, value in given.items() if value is not None}
    said = {name: os.environ[key] for name, key in VARIABLES.items() if os.environ.get(key)}
    if backend and said.get("backend", backend) != backend:
        said = {}
    said = {name: value for name, value in said.items() if name not in given}
    try:
        found = said.get("workers")
        if found is not None and re.fullmatch(r"-?\d{1,9}", found) is None:
            raise ValueError(f"workers is {found!r}; it must be a number, 1 or more")
        place = Place(**(said | ({"workers": int(found)} if found else {}) | given))
        check(*place)
    except (ValueError, ModuleNotFoundError) as error:
        if said:
            set_to = ", ".join(f"{VARIABLES[name]}={value}" for name, value in said.items())
            error.args = (f"{set_to}: {error}",)
        raise
    return place


def slurm_options(address: str | None) -> tuple[str, dict[str, str | int]]:
    """What an address says to SLURM: "slurm" or "local", and the options of jobs in submitit's names.

    Options that submitit has for any cluster (timeout_min, mem_gb, gpus_per_node, cpus_per_task, nodes, ...) stand as they
    are, those of SLURM alone (partition, account, qos, ...) get the prefix slurm_.

    Raises:
        ValueError: something else stands there.
    """
    cluster, _, rest = (address or "slurm").partition(":")
    if cluster not in _CLUSTERS:
        raise ValueError(
            f"address is {address!r}; valid are slurm and local, and slurm:partition=gpu,timeout_min=600 with options of jobs"
        )
    import submitit

    general = submitit.AutoExecutor._typed_parameters()
    special = submitit.SlurmExecutor._valid_parameters()
    options: dict[str, str | int] = {}
    for text in rest.split(",") if rest else ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ValueError(f"address is {address!r}, in which {text!r} is no option; write name=value")
        if name not in general and name not in special:
            raise ValueError(
                f"address is {address!r}, and SLURM's jobs have no option {name!r}"
                f"{_nearest(name, [*general, *special])}"
            )
        typed = int(value) if value.isdecimal() else value
        if general.get(name) in (int, float) and not isinstance(typed, int):
            raise ValueError(f"address is {address!r}; {name} must be a whole number")
        options[name if name in general else f"slurm_{name}"] = typed
    return cluster, options


def _nearest(name: str, valid) -> str:
    close = difflib.get_close_matches(str(name)[:100], list(valid), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
