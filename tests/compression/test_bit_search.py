"""The bit search, on layers whose leak and accuracy are known."""

from types import SimpleNamespace

import pytest

from mialib.compression import bit_search
from mialib.store import Store

CHOICES = (8, 4, 2)


class Known:
    """Layer "a" leaks and costs nothing, "b" leaks but is costly, "c" does neither; counts what is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, bits):
        self.asked.append(tuple(sorted(bits.items())))
        lost = {8: 0.0, 4: 0.5, 2: 1.0}
        leak = 0.5 - 0.2 * lost[bits["a"]] - 0.1 * lost[bits["b"]]
        return leak, 0.9 - 0.08 * lost[bits["b"]] - 0.004 * lost[bits["c"]]


def test_the_layer_that_leaks_most_for_its_accuracy_goes_first():
    measure = Known()
    found = bit_search.search(["a", "b", "c"], CHOICES, measure, tolerance=0.05)
    kept = found.log[found.log["kept"]]
    assert kept[["layer", "bits"]].values.tolist()[1:3] == [["a", 4], ["a", 2]]
    assert found.bits["a"] == 2 and found.bits["b"] == 4  # b's second step would cost 0.08 in all
    assert (kept["accuracy"] >= 0.9 - 0.05).all()
    assert found.bits == dict(measure.asked[kept["leak"].idxmin()])


def test_nothing_is_asked_twice_and_the_log_holds_all():
    measure = Known()
    found = bit_search.search(["a", "b", "c"], CHOICES, measure, tolerance=1.0)
    assert len(set(measure.asked)) == len(measure.asked) == found.evaluations == len(found.log)
    assert found.bits == {"a": 2, "b": 2, "c": 8}  # of equal leaks the first on the path
    assert (found.log.groupby("round")["kept"].sum() == 1).all()
    assert found.log["round"].max() == 6 and found.seconds >= 0


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_it_never_measures_more_than_it_said(layers):
    names = [str(number) for number in range(layers)]
    evenly = bit_search.search(
        names, (8, 4, 2, 1), lambda bits: (-max(bits.values()), 0.9), 0.1
    )  # layers in turn
    assert evenly.evaluations <= bit_search.at_most(layers, 4)
    turns = bit_search.search(names, (8, 4, 2, 1), lambda bits: (sum(w * w for w in bits.values()), 0.9), 0.1)
    assert turns.evaluations == bit_search.at_most(
        layers, 4
    )  # the widest layer always gains most: all stay to the end


def test_what_was_measured_is_remembered_with_its_time(tmp_path):
    measure, store = Known(), Store(tmp_path)
    first = bit_search.search(
        ["a", "b", "c"], CHOICES, bit_search.remembered(measure, store, start="x"), 0.05
    )
    asked = len(measure.asked)
    again = bit_search.search(
        ["a", "b", "c"], CHOICES, bit_search.remembered(measure, store, start="x"), 0.05
    )
    assert len(measure.asked) == asked and again.log.equals(first.log)
    assert again.seconds == first.seconds > 0
    bit_search.search(["a", "b", "c"], CHOICES, bit_search.remembered(measure, store, start="other"), 0.05)
    assert len(measure.asked) == 2 * asked


def test_what_is_no_measurement_is_measured_again(tmp_path):
    measure, store = Known(), Store(tmp_path)
    bits = dict.fromkeys("abc", 8)
    first = bit_search.remembered(measure, store)(bits)
    key = next(tmp_path.glob("*/*.json")).stem
    store.put(key, {}, {"leak": 0.5})
    again = bit_search.remembered(measure, store)(bits)
    assert len(measure.asked) == 2 and again[:2] == first[:2] and store.get(key)[1] == again._asdict()


def test_without_tolerance_only_free_steps_are_taken():
    found = bit_search.search(["a", "b", "c"], CHOICES, Known(), tolerance=0.0)
    assert found.bits == {"a": 2, "b": 8, "c": 8}


def test_steps_that_raise_the_leak_are_not_the_answer():
    found = bit_search.search(["a"], CHOICES, lambda bits: (1 / bits["a"], 0.9), tolerance=0.1)
    assert found.bits == {"a": 8} and found.evaluations == 3


@pytest.mark.parametrize(
    ("layers", "choices", "tolerance", "words"),
    [
        ([], CHOICES, 0.0, "layers is empty"),
        (["a"], (8,), 0.0, "at least two"),
        (["a"], (4, 8), 0.0, r"choices are \[4, 8\]"),
        (["a"], (8, 8, 4), 0.0, "from the widest"),
        (["a"], CHOICES, -0.1, "tolerance is -0.1"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_work(layers, choices, tolerance, words):
    measure = Known()
    with pytest.raises(ValueError, match=words):
        bit_search.search(layers, choices, measure, tolerance)
    assert not measure.asked


def test_another_measure_is_asked_anew_and_the_same_one_is_not(tmp_path):
    log = SimpleNamespace(asked=[])  # no value, so that it is no part of the key

    def leaky(bits):
        log.asked.append("leaky")
        return 0.9, 0.5

    def tight(bits):
        log.asked.append("tight")
        return 0.6, 0.5

    cache = Store(tmp_path)
    answers = [bit_search.remembered(measure, cache)({"w": 8})[:2] for measure in (leaky, tight, leaky)]
    assert answers == [(0.9, 0.5), (0.6, 0.5), (0.9, 0.5)]
    assert log.asked == ["leaky", "tight"]


def test_the_path_has_the_steps_that_were_taken_and_marks_the_answer():
    path = bit_search.search(["a", "b", "c"], CHOICES, Known(), tolerance=0.05).path
    assert path["layer"].tolist()[1:3] == ["a", "a"] and path["round"].is_monotonic_increasing
    assert path["chosen"].tolist().count("<-") == 1
    assert path.loc[path["chosen"] == "<-", "leak"].item() == path["leak"].min()
    assert not {"kept", "seconds"} & set(path)
