"""Texts beside points keep apart from each other and from what is drawn."""

import tracemalloc

import numpy as np
import pytest

from mialib.figures import labels, style
from tests.figures.test_points import label_boxes


def test_labels_give_way_to_each_other_and_to_the_axes_edges():
    with style.theme():
        picture, axes = style.figure(3, 3)
        points = np.array([[0.5, 0.5], [0.51, 0.5], [0.5, 0.51], [0.0, 0.0], [1.0, 1.0]])
        axes.plot(*points.T, "o", linestyle="none")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        labels.label_points(axes, points, list("abcde"), [style.DARK] * 5)
        picture.draw_without_rendering()
    boxes = label_boxes(axes)
    assert [text.get_text() for text in axes.texts] == list("abcde")
    assert [text.xy for text in axes.texts] == [pytest.approx(point) for point in points]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
    assert all(axes.bbox.containsx(x) and axes.bbox.containsy(y) for box in boxes for x, y in box.corners())


def labelled(reach, scale="linear", limits=(0.5, 1.5)):
    """Two points on axes of these limits, the first with an interval that reaches so far down."""
    picture, axes = style.figure(3, 3)
    axes.errorbar([0.9, 1.0], [0.5, 0.6], xerr=[[reach, 0.01], [0.1, 0.01]], fmt="none")
    axes.plot([0.9, 1.0], [0.5, 0.6], "o", linestyle="none")
    axes.set_xscale(scale)
    axes.set_xlim(limits)
    labels.label_points(axes, [(0.9, 0.5), (1.0, 0.6)], ["1", "2"], [style.DARK] * 2)
    return [(text.get_text(), *text.get_position()) for text in axes.texts]


@pytest.mark.parametrize(
    ("reach", "scale", "limits"),
    [(1e6, "linear", (0.5, 1.5)), (1e300, "linear", (0.5, 1.5)), (7e5, "log", (0.88, 1.05))],
)
def test_an_interval_out_of_sight_takes_no_memory_and_places_labels_as_at_the_edge(reach, scale, limits):
    tracemalloc.start()
    try:
        places = labelled(reach, scale, limits)
        assert tracemalloc.get_traced_memory()[1] < 2**25  # a bar that is seen whole: a few megabytes
    finally:
        tracemalloc.stop()
    assert places == labelled(0.9 - limits[0] + 1e-3, scale, limits)


def test_a_line_counts_as_far_as_it_is_seen():
    low, high = np.array([0.0, 0.0]), np.array([30.0, 30.0])
    inside = np.array([[3.0, 3.0], [3.0, 27.0], [27.0, 27.0]])
    assert len(labels._along(inside, low, high)) == 2 + 48 // 3  # one line, as it was drawn
    across = labels._along(np.array([[-1e9, 15.0], [1e9, 15.0]]), low, high)
    assert across[[0, -1]].round(3).tolist() == [[-1, 15], [31, 15]] and len(across) in (11, 12, 13)
    corner = labels._along(np.array([[-10.0, 20.0], [20.0, -10.0], [20.0, 50.0]]), low, high)
    assert ((corner >= low - 1.01) & (corner <= high + 1.01)).all()  # what lies on the edge is seen whole
    assert corner[0].tolist() == pytest.approx([-1, 11]) and corner[-1].tolist() == pytest.approx([20, 31])
    for nothing in (
        [[-5.0, 40.0], [40.0, 40.0]],
        [[np.nan, 5.0], [9.0, 5.0]],
        [[-np.inf, 99.0], [5.0, 99.0]],
    ):
        assert labels._along(np.array(nothing), low, high).shape == (0, 2)
    endless = labels._along(np.array([[-np.inf, 15.0], [15.0, 15.0]]), low, high)
    assert endless[[0, -1]].round(3).tolist() == [[-1, 15], [15, 15]]
