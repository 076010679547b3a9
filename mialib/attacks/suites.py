"""The attacks of one paper together, by name."""

from dataclasses import replace

from mialib.attacks import bayesian, blindmi, boundary, label_only, likelihood, neural, ratios, threshold
from mialib.attacks import pairs as several
from mialib.training import Recipe

# they learn nothing from shadow models, whatever these are like
UNLEARNED = ("gap", "blindmi", "swap_detector", "quantile_regression")


def yuan2022(networks: Recipe, samia: Recipe, **options) -> dict:
    """Attack name -> attack(target, shadows, shadow_member, seed) -> margins: eight rivals, a floor, and SAMIA.

    The threshold attacks, BlindMI-Diff, NN, Top3-NN, NN + class and SAMIA. If the networks are trained with SGD,
    `nn_class_adam` is added, NN + class with ten epochs of Adam, so that no defence looks good only because SGD stalls on
    its answers.

    Args:
        networks: recipe of NN, Top3-NN and NN + class, `neural.schedule(...)`; the paper's: `neural.SCHEDULE`.
        samia: recipe of SAMIA.
        options: further fields of NeuralAttack (trainings, device, cache).
    """
    learned = neural.attacks(networks, **options)
    learned["samia"] = replace(learned["samia"], recipe=samia)
    if networks.optimizer != "adam":
        adam = neural.schedule(epochs=10, lr=1e-3, optimizer="adam")
        learned["nn_class_adam"] = replace(learned["nn_class"], name="nn_class_adam", recipe=adam)
    return threshold.ATTACKS | {"blindmi": blindmi.BlindMIDiff()} | learned


def nasr2018(networks: Recipe, width: float = 1.0, **options) -> dict:
    """Attack name -> attack, for an attacker who knows half of the members.

    The threshold attacks and that paper's network. Made for `Study.attack(..., knowing="half")`, where each target
    needs its own networks, so that only one is trained.

    Args:
        networks, options: as in `yuan2022`.
        width: factor on the network's hidden units.
    """
    return threshold.ATTACKS | {"nsh": neural.nsh(networks, width, **options)}


def famili2023(networks: Recipe, **options) -> dict:
    """Attack name -> attack: the threshold attacks of that paper's forerunner, and a classifier trained on shadows.

    It is not known which statistic was thresholded and what the classifier saw: these are our reconstruction.

    Args:
        networks, options: as in `yuan2022`.
    """
    return threshold.ATTACKS | {"ranked_nn": neural.ranked_nn(networks, **options)}


def half_known(networks: Recipe, width: float, **options) -> dict:
    """`nasr2018`, and its network on log-posteriors, for networks so certain that their posteriors are all alike."""
    logs = {"nsh_log": neural.nsh(networks, width, logs=True, **options)}
    return nasr2018(networks, width, **options) | logs


def yang2020(networks: Recipe, queries: int, **options) -> dict:
    """Attack name -> attack, on served scores and on labels alone.

    The threshold attacks, the network of ML-Leaks's first adversary on the three largest scores (Salem et al. 2019,
    arXiv:1806.01246), BlindMI-Diff, robustness to noise, and the detector of label swappers.

    Args:
        networks, options: as in `yuan2022`.
        queries: of the label-only attack for each candidate, a multiple of 4.
    """
    learned = {"top3_nn": neural.attacks(networks, **options)["top3_nn"]}
    labels = {
        "noise_robustness": label_only.NoiseRobustness(queries=queries),
        "swap_detector": label_only.SwapDetector(),
    }
    return threshold.ATTACKS | learned | {"blindmi": blindmi.BlindMIDiff()} | labels


def yardstick(shadows: int = 4) -> dict:
    """Attack name -> attack: one threshold attack, and each attack that is calibrated for every candidate.

    Confidence (one threshold a class, one for all), LiRA, BaVarIA, BASE and RMIA, each online and offline. All of them
    take shadows of random halves; LiRA is left out if there are fewer than 4.
    """
    attacks = {name: threshold.ATTACKS[name] for name in ("confidence", "confidence_global")}
    if shadows >= likelihood.LiRA.fewest:
        attacks |= {"lira_online": likelihood.lira_online, "lira_offline": likelihood.lira_offline}
    return attacks | {
        "bavaria_t": bayesian.bavaria_t,
        "bavaria_n": bayesian.bavaria_n,
        "bavaria_t_offline": bayesian.bavaria_t_offline,
        "bavaria_n_offline": bayesian.bavaria_n_offline,
        "base_online": ratios.base_online,
        "base_offline": ratios.base_offline,
        "rmia_online": ratios.rmia_online,
        "rmia_offline": ratios.rmia_offline,
    }


def pairs(networks: Recipe, same_candidates: bool = True, **options) -> dict:
    """Attack name -> attack, for an attacker who holds several versions of each model: `Study.arm(..., beside=[original])`.

    Normal distributions of the signals of all versions together; what the first version adds to the others; and a network
    on all their answers.

    Args:
        networks, options: as in `yuan2022`.
        same_candidates: whether all models answer on the same candidates, as with random halves: then each candidate has
            its own distributions; else there is one for all members and one for all others.
    """
    each = {"pair": several.pair, "pair_added": several.pair_added} if same_candidates else {}
    of_all = {"pair_of_all": several.pair_of_all, "pair_nn": several.pair_nn(networks, **options)}
    return each | of_all


def labels_only(queries: int = 40, budget: int = 250) -> dict:
    """Attack name -> attack, for an attacker who sees only labels: the floor, robustness to noise, boundary distance.

    Args:
        queries: queries of the robustness to noise for each candidate, a multiple of 4.
        budget: largest number of queries of the distance to the boundary for each candidate.
    """
    return {
        "gap": threshold.gap,
        "noise_robustness": label_only.NoiseRobustness(queries=queries),
        "boundary_distance": boundary.BoundaryDistance(budget),
    }
