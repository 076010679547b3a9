"""What a user says of their shadow models."""

import pytest

from mialib import Shadows
from mialib.auditing import SavedShadows


def train(data):
    return data


def test_functions_may_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe_of_shadows.py").write_text(
        "def train(data):\n    return 7\n\n\ndef half(network, data):\n    return 8\n"
    )
    made = Shadows("recipe_of_shadows:train", {"pruned": "recipe_of_shadows:half", "int8": train})
    assert (
        made.train(None) == 7 and made.compress["pruned"](None, None) == 8 and made.compress["int8"] is train
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": 3}, "shadows: train is a .*int.*; it must be a function or its address"),
        ({"train": "nowhere_at_all:train"}, "shadows: train: no module nowhere_at_all"),
        ({"compress": [1]}, "shadows: compress is a .*list"),
        ({"compress": {"pruned": 2}}, r"shadows: compress\['pruned'\] is a"),
        ({"n": 5}, "n is 5; it must be an even number of at least 4"),
        ({"n": 2}, "n is 2"),
        ({"n": True}, "n is True"),
        ({"n": 8.0}, "n is 8.0"),
        ({"canaries": -1}, "canaries is -1; it must be a whole number, 0 for none"),
    ],
)
def test_what_cannot_be_is_named_at_once(given, message):
    with pytest.raises(ValueError, match=message):
        Shadows(**{"train": train} | given)


def test_saved_answers_come_by_network():
    assert isinstance(Shadows.from_answers({"a": []}, []), SavedShadows)
    with pytest.raises(ValueError, match="answers must be a mapping from names"):
        Shadows.from_answers([1], [])
