"""What a notebook says of its parameters, read off its cells; nothing of it is run, and nothing else is imported for it."""

import ast
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any


def declared(notebook: Path) -> dict[str, Any]:
    """The parameters that a notebook declares, with their defaults: the annotated names of its parameters cell."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            lines = ast.parse("".join(cell["source"])).body
            return {
                line.target.id: ast.literal_eval(line.value)
                for line in lines
                if isinstance(line, ast.AnnAssign) and line.value is not None
            }
    raise ValueError(f"{notebook} has no cell with the tag `parameters`")


def words_of(notebook: Path) -> dict[str, Collection[str]]:
    """The words that only this notebook has: the keywords of its call of `check`."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "params.check(" not in source:
            continue
        lines = [line for line in source.splitlines() if not line.startswith("%")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "params.check":
                return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    return {}
