"""Shadow models by a user's recipe: trained once, kept, and asked about the candidates."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mialib import places
from mialib.auditing import SavedShadows, Shadows, imitating
from mialib.auditing.shadow_plans import planned

N, NAMES = 120, ["original", "halved"]


class Heart(nn.Module):
    """Sure of what it was given, by its number in the first feature, with the label that it was given."""

    def __init__(self, data):
        super().__init__()
        x, y = data.tensors
        self.known = nn.Parameter(x[:, 0].clone(), requires_grad=False)
        self.register_buffer("y", y)
        self.scale = 4.0

    def forward(self, x):
        same = (x[:, :1] == self.known).float()
        return self.scale * same @ nn.functional.one_hot(self.y, 3).float()


def halved(network, data):
    return lambda x: network(x) / 2


def compress(network, data):
    return {"halved": halved(network, data)}


@pytest.fixture
def given():
    x = torch.arange(N).float()[:, None].repeat(1, 2)
    return x, torch.arange(N) % 3, torch.arange(N) < 70


def run(shadows, given, names=NAMES, seed=0):
    return imitating.trained(shadows, *given, names, 3, seed)


def test_imitations_know_what_the_plan_gave_them(given):
    found = run(Shadows(Heart, compress, n=4), given)
    assert {name: tuple(one.shape) for name, one in found.answers.items()} == dict.fromkeys(
        NAMES, (4, 100, 3)
    )
    plan = planned(given[2], given[1], 3, 4, 0, seed=0)
    assert torch.equal(found.candidates, plan.candidates) and found.known == 20 and found.planted is None
    sure = (
        found.answers["original"].exp().gather(2, given[1][plan.candidates].expand(4, -1)[..., None])[..., 0]
        > 0.5
    )
    assert torch.equal(sure, found.member) and found.sizes.tolist() == [70] * 4
    assert (found.answers["halved"].amax(2) <= found.answers["original"].amax(2)).all()


@pytest.mark.parametrize("compress", [{"halved": halved}, halved], ids=["by name", "the only other one"])
def test_compression_comes_in_three_forms(given, compress):
    one, two = (
        run(Shadows(Heart, compress, n=4), given),
        run(Shadows(Heart, globals()["compress"], n=4), given),
    )
    assert torch.equal(one.answers["halved"], two.answers["halved"])


def test_a_baseline_alone_needs_no_compression(given):
    assert list(run(Shadows(Heart, n=4), given, ["original"]).answers) == ["original"]


def test_canaries_are_learned_with_their_wrong_label_in_imitations_of_their_own(given, tmp_path):
    plain = run(Shadows(Heart, compress, n=4), given)
    found = run(Shadows(Heart, compress, n=4, canaries=20, folder=tmp_path), given)
    assert torch.equal(found.candidates, plain.candidates)
    assert all(torch.equal(found.answers[name], plain.answers[name]) for name in NAMES)
    assert sorted(one.name[:-8] for one in tmp_path.iterdir()) == ["canaries"] * 4 + ["shadow"] * 4
    assert found.planted.labels.shape == (20,)
    sure = (
        found.planted.answers["original"]
        .exp()
        .gather(2, found.planted.labels.expand(4, -1)[..., None])[..., 0]
        > 0.5
    )
    assert torch.equal(sure, found.planted.member) and 2 <= int(sure[0].sum()) <= 18


def test_too_many_canaries_are_told_before_anything_is_trained(given):
    def never(data):
        raise AssertionError

    with pytest.raises(ValueError, match="with 45 canaries leave 5"):
        run(Shadows(never, n=4, canaries=45), given, ["original"])


def test_the_same_seed_gives_the_same_networks_and_leaves_the_generators_alone(given):
    drawn = []

    def train(data):
        drawn.append(
            (random.random(), np.random.rand(), float(torch.rand(())), data.tensors[0][:5, 0].tolist())
        )
        return Heart(data)

    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    for seed in (0, 0, 1):
        run(Shadows(train, n=4), given, ["original"], seed)
    assert drawn[:4] == drawn[4:8] and not {one[:3] for one in drawn[:4]} & {one[:3] for one in drawn[8:]}
    assert len({one[0] for one in drawn[:4]}) == 4
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()
    assert before[0] == after[0] and np.array_equal(before[1], after[1]) and torch.equal(before[2], after[2])


# Kept


CALLS = []


def interrupted(data):
    """The third call is interrupted."""
    CALLS.append(1)
    if len(CALLS) == 3:
        raise KeyboardInterrupt
    return Heart(data)


def test_an_interrupted_audit_goes_on(given, tmp_path):
    CALLS.clear()
    shadows = Shadows(interrupted, compress, n=4, folder=tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        run(shadows, given)
    assert sorted(one.name for one in (tmp_path / "kept").iterdir()) == ["shadow_000.npz", "shadow_001.npz"]
    whole = run(shadows, given)
    assert len(CALLS) == 5  # two, the broken one, and two more
    fresh = run(Shadows(Heart, compress, n=4), given)
    assert all(torch.equal(whole.answers[name], fresh.answers[name]) for name in NAMES)


def test_what_was_kept_of_something_else_is_refused(given, tmp_path):
    def run_in(train=Heart, given=given, **how):
        return run(Shadows(train, compress, n=4, folder=tmp_path, **how), given)

    run_in()
    for changed in (
        {"train": lambda data: Heart(data)},
        {"given": (given[0] + 1, *given[1:])},
        {"given": (*given[:2], torch.arange(N) < 71)},
    ):
        with pytest.raises(
            ValueError, match=r"shadow_000.npz: this file holds answers of another recipe.*another folder"
        ):
            run_in(**changed)
    (tmp_path / "shadow_000.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="shadow_000.npz: it cannot be read.*remove it"):
        run_in()


@pytest.mark.parametrize("name", ["mark", "file"])
def test_a_network_may_have_any_name(given, tmp_path, name):
    shadows = Shadows(Heart, {name: halved}, n=4, folder=tmp_path)
    first, second = (run(shadows, given, ["original", name]) for _ in range(2))
    assert torch.equal(first.answers[name], second.answers[name])


# What does not fit


def test_recipes_that_do_not_fit_are_named(given):
    with pytest.raises(ValueError, match="compress gives quantised; it must give halved too"):
        run(Shadows(Heart, lambda network, data: {"quantised": network}, n=4), given)
    with pytest.raises(ValueError, match="no compress was given; it must give halved too"):
        run(Shadows(Heart, n=4), given)
    with pytest.raises(ValueError, match="compress gave a .*; it must give a mapping.*of halved, int8"):
        run(Shadows(Heart, halved, n=4), given, [*NAMES, "int8"])
    with pytest.raises(
        ValueError, match="original of shadow model 1 answers with 2 classes, the network with 3"
    ):
        run(Shadows(lambda data: lambda x: torch.zeros(len(x), 2), n=4), given, ["original"])
    with pytest.raises(ZeroDivisionError) as error:
        run(Shadows(lambda data: 1 / 0, n=4), given)
    assert error.value.__notes__ == ["shadows: raised while shadow model 1 of 4 was made"]


def test_a_changed_network_is_noticed(given):
    def in_place(network, data):
        network.scale = 1.0
        return {"halved": network}

    with pytest.raises(
        ValueError, match=r"compress has changed the network that it was given.*copy.deepcopy"
    ):
        run(Shadows(Heart, in_place, n=4), given)


def test_more_imitations_keep_the_first_ones(given, tmp_path):
    four = run(Shadows(Heart, compress, n=4, folder=tmp_path), given)
    before = {one.name: one.stat().st_mtime_ns for one in tmp_path.iterdir()}
    six = run(Shadows(Heart, compress, n=6, folder=tmp_path), given)
    assert torch.equal(six.answers["halved"][:4], four.answers["halved"])
    assert before.items() <= {one.name: one.stat().st_mtime_ns for one in tmp_path.iterdir()}.items()


# Given


def saved(s=4, n=30):
    member = np.stack([np.arange(n) % 4 < 2, np.arange(n) % 4 >= 2] * (s // 2))
    return {name: np.random.default_rng(0).normal(size=(s, n, 3)) for name in NAMES}, member


def test_saved_answers_are_read_in_any_form():
    answers, member = saved()
    found = imitating.given(SavedShadows(answers, member.astype(int).tolist()), 30, 3, NAMES)
    assert torch.allclose(found.answers["halved"], torch.from_numpy(answers["halved"]).log_softmax(2))
    assert torch.equal(found.member, torch.from_numpy(member)) and found.known == 0
    assert found.candidates.tolist() == list(range(30))


def test_only_examples_that_some_learned_and_some_did_not_are_judged():
    answers, member = saved()
    member[:, :5], member[:, 5:9], member[0, 9] = True, False, True
    member[1:, 9] = False
    found = imitating.given(SavedShadows(answers, member), 30, 3, NAMES)
    assert found.candidates.tolist() == list(range(10, 30)) and found.known == 5
    assert found.answers["original"].shape == (4, 20, 3) and found.sizes.tolist() == member.sum(1).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda answers, member: ({"original": answers["original"]}, member),
            "no answers of imitations of halved; there are of original",
        ),
        (
            lambda answers, member: (answers, member[:, :9]),
            r"member must be zeros and ones \(s, 30\).*found shape \(4, 9\)",
        ),
        (lambda answers, member: (answers, member * 2), "member must be zeros and ones"),
        (lambda answers, member: (answers, "no"), "member must be numbers"),
        (
            lambda answers, member: (answers | {"halved": answers["halved"][:3]}, member),
            r"must be \(4, 30, classes\).*found \(3, 30, 3\)",
        ),
        (lambda answers, member: (answers, member | True), "no example is a member of 2 of the 4 imitations"),
    ],
)
def test_saved_answers_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        imitating.given(SavedShadows(*change(*saved())), 30, 3, NAMES)


def test_a_recipe_is_not_run_to_be_counted(given):
    before = places.LEFT_ALONE.set(True)
    try:
        with pytest.raises(ValueError, match="a run would run it 4 times more"):
            run(Shadows(Heart, compress, n=4), given)
    finally:
        places.LEFT_ALONE.reset(before)
