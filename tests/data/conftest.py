"""Fixtures of the tests of data: a small tree of pictures in ImageNet's layout."""

from pathlib import Path

import pytest

from tests.data.test_pictures import write_picture


@pytest.fixture
def picture_root(tmp_path) -> Path:
    folder = tmp_path / "imagenette-224"
    for part, count in (("train", 3), ("val", 1)):
        for label, wnid in enumerate(("n01", "n02")):
            for number in range(count):
                write_picture(
                    folder / part / wnid / f"{wnid}_{number}.JPEG", (300, 240), (200 * label, 20 * number, 9)
                )
    return tmp_path
