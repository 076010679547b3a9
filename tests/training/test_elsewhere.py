"""Where large work is done: what does not fit is named before any work."""

import importlib.util
import os
import subprocess
import sys

import pytest

from mialib import REPO_ROOT
from mialib.training import elsewhere
from mialib.training.elsewhere import Place


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for variable in elsewhere.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("darsk",), r"backend is 'darsk', did you mean 'dask'\?; valid are local, dask, slurm"),
        (("ray",), "backend is 'ray'.*valid are local, dask, slurm"),
        (("dask", None, 0), "workers is 0; it must be 1 or more"),
        (("local", "tcp://host:8786"), "address is 'tcp://host:8786', and the backend is local"),
        (("dask", "host"), "address is 'host'; valid is a Dask scheduler's, as tcp://host:8786"),
        (("slurm", "pbs"), "address is 'pbs'; valid are slurm and local"),
        (("slurm", "slurm:partition"), "'partition' is no option; write name=value"),
        (("slurm", "slurm:partion=gpu"), "no option 'partion', did you mean 'partition'"),
        (("slurm", "slurm:timeout_min=long"), "timeout_min must be a whole number"),
    ],
)
def test_what_does_not_fit_is_named(said, words):
    with pytest.raises(ValueError, match=words):
        elsewhere.check(*said)


@pytest.mark.parametrize(
    "said",
    [
        ("local", None, 3),
        ("dask",),
        ("dask", "tcp://10.0.0.1:8786"),
        ("dask", "node-1:8786", 4),
        ("dask", "tls://[::1]:8786"),
        ("slurm",),
        ("slurm", "local", 2),
        ("slurm", "slurm:partition=gpu,timeout_min=600"),
    ],
)
def test_what_fits_is_taken(said):
    elsewhere.check(*said)


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("slurm", "submitit")])
def test_a_backend_that_is_not_installed_says_how_to_install_it(backend, module, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'mialib\[{backend}\]'"):
        elsewhere.check(backend)


def test_the_environment_says_where(monkeypatch):
    assert elsewhere.chosen() == Place("local", None, None)
    monkeypatch.setenv("MIALIB_BACKEND", "dask")
    monkeypatch.setenv("MIALIB_ADDRESS", "tcp://host:1")
    monkeypatch.setenv("MIALIB_WORKERS", "3")
    assert elsewhere.chosen() == Place("dask", "tcp://host:1", 3)


@pytest.mark.parametrize("workers", ["two", "1.5", "-1"])
def test_what_the_environment_says_wrongly_is_named_with_its_variable(workers, monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", workers)
    with pytest.raises(ValueError, match=f"MIALIB_WORKERS={workers}: workers is .*1 or more"):
        elsewhere.chosen()


def test_options_of_jobs_get_the_names_that_submitit_has_for_them():
    assert elsewhere.slurm_options(None) == ("slurm", {})
    cluster, options = elsewhere.slurm_options("slurm:partition=gpu, timeout_min=600,gpus_per_node=1")
    assert cluster == "slurm"
    assert options == {"slurm_partition": "gpu", "timeout_min": 600, "gpus_per_node": 1}


def test_checking_takes_no_torch():
    code = (
        "import sys; from mialib.training import elsewhere;"
        "elsewhere.check('dask'); elsewhere.check('slurm', 'slurm:partition=gpu'); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO_ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, Place("dask", "tcp://host:1", 3)),
        ({"workers": 2}, Place("dask", "tcp://host:1", 2)),
        ({"backend": "dask"}, Place("dask", "tcp://host:1", 3)),
        ({"backend": "dask", "address": "tcp://host:2"}, Place("dask", "tcp://host:2", 3)),
        ({"backend": "local"}, Place("local")),  # the address is Dask's
        ({"backend": "slurm", "workers": 5}, Place("slurm", None, 5)),
    ],
)
def test_what_is_given_goes_before_what_the_environment_says(given, place, monkeypatch):
    for name, value in {"backend": "dask", "address": "tcp://host:1", "workers": "3"}.items():
        monkeypatch.setenv(elsewhere.VARIABLES[name], value)
    assert elsewhere.chosen(**given) == place
    for name, value in place.variables().items():
        monkeypatch.setenv(name, value)
    assert elsewhere.chosen() == place  # what is handed on says the same


def test_an_address_in_the_environment_alone_is_for_the_backend_that_is_given(monkeypatch):
    monkeypatch.setenv("MIALIB_ADDRESS", "tcp://host:1")
    assert elsewhere.chosen("dask") == Place("dask", "tcp://host:1")
    with pytest.raises(ValueError, match="^MIALIB_ADDRESS=tcp://host:1: address is .* the backend is local"):
        elsewhere.chosen("local")
    with pytest.raises(ValueError, match="^backend is 'dusk'"):
        elsewhere.chosen("dusk", "tcp://host:2")
