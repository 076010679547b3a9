"""The examples most exposed, and their pictures."""

import numpy as np
import pytest
import torch

from mialib.auditing import exposed
from mialib.auditing.judging import Judged


def judged(n=40, seed=0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(100)[:n]  # scored are some of the hundred
    return Judged("confidence", rng.normal(size=n), order < 50, rng.integers(0, 3, n), order)


def test_the_surest_by_hand():
    one = Judged("a", np.array([1.0, 3, 2, 5, 4]), np.array([1, 1, 0, 0, 1], bool), np.zeros(5), np.arange(5))
    assert exposed.surest(one, 2).tolist() == [4, 1]
    assert exposed.surest(one, 9).tolist() == [4, 1, 0]
    assert exposed.surest(one, 9, member=False).tolist() == [3, 2]


def test_few_pictures_are_kept_and_they_are_small():
    x = torch.rand(100, 3, 200, 100)
    one, two = judged(), judged(seed=1)
    kept = exposed.pictures([one, two], x)
    assert len(kept) <= 4 * exposed.KEPT and set(kept) <= {*one.example, *two.example}
    assert {picture.shape for picture in kept.values()} == {(3, 96, 48)}
    for side in (True, False):
        assert set(one.example[exposed.surest(one, exposed.KEPT, member=side)]) <= set(kept)


def test_pictures_are_those_of_their_examples():
    x = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 1, 8, 8)
    for row, picture in exposed.pictures([judged()], x).items():
        assert picture == pytest.approx(row / 255)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_normalised_pictures_are_drawn_as_they_were(last):
    seen = torch.rand(100, 3, 8, 8)
    seen[0, :, 0, 0], seen[0, :, 0, 1] = 0, 1  # black and white are somewhere
    normal = (seen - 0.4) / torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    kept = exposed.pictures([judged()], normal.permute(0, 2, 3, 1) if last else normal)
    for row, picture in kept.items():
        assert picture == pytest.approx(seen[row].numpy(), abs=1e-5)


@pytest.mark.parametrize("shape", [(100, 20), (100, 7, 7), (100, 4, 8, 8), (100, 3, 2, 2)])
def test_other_inputs_are_no_pictures(shape):
    assert exposed.pictures([judged()], torch.rand(shape)) == {}


def test_the_gallery_names_what_it_shows():
    one = judged()
    drawn = exposed.gallery("pruned", one, exposed.pictures([one], torch.rand(100, 1, 8, 8)), 3)
    first, other = exposed.surest(one, 1)[0], exposed.surest(one, 1, member=False)[0]
    assert "pruned" in drawn.alt and f"Members: examples {one.example[first]} (class" in drawn.alt
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert len(texts) == 6 and texts[0] == f"{one.example[first]}\nclass {one.label[first]}"
    assert texts[3].startswith(f"{one.example[other]}\n")


@pytest.mark.parametrize(
    ("kept", "count", "message"), [({}, 3, "no pictures"), ({1: 0}, 11, "count is 11"), ({1: 0}, 0, "0")]
)
def test_what_cannot_be_drawn_is_refused(kept, count, message):
    with pytest.raises(ValueError, match=message):
        exposed.gallery("pruned", judged(), kept, count)
