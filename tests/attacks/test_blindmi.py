import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from mialib import streams
from mialib.asking import Views
from mialib.attacks import blindmi
from mialib.attacks.blindmi import BlindMIDiff

# every power of ten, and every fifth number to 35
WIDTHS = sorted({10.0**power for power in range(-6, 7)} | set(range(5, 40, 5)))


def mmd2(a, b):
    """Biased MMD^2 of two sets of rows, written from the definition."""

    def kernel(u, v):
        squared = ((u[:, None] - v[None]) ** 2).sum(-1)
        return sum(np.exp(-squared / (2 * w)) for w in WIDTHS)

    return max(1e-4, kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean())


def slow_comparison(batch, reference):
    """One batch, sample by sample, recomputing everything."""
    member = np.ones(len(batch), dtype=bool)
    while member.any():
        now, after = mmd2(reference, batch[member]), member.copy()
        for i in np.flatnonzero(member):
            rest = member.copy()
            rest[i] = False
            if rest.any() and mmd2(np.vstack([reference, batch[i]]), batch[rest]) > now:
                after[i] = False
        if (after == member).all():
            break
        member = after
    return member


def toy(n=200, features=12, c=4, image=False, seed=0):
    """A target that is certain on its members (the even candidates) and unsure elsewhere, probes included."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, 3, 6, 6) if image else (n, features)
    x = torch.randn(shape, generator=generator)
    labels = torch.randint(c, (n,), generator=generator)
    member = torch.arange(n) % 2 == 0

    def unsure(inputs):
        generator = torch.Generator().manual_seed(7)
        return torch.randn(*inputs.shape[:2], c, generator=generator, dtype=torch.float64).log_softmax(-1)

    sure = (8.0 * torch.nn.functional.one_hot(labels, c)).double().log_softmax(-1)
    log_p = torch.where(member[:, None], sure, unsure(x[None]))
    return Views(log_p, labels[None], x=x[None], query=unsure), member


def random_features(generator, *shape):
    p = (3 * torch.randn(*shape, 4, generator=generator, dtype=torch.float64)).softmax(-1)
    return torch.cat([p[..., :1], p.topk(2).values], dim=-1)


def test_the_widths_are_those_of_the_public_code():
    assert blindmi.WIDTHS == pytest.approx(WIDTHS, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scale", [1.0, 5e-5])  # MMD^2 of some units, and about as large as its floor
def test_decisions_equal_the_slow_loop(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    batch = scale * random_features(generator, 5, 9)
    reference = scale * random_features(generator, 6)
    valid = torch.ones(5, 9, dtype=torch.bool)
    valid[3:, -1] = False  # short batches
    found = blindmi.differential_comparison(batch, valid, reference)
    for b in range(5):
        rows = valid[b]
        expected = slow_comparison(batch[b, rows].numpy(), reference.numpy())
        assert found[b, rows].tolist() == expected.tolist(), f"batch {b}"
        assert not found[b, ~rows].any(), f"batch {b}"


def test_the_slow_loop_is_no_constant():
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(5, 9, dtype=torch.bool)
    found = blindmi.differential_comparison(
        random_features(generator, 5, 9), valid, random_features(generator, 6)
    )
    assert found.any() and not found.all()


def test_whole_attack_equals_the_slow_loop():
    """41 candidates in batches of 20: three, of 14, 14 and 13, whose members the margins reveal."""
    target, _ = toy(41)
    answers = 3 * torch.randn(1, 41, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    target = replace(target, log_posteriors=answers.log_softmax(-1))
    calls = []

    def query(x):
        calls.append(x)
        return target.query(x)

    margins = BlindMIDiff(probes=10)(replace(target, query=query), None, None, 3)
    assert len(calls) == 1 and calls[0].shape == (1, 10, 12) and BlindMIDiff(probes=10).queries == 10

    generator = streams.generator(3, "BlindMI")
    labels = target.labels[0]
    chosen = torch.randperm(41, generator=generator)[:10]
    drawn = torch.randint(41, (10, 12), generator=generator)
    for j in range(12):
        assert torch.equal(calls[0][0, :, j], target.x[0, drawn[:, j], j]), j
    reference = blindmi.features(target.query(calls[0])[0], labels[chosen]).numpy()
    order, seen = (
        torch.randperm(41, generator=generator),
        blindmi.features(target.log_posteriors[0], labels).numpy(),
    )
    for b in range(3):
        rows = order[b::3]
        assert (margins[rows] > 0).tolist() == slow_comparison(seen[rows], reference).tolist()


@pytest.mark.parametrize("image", [False, True])
def test_separable_members_are_found(image):
    target, member = toy(image=image)
    margins = BlindMIDiff()(target, None, None, 0)
    assert margins.dtype == torch.float64 and set(margins.tolist()) == {-1.0, 1.0}
    assert ((margins > 0) == member).double().mean() > 0.95


def test_useless_answers_give_chance():
    target, member = toy(1000)
    target = replace(target, log_posteriors=target.query(target.x))  # members are treated as all others
    decided = BlindMIDiff()(target, None, None, 0) > 0
    balanced = (decided[member].double().mean() + (~decided[~member]).double().mean()) / 2
    assert balanced.item() == pytest.approx(0.5, abs=0.06)


def test_equal_answers_everywhere_leave_all_members():
    target, _ = toy(50)
    flat = torch.zeros(1, 50, 4, dtype=torch.float64).log_softmax(-1)
    target = replace(target, log_posteriors=flat, query=lambda x: flat[:, : x.shape[1]])
    assert (BlindMIDiff()(target, None, None, 0) == 1).all()  # MMD^2 is 0 before and after: below the floor


def test_same_seed_same_margins_and_inputs_stay():
    target, _ = toy(101, image=True)
    before = [t.clone() for t in (target.log_posteriors, target.labels, target.x)]
    state = torch.get_rng_state()
    first = BlindMIDiff()(target, None, None, 5)
    assert torch.equal(first, BlindMIDiff()(target, None, None, 5))
    assert torch.equal(state, torch.get_rng_state())
    assert all(
        torch.equal(a, b)
        for a, b in zip(before, (target.log_posteriors, target.labels, target.x), strict=True)
    )


def test_seeds_draw_different_probes():
    target, _ = toy(image=True)
    seen = []
    spy = replace(target, query=lambda x: seen.append(x) or target.query(x))
    BlindMIDiff()(spy, None, None, 0)
    BlindMIDiff()(spy, None, None, 1)
    assert seen[0].shape == seen[1].shape == (1, 20, 3, 6, 6) and not torch.equal(*seen)
    BlindMIDiff()(spy)
    assert torch.equal(seen[2], seen[0])


def test_posteriors_of_zero_and_one():
    target, member = toy(100)
    hard = torch.nn.functional.one_hot(target.labels, 4).double().log()
    log_p = torch.where(member[:, None], hard, target.log_posteriors)
    assert log_p.isinf().any()
    decided = BlindMIDiff()(replace(target, log_posteriors=log_p), None, None, 0) > 0
    assert (decided == member).double().mean() > 0.95


def test_features_by_hand():
    log_p = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], dtype=torch.float64).log()
    found = blindmi.features(log_p, torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.7, 0.2]], dtype=torch.float64))
    assert blindmi.features(log_p.float(), torch.tensor([0, 0])).dtype == torch.float64


def test_sobel_by_hand():
    # columns 0, 0, 1, 1 (in units of white): the horizontal gradient is 4 at the two middle columns, capped
    # at 1; the vertical one is 0. Mean of both: 0.5. The image is normalised, black at -2 and white at 3.
    image = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4)
    x = torch.stack([image, image.T])[:, None] * 5 - 2
    expected = torch.tensor([0.0, 0.5, 0.5, 0.0]).expand(4, 4) * 5 - 2
    found = blindmi.sobel(x, torch.tensor([1, 0]))
    torch.testing.assert_close(found[:, 0], torch.stack([expected.T, expected]))


def test_sobel_equals_scipys():
    x = torch.rand(4, 3, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    low, high = (end(x.numpy(), axis=(0, 2, 3), keepdims=True)[0] for end in (np.min, np.max))
    gradients = [
        np.abs([ndimage.sobel(channel, axis, mode="mirror") for channel in x[2].numpy()]) for axis in (1, 0)
    ]
    capped = [np.minimum(one, high - low) for one in gradients]
    assert 0.1 < np.mean(np.array(capped) == gradients) < 0.9
    found = blindmi.sobel(x, torch.tensor([2]))[0]
    torch.testing.assert_close(found, torch.from_numpy(low + np.mean(capped, axis=0)))


def test_sobel_does_not_depend_on_the_normalisation():
    x = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.5])[:, None, None]
    chosen = torch.tensor([0, 3])
    plain, normalised = blindmi.sobel(x, chosen), blindmi.sobel((x - mean) / std, chosen)
    torch.testing.assert_close(normalised * std + mean, plain)


def test_shuffled_features_keep_the_columns():
    x = torch.arange(12.0).reshape(4, 3)
    found = blindmi.shuffled_features(x, 50, torch.Generator().manual_seed(0))
    assert found.shape == (50, 3)
    for j in range(3):
        assert set(found[:, j].tolist()) == set(x[:, j].tolist()), j
    assert any(row.tolist() not in x.tolist() for row in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": None}, "target.query is needed"),
        ({"x": None}, "target.x is needed"),
        ({"x": torch.zeros(1, 50)}, "must be images"),
        ({"x": torch.zeros(1, 49, 3)}, r"\(1, 50\) inputs as the labels"),
        (
            {
                "labels": torch.zeros(2, 50, dtype=torch.int64),
                "log_posteriors": torch.zeros(2, 50, 1, dtype=torch.float64),
            },
            "one model",
        ),
    ],
)
def test_bad_target_is_named(change, message):
    target, _ = toy(50)
    with pytest.raises(ValueError, match=message):
        BlindMIDiff()(replace(target, **change), None, None, 0)


def test_the_smallest_settings_and_as_many_probes_as_candidates():
    target, _ = toy(20)
    for attack in (BlindMIDiff(probes=1, batch=2), BlindMIDiff(probes=20)):
        assert attack(target).abs().eq(1).all()


def test_bad_settings_are_named():
    target, _ = toy(10)
    with pytest.raises(ValueError, match="probes must be at most the number of candidates, 10"):
        BlindMIDiff()(target, None, None, 0)
    with pytest.raises(ValueError, match="probes"):
        BlindMIDiff(probes=0)
    with pytest.raises(ValueError, match="batch"):
        BlindMIDiff(batch=1)


def test_papers_size_is_quick():
    """27,000 candidates; the time is printed (pytest -s)."""
    target, member = toy(27_000)
    start = time.perf_counter()
    decided = BlindMIDiff()(target, None, None, 0) > 0
    print(f"27,000 candidates: {time.perf_counter() - start:.2f} s")
    assert (decided == member).double().mean() > 0.9
