"""Do two commits compute the same? Runs the notebooks of both on this machine and compares their rows to the last digit.

    python tests/same_rows.py BEFORE [AFTER]        AFTER: a commit, or the working tree (the default)

Not a test: another processor rounds otherwise, so both sides have to be run on one. Timings are left out. Results of a
commit are kept below --keep and not computed again; those of the working tree always are.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mialib import reporting

ROOT = Path(__file__).resolve().parents[1]
TIMINGS = {"search_seconds"}  # metrics that differ from run to run
RUN = (
    "import sys, papermill; name = sys.argv[1]; papermill.execute_notebook("
    "f'notebooks/{name}.ipynb', f'{sys.argv[2]}/{name}.ipynb', kernel_name='python3', progress_bar=False)"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default=".")
    parser.add_argument(
        "--notebooks",
        nargs="*",
        help="names, or BEFORE=AFTER where they differ, one+another for two together; default: all that both sides have",
    )
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "mialib-same-rows")
    options = parser.parse_args()
    sides = [_tree(name, options.keep) for name in (options.before, options.after)]
    names = options.notebooks or sorted(
        set.intersection(*({path.stem for path in (tree / "notebooks").glob("*.ipynb")} for tree, _ in sides))
    )
    differ = False
    for name in names:
        pair = (name.split("=") * 2)[:2]
        before, after = (_rows(one, *side) for one, side in zip(pair, sides, strict=True))
        lost, new = before - after, after - before
        differ |= bool(lost or new)
        print(
            f"{name}: {before.total()} and {after.total()} rows, {lost.total()} only before, {new.total()} only after"
        )
        for sign, rows in (("-", lost), ("+", new)):
            for row in list(rows)[:3]:
                print(f"  {sign} { ({k: v for k, v in json.loads(row).items() if v is not None}) }")
    return int(differ)


def _tree(name: str, keep: Path) -> tuple[Path, Path]:
    """The folder with a side's sources, and the one for its results."""
    if name == ".":
        outputs = keep / "working-tree"
        shutil.rmtree(outputs, ignore_errors=True)
        return ROOT, outputs
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", name], check=True, capture_output=True, text=True
    ).stdout.strip()
    tree = keep / commit / "tree"
    if not tree.exists():
        tree.mkdir(parents=True)
        archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    return tree, keep / commit / "outputs"


def _rows(names: str, tree: Path, outputs: Path) -> collections.Counter:
    """The rows of the default runs of notebooks, "one+another", as text; all numbers as floats."""
    rows = []
    for name in names.split("+"):
        metrics = outputs / name / "digits" / "metrics.json"
        if not metrics.exists():
            _run(name, tree, outputs)
        rows += reporting.load(metrics)["rows"]
    plain = [{k: float(v) if isinstance(v, int) else v for k, v in row.items()} for row in rows]
    return collections.Counter(json.dumps(row) for row in plain if row["metric"] not in TIMINGS)


def _run(name: str, tree: Path, outputs: Path) -> None:
    outputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "PYTHONPATH": str(tree),
            "MIALIB_CACHE": os.environ.get("MIALIB_CACHE", cache),
            "MIALIB_OUTPUTS": str(outputs),
            "MIALIB_PROGRESS": os.devnull,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", RUN, name, str(outputs)]
        subprocess.run(command, cwd=tree, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
