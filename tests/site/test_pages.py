"""The sources of the pages, from a small repository."""

import nbformat
import pytest

from mialib.site import pages

from .conftest import picture, shown


@pytest.fixture
def written(repository):
    """Name -> text of each source."""
    sources = repository / "sources"
    count = pages.write(repository / "outputs", sources, repository)
    found = {str(path.relative_to(sources)): path for path in sources.rglob("*") if path.is_file()}
    assert count == len([name for name in found if not name.startswith("files/")])
    return {name: path.read_text() for name, path in found.items()}


def cells(written, name):
    return nbformat.reads(written[name], 4).cells


def test_each_run_has_a_page_and_the_repository_a_front(written):
    names = {name for name in written if not name.startswith("files/")}
    assert names == {"index.md", "results.md", "runs.md", "a/first.ipynb", "a/other.ipynb", "b/only.ipynb"}


def test_links_to_a_notebook_lead_to_its_default_run_or_to_its_first(written):
    assert "[b](../b/only.ipynb) and [a](first.ipynb)" in cells(written, "a/other.ipynb")[0].source
    assert (
        "[a](a/first.ipynb), [b](b/only.ipynb), [all](results.md), [pictures](a/other.ipynb)"
        in written["index.md"]
    )
    assert "[first](a/first.ipynb)" in written["results.md"]


def test_the_contents_are_by_notebook_in_its_own_words(written):
    parts = written["index.md"].split(":caption: ")[1:]
    assert [part.splitlines()[0] for part in parts] == ["All runs", "Does a leak?", "Does b leak?"]
    assert "first <a/first.ipynb>\nother <a/other.ipynb>" in parts[1]


def test_a_page_says_what_was_run_and_offers_the_files(written):
    top = cells(written, "a/first.ipynb")[0].source
    assert top.startswith("# Does a leak? (first)\n")
    assert (
        "Run `first`: data digits, network cnn, 1.5 minutes, on cpu, torch 2.14, commit 0123456 with changes,"
        " the notebook is as it was executed." in top
    )
    for name in ("outputs/a/first/executed.ipynb", "notebooks/a.ipynb", "params/a/first.yaml"):
        assert f"(path:../files/{name})" in top
        assert f"files/{name}" in written
    assert "rows.csv.gz" not in top  # there are none


def test_large_files_are_not_offered(repository, monkeypatch):
    monkeypatch.setattr(pages, "_LARGE", 100)
    pages.write(repository / "outputs", repository / "sources", repository)
    top = nbformat.read(repository / "sources/a/first.ipynb", 4).cells[0].source
    assert "parameters" in top and "metrics.json" not in top


def test_the_table_of_runs_by_hand(written):
    lines = [line for line in written["runs.md"].splitlines() if line.startswith("| [")]
    assert lines == [
        "| [first](a/first.ipynb) | digits | cnn | 1.5 |  | cpu | 2.14 | 0123456 with changes | is as it was executed |",
        "| [other](a/other.ipynb) |  |  |  |  |  |  |  | has changed since |",
        "| [only](b/only.ipynb) |  |  |  |  |  |  |  | is as it was executed |",
    ]


def test_a_notebook_of_other_words_is_told_from_one_of_other_code(repository):
    path = repository / "notebooks/b.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("More words."))
    nbformat.write(notebook, path)
    assert pages.found(repository / "outputs")[-1].facts["notebook"] == "has other words since"
    notebook.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    nbformat.write(notebook, path)
    assert pages.found(repository / "outputs")[-1].facts["notebook"] == "has changed since"


def test_a_notebook_that_was_removed_is_said(repository):
    (repository / "notebooks/b.ipynb").unlink()
    assert pages.found(repository / "outputs")[-1].facts["notebook"] == "is no longer there"


@pytest.mark.parametrize(
    ("cell", "alt"),
    [
        (shown({"image/png": {"alt": 'AUC "falls" & <ends>'}}, **{"image/png": picture()}),
         "AUC &quot;falls&quot; &amp; &lt;ends&gt;"),
        (shown(**{"image/png": picture()}), "A figure of the section &quot;Data&quot;"),
    ],
    ids=["told", "not told"],
)  # fmt: skip
def test_a_picture_becomes_a_file_with_its_alternative_text(repository, cell, alt):
    path = repository / "outputs/b/only/executed.ipynb"
    content = nbformat.read(path, 4)
    content.cells.append(cell)
    nbformat.write(content, path)
    pages.write(repository / "outputs", repository / "sources", repository)
    output = nbformat.read(repository / "sources/b/only.ipynb", 4).cells[-1].outputs[0]
    name = f"pictures/b/only/{len(content.cells) - 1}_0.png"
    assert output.data == {
        "text/html": f'<img src="../{name}" alt="{alt}" width="30" height="20" loading="lazy">'
    }
    assert (repository / name).read_bytes().startswith(b"\x89PNG")


def test_the_executed_notebooks_stay_as_they_are(repository):
    before = {path: path.read_bytes() for path in (repository / "outputs").rglob("*") if path.is_file()}
    pages.write(repository / "outputs", repository / "sources", repository)
    assert {path: path.read_bytes() for path in before} == before


def test_no_results_are_an_error_with_advice(tmp_path):
    with pytest.raises(FileNotFoundError, match="mialib run"):
        pages.write(tmp_path, tmp_path / "sources", tmp_path)


def test_without_a_readme_the_front_leads_to_the_table(repository):
    (repository / "README.md").unlink()
    (repository / "outputs/README.md").unlink()
    pages.write(repository / "outputs", repository / "sources", repository)
    front = (repository / "sources/index.md").read_text()
    assert "(runs.md)" in front and "results" not in front


def test_what_lies_in_hidden_folders_is_no_run(repository):
    (repository / "outputs/a").rename(repository / "outputs/.site")
    assert [run.page for run in pages.found(repository / "outputs")] == ["b/only.ipynb"]
