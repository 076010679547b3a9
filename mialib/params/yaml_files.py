"""Parameter files as people write them: YAML that reads numbers as people do, and reports what cannot be meant.

Unlike YAML 1.1, which PyYAML reads: `1e-4` is a number, `010` is ten and `1:30` a text. A name that occurs twice, `None`,
and files in UTF-16 or Latin-1 are refused, each by name.
"""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1_000_000  # bytes of a parameter file
_NOTHING = ("None", "none", "NONE", "nil", "Nil", "NIL")
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read(path: Path) -> tuple[dict[Any, Any], list[str]]:
    """The content of a file, and what is wrong with how it is written; each problem on one line, without the path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read at all.
    """
    check_file(path)
    text = _text(path.read_bytes())
    try:
        reader = _Reader(text)
        values = reader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {_where(error)}") from None
    except RecursionError:
        raise ValueError("it is not valid YAML: lists within lists without end") from None
    except ValueError as error:  # for example a number of thousands of digits
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ValueError(f"it must hold lines `name: value`, found a {type(values).__name__}")
    return values, reader.problems


def check_file(path: Path) -> None:
    """Raises FileNotFoundError or ValueError, without the path, for a path that is not a readable file."""
    try:
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"it is a link to {path.readlink()}, which does not exist")
        if not path.exists():
            raise FileNotFoundError("it does not exist; parameters stand in params/<notebook>/<run>.yaml")
        if not path.is_file():
            raise ValueError(
                "it is a folder; name the files in it" if path.is_dir() else "it is not a regular file"
            )
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError as error:  # a name that no system takes, or a folder that must not be entered
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    if size > LARGEST:
        raise ValueError(f"it has {size} bytes; a parameter file has at most {LARGEST}")


def _text(content: bytes) -> str:
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is in {name}; save it as UTF-8")
    if b"\0" in content:
        raise ValueError("it is in UTF-16 or no text at all; save it as UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(
            f"line {line} is not UTF-8: byte {byte:#04x}, in Latin-1 {chr(byte)!r}; save it as UTF-8"
        ) from None


def _where(error: yaml.YAMLError) -> str:
    """The problem on one line, with its place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        said = "; ".join(part for part in (error.problem, error.context) if part)
        return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(said.split())}"
    return " ".join(str(error).split())


class _Reader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers of YAML 1.2; notes in `problems` what cannot be meant."""

    yaml_implicit_resolvers: dict = {}

    def __init__(self, text: str):
        super().__init__(text)
        self.problems: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in getattr(node, "value", ()):
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                self.problems.append(f"line {line}: {key.value} stands in line {lines[key.value]} already")
            lines.setdefault(key.value, line)
        return super().construct_mapping(node, deep)

    def text(self, node: yaml.ScalarNode) -> str | None:
        if node.style is None and node.value in _NOTHING:
            line = node.start_mark.line + 1
            self.problems.append(
                f"line {line}: {node.value} is a word like any other here; write null, or quotes"
            )
            return None
        return self.construct_scalar(node)

    def whole(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node).replace("_", ""))

    def number(self, node: yaml.ScalarNode) -> float:
        plain = self.construct_scalar(node).replace("_", "").lower()
        return float(plain.replace(".inf", "inf").replace(".nan", "nan"))


_DIGITS = "0123456789"
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"),
    list("yYnNtTfFoO"),
)
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+" + _DIGITS)
)
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|"
        r"\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+." + _DIGITS),
)
_Reader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"), ["<"])
_Reader.add_constructor("tag:yaml.org,2002:str", _Reader.text)
_Reader.add_constructor("tag:yaml.org,2002:int", _Reader.whole)
_Reader.add_constructor("tag:yaml.org,2002:float", _Reader.number)
