"""What a run leaves behind, written whole or not at all, and read back with its errors named.

metrics.json holds parameters, provenance (versions, device, precision, commit, times), the claims by key and the means over
targets, which leave out what is empty. Beside it stand the tidy rows of `study.rows` in rows.csv.gz, which `pandas.read_csv`
opens, and in margins.npz the ranks that mend an interval without training (`study.ranks`).
"""

import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mialib import store, uses
from mialib.reporting.discretion import without_places
from mialib.study import COLUMNS, aggregate
from mialib.study.rows import TEXTS, finite

CLAIM_COLUMNS = ("claim", "source", "paper", "ours", "paired", "verdict", "margin", "p")
ROWS, MARGINS = "rows.csv.gz", "margins.npz"
_SECTIONS = ("notebook", "run", "parameters", "provenance", "aggregates", "claims")


def save(
    folder,
    *,
    notebook: str,
    run: str,
    parameters: Mapping,
    rows: Sequence[dict],
    claims: pd.DataFrame | None,
    provenance: Mapping,
    margins: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write rows.csv.gz, margins.npz and metrics.json into a folder, which is made; return the path of the last. The store
    gets a note of what the run used (`uses`).

    Absolute paths, say of a data set of one's own, are shortened (`without_places`).

    Args:
        rows: one for each measurement; the means over targets are made of those that name one.
        claims: the table of `claims.compare`, None without claims.
        margins: name -> array, as of `study.dense_ranks`.

    Raises:
        ValueError: rows that lack columns or have unknown ones, nan or infinity but in the measured columns (where they
            become empty), what JSON cannot hold. Nothing is written then.
    """
    folder = Path(folder)
    for index, item in enumerate(rows):
        if item.keys() != set(COLUMNS):
            raise ValueError(
                f"rows[{index}] lacks columns {sorted(set(COLUMNS) - item.keys())} and has unknown ones"
                f" {sorted(item.keys() - set(COLUMNS))}; make it with study.tidy_row"
            )
    rows = without_places([{name: finite(name, value) for name, value in item.items()} for item in rows])
    records = {} if claims is None else claims[list(CLAIM_COLUMNS)].to_dict("index")
    for record in records.values():  # null where there is none, or it is infinite
        record |= {name: record[name] if math.isfinite(record[name]) else None for name in ("margin", "p")}
    content = {
        "notebook": notebook,
        "run": run,
        "parameters": without_places(parameters),
        "provenance": provenance,
        "aggregates": aggregate([row for row in rows if row["target"] is not None]),
        "claims": without_places(records),
    }
    text = "{\n" + ",\n".join(f'"{name}": {_section(name, content[name])}' for name in _SECTIONS) + "\n}\n"
    store.write(folder / ROWS, _table(rows))
    if margins:
        packed = io.BytesIO()
        np.savez_compressed(packed, **margins)
        store.write(folder / MARGINS, packed.getvalue())
    store.write(folder / "metrics.json", text.encode())  # the last: where it is, all is there
    uses.note(notebook, run)
    return folder / "metrics.json"


def load(path) -> dict:
    """Read what `save` wrote: a dict with notebook, run, parameters, provenance, rows and claims.

    The rows are those of each target, then the means over targets. Results that hold their rows in metrics.json, and claims
    without keys, are read as well; the claim's text is the key then.

    Args:
        path: of metrics.json.

    Raises:
        FileNotFoundError: it, or the rows beside it, are missing.
        ValueError: a file that is not whole, valid JSON without NaN, or lacks a section.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the notebook that writes it")

    def refuse(constant):
        raise ValueError(f"it holds {constant}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except ValueError as error:
        raise ValueError(f"{path} is not valid results JSON ({error}); run the notebook again") from error
    if "rows" not in content and "aggregates" in content:
        content["rows"] = _rows(path.parent / ROWS) + [
            {name: item.get(name) for name in COLUMNS} for item in content.pop("aggregates")
        ]
    missing = [name for name in (*_SECTIONS[:4], "rows", "claims") if name not in content]
    if missing:
        raise ValueError(f"{path} lacks {missing}; results hold {list(_SECTIONS)}")
    if isinstance(content["claims"], list):
        content["claims"] = {claim["claim"]: claim for claim in content["claims"]}
    return content


def _table(rows: Sequence[dict]) -> bytes:
    """Rows as compressed CSV; the same rows give the same bytes."""
    try:
        for row in rows:
            json.dumps(row, allow_nan=False)  # names what a table cannot hold
            for name, value in row.items():
                if value is not None and _read(name, str(value)) != value:
                    raise ValueError(f"{name} is {value!r}, which would be read as another value")
    except (TypeError, ValueError) as error:
        raise ValueError(f"rows cannot be written: {error}") from error
    text = pd.DataFrame(rows, columns=COLUMNS, dtype=object).to_csv(index=False)
    return gzip.compress(text.encode(), mtime=0)


def _rows(path: Path) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no rows at {path}, which metrics.json beside it belongs to; run the notebook again"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table) != list(COLUMNS):
            raise ValueError(f"it has the columns {list(table)}; rows have {list(COLUMNS)}")
        return [{name: _read(name, text) for name, text in row.items()} for row in table.to_dict("records")]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole table of rows ({error}); run the notebook again") from error


def _read(name: str, text: str) -> str | int | float | None:
    """What stands in a column, to the last digit; "4" is an int and "4.0" a float, as they were written."""
    if not text:
        return None
    if name in TEXTS:
        return text
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _section(name, value) -> str:
    compact = {"allow_nan": False, "separators": (",", ":")}
    try:
        if name == "aggregates":
            kept = ({key: one for key, one in item.items() if one is not None} for item in value)
            return "[\n" + ",\n".join(json.dumps(item, **compact) for item in kept) + "\n]"
        if name == "claims":
            lines = (f"{json.dumps(key)}: {json.dumps(claim, **compact)}" for key, claim in value.items())
            return "{\n" + ",\n".join(lines) + "\n}"
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from error
