"""The structure of the package, read from its sources: the order of the rooms, one address a thing, a test for each file."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
import types

import pytest

import mialib
from mialib import REPO_ROOT, ROOMS

PACKAGE = REPO_ROOT / "mialib"
FILES = sorted(path for room in ROOMS for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__")
# what every room may use
FILES_BESIDE = ("places", "store", "uses", "turns", "hashing", "reach", "streams", "progress")
DOORS = (
    "running",
    "made_up",
    "pace",
    "counting",
    "planning",
    "sweeping",
    "housekeeping",
    "cli",
)  # which may use every room
FOUNDATIONS = {*FILES_BESIDE, "REPO_ROOT", "outputs_root", "environment", "version"}
READERS = [path for folder in ("mialib", "tests") for path in sorted((REPO_ROOT / folder).rglob("*.py"))]


def name_of(path):
    return str(path.relative_to(REPO_ROOT).with_suffix(""))


def imports(source):
    """(module below mialib or "", name) of everything that a source imports from the package, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mialib":
            assert node.level == 0
            yield from ((node.module[len("mialib.") :], alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mialib."):
                    yield alias.name[len("mialib.") :], ""


def aloud(room):
    """What a room names in its stub: name -> file that it comes from, "" for the files themselves."""
    stub = ast.parse((PACKAGE / room / "__init__.pyi").read_text())
    return {alias.name: node.module or "" for node in stub.body for alias in node.names}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_from_those_before_it_only(path):
    before = {*ROOMS[: ROOMS.index(path.parent.name) + 1], *FOUNDATIONS}
    used = {(module or name).split(".")[0] for module, name in imports(path.read_text())}
    assert used <= before, f"{sorted(used - before)} come later"


@pytest.mark.parametrize("name", FILES_BESIDE)
def test_the_foundations_know_no_room(name):
    used = {module or name for module, name in imports((PACKAGE / f"{name}.py").read_text())}
    assert used <= FOUNDATIONS


@pytest.mark.parametrize("path", READERS, ids=name_of)
def test_what_a_room_says_aloud_is_taken_from_the_room(path):
    own = path.parent.name if path.parent.parent == PACKAGE else None
    for module, name in imports(path.read_text()):
        room, _, file = module.partition(".")
        if file and room != own:
            assert name not in aloud(room), f"take {name} from mialib.{room}"
        if file:
            source = PACKAGE / room / f"{file}.py"
            there = vars(importlib.import_module(f"mialib.{module}"))[name]
            assert getattr(there, "__module__", f"mialib.{module}") in (
                f"mialib.{module}",
                "typing",
                "builtins",
            ) or (not inspect.isroutine(there) and not inspect.isclass(there)), (
                f"{source} is not where {name} is defined"
            )


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_stub_is_there_and_none_hides_a_file(room):
    module = importlib.import_module(f"mialib.{room}")
    files = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
    names = aloud(room)
    assert {name for name, file in names.items() if not file} == files
    for name, file in names.items():
        thing = getattr(module, name)
        assert isinstance(thing, types.ModuleType) == (file == "")
        assert sorted(names) == module.__all__


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_public_function_has_the_name_of_its_module(path):
    public = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert path.stem not in public


@pytest.mark.parametrize(
    "path",
    [
        *FILES,
        *(PACKAGE / f"{name}.py" for name in (*FILES_BESIDE, *DOORS)),
    ],
    ids=name_of,
)
def test_every_file_has_a_test_of_its_name(path):
    assert (REPO_ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.stem}.py").is_file()


def test_importing_the_package_imports_neither_torch_nor_a_room():
    code = "import sys, mialib; print([name for name in sys.modules if name == 'torch' or name.startswith('mialib.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_types_and_stubs_travel_with_the_package():
    project = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())
    files = project["tool"]["setuptools"]["package-data"]["mialib"]
    assert files == ["py.typed", "**/*.pyi", "site/*.css", "auditing/*.json"]
    listed = project["tool"]["setuptools"]["packages"]
    shipped = ["mialib.repository.notebooks", "mialib.repository.params"]
    assert sorted(listed) == sorted(["mialib", *(f"mialib.{room}" for room in ROOMS), *shipped])
    assert (PACKAGE / "py.typed").exists()


def test_type_checkers_see_what_the_package_says_aloud():
    (seen,) = (
        one for one in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(one, ast.If)
    )
    assert ast.unparse(seen.test) == "TYPE_CHECKING"
    names = {alias.asname for node in seen.body for alias in node.names}
    assert names == set(mialib.__all__) - {*ROOMS, *FILES_BESIDE, *DOORS}


def test_the_top_level_is_as_agreed():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO_ROOT, capture_output=True, text=True).stdout.split(
        "\n"
    )
    shown = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    if not shown:
        pytest.skip("not a git checkout")
    assert shown == {"pyproject.toml", "README.md", "notebooks", "mialib", "params", "tests", "outputs"}
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        f"{n}.py" for n in ("__init__", *FILES_BESIDE, *DOORS)
    }
    assert set(mialib.__all__) == {*ROOMS, *FILES_BESIDE, *DOORS, "Shadows", "audit", "audit_answers"}
