"""Continuous integration says what the README and pyproject.toml say."""

import re
import tomllib

import pytest
import yaml

from mialib import REPO_ROOT

WORKFLOWS = REPO_ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
PROJECT = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())["project"]
LINE = re.search(r"^python3 -m venv .*pytest.*$", (REPO_ROOT / "README.md").read_text(), re.M)[0]
INSTALLED = re.compile(r"\.venv/bin/pip install -q -e '\.\[([a-z,]+)\]'")


def read(name):
    return yaml.safe_load((WORKFLOWS / name).read_text())


def commands(name):
    return [step["run"] for job in read(name)["jobs"].values() for step in job["steps"] if "run" in step]


def versions(name):
    """The entries of the nightly's table, by name."""
    return {
        entry["name"]: entry for entry in read(name)["jobs"]["everything"]["strategy"]["matrix"]["include"]
    }


def test_there_are_two_workflows_for_pushes_and_nights():
    assert NAMES == ["nightly.yml", "test.yml"]
    # YAML reads the word `on` as true
    assert set(read("test.yml")[True]) == {"push", "pull_request"}
    assert set(read("nightly.yml")[True]) == {"schedule", "workflow_dispatch"}


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_may_read_only_and_ends(name):
    workflow = read(name)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())


def test_a_push_runs_what_ci_runs_here():
    assert commands("test.yml") == ["bash .ci/run"]


def test_the_night_runs_the_readmes_line_with_the_slow_tests():
    make, install, _, test = commands("nightly.yml")
    readme_make, readme_install, readme_test = LINE.split(" && ")
    assert make == readme_make
    assert test == readme_test.removesuffix(" -m 'not slow'") != readme_test
    assert INSTALLED.match(install) and INSTALLED.fullmatch(readme_install)


def test_ci_here_installs_what_the_readme_does_and_the_site():
    text = (REPO_ROOT / ".ci" / "run").read_text()
    assert INSTALLED.search(text)[1] == "test,site" and 'eval "$line"' in text
    for name in [text, *commands("nightly.yml")]:
        for extras in INSTALLED.findall(name):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_night_covers_the_oldest_and_newest_versions():
    table = versions("nightly.yml")
    lowest, above = re.fullmatch(r">=(3\.\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert table["oldest"]["python"] == lowest and table["newest"]["python"] == f"3.{int(above) - 1}"
    bounds = dict(re.findall(r"^(torch|torchvision)>=([\d.]+)", "\n".join(PROJECT["dependencies"]), re.M))
    assert table["oldest"]["versions"] == " ".join(f"{name}=={bound}.*" for name, bound in bounds.items())
    assert table["newest"]["versions"] == table["macOS"]["versions"] == "torch torchvision"
    assert table["macOS"]["os"].startswith("macos")


def test_each_setting_of_the_night_is_used():
    text = (WORKFLOWS / "nightly.yml").read_text()
    used = set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", text))
    assert all(set(entry) == used for entry in versions("nightly.yml").values())
