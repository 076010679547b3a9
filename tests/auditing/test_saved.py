"""Saved answers in a file."""

import numpy as np
import pytest

from mialib.auditing import saved


def test_what_was_saved_is_read(tmp_path):
    arrays = {
        "labels": np.arange(3),
        "member": np.array([1, 0, 1]),
        "original": np.eye(3),
        "int8": np.ones((3, 3)),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    found = saved.read(tmp_path / "a.npz")
    assert list(found.answers) == ["original", "int8"] and found.labels.tolist() == [0, 1, 2]
    assert np.array_equal(found.answers["int8"], arrays["int8"]) and found.member.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"member": np.ones(3), "a": np.eye(3)}, "lacks labels; it holds member, a"),
        ({"labels": np.ones(3), "member": np.ones(3)}, "lacks the answers of a network under its name"),
        ({"labels": np.array([{}]), "member": np.ones(3), "a": np.eye(3)}, "cannot be read"),  # pickled
    ],
)
def test_what_is_missing_is_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        saved.read(tmp_path / "a.npz")


def test_a_file_with_a_name_like_it_is_named(tmp_path):
    np.savez(tmp_path / "answers.npz", a=np.eye(3))
    with pytest.raises(ValueError, match="no such file, did you mean 'answers.npz'"):
        saved.read(tmp_path / "anwsers.npz")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        saved.read(tmp_path / "none.npz")
    np.save(tmp_path / "a.npy", np.eye(3))
    (tmp_path / "text.npz").write_text("labels")
    for name in ("a.npy", "text.npz"):
        with pytest.raises(ValueError, match="cannot be read"):
            saved.read(tmp_path / name)


def test_imitations_stand_beside_their_networks(tmp_path):
    arrays = {"labels": np.arange(3), "member": np.array([1, 0, 1]), "original": np.eye(3)}
    theirs = {"shadow_original": np.ones((2, 3, 3)), "shadow_member": np.ones((2, 3))}
    np.savez(tmp_path / "a.npz", **arrays, **theirs)
    found = saved.read(tmp_path / "a.npz")
    assert list(found.answers) == ["original"] and list(found.shadows.answers) == ["original"]
    assert np.array_equal(found.shadows.member, np.ones((2, 3)))
    np.savez(tmp_path / "b.npz", **arrays, shadow_original=np.ones((2, 3, 3)))
    with pytest.raises(ValueError, match="lacks shadow_member; it holds labels"):
        saved.read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **arrays)
    assert saved.read(tmp_path / "c.npz").shadows is None
