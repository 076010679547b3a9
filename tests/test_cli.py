"""The command line: bad input is refused before any work, and a run leaves results or a message."""

import getpass
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

import mialib
from mialib import REPO_ROOT, cli, reporting, running, sweeping, uses
from mialib.data import faces
from mialib.reporting import files
from mialib.store import Store
from mialib.training import shares
from tests import small_repository


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one small notebook; `write(yaml)` gives the path of a parameter file."""
    for module in (cli, mialib, running):
        monkeypatch.setattr(module, "REPO_ROOT", tmp_path)
    return small_repository.made(tmp_path)


def listed(capsys):
    """(mark, file, note) of each run that `mialib list` shows, all of one notebook."""
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["", "params/small/"]
    return [(line[0], *line[2:].split(maxsplit=1)) for line in lines[4:]]


@pytest.fixture
def nothing_runs(monkeypatch):
    calls = []
    monkeypatch.setattr(running, "execute", lambda *args: calls.append(args) or 0)
    yield
    assert not calls and not list(Path(os.environ["MIALIB_OUTPUTS"]).iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: [1", "is not valid YAML"),
        ("- epochs", "must hold lines `name: value`, found a list"),
        (
            "epoch: 3",
            "unknown parameter 'epoch', did you mean 'epochs'?; small.ipynb declares ['run', 'epochs']",
        ),
        ("lr: 0.1", "unknown parameter 'lr'"),  # a known word, but not one of this notebook
        ("epochs: many", "epochs is 'many'"),
        ("run: second", "run is 'second'; it must be the file's name, 'first'"),
        ("epochs: 1\nepochs: 2", "line 2: epochs stands in line 1 already"),
        ("epochs: None", "line 1: None is a word like any other here; write null"),
    ],
)
def test_bad_files_exit_with_2_and_run_nothing(repository, nothing_runs, capsys, text, words):
    good, bad = repository("epochs: 2", "good"), repository(text)
    assert cli.main(["run", str(good), str(bad)]) == 2  # not even the good one
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"mialib: {bad}: ") for line in lines) and words in "\n".join(lines)


def test_all_problems_of_all_files_are_said_at_once_one_a_line(repository, nothing_runs, capsys, tmp_path):
    files = [
        repository("epochs: 0\nepoch: 1", "two"),
        repository("epochs: 1", "good"),
        repository("epochs: [", "broken"),
        repository("epochs: 1", "lost", notebook="unheard_of"),
        tmp_path / "params" / "small" / "absent.yaml",
        repository("", "my run"),
        repository("run: other", ".."),
    ]
    assert cli.main(["run", *map(str, files), "--jobs", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    expected = [
        "--jobs: n_jobs is 0",
        f"{files[0]}: unknown parameter 'epoch'",
        f"{files[0]}: epochs is 0",
        f"{files[2]}: it is not valid YAML: line 1",
        f"{files[3]}: its folder must be named after a notebook, one of small",
        f"{files[4]}: it does not exist",
        f"{files[5]}: the file's name: run is 'my run': a run names a folder",
        f"{files[6]}: the file's name: run is '..': a run names a folder",
    ]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith(f"mialib: {words}")


@pytest.mark.parametrize("name", [".", "..", "my run", "a[1]", "läufchen", "-x"])
def test_a_file_whose_name_is_no_folder_below_its_own_runs_nothing(repository, nothing_runs, capsys, name):
    path = repository("epochs: 1", name)
    assert path.stem == name and cli.main(["run", str(path)]) == 2
    assert "a run names a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "dusk"], "backend is 'dusk'"),
        (["--backend", "dask", "--workers", "0"], "workers is 0"),
        (["--address", "tcp://host:8786"], "the backend is local, which has none"),
        (["--backend", "dask", "--address", "host"], "address is 'host'"),
    ],
)
def test_a_place_that_is_none_is_refused_with_all_else(repository, nothing_runs, capsys, options, words):
    files = [repository("epochs: 1"), repository("epoch: 1", "second")]
    assert cli.main(["run", *map(str, files), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "unknown parameter 'epoch'" in lines[0] and words in lines[1]


def test_the_notebook_is_told_where_to_train(repository, monkeypatch):
    told = []
    names = ("MIALIB_BACKEND", "MIALIB_ADDRESS", "MIALIB_WORKERS")
    monkeypatch.setattr(
        running, "execute", lambda *_: told.append([os.environ.get(name) for name in names]) or 0
    )
    path = str(repository("epochs: 1"))
    assert cli.main(["run", path, "--backend", "dask", "--address", "tcp://host:8786", "--workers", "3"]) == 0
    assert told == [["dask", "tcp://host:8786", "3"]]
    assert not any(name in os.environ for name in names)
    monkeypatch.setenv("MIALIB_BACKEND", "dask")  # what the environment says holds where nothing is said
    assert cli.main(["run", path]) == cli.main(["run", path, "--workers", "2"]) == 0
    assert cli.main(["run", path, "--backend", "local"]) == 0
    assert [one[0] for one in told[1:]] == ["dask", "dask", "local"] and told[2][2] == "2"


def test_a_share_is_trained_beside_the_results_of_runs(repository, monkeypatch, capsys):
    told = []

    def execute(notebook, parameters):
        told.append((parameters["run"], os.environ[shares.VARIABLE], os.environ["MIALIB_OUTPUTS"]))
        return int(parameters["run"] == "first")

    monkeypatch.setattr(running, "execute", execute)
    files = [str(repository("epochs: 1")), str(repository("epochs: 2", "second"))]
    root = os.environ["MIALIB_OUTPUTS"]
    assert cli.main(["train", "--shard", "2/3", *files]) == 1  # one failed; the other had its turn
    place = str(Path(root) / ".shares" / "2_of_3")
    assert told == [("first", "2/3", place), ("second", "2/3", place)]
    assert shares.VARIABLE not in os.environ and "Share 2/3 is done" in capsys.readouterr().out


def test_a_share_that_is_none_is_refused(repository, nothing_runs, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--shard", "4/3", str(repository("epochs: 1"))])
    assert stop.value.code == 2 and "'4/3'; give i/n, share i of n" in capsys.readouterr().err


def test_1e_4_is_a_number(repository, monkeypatch):
    calls = []
    monkeypatch.setattr(running, "execute", lambda notebook, values: calls.append(values["lr"]) or 0)
    monkeypatch.setattr(cli, "REPO_ROOT", REPO_ROOT)
    assert cli.main(["run", str(repository("lr: 1e-4", notebook="yuan2022_pruning"))]) == 0
    assert calls == [0.0001]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_files_in_other_encodings_are_named(repository, nothing_runs, capsys, encoding):
    good, bad = repository("epochs: 2", "good"), repository("", "bad")
    bad.write_bytes("# précis\nepochs: 1".encode(encoding))
    assert cli.main(["run", str(good), str(bad)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mialib: {bad}: ") and "save it as UTF-8" in said and said.count("\n") == 1
    assert cli.main(["list"]) == 0  # which shows the others


def test_a_link_as_mounted_configurations_are_is_for_the_folder_that_it_stands_in(
    repository, monkeypatch, tmp_path
):
    runs = []
    monkeypatch.setattr(
        running, "execute", lambda notebook, values: runs.append((notebook.stem, values["run"])) or 0
    )
    (tmp_path / "..2024_01_01").mkdir()
    (tmp_path / "..2024_01_01" / "mounted.yaml").write_text("epochs: 2")
    link = repository("", "unused").with_name("mounted.yaml")
    link.symlink_to(tmp_path / "..2024_01_01" / "mounted.yaml")
    assert cli.main(["run", str(link)]) == 0
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.symlink_to(repository("epochs: 2"))
    assert cli.main(["run", str(elsewhere)]) == 0
    assert runs == [("small", "mounted"), ("small", "elsewhere")]


def test_two_files_do_not_write_over_each_others_results(repository, nothing_runs, capsys, tmp_path):
    one = repository("epochs: 1")
    other = tmp_path / "copies" / "small" / "first.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("epochs: 2")
    for again in (one, other):
        assert cli.main(["run", str(one), str(again)]) == 2
        assert (
            f"{again}: its results would replace those of {one}: both are run 'first'"
            in capsys.readouterr().err
        )


def test_what_does_not_fit_the_data_runs_nothing(repository, nothing_runs, capsys, monkeypatch):
    monkeypatch.setattr(cli, "REPO_ROOT", REPO_ROOT)
    bad = repository("n_train: 2000", "bad", notebook="yuan2022_pruning")
    assert cli.main(["run", str(bad)]) == 2
    assert f"mialib: {bad}: n_train is 2000: digits has 1797 examples" in capsys.readouterr().err


def test_missing_files_exit_with_2(repository, nothing_runs, capsys, tmp_path):
    assert cli.main(["run", str(tmp_path / "params" / "small" / "absent.yaml")]) == 2
    assert "absent.yaml: it does not exist" in capsys.readouterr().err
    assert cli.main(["run", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml: it does not exist" in capsys.readouterr().err
    assert cli.main(["run", str(repository("epochs: 1", notebook="unheard_of"))]) == 2
    assert "its folder must be named after a notebook, one of small" in capsys.readouterr().err


def test_jobs_must_be_positive(repository, nothing_runs, capsys):
    assert cli.main(["run", str(repository("epochs: 1")), "--jobs", "0"]) == 2
    assert "--jobs: n_jobs is 0" in capsys.readouterr().err


def test_an_empty_file_runs_the_defaults(repository, monkeypatch):
    calls = []
    monkeypatch.setattr(
        running, "execute", lambda notebook, values: calls.append((notebook.name, values)) or 0
    )
    assert cli.main(["run", str(repository("")), "--jobs", "3"]) == 0
    assert calls == [("small.ipynb", {"run": "first", "n_jobs": 3})]


def test_a_run_leaves_its_results_and_prints_the_headline(repository, capsys):
    assert cli.main(["run", str(repository("epochs: 6"))]) == 0
    folder = Path(os.environ["MIALIB_OUTPUTS"]) / "small" / "first"
    assert reporting.load(folder / "metrics.json")["rows"][0]["value"] == 0.6
    noted = nbformat.read(folder / "executed.ipynb", 4).metadata.papermill
    assert noted.input_path == "notebooks/small.ipynb"  # nobody learns where the checkout lies
    assert not os.path.isabs(noted.output_path)
    printed = capsys.readouterr().out
    assert "gap" in printed and "0.6" in printed and "reproduced" in printed and str(folder) in printed
    assert "MIALIB_PROGRESS" not in os.environ
    assert listed(capsys) == [("*", "first.yaml")]


def test_a_failing_notebook_exits_with_1_and_its_message(repository, capsys):
    bad = repository("epochs: 7", "bad")
    assert cli.main(["run", str(bad)]) == 1
    message = capsys.readouterr().err
    assert "RuntimeError: seven is too many" in message and "small.ipynb failed" in message
    assert (Path(os.environ["MIALIB_OUTPUTS"]) / "small" / "bad" / "executed.ipynb").exists()  # up to there
    assert "It put nothing into the cache" in message and "start again" not in message
    assert listed(capsys) == [(" ", "bad.yaml")]


def test_what_a_run_on_a_damaged_cache_writes_names_no_place_and_no_user(repository, capsys, tmp_path):
    cache = Store()
    cache.put("abc", {"w": torch.zeros(2)}, {})
    (cache.root / "ab" / "abc.safetensors").write_bytes(b"cut")
    assert cache.root.is_absolute()
    assert cli.main(["run", str(repository("epochs: 8", "damaged"))]) == 1
    folder = Path(os.environ["MIALIB_OUTPUTS"]) / "small" / "damaged"
    text = (folder / "executed.ipynb").read_text()
    # the warning and the traceback are there
    assert "$MIALIB_CACHE/ab/abc.safetensors is corrupt" in text and "cannot be read" in text
    assert "mialib/store.py" in text and "Traceback" in text
    private = [tmp_path, cache.root, folder.parent, REPO_ROOT, sys.prefix, sys.base_prefix, Path.home()]
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".gz":
            for place in (
                *map(str, private),
                "/tmp/",
                "/home/",
                f"/{getpass.getuser()}/",
                os.uname().nodename,
            ):
                assert place not in path.read_text(), place
    # two were put, one of which the cell broke again
    assert f"It put 2 entries into the cache, {cache.root}: start again" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [False, True])
def test_outputs_that_cannot_be_written_are_refused_before_work(
    repository, capsys, monkeypatch, tmp_path, keep
):
    monkeypatch.setattr(running, "execute", None)  # is not called
    path = repository("epochs: 1")
    (tmp_path / "outputs").write_text("a file")
    monkeypatch.setenv("MIALIB_OUTPUTS", str(tmp_path / "outputs" / "mine"))
    assert cli.main(["run", str(path), *["--keep"] * keep]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"mialib: {tmp_path / 'outputs'}") and "cannot be written to" in message
    assert "set MIALIB_OUTPUTS to" in message and ("leave out --keep" in message) == keep
    assert cli.main(["overview"]) == 2
    assert "set MIALIB_OUTPUTS to" in capsys.readouterr().err


def test_a_cache_that_cannot_be_made_is_refused_before_work(repository, nothing_runs, capsys, monkeypatch):
    path = str(repository("epochs: 1"))
    for place in ("/proc/mialib", "~nobody-of-this-name/x"):
        monkeypatch.setenv("MIALIB_CACHE", place)
        assert cli.main(["run", path]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"mialib: {place}") and "MIALIB_CACHE" in message


def test_a_data_root_that_cannot_be_written_is_refused_before_faces_are_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(faces, "build", None)  # is not called
    (tmp_path / "file").touch()
    assert cli.main(["faces", "att", "archive.zip", str(tmp_path / "file")]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path / 'file' / 'faces'} cannot be written to" in message and "MIALIB_DATA" in message


def test_what_a_killed_run_left_in_the_outputs_is_gone_after_the_next(repository):
    folder = Path(os.environ["MIALIB_OUTPUTS"]) / "small" / "first"
    (folder / "figures").mkdir(parents=True)
    for left in (
        folder / ".metrics.json.other-1-12345678.part",
        folder / "figures" / ".a.png.other-1-12345678.part",
    ):
        left.touch()
        os.utime(left, (1, 1))
    assert cli.main(["run", str(repository("epochs: 6"))]) == 0
    assert not list(folder.rglob("*.part"))


@pytest.mark.filterwarnings("ignore:IPython parent")
def test_the_home_folder_holds_nothing_that_a_run_needs(repository, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.delenv("JUPYTER_RUNTIME_DIR", raising=False)
    assert cli.main(["run", str(repository("epochs: 6"))]) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["run", "x.yaml", "--job=2", "--what"], ["faces", "celebrities", "x", "y"]],
    ids=["no command", "no file", "unknown options", "unknown faces"],
)
def test_no_command_and_unknown_options_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_an_unknown_command_is_answered_with_the_nearest_and_all(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["paln", "x.yaml"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert (
        "unknown command 'paln', did you mean 'plan'? There are run, train, plan, list, init, overview, audit, "
        "audit-answers, site, cache, faces" in said
    )


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_fits_and_has_an_example_that_is_understood(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and max(map(len, text.splitlines())) <= 110
    examples = re.findall(
        r"^  (?:nohup |\w+=\w+ )?mialib ([a-z].*?)(?: {3,}| (?:[&|]|2>)|$)", text, re.MULTILINE
    )
    assert examples
    for example in examples:
        arguments = [word for word in shlex.split(example) if word != "&"]
        assert cli._parser().parse_args(arguments).command == (command or arguments[0])


def test_the_version_is_that_of_the_package_and_of_torch(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"mialib {mialib.version()}, Python 3.")


@pytest.mark.parametrize("command", ["--help", "run --help", "--version", "list", "rnu"])
def test_what_needs_no_torch_imports_none(command):
    code = (
        "import sys\nfrom mialib import cli\n"
        f"try: cli.main({command.split()!r})\nexcept SystemExit: pass\n"
        "slow = {'torch', 'scipy', 'sklearn', 'pandas', 'matplotlib', 'papermill', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_bad_parameters_are_refused_before_what_only_a_run_needs_is_imported(tmp_path):
    (tmp_path / "yuan2022_pruning").mkdir()
    path = tmp_path / "yuan2022_pruning" / "bad.yaml"
    path.write_text("epochs: 0")
    code = (
        f"import sys\nfrom mialib import cli\nassert cli.main(['run', {str(path)!r}]) == 2\n"
        "slow = {'matplotlib', 'papermill', 'torchvision', 'mialib.study'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "epochs is 0" in run.stderr


def test_a_run_says_at_first_what_it_took_the_last_time(repository, results, monkeypatch, capsys):
    monkeypatch.setattr(running, "execute", lambda *args: 0)
    path = str(repository("epochs: 2"))
    assert cli.main(["run", path]) == 0
    assert capsys.readouterr().out == f"How long it takes is not known; 'mialib plan {path}' counts it.\n"
    folder = results(epochs=2)
    provenance = {"seconds": 90.0, "device": "cpu", "trained": 4, "found": 6}
    content = {"parameters": {"run": "first", "epochs": 2}, "provenance": provenance}
    (folder / "metrics.json").write_text(json.dumps(content))
    assert cli.main(["run", path]) == 0
    said = "It took 1.5 minutes when these parameters were last run (cpu; it trained 4 networks and found 6 in the cache).\n"
    assert capsys.readouterr().out == said
    assert cli.main(["run", str(repository("epochs: 3"))]) == 0  # other parameters say nothing
    assert "is not known" in capsys.readouterr().out


def test_a_file_that_is_no_yaml_exits_with_2(repository, nothing_runs, capsys):
    path = repository("epochs: 1")
    assert cli.main(["run", str(path.rename(path.with_suffix(".json")))]) == 2
    assert "first.json: it is not a .yaml file; 'mialib list' shows the runs" in capsys.readouterr().err


def test_several_files_are_a_sweep(repository, monkeypatch):
    """What it does with them: tests/test_sweeping.py."""
    calls = []
    monkeypatch.setattr(sweeping, "sweep", lambda *args: calls.append(args) or 1)
    files = [repository("epochs: 2", "one"), repository("", "two")]
    options = ["--jobs", "4", "--at-once", "2", "--keep"]
    assert cli.main(["run", *map(str, files)]) == cli.main(["run", *map(str, files), *options]) == 1
    assert [call[1:] for call in calls] == [(None, None, []), (4, 2, ["--keep"])]
    results = Path(os.environ["MIALIB_OUTPUTS"]), cli.REPO_ROOT / "outputs"
    for (runs, *_), root in zip(calls, results, strict=True):
        assert [(run.file, run.name, run.folder) for run in runs] == [
            (file, f"small/{file.stem}", root / "small" / file.stem) for file in files
        ]
        assert [run.parameters["epochs"] for run in runs] == [2, 1]  # the second is the notebook's own


@pytest.mark.parametrize("count", ["0", "-1"])
def test_at_once_must_be_positive(repository, nothing_runs, capsys, count):
    files = [str(repository("epochs: 1")), str(repository("epochs: 0", "bad"))]
    assert cli.main(["run", *files, "--at-once", count]) == 2
    message = capsys.readouterr().err
    assert f"mialib: --at-once is {count}: how many notebooks run side by side; take at least 1" in message
    assert "epochs is 0" in message


def test_a_kernel_that_died_exits_with_1_and_advice(repository, monkeypatch, capsys):
    def die(*args, **options):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", die)
    assert cli.main(["run", str(repository("epochs: 1"))]) == 1
    message = capsys.readouterr().err
    assert "the notebook's kernel died, most likely for want of memory" in message and "--jobs 1" in message
    assert "MIALIB_PROGRESS" not in os.environ


def test_the_list_shows_each_run_with_its_note(repository, capsys):
    repository("# small and quick\nepochs: 1", "quick")
    repository("#  a second one\nepochs: 2", "second")
    repository("", "silent")
    assert listed(capsys) == [
        (" ", "quick.yaml", "small and quick"),
        (" ", "second.yaml", "a second one"),
        (" ", "silent.yaml"),
    ]


def test_the_list_has_columns_that_fit_100_whatever_the_names(repository, capsys):
    repository("# Short.\n# Left out.\nepochs: 1", "short")
    repository("# it goes " + "on and on, " * 40, "long" * 12)
    repository("# One sentence. Another, that\n# ends here. This is left out.\nepochs: 1", "two")
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    name, first, *_, last, short, two = lines[4:]
    assert name == f"  {'long' * 12}.yaml"  # on a line of its own
    column = first.index("it goes")
    assert last.endswith(" ...") and last[:column].isspace() and not last[column].isspace()
    assert short == f"{'  short.yaml':{column}}Short."
    assert two == f"{'  two.yaml':{column}}One sentence. Another, that ends here."


def test_faces_are_built_into_the_data_root(tmp_path, monkeypatch, capsys):
    built = tmp_path / "faces" / "att_faces.npz"
    calls = []
    monkeypatch.setattr(faces, "build", lambda *arguments: calls.append(arguments) or built)
    assert cli.main(["faces", "att", "archive.zip", str(tmp_path)]) == 0
    assert calls == [("att", Path("archive.zip"), tmp_path / "faces")]
    assert capsys.readouterr().out.strip() == str(built)


def test_an_archive_that_cannot_be_read_exits_with_2(tmp_path, capsys):
    assert cli.main(["faces", "att", str(tmp_path / "absent.zip"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("mialib: ")


def test_stored_results_stay_as_they_are_unless_they_are_to_be_kept(repository, monkeypatch, tmp_path):
    monkeypatch.delenv("MIALIB_OUTPUTS")
    places = []
    monkeypatch.setattr(running, "execute", lambda *args: places.append(cli.outputs_root()) or 0)
    path = str(repository("epochs: 1"))
    assert cli.main(["run", path]) == cli.main(["run", "--keep", path]) == 0
    assert "MIALIB_OUTPUTS" not in os.environ
    monkeypatch.setenv("MIALIB_OUTPUTS", str(tmp_path / "mine"))
    assert cli.main(["run", path]) == 0
    assert places == [tmp_path / "outputs" / ".local", tmp_path / "outputs", tmp_path / "mine"]


@pytest.mark.parametrize(
    "place",
    [".venv/x", "mialib.egg-info/x", "build/x", "mialib/__pycache__/x", "outputs/.local/a/b/metrics.json"],
)
def test_a_clean_checkout_stays_clean_after_an_installation_and_a_run(place):
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert subprocess.run(["git", "check-ignore", "-q", place], cwd=REPO_ROOT).returncode == 0


# What stands in a run's folder belongs together


@pytest.fixture
def results():
    """Writes the metrics of a run of `small`; gives its folder."""

    def write(run="first", **parameters):
        folder = Path(os.environ["MIALIB_OUTPUTS"]) / "small" / run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({"parameters": {"run": run} | parameters}))
        return folder

    return write


def test_after_a_failure_no_earlier_results_stand_beside_the_failed_notebook(
    repository, results, monkeypatch
):
    def fail(source, executed, *args, **options):
        nbformat.write(nbformat.v4.new_notebook(), executed)
        raise PapermillExecutionError(1, 1, "", "ValueError", "so far", [])

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    folder = results(epochs=1)
    (folder / "figures").mkdir()
    for name in (files.ROWS, files.MARGINS, "figures/roc.png", "notes.txt"):
        (folder / name).touch()
    assert cli.main(["run", str(repository("epochs: 1"))]) == 1
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"executed.ipynb", "notes.txt"}  # what is the user's own stays


@pytest.mark.parametrize(
    ("found", "mark"),
    [
        ({"epochs": 2}, "*"),
        ({"epochs": 2, "n_jobs": 7, "device": "cuda"}, "*"),  # which change no result
        ({"epochs": 3}, "-"),  # the file said so once
        ({"epochs": 2, "lr": 0.1}, "-"),  # the notebook had one parameter more
    ],
)
def test_the_list_marks_results_of_the_parameters_that_the_file_has_now(
    repository, results, capsys, found, mark
):
    repository("epochs: 2")
    results(**found)
    assert listed(capsys) == [(mark, "first.yaml")]


@pytest.mark.parametrize(
    "content", ["[]", '"x"', "7", "{", "{}", '{"parameters": [1]}', '{"parameters": null}']
)
def test_what_lies_in_the_place_of_results_and_is_none_is_passed_over(repository, results, capsys, content):
    repository("epochs: 2")
    (results(epochs=2) / "metrics.json").write_text(content)
    assert listed(capsys) == [(" ", "first.yaml")]


def test_links_of_an_executed_notebook_work_where_it_lies_failed_ones_too(repository, monkeypatch):
    def fail(source, executed, *args, **options):
        cells = [nbformat.v4.new_markdown_cell("[again](small.ipynb)")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), executed)
        raise PapermillExecutionError(1, 1, "", "ValueError", "so far", [])

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    assert cli.main(["run", str(repository("epochs: 1"))]) == 1
    executed = Path(os.environ["MIALIB_OUTPUTS"]) / "small" / "first" / "executed.ipynb"
    target = nbformat.read(executed, 4).cells[0].source.removeprefix("[again](").removesuffix(")")
    assert (executed.parent / target).samefile(cli.REPO_ROOT / "notebooks" / "small.ipynb")


# Signals; `test_running.py` sends them to whole runs


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_command_with_one_line_and_its_status(
    repository, monkeypatch, capsys, name, status
):
    number = getattr(signal, name)
    if signal.getsignal(number) is signal.SIG_IGN:
        monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    before = signal.getsignal(number)
    for logger in cli._LOGGERS:
        monkeypatch.setattr(logging.getLogger(logger), "disabled", False)  # and again after the test
    monkeypatch.setattr(running, "execute", lambda *args: os.kill(os.getpid(), number))
    assert cli.main(["run", str(repository("epochs: 1"))]) == status
    assert capsys.readouterr().err == "mialib: stopped; start again to go on\n"
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(repository, monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(running, "execute", lambda *args: os.kill(os.getpid(), signal.SIGHUP) or 0)
        assert cli.main(["run", str(repository("epochs: 1"))]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


# From elsewhere


def test_a_file_is_found_as_the_list_names_it_from_any_folder(repository, monkeypatch, tmp_path, capsys):
    runs = []
    monkeypatch.setattr(running, "execute", lambda notebook, values: runs.append(values["run"]) or 0)
    repository("epochs: 1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["list"]) == 0
    folder, line = capsys.readouterr().out.splitlines()[3:]
    assert cli.main(["run", folder + line.split()[0]]) == 0 and runs == ["first"]


def test_notebooks_and_parameters_are_copied_once(repository, tmp_path, capsys):
    repository("epochs: 3")
    mine = tmp_path / "mine"
    assert cli.main(["init", str(mine)]) == 0
    assert (mine / "params" / "small" / "first.yaml").read_text() == "epochs: 3"
    assert (mine / "notebooks" / "small.ipynb").is_file()
    (mine / "params" / "small" / "first.yaml").write_text("epochs: 4")
    assert cli.main(["init", str(mine)]) == 2
    assert f"mialib: {mine / 'notebooks'} is there already" in capsys.readouterr().err
    assert (mine / "params" / "small" / "first.yaml").read_text() == "epochs: 4"


def test_a_reader_who_has_seen_enough_of_the_list_sees_no_error():
    command = [sys.executable, "-c", "import sys; from mialib import cli; sys.exit(cli.main(['list']))"]
    run = subprocess.Popen(command, cwd=REPO_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.close()
    assert run.stderr.read() == ""
    assert run.wait() == 141


@pytest.fixture
def kept(monkeypatch):
    """A store with two networks, one of which the run small/first used when it was last executed."""
    cache = Store()
    for key, kind in (("aa" * 20, "networks"), ("ab" * 20, "decoders")):
        cache.put(key, {"w": torch.ones(100)}, {}, kind=kind, words=f"{kind}: made up")
        monkeypatch.setattr("mialib.store._used", {cache.root: {"aa" * 20: None}})
    uses.note("small", "first")
    return cache


FIRST = "params/small/first.yaml"  # it need not be there


def test_the_cache_is_measured_and_listed(kept, capsys):
    assert cli.main(["cache", "size"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(kept.root)
    assert [(line[:24].strip(), line[24:].split()[0]) for line in lines[2:]] == [
        ("decoders", "1"),
        ("networks", "1"),
        ("all", "2"),
    ]
    assert cli.main(["cache", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.main(["cache", "list", "--json", "--run", FIRST]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["key"], one["words"]) == ("aa" * 20, "networks: made up")


@pytest.mark.parametrize("answer", ["n", "", "y"])
def test_the_cache_is_cleared_after_asking(kept, capsys, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert cli.main(["cache", "clear", "--run", FIRST]) == 0
    said = capsys.readouterr().out
    assert asked == ["Remove them? [y/N] "] and f"To be removed from {kept.root}:" in said
    assert kept.entries().keys() == {"ab" * 20} | ({"aa" * 20} if answer != "y" else set())
    assert ("removed 1 of 1 entries" in said) == (answer == "y")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--all"], set()),
        (["--older-than", "1h"], {"aa" * 20, "ab" * 20}),
        (["--older-than", "0h", "--run", FIRST], {"ab" * 20}),
        (["--unused"], {"ab" * 20}),  # the run has no file in params/; what no run has noted stays
        (["--unused", FIRST], {"aa" * 20, "ab" * 20}),
    ],
)
def test_the_cache_is_cleared_without_asking(kept, options, left):
    assert cli.main(["cache", "clear", *options, "--yes"]) == 0
    assert kept.entries().keys() == left


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["clear", "--yes"], "found neither"),
        (["clear", "--all", "--unused", "--yes"], "found both"),
        (["clear", "--all"], "no terminal to ask at, so nothing was removed; give --yes"),
        (
            ["clear", "--run", "params/small/second.yaml", "--yes"],
            "run small/second has no note in this store",
        ),
        (["list", "--run", "params/small/second.yaml"], "run small/second has no note in this store"),
    ],
)
def test_what_the_cache_cannot_do_exits_with_2_and_removes_nothing(kept, capsys, monkeypatch, options, words):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert cli.main(["cache", *options]) == 2
    assert words in capsys.readouterr().err and len(kept.entries()) == 2


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1 month", "1e3d"])
def test_a_span_that_is_none_is_refused(kept, capsys, text):
    with pytest.raises(SystemExit) as stop:
        cli.main(["cache", "clear", f"--older-than={text}", "--yes"])
    assert (
        stop.value.code == 2
        and f"{text!r} is no span; give a number and h, d, w or y" in capsys.readouterr().err
    )
    assert len(kept.entries()) == 2
