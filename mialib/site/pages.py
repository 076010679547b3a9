"""The sources of the site's pages: the README, the table of all runs, the page of results, each executed notebook.

What the pages say of a run, they have from its metrics.json. Pictures become files of their own, each with its alternative
text; they are loaded when a reader comes near them.
"""

import base64
import html
import itertools
import json
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mialib import REPO_ROOT, params
from mialib.site.links import Links

PICTURES = "pictures"  # the folder of the pictures in notebooks, on the site
_LARGE = 5e6  # bytes; a larger file is not offered
_TARGET = re.compile(r"\]\([^()\s]*\)")


@dataclass(frozen=True)
class Run:
    """One executed notebook; `executed` is `<results>/<notebook>/<run>/executed.ipynb`."""

    executed: Path

    @property
    def name(self) -> str:
        return self.executed.parent.name

    @property
    def paper(self) -> str:
        return self.executed.parent.parent.name

    @property
    def page(self) -> str:
        return f"{self.paper}/{self.name}.ipynb"

    @property
    def notebook(self) -> Path:
        """The one that was executed, as it is now."""
        return REPO_ROOT / "notebooks" / f"{self.paper}.ipynb"

    @cached_property
    def content(self) -> NotebookNode:
        return nbformat.read(self.executed, as_version=4)

    @cached_property
    def current(self) -> NotebookNode | None:
        """The notebook as it is now; None where it is no longer there."""
        return nbformat.read(self.notebook, as_version=4) if self.notebook.is_file() else None

    @cached_property
    def title(self) -> str:
        """What the notebook asks now; an older run may have asked in other words."""
        read = self.content if self.current is None else self.current
        headings = (re.match(r"# (.*)", cell.source) for cell in read.cells)
        return next((found[1] for found in headings if found), self.paper)

    @cached_property
    def default_run(self) -> str:
        """What the notebook calls its run where no parameters are given."""
        return "" if self.current is None else params.declared(self.notebook).get("run", "")

    @cached_property
    def facts(self) -> dict[str, str]:
        """What is known of the run, by the columns of the table of all runs; "" where it is not."""
        metrics = self.executed.with_name("metrics.json")
        known = json.loads(metrics.read_bytes()) if metrics.is_file() else {}
        parameters, made = known.get("parameters", {}), known.get("provenance", {})
        commit, changed, _ = (made.get("commit") or "").partition("-dirty")
        device = ", ".join(filter(None, (made.get("device"), made.get("precision"))))
        return {
            "data": parameters.get("dataset") or "",
            "network": parameters.get("model") or "",
            "minutes": _minutes(made.get("seconds")),
            "of training": _minutes(made.get("training_seconds")),
            "on": device,
            "torch": made.get("torch") or "",
            "commit": commit[:7] + " with changes" * bool(changed),
            "notebook": self._age(),
        }

    def _age(self) -> str:
        """Whether the notebook is still the one that was executed."""
        if self.current is None:
            return "is no longer there"
        now, then = (
            [  # links are rewritten when a notebook is executed
                (cell.cell_type, _TARGET.sub("", cell.source))
                for cell in notebook.cells
                if "injected-parameters" not in cell.metadata.get("tags", ())
            ]
            for notebook in (self.current, self.content)
        )
        if now == then:
            return "is as it was executed"
        code = [[source for kind, source in cells if kind == "code"] for cells in (now, then)]
        return "has other words since" if code[0] == code[1] else "has changed since"


def found(results: Path) -> list[Run]:
    """All executed notebooks of a folder of results."""
    return [Run(path) for path in sorted(results.glob("[!.]*/[!.]*/executed.ipynb"))]


def write(results: Path, sources: Path, pictures: Path) -> int:
    """Write the sources of all pages into a folder; how many they are.

    Args:
        results: a folder of results, as outputs/ is.
        sources: gets the pages' sources.
        pictures: gets the pictures in notebooks, below `PICTURES`.

    Raises:
        FileNotFoundError: there are no results.
    """
    runs = found(results)
    if not runs:
        raise FileNotFoundError(f"no executed notebook in {results}; 'mialib run --keep' leaves one there")
    whole = {name: path for name, path in _whole(results).items() if path.is_file()}
    links = Links(REPO_ROOT, _addresses(runs) | {path: name for name, path in whole.items()})
    texts = {
        name: links.turned(path.read_text(encoding="utf-8"), path.parent, name)
        for name, path in whole.items()
    }
    texts["runs.md"] = _table(runs)
    texts["index.md"] = texts.get("index.md", "# Results\n\nAll runs are in the [table](runs.md).\n")
    texts["index.md"] += _contents(runs, ["runs.md", *(name for name in whole if name != "index.md")])
    for run in runs:
        texts[run.page] = nbformat.writes(_page(run, links, pictures))
    for name, text in texts.items():
        _write(sources / name, text.encode())
    for name, path in links.files.items():
        _write(sources / name, path.read_bytes())
    return len(texts)


def _whole(results: Path) -> dict[str, Path]:
    """Pages that are a file of the repository as it stands."""
    return {"index.md": REPO_ROOT / "README.md", "results.md": results / "README.md"}


def _addresses(runs: list[Run]) -> dict[Path, str]:
    """What leads to a run's page: the executed notebook and its folders; the notebook, to its default run's or the first's."""
    pages = {}
    for _, group in itertools.groupby(runs, lambda run: run.paper):
        of_notebook = list(group)
        for run in of_notebook:
            folder = run.executed.parent
            pages |= dict.fromkeys((run.executed, folder, folder / "figures"), run.page)
        default = of_notebook[0].default_run
        first = next((run for run in of_notebook if run.name == default), of_notebook[0])
        pages[first.notebook] = first.page
    return pages


def _contents(runs: list[Run], others: list[str]) -> str:
    """The contents beside each page: a part for each notebook."""
    parts = {"All runs": [f"{_TITLES[name]} <{name}>" for name in others]}
    for run in runs:
        parts.setdefault(run.title, []).append(f"{run.name} <{run.page}>")
    return "".join(
        "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```", ""])
        for caption, lines in parts.items()
    )


_TITLES = {"runs.md": "What was run, where and how long", "results.md": "All results on one page"}


def _table(runs: list[Run]) -> str:
    """The page that says what was executed, where and how long it took."""
    parts = [
        f"""\
# {_TITLES["runs.md"]}

Each line is one execution of a notebook, as its `metrics.json` tells. *Minutes*: of this execution, which may have found
its networks trained. *Of training*: the minutes that training all its networks took, one process each, whenever that was.
*Commit*: the version of the repository that was run. *Notebook*: whether text and code are still those that were executed.
"""
    ]
    for paper, group in itertools.groupby(runs, lambda run: run.paper):
        of_notebook = list(group)
        names = ["run", *of_notebook[0].facts]
        lines = [names, ["---"] * len(names)]
        lines += [[f"[{run.name}]({run.page})", *run.facts.values()] for run in of_notebook]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {of_notebook[0].title}\n\n`{paper}`\n\n{table}\n")
    return "\n".join(parts)


def _page(run: Run, links: Links, pictures: Path) -> NotebookNode:
    """The executed notebook as the source of a page."""
    notebook = nbformat.from_dict(run.content)
    heading = ""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = links.turned(cell.source, run.executed.parent, run.page)
            if titles := re.findall(r"^#+ (.*)", cell.source, re.M):
                heading = titles[-1]
        elif cell.cell_type == "code":
            for place, output in enumerate(cell.outputs):
                _take_picture(output, pictures, f"{run.paper}/{run.name}/{number}_{place}.png", heading)
    top = next((cell for cell in notebook.cells if cell.source.startswith("# ")), None)
    if top is None:
        top = nbformat.v4.new_markdown_cell(f"# {run.paper}")
        notebook.cells.insert(0, top)
    title, _, rest = top.source.partition("\n")
    top.source = f"{title} ({run.name})\n\n{_origin(run, links)}\n{rest}"
    return notebook


def _origin(run: Run, links: Links) -> str:
    """What stands below a page's title: what was run, where, when; files to take along."""
    facts = run.facts
    parts = {
        "data": "data {}",
        "network": "network {}",
        "minutes": "{} minutes",
        "of training": "{} minutes of training",
        "on": "on {}",
        "torch": "torch {}",
        "commit": "commit {}",
        "notebook": "the notebook {}",
    }
    said = ", ".join(words.format(facts[name]) for name, words in parts.items() if facts[name])
    folder = run.executed.parent
    offered = {
        "this page as a notebook": run.executed,
        "the notebook to run": run.notebook,
        "parameters": REPO_ROOT / "params" / run.paper / f"{run.name}.yaml",
        **{name: folder / name for name in ("metrics.json", "rows.csv.gz")},
    }
    files = (f"[{text}]({links.file(path, run.page)})" for text, path in offered.items() if _is_small(path))
    return f":::{{container}} origin\nRun `{run.name}`: {said}.\n\nDownload {', '.join(files)}.\n:::\n"


def _is_small(path: Path) -> bool:
    """Whether it is there, and not too large for a reader on a phone."""
    return path.is_file() and path.stat().st_size < _LARGE


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f}"


def _take_picture(output: NotebookNode, pictures: Path, name: str, heading: str) -> None:
    """Replace a picture in a cell's output by a link to a file, with the alternative text that the output has."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    picture = base64.b64decode(data["image/png"])
    _write(pictures / PICTURES / name, picture)
    width, height = struct.unpack(">II", picture[16:24])
    text = html.escape(
        output.metadata.get("image/png", {}).get("alt") or f'A figure of the section "{heading}"'
    )
    source = f"../{PICTURES}/{name}"
    size = f'width="{width}" height="{height}"'
    output.data = {"text/html": f'<img src="{source}" alt="{text}" {size} loading="lazy">'}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
