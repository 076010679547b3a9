"""What the check of a finished site finds, and what it lets pass."""

import pytest

from mialib.site import checking

GOOD = '<h1 id="top">A</h1><img src="data:image/png;base64,aa" alt="a"><a href="https://x.org">x</a>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<script src="https://cdn.org/x.js"></script>', "loads https://cdn.org/x.js"),
        ('<script src="//cdn.org/x.js"></script>', "loads //cdn.org/x.js"),
        ('<link rel="stylesheet" href="http://cdn.org/x.css">', "loads http://cdn.org/x.css"),
        ('<link rel="preconnect" href="https://fonts.org">', "loads https://fonts.org"),
        ('<img alt="a" src="https://x.org/a.png">', "loads https://x.org/a.png"),
        ('<img alt="a" src="data:," srcset="https://x.org/a.png 2x">', "loads https://x.org/a.png"),
        ('<iframe src="https://x.org"></iframe>', "loads https://x.org"),
        ("<style>@font-face { src: url('https://x.org/a.woff2') }</style>", "loads https://x.org/a.woff2"),
        ("<style>@import 'https://x.org/a.css';</style>", "loads https://x.org/a.css"),
        ('<p style="background: url(https://x.org/a.png)">', "loads https://x.org/a.png"),
        ('<a href="lost.html">a</a>', "links to lost.html, which is not there"),
        ('<a href="folder/">a</a>', "links to folder/, which is not there"),
        ('<a href="#lost">a</a>', "links to #lost, which is not there"),
        ('<a href="other.html#lost">a</a>', "links to other.html#lost, which is not there"),
        ('<img alt="a" src="lost.png">', "links to lost.png, which is not there"),
        ('<img src="data:,">', "has 1 pictures without alternative text"),
    ],
)
def test_what_is_wrong_is_said_with_its_page(tmp_path, text, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.html").write_text(GOOD)
    (tmp_path / "page.html").write_text(GOOD + text)
    assert checking.problems(tmp_path) == [f"page.html {said}"]


@pytest.mark.parametrize(
    "text",
    [
        '<a href="other.html#top">a</a>',
        '<a href="#top">a</a>',
        '<a href="with%20blank.txt?x=1">a</a>',
        '<link rel="canonical" href="https://x.org/page.html">',
        '<script>const home = "https://x.org/a.js";</script>',
        "<p>url(https://x.org/a.png)</p>",
        "<style>p { background: url(data:image/png;base64,aa) }</style>",
    ],
)
def test_what_is_right_passes(tmp_path, text):
    (tmp_path / "with blank.txt").touch()
    (tmp_path / "other.html").write_text(GOOD)
    (tmp_path / "page.html").write_text(GOOD + text)
    assert checking.problems(tmp_path) == []


def test_style_sheets_are_read_too(tmp_path):
    (tmp_path / "there.woff2").touch()
    (tmp_path / "a.css").write_text(
        "a { src: url('there.woff2') } b { src: url(lost.woff2) } c { src: url(https://x.org/a.woff2) }"
        "d { src: url(data:font/woff2;base64,aa); filter: url(#x) }"
    )
    assert checking.problems(tmp_path) == [
        "a.css loads https://x.org/a.woff2",
        "a.css loads lost.woff2, which is not there",
    ]
