"""An installation without a checkout: notebooks and parameters come with it, results go below the working folder."""

import os
import shutil
import subprocess
import sys

import pytest

from mialib import REPO_ROOT

NAMES = {path.stem for path in (REPO_ROOT / "notebooks").glob("*.ipynb")}
FILES = {str(path.relative_to(REPO_ROOT)) for path in (REPO_ROOT / "params").glob("*/*.yaml")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as pip installs it from what git has; the folder that Python finds it in."""
    pytest.importorskip("setuptools", reason="builds without a network")
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    listed = subprocess.run(["git", "ls-files"], cwd=REPO_ROOT, capture_output=True, text=True, check=True)
    for name in (name for name in listed.stdout.splitlines() if not name.startswith(("outputs", "tests"))):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO_ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(place)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return place


@pytest.fixture
def mialib(installed, tmp_path):
    """The installed command, in a folder that is empty at first."""

    def command(*arguments, folder=tmp_path):
        settings = os.environ | {"PYTHONPATH": str(installed)}
        settings.pop("MIALIB_OUTPUTS", None)
        code = "import sys; from mialib import cli; sys.exit(cli.main())"
        if arguments[0] == "places":
            code = "import mialib; print(mialib.__file__, mialib.outputs_root(), mialib.stored_root())"
        whole = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(whole, cwd=folder, env=settings, capture_output=True, text=True)

    return command


@pytest.mark.slow
def test_an_installation_knows_every_run_and_writes_below_the_working_folder(mialib, installed, tmp_path):
    package, outputs, stored = mialib("places").stdout.split()
    assert package.startswith(str(installed)) and outputs == stored == str(tmp_path / "outputs")
    listed = mialib("list").stdout.splitlines()[1:]
    assert {line.split()[0] for line in listed} == FILES
    refused = mialib("run", "params/yuan2022_pruning/absent.yaml")
    assert refused.returncode == 2 and "absent.yaml: it does not exist" in refused.stderr
    assert {path.name for path in installed.iterdir()} & {"notebooks", "params", "tests", "outputs"} == set()


@pytest.mark.slow
def test_what_is_copied_out_is_what_runs(mialib, tmp_path):
    mine = tmp_path / "mine"
    assert mialib("init", mine).returncode == 0
    assert {path.stem for path in (mine / "notebooks").glob("*.ipynb")} == NAMES
    (mine / "params" / "yuan2022_pruning" / "own.yaml").write_text("# a run of my own\n")
    assert "a run of my own" in mialib("list", folder=mine).stdout
    _, outputs, _ = mialib("places", folder=mine / "notebooks").stdout.split()  # as Jupyter starts a kernel
    assert outputs == str(mine / "outputs")
