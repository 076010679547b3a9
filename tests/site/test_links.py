"""Links of the site: to pages, to copies of files, or no link at all."""

import pytest

from mialib.site.links import Links


@pytest.fixture
def links(tmp_path):
    for name in ("notebooks/a.ipynb", "params/a/x.yaml", "figure.png", "outputs/a/x/executed.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return Links(
        tmp_path, {tmp_path / "notebooks" / "a.ipynb": "a/x.ipynb", tmp_path / "README.md": "index.md"}
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[a](../../../notebooks/a.ipynb)", "[a](../a/x.ipynb)"),
        ("[a](../../../notebooks/a.ipynb#claims), [up](../../../README.md).",
         "[a](../a/x.ipynb#claims), [up](../index.md)."),
        ("[x](../../../params/a/x.yaml)", "[x](path:../files/params/a/x.yaml)"),
        ("[x](executed.ipynb)", "[x](path:../files/outputs/a/x/executed.ipynb)"),
        ("![A figure](../../../figure.png)", "![A figure](../files/figure.png)"),
        ("[all](../../../params/a/)", "all"),
        ("[lost](lost.md)", "[lost](lost.md)"),
        ("[doi](https://doi.org/10.1/x), [above](#a), [mail](mailto:a@b.c)", None),
        ("```\n[a](../../../notebooks/a.ipynb)\n```", None),
    ],
)  # fmt: skip
def test_links_lead_to_pages_or_to_files(links, tmp_path, before, after):
    here = tmp_path / "outputs" / "a" / "x"
    assert links.turned(before, here, "b/y.ipynb") == (before if after is None else after)


def test_files_that_are_linked_to_are_noted_once(links, tmp_path):
    for page in ("index.md", "b/y.ipynb"):
        links.turned("[x](params/a/x.yaml) and [x](params/a/x.yaml)", tmp_path, page)
    assert links.files == {"files/params/a/x.yaml": tmp_path / "params" / "a" / "x.yaml"}


def test_a_file_outside_the_repository_is_copied_by_its_name(links, tmp_path):
    assert links.file(tmp_path.parent / "mine.yaml", "index.md") == "path:files/mine.yaml"
