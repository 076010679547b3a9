"""What a run would take, before it starts: its notebook is followed, with all work counted and none of it done."""

import ast
import io
import json
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from mialib import counting, housekeeping, params, progress
from mialib.counting import Counted
from mialib.params import machine


@dataclass(frozen=True)
class Plan:
    """What was counted of a notebook.

    Args:
        seconds: that this process worked at following it, without the time spent on measuring.
        cells: of the notebook. ended: the cell where the count ended, and its error; None: it is whole.
        elsewhere: the run asks for a CUDA device that is missing here: times are those of this machine's CPU.
    """

    counted: Counted
    seconds: float
    cells: int
    ended: tuple[int, str] | None = None
    elsewhere: bool = False

    @property
    def table(self) -> pd.DataFrame:
        """A row for each kind of work, and their total: networks, cached, epochs, batch, steps, examples, minutes."""
        lines = [
            {"what": what, "networks": one.networks, "cached": one.cached, "epochs": epochs, "batch": batch}
            | {"steps": one.steps, "examples": one.examples, "minutes": one.seconds / 60}
            for (what, epochs, batch), one in self.counted.trainings.items()
        ]
        lines += [
            {"what": what, "examples": one.examples, "minutes": one.seconds / 60}
            for what, one in self.counted.questions.items()
        ]
        lines.append({"what": "statistics, at least", "minutes": self.seconds / 60})
        table = pd.DataFrame(lines)
        total = {
            name: table[name].sum() for name in ("networks", "cached", "steps", "minutes") if name in table
        }
        return pd.concat([table, pd.DataFrame([{"what": "total"} | total])], ignore_index=True)

    @property
    def bytes(self) -> int:
        """Room in the cache that the networks to be trained take."""
        return sum(one.bytes for one in self.counted.trainings.values())

    def __str__(self) -> str:
        table = self.table
        whole = {name: "{:,.0f}".format for name in table.columns if name not in ("what", "minutes")}
        minutes = "{:,.2f}" if table["minutes"].iloc[-1] < 10 else "{:,.1f}"
        text = table.to_string(
            index=False, na_rep="", formatters=whole | {"minutes": minutes.format}, justify="right"
        )
        text += f"\n{housekeeping.sized(self.bytes)} more in the cache"
        if self.elsewhere:
            text += (
                "\ndevice is 'cuda', and PyTorch sees none here: the minutes are those of this machine's CPU"
            )
        for file in self.counted.missing:
            text += f"\ncounted with noise of the published size: {file}"
        if self.ended is not None:
            number, error = self.ended
            text += f"\ncounted up to cell {number} of {self.cells}, which fails without results: {error}"
        return text


def plan(notebook: Path, parameters: dict) -> Plan:
    """Follow a notebook to its end, or to the cell that cannot go on without results.

    Args:
        parameters: checked ones, used instead of the notebook's own.

    Raises:
        FileNotFoundError, params.Refused: its data are missing; its parameters do not fit data or machine.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    wanted = params.declared(notebook) | parameters
    here = _on_this_machine(wanted)
    namespace: dict = {"__name__": "__main__"}
    began, ended = time.process_time(), None
    with counting.counting(wanted.get("n_jobs", 1)) as counted, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means over nothing
        for number, cell in progress.follow(list(enumerate(cells, start=1)), notebook.stem, "cell"):
            if cell["cell_type"] != "code":
                continue
            try:
                with redirect_stdout(io.StringIO()):
                    exec(_compiled("".join(cell["source"]), number), namespace)
            except counting.NoData as error:
                raise FileNotFoundError(str(error)) from error
            except params.Refused:
                raise
            except Exception as error:
                ended = number, f"{type(error).__name__}: {error}"
                break
            if "parameters" in cell["metadata"].get("tags", []):
                namespace |= parameters | here
    seconds = time.process_time() - began - counted.pace.measuring
    return Plan(counted, seconds, len(cells), ended, elsewhere="device" in here)


def _on_this_machine(wanted: dict) -> dict:
    """Parameters to follow instead of those wanted: one process, and the CPU where CUDA is missing."""
    here = {"n_jobs": 1} if "n_jobs" in wanted else {}
    if wanted.get("device") != "cuda" or torch.cuda.is_available():
        return here
    here["device"] = "cpu"
    if wanted.get("precision") == "tf32" or not machine.has_bf16("cpu"):
        here["precision"] = "float32"
    return here


def _compiled(source: str, number: int):
    lines = [line for line in source.splitlines() if not line.startswith("%")]  # magics belong to a kernel
    return compile(ast.parse("\n".join(lines)), f"<cell {number}>", "exec")
