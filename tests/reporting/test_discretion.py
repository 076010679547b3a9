"""What is stored names no place of this machine; what only looks like one stays."""

import getpass
import os
import site
import sysconfig
from pathlib import Path

import pytest

from mialib import REPO_ROOT
from mialib.reporting import without_places


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    for variable in ("CACHE", "DATA", "OUTPUTS"):
        monkeypatch.setenv(f"MIALIB_{variable}", str(tmp_path / variable.lower()))
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "alice"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{machine}/cache/ab/abc.json is corrupt", "$MIALIB_CACHE/ab/abc.json is corrupt"),
        ("'{machine}/data'", "'$MIALIB_DATA'"),
        ("-> {machine}/outputs/small/first", "-> $MIALIB_OUTPUTS/small/first"),
        ("folder:{machine}/home/alice/pictures", "folder:~/pictures"),
        ("no home/x: {machine}/home/alice", "no home/x: ~"),
        ("{repo}/mialib/store.py:12: UserWarning", "mialib/store.py:12: UserWarning"),
        ("\x1b[32m{repo}/mialib/store.py\x1b[39m:12", "\x1b[32mmialib/store.py\x1b[39m:12"),
        ("File {site}/torch/nn.py", "File site-packages/torch/nn.py"),
        ("File {stdlib}/json/decoder.py", "File python/json/decoder.py"),
        ("{machine}/cached/x/y.txt", "…/y.txt"),  # not the cache
        ("<td>{machine}/other</td>", "<td>…/other</td>"),
        ("'a\\n{machine}/other/x'", "'a\\n…/x'"),
        ("file://{machine}/other/x?", "file://…/x?"),
        ("/tmp/ipykernel_12/345.py:1", "…/345.py:1"),
        (f"/tmp/{getpass.getuser()}", "…"),
    ],
)
def test_a_path_is_told_from_where_everybody_has_one(machine, text, told):
    given = text.format(
        machine=machine,
        repo=REPO_ROOT,
        site=site.getsitepackages()[0],
        stdlib=sysconfig.get_path("stdlib"),
    )
    assert without_places(given) == told
    assert without_places(told) == told


def test_a_checkout_below_the_home_folder_is_told_as_tracebacks_shorten_it(monkeypatch):
    monkeypatch.setenv("HOME", str(REPO_ROOT.parent))
    assert without_places(f"~/{REPO_ROOT.name}/mialib/store.py:1") == "mialib/store.py:1"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://arxiv.org/abs/2003.10595",
            "2020/01/02",
            "1 / 2",
            "</div>",
            "and/or/not",
            "x/tmp/y",
            "/etc",
        ),
        *("a /nowhere/at/all", "./tmp/x/y", "../tmp/x/y", "~/tmp/x/y", "$MIALIB_CACHE/ab/x"),
    ],
)
def test_what_is_no_path_of_this_machine_stays(text):
    assert without_places(text) == text


def test_texts_are_found_at_any_depth_and_other_things_stay(machine):
    place = str(machine / "cache" / "x")
    thing = {"a": [1, None, (place, 2.5)], "image/png": place, "b": {"c": place}}
    assert without_places(thing) == {
        "a": [1, None, ["$MIALIB_CACHE/x", 2.5]],
        "image/png": place,
        "b": {"c": "$MIALIB_CACHE/x"},
    }


def test_places_that_are_nowhere_are_no_reason_to_fail(monkeypatch):
    monkeypatch.setenv("MIALIB_CACHE", "~nobody-of-this-name/x")
    assert without_places("~nobody-of-this-name/x/y") == "~nobody-of-this-name/x/y"


def test_stored_results_name_no_place(machine):
    homes = [f"/{name}/".encode() for name in ("home", "root", "Users", "tmp")]
    homes += [b"site-packages/", os.fsencode(REPO_ROOT)]
    stored = [path for name in ("outputs", "notebooks") for path in Path(REPO_ROOT / name).rglob("*")]
    texts = [
        path for path in stored if path.suffix in (".ipynb", ".json", ".md") and ".local" not in path.parts
    ]
    assert texts
    for path in texts:
        content = path.read_bytes()
        assert not [home for home in homes if home in content], path
