"""Folders of pictures: parts under all their names, classes, and what stands beside them without being either."""

import os
from pathlib import Path

import pytest

from mialib.data import folders, load, load_image_folder
from tests.data.test_pictures import write_picture


def test_parts_with_other_classes_are_refused(picture_root):
    write_picture(picture_root / "imagenette-224" / "val" / "n03" / "1.JPEG", (30, 30), (0, 0, 0))
    with pytest.raises(ValueError, match=r"differ in the classes \(folders\) \['n03'\]"):
        load("imagenette", picture_root)


@pytest.mark.parametrize("parts", [("train", "val"), ("test",), ("val", "test", "train")], ids=", ".join)
def test_parts_are_joined_in_a_fixed_order(tmp_path, parts):
    for part in parts:
        for name in ("b/2", "a/9", "b/10"):
            write_picture(tmp_path / part / f"{name}.jpg", (4, 4), 0)
    files, labels, classes = folders.list_image_folder(tmp_path)
    order = [part for part in ("train", "val", "test") if part in parts]
    expected = [f"{part}/{name}.jpg" for part in order for name in ("a/9", "b/10", "b/2")]
    assert [Path(file).relative_to(tmp_path).as_posix() for file in files] == expected
    assert labels.tolist() == [0, 1, 1] * len(parts) and classes == ["a", "b"]


def test_a_folder_without_parts_is_one(tmp_path):
    for name in ("b/1.jpg", "a/1.jpg"):
        write_picture(tmp_path / name, (4, 4), 0)
    files, labels, classes = folders.list_image_folder(tmp_path)
    assert [Path(file).parent.name for file in files] == classes == ["a", "b"]
    assert labels.tolist() == [0, 1]


def make(root: Path, *names: str) -> Path:
    for name in names:
        write_picture(root / name, (4, 4), 0)
    return root


def found(root: Path) -> tuple[list[str], list[int], list[str]]:
    files, labels, classes = folders.list_image_folder(root)
    return [Path(file).relative_to(root).as_posix() for file in files], labels.tolist(), classes


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid"),
        ("Training", "Testing"),
        ("TRAIN", "Validation", "Test"),
        ("training", "dev", "testing"),
        ("train", "val", "test"),
    ],
    ids=", ".join,
)
def test_parts_have_many_names_in_any_case(tmp_path, names):
    make(tmp_path, *(f"{name}/{label}/1.jpg" for name in names for label in "ab"))
    files, labels, classes = found(tmp_path)
    assert files == [f"{name}/{label}/1.jpg" for name in names for label in "ab"]
    assert classes == ["a", "b"] and labels == [0, 1] * len(names)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/a/1.jpg", "extra/a/1.jpg"), r"\['train'\] stand beside other folders \['extra'\]"),
        (("train/a/1.jpg", "Train/a/1.jpg"), r"\['Train', 'train'\] are the same part"),
        (("val/a/1.jpg", "valid/a/1.jpg"), r"\['val', 'valid'\] are the same part"),
        (("train/a/1.jpg", "test/1.jpg"), "test holds no folders"),
        (("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"), r"val and the other parts differ in .*\['b'\]"),
        (("only/a/1.jpg", "only/b/1.jpg"), "only is the only class, and holds folders of pictures"),
        (("1.jpg",), "holds no folders"),
        (("a/1.gif",), r"no pictures \(.jpg, .jpeg, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_folders_that_would_be_misread_are_refused(tmp_path, names, words):
    with pytest.raises(ValueError, match=f"{tmp_path}.*{words}"):
        found(make(tmp_path, *names))


def test_what_is_hidden_is_not_there(tmp_path):
    make(
        tmp_path,
        ".ipynb_checkpoints/1.jpg",
        "__MACOSX/a/1.jpg",
        "a/1.jpg",
        "a/.ipynb_checkpoints/1-checkpoint.jpg",
        "b/1.jpg",
    )
    for name in ("a/._1.jpg", "b/.hidden.png", "a/Thumbs.db"):
        (tmp_path / name).write_bytes(b"no picture")
    assert found(tmp_path) == (["a/1.jpg", "b/1.jpg"], [0, 1], ["a", "b"])
    assert len(load_image_folder(tmp_path, 4)) == 2


def test_an_empty_class_is_left_out_with_a_warning(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/c/1.jpg")
    (tmp_path / "train" / "b").mkdir()
    with pytest.warns(UserWarning, match=rf"{tmp_path}: no pictures in the class folders \['b'\]; left out"):
        _, labels, classes = found(tmp_path)
    assert classes == ["a", "c"] and labels == [0, 1, 0, 1]


def test_a_class_may_be_empty_in_one_part(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    (tmp_path / "val" / "b").mkdir()
    assert found(tmp_path) == (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"], [0, 1, 0], ["a", "b"])


def test_deeper_folders_belong_to_their_class(tmp_path):
    make(tmp_path, "a/x/2.jpg", "a/1.jpg", "b/y/z/1.jpg")
    assert found(tmp_path) == (["a/1.jpg", "a/x/2.jpg", "b/y/z/1.jpg"], [0, 0, 1], ["a", "b"])


# Links


@pytest.mark.parametrize(
    ("place", "target"),
    [(place, target) for place in ("a/loop", "a/x/loop", "loop") for target in (".", "..", "../..")]
    + [("a/x/loop", "a"), ("a/loop", "b")],
)
def test_links_that_lead_back_add_nothing(tmp_path, place, target):
    root = make(tmp_path / "set", "a/1.jpg", "a/x/2.jpg", "b/1.jpg")
    make(tmp_path, "other/3.jpg")
    (root / place).symlink_to(root / target)
    assert found(root) == (["a/1.jpg", "a/x/2.jpg", "b/1.jpg"], [0, 0, 1], ["a", "b"])


def test_links_to_pictures_and_folders_elsewhere_are_followed(tmp_path):
    make(tmp_path, "elsewhere/1.jpg", "more/2.jpg")
    root = make(tmp_path / "set", "a/1.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "more").symlink_to(tmp_path / "more")
    (root / "a" / "3.jpg").symlink_to(tmp_path / "more" / "2.jpg")
    files, labels, classes = found(root)
    assert files == ["a/1.jpg", "a/3.jpg", "a/more/2.jpg", "b/1.jpg"]
    assert labels == [0, 0, 0, 1] and len(load_image_folder(root, 4)) == 4


def test_two_classes_that_are_one_folder_are_refused(tmp_path):
    root = make(tmp_path / "set", "a/1.jpg")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(ValueError, match="set/b is a link to .*set/a, which is read already"):
        found(root)


def test_pictures_that_are_no_files_are_named_and_not_waited_for(tmp_path):
    root = make(tmp_path, "a/1.jpg")
    (root / "a" / "2.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "a" / "3.jpg")
    with open(root / "a" / "4.jpg", "wb") as file:
        file.truncate(2**29 + 1)  # holes, which take no room
    words = r"(?s)3 of 4 images.*a/2.jpg: no such file.*a/3.jpg: not a file.*a/4.jpg: 536,870,913 bytes, more than"
    with pytest.raises(ValueError, match=words):
        load_image_folder(root, 4)
