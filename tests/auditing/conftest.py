"""Answers of networks that leak as much as is asked for."""

import numpy as np
import pytest


def made(leak: float, n: int = 800, classes: int = 4, seed: int = 0, noise: int = 0):
    """Logits (n, classes) whose true class gains `leak` where the example is a member; labels; member, the first half."""
    labels = np.random.default_rng(seed).integers(0, classes, n)
    member = np.arange(n) < n // 2
    own = np.random.default_rng((seed, 1 + noise)).normal(size=(n, classes))
    return np.eye(classes)[labels] * (1 + leak * member[:, None]) + own, labels, member


@pytest.fixture(scope="module")
def three():
    """Answers of three networks, labels and membership: the first leaks little, the second much, the third as the first."""
    answers = {
        name: made(leak, noise=noise)[0]
        for noise, (name, leak) in enumerate([("original", 0.3), ("pruned", 2.0), ("longer", 0.3)])
    }
    return answers, *made(0)[1:]


def imitation(leak: float, labels, member, seed: int = 0):
    """Logits as of `made`, of another network about the same examples: it has learned `member`."""
    own = np.random.default_rng((seed, 99)).normal(size=(len(labels), 4))
    return np.eye(4)[labels] * (1 + leak * member[:, None]) + own


@pytest.fixture(scope="module")
def halves(three):
    """What four imitations have learned (4, n), and their answers about the examples of `three`: name -> (4, n, 4)."""
    _, labels, _ = three
    member = np.stack([np.random.default_rng(i // 2).permutation(len(labels)) < 400 for i in range(4)])
    member[1::2] = ~member[::2]
    leaks = {"original": 0.3, "pruned": 2.0, "longer": 0.3}
    answers = {
        name: np.stack([imitation(leak, labels, one, i) for i, one in enumerate(member)])
        for name, leak in leaks.items()
    }
    return member, answers


def kinds(findings):
    return sorted((one.kind, one.about) for one in findings)


def the(findings, about):
    (one,) = (one for one in findings if one.about == about)
    return one
