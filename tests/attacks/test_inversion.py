"""Model inversion: what decoders read, whom they learn from, how pictures are judged, and that digits come back."""

from dataclasses import replace

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from mialib import asking, data, models, training
from mialib.attacks import inversion
from mialib.attacks.inversion import Inversion
from mialib.data import Dataset, Splits
from mialib.models import decoders
from mialib.store import Store
from mialib.training import Batch, Recipe, fitting, population

SHORT = Recipe(epochs=2, batch_size=8, lr=1e-3, weight_decay=0.0)
INF = float("inf")


def tiny(n=12, shape=(1, 8, 8), seed=0, groups=None):
    """Random pictures, or features for a shape of one number."""
    generator = torch.Generator().manual_seed(seed)
    if len(shape) == 1:
        x = torch.randint(2, (n, *shape), generator=generator).float()
    else:
        x = torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)
    return Dataset("tiny", x, torch.arange(n) % 3, 3, torch.zeros(1), torch.ones(1), groups)


def answers(m=2, n=12, c=3, seed=0):
    return torch.randn(m, n, c, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)


def rows_of(dataset, mask):
    return replace(dataset, x=dataset.x[mask], y=dataset.y[mask])


# What decoders read


def test_log_posteriors_from_minus_50_to_0_become_0_to_1():
    read = decoders.features(torch.tensor([[0.0, -25.0, -50.0, -1000.0, -INF]]).double())
    assert read.dtype == torch.float32 and read.tolist() == [[1.0, 0.5, 0.0, 0.0, 0.0]]


def test_what_is_not_kept_is_zero():
    read = decoders.features(torch.tensor([[-25.0, 0.0, -10.0], [-INF, 0.0, -INF]]).double(), keep=2)
    torch.testing.assert_close(read, torch.tensor([[0.0, 1.0, 0.8], [0.0, 1.0, 0.0]]))
    assert decoders.features(answers(), keep=1).count_nonzero() == 2 * 12
    assert torch.equal(decoders.features(answers(), keep=3), decoders.features(answers()))


@pytest.mark.parametrize("keep", [0, 4])
def test_keep_must_be_a_number_of_classes(keep):
    with pytest.raises(ValueError, match=f"keep is {keep}; it must be 1 to 3"):
        decoders.features(answers(), keep)


# Private and auxiliary


def test_sets_that_share_nothing_pass():
    inversion.check_disjoint(tiny(seed=0, groups=torch.arange(12)), tiny(seed=1, groups=torch.arange(12, 24)))
    inversion.check_disjoint(tiny(seed=0), tiny(seed=1, groups=torch.arange(12)))  # identities of one alone
    inversion.check_disjoint(tiny(shape=(40,)), tiny(shape=(40,), seed=1))


def test_a_shared_identity_is_refused():
    with pytest.raises(
        ValueError, match=r"2 identities are both private and auxiliary, among them \[10, 11\]"
    ):
        inversion.check_disjoint(tiny(groups=torch.arange(12)), tiny(seed=1, groups=torch.arange(10, 22)))


@pytest.mark.parametrize("shape", [(1, 8, 8), (40,)])
def test_a_shared_input_is_refused(shape):
    private, auxiliary = tiny(shape=shape), tiny(shape=shape, seed=1)
    auxiliary.x[[3, 7]] = private.x[5]
    with pytest.raises(ValueError, match="1 different inputs are both private and auxiliary"):
        inversion.check_disjoint(private, auxiliary)


def test_sets_of_different_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"private inputs are torch.uint8 \(1, 8, 8\), auxiliary ones .*\(1, 28, 28\)"
    ):
        inversion.check_disjoint(tiny(), tiny(shape=(1, 28, 28)))


# The decoders


def test_the_objective_is_the_squared_error_to_the_picture_that_was_asked_about():
    auxiliary = tiny(4)
    index = torch.tensor([[1, 2], [4, 7]])  # rows of two classifiers: 4 and 7 are pictures 0 and 3
    drawn = torch.randn(2, 2, 1, 8, 8)
    objective = inversion.SquaredError(auxiliary.x, "any")
    found = objective(lambda params, x: drawn, {}, Batch(None, None, index), 0)
    truth = auxiliary.x[torch.tensor([[1, 2], [0, 3]])] / 255
    torch.testing.assert_close(found, (drawn.sigmoid() - truth).square().mean((1, 2, 3, 4)))


def test_each_decoder_learns_from_its_own_classifier():
    """A decoder trained among others is the one trained alone on the same answers; its answers decide."""
    auxiliary, seen = tiny(), answers()
    attack = Inversion(SHORT, width=0.05)
    both = attack.fit(seen, auxiliary, [3, 4])
    alone = attack.fit(seen[1:], auxiliary, [4])
    other = attack.fit(answers(seed=9)[1:], auxiliary, [4])
    for name, tensor in alone.params.items():
        torch.testing.assert_close(both.params[name][1], tensor[0], atol=1e-5, rtol=1e-4)
    assert any(
        not torch.allclose(other.params[name], tensor, atol=1e-4) for name, tensor in alone.params.items()
    )


def test_pictures_are_those_of_each_decoder_in_order():
    attack = Inversion(SHORT, width=0.05)
    fitted = attack.fit(answers(), tiny())
    asked = answers(n=5, seed=1)
    asked[0, 0] = torch.tensor([0.0, -INF, -INF])  # as behind a one-hot output
    rebuilt = attack.rebuild(fitted, asked)
    assert rebuilt.shape == (2, 5, 1, 8, 8) and rebuilt.dtype == torch.float32
    for i, module in enumerate(fitted):
        with torch.no_grad():
            expected = module(decoders.features(asked[i])).sigmoid()
        torch.testing.assert_close(rebuilt[i], expected, atol=1e-6, rtol=1e-5)


def test_features_are_rebuilt_too():
    attack = Inversion(SHORT, width=0.05)
    rebuilt = attack.rebuild(attack.fit(answers(), tiny(shape=(40,))), answers(n=5))
    assert rebuilt.shape == (2, 5, 40) and rebuilt.min() >= 0 and rebuilt.max() <= 1


def test_decoders_are_cached_by_answers_and_pictures(tmp_path, monkeypatch):
    attack = Inversion(SHORT, width=0.05, cache=Store(tmp_path))
    first = attack.fit(answers(), tiny())
    trained = []
    real = fitting.loop.train
    monkeypatch.setattr(fitting.loop, "train", lambda *a, **o: trained.append(1) or real(*a, **o))
    again = attack.fit(answers(), tiny())
    assert not trained and again.keys == first.keys
    keys = {
        *first.keys,
        *attack.fit(answers(seed=1), tiny()).keys,
        *attack.fit(answers(), tiny(seed=1)).keys,
        *replace(attack, keep=1).fit(answers(), tiny()).keys,
    }
    assert len(keys) == 8 and trained


def test_what_does_not_fit_is_refused_before_any_work():
    attack = Inversion(SHORT)
    with pytest.raises(ValueError, match="answers to 11 examples, and 12 auxiliary"):
        attack.fit(answers(n=11), tiny())
    with pytest.raises(ValueError, match="one for each of 2 classifiers, found 1"):
        attack.fit(answers(), tiny(), [0])
    with pytest.raises(ValueError, match="shape is .1, 9, 9."):
        attack.fit(answers(), tiny(shape=(1, 9, 9)))
    outside = tiny(shape=(40,))
    outside.x[3, 3] = 1.5
    with pytest.raises(
        ValueError, match=r"features of 'tiny' must lie in \[0, 1\] to be drawn, found 0 to 1.5"
    ):
        attack.fit(answers(), outside)
    with pytest.raises(ValueError, match="2 decoders and answers of 1 classifiers"):
        attack.rebuild(attack.fit(answers(), tiny()), answers(1))


# How good is a picture


def pair(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(2, 3, *shape, generator=generator)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_squared_error_by_hand():
    rebuilt, truth = torch.zeros(1, 2, 1, 2, 2), torch.zeros(1, 2, 1, 2, 2)
    rebuilt[0, 1] = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    assert decoders.squared_error(rebuilt, truth).tolist() == [[0.0, 0.3125]]
    assert decoders.squared_error(rebuilt.flatten(2), truth.flatten(2)).tolist() == [[0.0, 0.3125]]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 28)])
def test_similarity_and_signal_to_noise_equal_scikit_images(shape):
    rebuilt, truth = pair(shape)
    similar, ratio = inversion.ssim(rebuilt, truth), inversion.psnr(rebuilt, truth)
    assert similar.shape == ratio.shape == (2, 3)
    for place in ((0, 0), (1, 2)):
        a, b = rebuilt[place].double().numpy(), truth[place].double().numpy()
        expected = structural_similarity(a, b, channel_axis=0, data_range=1.0)
        assert similar[place].item() == pytest.approx(expected, abs=1e-9), place
        assert ratio[place].item() == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-4
        ), place


def test_equal_pictures_are_as_good_as_can_be():
    truth = pair((1, 8, 8))[1]
    assert torch.allclose(inversion.ssim(truth, truth), torch.ones(2, 3).double())
    assert bool((inversion.psnr(truth, truth) == INF).all())


@pytest.mark.parametrize("shape", [(40,), (1, 6, 8)])
def test_similarity_needs_pictures_of_a_window_or_more(shape):
    with pytest.raises(ValueError, match="at least 7 x 7 pixels"):
        inversion.ssim(*pair(shape))


def test_pixels_are_the_inputs_in_0_to_1():
    pictures, rows = tiny(), tiny(shape=(40,))
    index = torch.tensor([[0, 5], [7, 1]])
    torch.testing.assert_close(inversion.pixels(pictures, index), pictures.x[index] / 255)
    assert torch.equal(inversion.pixels(rows, index), rows.x[index])
    with pytest.raises(ValueError, match="found -1 to"):
        inversion.pixels(replace(rows, x=-rows.x), index)


class Brightest(nn.Module):
    """Names the column whose pixels, normalised, are the brightest."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * x.sum((1, 2))[:, :3]


def test_the_share_that_a_classifier_names():
    classifier = population.stack(Brightest, [Brightest()])
    rebuilt = torch.zeros(2, 4, 1, 8, 8)
    rebuilt[0, :, :, :, 1], rebuilt[1, :, :, :, 2] = 0.7, 0.7
    labels = torch.tensor([[1, 1, 1, 0], [2, 0, 1, 0]])
    assert inversion.named(classifier, tiny(), rebuilt, labels).tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="population of one, found 2"):
        inversion.named(population.stack(Brightest, [Brightest()] * 2), tiny(), rebuilt, labels)


# Yardsticks


def test_means_by_hand():
    sample = tiny(6)
    torch.testing.assert_close(inversion.mean_picture(sample), (sample.x / 255).mean(0))
    means = inversion.class_means(sample)
    assert means.shape == (3, 1, 8, 8)
    torch.testing.assert_close(means[1], (sample.x[[1, 4]] / 255).mean(0))
    assert bool(inversion.class_means(replace(sample, num_classes=4))[3].isnan().all())  # nobody is there


def test_the_ceiling_is_the_ratio():
    assert inversion.ceiling(0.02, 0.03) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="undefended_error is 0.0"):
        inversion.ceiling(0.0, 0.03)


# Controls on handwritten digits


@pytest.fixture(scope="module")
def attacked():
    """A classifier of the digits 0-4, asked about 0-4 (private) and 5-9 (the attacker's)."""
    digits = data.load("digits")
    private = replace(rows_of(digits, digits.y < 5), num_classes=5)
    auxiliary = rows_of(digits, digits.y >= 5)
    member = (torch.arange(len(private)) < 300)[None]
    split = Splits(member, ~member, torch.zeros_like(member), torch.tensor([0]))
    recipe = Recipe(epochs=10, batch_size=32)
    classifier = training.fit(models.make("small_cnn", private), private, split, recipe)
    every = [torch.arange(len(part))[None] for part in (private, auxiliary)]
    seen = [
        asking.log_posteriors(classifier, part, i)
        for part, i in zip((private, auxiliary), every, strict=True)
    ]
    return classifier, private, auxiliary, *seen


def error_of(attack, private, auxiliary, private_answers, auxiliary_answers):
    rebuilt = attack.rebuild(attack.fit(auxiliary_answers, auxiliary), private_answers)
    truth = inversion.pixels(private, torch.arange(len(private))[None])
    return float(decoders.squared_error(rebuilt, truth).mean()), rebuilt, truth


def test_digits_come_back_from_scores_and_not_from_noise(attacked):
    classifier, private, auxiliary, private_answers, auxiliary_answers = attacked
    inversion.check_disjoint(private, auxiliary)
    attack = Inversion(replace(inversion.SCHEDULE, epochs=20), width=0.25)
    error, rebuilt, truth = error_of(attack, private, auxiliary, private_answers, auxiliary_answers)
    mean = inversion.mean_picture(auxiliary).expand_as(truth)
    guessed = float(decoders.squared_error(mean, truth).mean())
    assert error < 0.85 * guessed
    assert inversion.ssim(rebuilt, truth).mean() > inversion.ssim(mean, truth).mean() + 0.05
    named = inversion.named(classifier, private, rebuilt, private.y[None])
    assert named > inversion.named(classifier, private, mean, private.y[None]) + 0.2

    shuffled = auxiliary_answers[
        :, torch.randperm(len(auxiliary), generator=torch.Generator().manual_seed(0))
    ]
    blind, *_ = error_of(attack, private, auxiliary, private_answers, shuffled)
    assert blind > 0.95 * guessed


@pytest.mark.cuda
def test_cuda_learns_as_the_cpu_does(tmp_path, accelerator):
    there = Inversion(SHORT, width=0.05, device=accelerator, cache=Store(tmp_path / "cuda"))
    here = Inversion(SHORT, width=0.05, cache=Store(tmp_path / "cpu"))
    pictures = [attack.rebuild(attack.fit(answers(), tiny()), answers()) for attack in (there, here)]
    torch.testing.assert_close(*pictures, atol=1e-3, rtol=1e-3)


def test_answers_of_a_class_that_the_decoder_never_saw_are_told():
    to_learn = torch.eye(4).double()[torch.tensor([[0, 2, 2], [1, 1, 3]])]
    asked = torch.eye(4).double()[torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])]
    found = inversion.unseen(asked.log(), to_learn.log())
    assert found.tolist() == [[False, True, False, True], [True, False, True, False]]


# The attacker who knows


def test_the_four_ways_draw_what_they_say(tmp_path):
    auxiliary, seen = tiny(), answers()
    attack = Inversion(SHORT, width=0.05, cache=Store(tmp_path))
    bare = torch.full_like(seen, -torch.inf).scatter(2, seen.argmax(2, keepdim=True), 0.0)
    own, old, by_label = (attack.fit(one, auxiliary) for one in (seen, answers(seed=1), bare))
    learned = seen.clone()
    learned[1] = (
        torch.tensor([0.9, 0.05, 0.05]).double().log()
    )  # nobody taught the second decoder labels 1 and 2
    ways = inversion.ways(
        attack, seen, own=own, by_label=by_label, old=old, auxiliary=auxiliary, undefended=learned
    )
    mean = inversion.mean_picture(auxiliary)
    assert list(ways) == ["own decoder", "by the label", "old decoder", "mean picture"]
    torch.testing.assert_close(ways["own decoder"], attack.rebuild(own, seen))
    torch.testing.assert_close(ways["old decoder"], attack.rebuild(old, seen))
    assert (ways["mean picture"] == mean).all() and ways["mean picture"].shape == ways["own decoder"].shape
    strange = seen[1].argmax(1) != 0
    assert strange.any() and (ways["by the label"][1, strange] == mean).all()
    torch.testing.assert_close(ways["by the label"][0], attack.rebuild(by_label, bare)[0])


def test_the_best_way_is_each_classifiers_own():
    truth = torch.zeros(2, 3, 1, 2, 2)
    drawn = {"a": torch.full_like(truth, 0.1), "b": torch.full_like(truth, 0.2)}
    drawn["b"][1] = 0.0
    best, errors = inversion.best_way(drawn, truth)
    assert (best[0] == drawn["a"][0]).all() and (best[1] == drawn["b"][1]).all()
    assert errors == pytest.approx({"a": 0.01, "b": 0.02})
