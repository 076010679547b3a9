"""A notebook's parameters and a file's: all that is wrong is said at once, one line a problem."""

import pytest

from mialib import REPO_ROOT, params
from mialib.params import fits

PRUNING = REPO_ROOT / "notebooks" / "yuan2022_pruning.ipynb"


@pytest.fixture
def file(tmp_path):
    def write(text, name="run"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write


# In a notebook


def test_check_reads_the_annotated_names_of_a_notebook():
    namespace: dict = {}
    exec("import os\nrun: str = 'a'\nepochs: int = 3\nother = 5\n_hidden: int = 0", namespace)
    assert params.check(namespace) == {"run": "a", "epochs": 3}
    namespace["epochs"] = "many"  # as papermill's injected cell would, without an annotation
    with pytest.raises(ValueError, match="the parameters cell: epochs is 'many'"):
        params.check(namespace)


def test_check_looks_at_data_and_machine_too():
    namespace: dict = {}
    exec(
        "dataset: str = 'digits'\nsubset: int = 5000\nmilestones: list = [3]\nepochs: int = 2\nlr: float = 0.0",
        namespace,
    )
    with pytest.raises(params.Refused) as found:
        params.check(namespace)
    assert len(found.value.problems) == 3
    assert all(problem.startswith("the parameters cell: ") for problem in found.value.problems)
    for words in ("lr is 0.0", "3 is never reached", "subset is 5000, must be an integer in 1..1797"):
        assert words in str(found.value)


@pytest.mark.parametrize("variable", ["MIALIB_OUTPUTS", "MIALIB_CACHE"])
def test_check_asks_whether_results_can_be_written_before_there_are_any(monkeypatch, tmp_path, variable):
    namespace: dict = {}
    exec("epochs: int = 3", namespace)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    with pytest.raises(
        OSError, match=f"cannot be written to .*; set .*{variable}.* to a folder that you can write to"
    ):
        params.check(namespace)


def test_check_takes_the_words_of_a_notebook():
    namespace: dict = {}
    exec("arms: list = ['A', 'D']", namespace)
    assert params.check(namespace, arms="ABCD") == {"arms": ["A", "D"]}
    with pytest.raises(params.Refused, match="arms.1 is 'D'"):
        params.check(namespace, arms="ABC")


# Values


def test_valid_values_come_back_as_they_are():
    values = {"lr": 1e-3, "n_train": None, "sparsities": [0.3, 0.5], "pruners": ["l1_filter", "slimming_l1"]}
    assert params.validate(values, "here") == values


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError, match="here: epochs is 0.*; lr is -1.0.*; sparsity is 0.4") as found:
        params.validate({"epochs": 0, "lr": -1.0, "sparsity": 0.4, "sparsities": [0.5]}, "here")
    assert [problem.split(" is ")[0] for problem in found.value.problems] == [
        "here: epochs",
        "here: lr",
        "here: sparsity",
    ]


def test_what_is_not_sound_by_itself_is_not_compared():
    with pytest.raises(params.Refused) as found:
        params.validate({"epochs": 0, "milestones": [3]}, "here")
    assert len(found.value.problems) == 1


# Files


def test_a_file_is_checked_together_with_the_notebooks_defaults(file):
    assert params.read(file("epochs: 3"), PRUNING) == {"epochs": 3}
    with pytest.raises(params.Refused, match="sparsity is 0.6: it must be one of sparsities"):
        params.read(file("sparsity: 0.6"), PRUNING)  # 0.5, 0.7, 0.9 by default
    with pytest.raises(params.Refused, match="batch_size holds 32, and a network has 20 members"):
        params.read(file("n_train: 20"), PRUNING)


def test_all_that_is_wrong_with_a_file_is_said_at_once(file):
    path = file("lr: 0.0\nepoch: 3\nlr: 0.1\nsparsity: 0.6\ndata_root: None\nsparsities: []\ndataset: digit")
    with pytest.raises(params.Refused) as found:
        params.read(path, PRUNING)
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in found.value.problems)
    said = "\n".join(found.value.problems)
    for words in (
        "line 3: lr stands in line 1 already",
        "line 5: None is a word like any other",
        "unknown parameter 'epoch', did you mean 'epochs'?; yuan2022_pruning.ipynb declares ['run', ",
        "sparsities is []",
        "dataset is 'digit': unknown, did you mean 'digits'",
    ):
        assert words in said
    assert len(found.value.problems) == 5


def test_data_and_machine_are_looked_at_where_it_is_asked_for(file):
    path = file("n_train: 2000")
    assert params.read(path, PRUNING) == {"n_train": 2000}
    with pytest.raises(params.Refused, match="n_train is 2000: digits has 1797 examples to take"):
        params.read(path, PRUNING, fitting=True)


def test_what_counts_instead_is_checked_instead(file):
    path = file("n_jobs: 100000")
    with pytest.raises(params.Refused, match="n_jobs is 100000"):
        params.read(path, PRUNING, fitting=True)
    assert params.read(path, PRUNING, fitting=True, instead={"n_jobs": 2}) == {"n_jobs": 2}


def test_modules_are_looked_for_beside_the_file(file, tmp_path):
    (tmp_path / "beside_it.py").write_text("")
    assert params.read(file("dataset: beside_it:load"), PRUNING) == {"dataset": "beside_it:load"}


@pytest.mark.parametrize("text", ["[", "- a", "a: b: c"])
def test_what_is_no_mapping_is_refused_by_its_path(file, text):
    path = file(text)
    with pytest.raises(params.Refused) as found:
        params.read(path, PRUNING)
    assert str(found.value).startswith(f"{path}: it ") and len(found.value.problems) == 1


def test_what_is_missing_is_named(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.yaml: it does not exist"):
        params.read(tmp_path / "absent.yaml", PRUNING)
    with pytest.raises(FileNotFoundError, match="notebook .*absent.ipynb does not exist"):
        params.read(file(""), tmp_path / "absent.ipynb")


def test_the_stages_are_those_of_the_room(monkeypatch, file):
    monkeypatch.setattr(
        fits, "apart", lambda sound, names: {"epochs": [f"{sorted(names - sound.keys())} is not sound"]}
    )
    with pytest.raises(params.Refused) as found:
        params.read(file("lr: 0.0\nsparsity: 0.6"), PRUNING, fitting=True)
    assert found.value.problems[-1].endswith("['lr', 'sparsity'] is not sound")
