"""YAML as people write it: what is meant is read, what cannot be meant is named with its line."""

import math

import pytest

from mialib.params import yaml_files


@pytest.fixture
def file(tmp_path):
    def write(content, name="run.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(path, error=ValueError):
    with pytest.raises(error) as found:
        yaml_files.read(path)
    assert "\n" not in str(found.value)
    return str(found.value)


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("-1E+3", -1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("2", 2),
        ("-2", -2),
        ("60_000", 60_000),
        ("010", 10),  # eight in YAML 1.1
        ("1:30", "1:30"),  # ninety in YAML 1.1
        ("2024-01-01", "2024-01-01"),  # a date in YAML 1.1
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("inf", "inf"),
        ("true", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("'None'", "None"),
        ("[1e-3, 2]", [1e-3, 2]),
        ("e5", "e5"),
        ("1e", "1e"),
        ("resnet18", "resnet18"),
    ],
)
def test_values_are_read_as_everybody_writes_them(file, text, value):
    assert yaml_files.read(file(f"lr: {text}  # a comment")) == ({"lr": value}, [])
    (read,) = yaml_files.read(file(f"lr: {text}"))[0].values()
    assert type(read) is type(value)


def test_not_a_number_is_one_of_the_numbers(file):
    values, wrong = yaml_files.read(file("lr: .nan"))
    assert math.isnan(values["lr"]) and wrong == []


def test_all_files_of_the_repository_are_read_as_pyyaml_reads_them():
    import yaml

    from mialib import REPO_ROOT

    files = sorted((REPO_ROOT / "params").glob("*/*.yaml"))
    assert len(files) > 70
    for path in files:
        assert yaml_files.read(path) == (yaml.safe_load(path.read_text()), [])


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "null"], ids=str)
def test_an_empty_file_says_nothing(file, content):
    assert yaml_files.read(file(content)) == ({}, [])


# How it is written


def test_a_name_that_stands_twice_is_named_with_both_lines(file):
    values, wrong = yaml_files.read(file("lr: 0.1\nepochs: 2\nlr: 0.2\n'epochs': 3\nlr: 0.3"))
    assert wrong == [
        "line 3: lr stands in line 1 already",
        "line 4: epochs stands in line 2 already",
        "line 5: lr stands in line 1 already",
    ]


@pytest.mark.parametrize("word", ["None", "none", "NONE", "nil"])
def test_none_is_not_yamls_word_for_nothing(file, word):
    values, wrong = yaml_files.read(file(f"epochs: 1\ndata_root: {word}"))
    assert values["data_root"] is None
    assert wrong == [f"line 2: {word} is a word like any other here; write null, or quotes"]
    assert yaml_files.read(file(f"lrs: [{word}]"))[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: [1", "it is not valid YAML: line 1, column 11"),
        ("epochs: 1\n\tlr: 2", "it is not valid YAML: line 2, column 1"),
        ("a: b: c", "it is not valid YAML: line 1"),
        ("a: !!python/object:os.system x", "it is not valid YAML: line 1, column 4"),
        ("a: *nobody", "undefined alias"),
        ("a: 1\n---\nb: 2", "it is not valid YAML: line 2"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: \x01", "it is not valid YAML"),
        ("[" * 5000, "it is not valid YAML: lists within lists without end"),
        ("a: " + "9" * 5000, "it is not valid YAML"),
        ("- epochs", "it must hold lines `name: value`, found a list"),
        ("[]", "it must hold lines `name: value`, found a list"),
        ("false", "it must hold lines `name: value`, found a bool"),
        ("epochs", "it must hold lines `name: value`, found a str"),
    ],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_read_is_said_with_its_place(file, text, words):
    assert words in refused(file(text))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_letters_are_named(file, encoding):
    assert refused(file("lr: 0.1".encode(encoding))) == f"it is in {encoding.upper()}; save it as UTF-8"


def test_wide_letters_without_a_mark_are_named(file):
    assert "it is in UTF-16 or no text at all" in refused(file("lr: 0.1".encode("utf-16-le")))


def test_latin_1_is_named_with_its_line(file):
    assert refused(file("lr: 0.1\n# pr\xe9cis".encode("latin-1"))) == (
        "line 2 is not UTF-8: byte 0xe9, in Latin-1 'é'; save it as UTF-8"
    )


def test_utf_8_may_have_its_mark_and_accents(file):
    assert yaml_files.read(file("run: é  # précis".encode("utf-8-sig"))) == ({"run": "é"}, [])


# Files


def test_a_file_that_is_not_there_is_said(tmp_path):
    assert "it does not exist" in refused(tmp_path / "absent.yaml", FileNotFoundError)


def test_links_are_followed_and_broken_ones_named(file, tmp_path):
    link = tmp_path / "link.yaml"
    link.symlink_to(file("lr: 1"))
    assert yaml_files.read(link) == ({"lr": 1}, [])
    broken = tmp_path / "broken.yaml"
    broken.symlink_to(tmp_path / "absent.yaml")
    assert "it is a link to" in refused(broken, FileNotFoundError)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    refused(loop, (FileNotFoundError, ValueError))


def test_a_folder_is_no_file(tmp_path):
    assert refused(tmp_path) == "it is a folder; name the files in it"


def test_a_name_that_no_system_takes_is_refused(tmp_path):
    refused(tmp_path / ("x" * 5000 + ".yaml"), (ValueError, FileNotFoundError))


def test_a_file_that_is_no_parameter_file_by_its_size_is_not_read(file):
    assert "a parameter file has at most" in refused(file(b"#" * (yaml_files.LARGEST + 1)))
