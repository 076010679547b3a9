"""From the words of the code and of the results table to the words of tables and pictures."""

import re

from mialib.measures import Estimate
from mialib.study.rows import is_control

# what guessing gets
CHANCE = {"auc": 0.5, "balanced_accuracy": 0.5, "tpr_at_0.01": 0.01, "tpr_at_0.001": 0.001}
LEVEL_NAMES = {"sparsity": "sparsity", "ratio": "compression of the weights", "bits": "bit-width"}
WORDS = {
    # compression
    "admm": "ADMM",
    "admm_channels": "ADMM on channels",
    "affine_tensor": "affine, one scale a tensor",
    "dorefa": "DoReFa",
    "l1_filter": "filter pruning (L1)",
    "l1_global": "global magnitude pruning",
    "l1_unstructured": "magnitude pruning",
    "l2_filter": "filter pruning (L2)",
    "network slimming": "network slimming",  # already in words
    "slimming": "network slimming",
    # defences
    "adversarial_regularization": "adversarial regularisation",
    "dp_sgd": "DP-SGD",
    "hamp": "HAMP",
    "memguard": "MemGuard",
    "mmd": "MMD",
    "mmd_mixup": "MMD and mix-up",
    "one_hot": "one-hot",
    "ppb": "PPB",
    "relax_loss": "RelaxLoss",
    "relaxloss": "RelaxLoss",
    "selena": "SELENA",
    # attacks
    "base_offline": "BASE, offline",
    "base_online": "BASE, online",
    "bavaria_n": "BaVarIA-n",
    "bavaria_n_offline": "BaVarIA-n, offline",
    "bavaria_t": "BaVarIA-t",
    "bavaria_t_offline": "BaVarIA-t, offline",
    "blindmi": "BlindMI",
    "confidence_global": "confidence, one threshold",
    "entropy_global": "entropy, one threshold",
    "lira_offline": "LiRA, offline",
    "lira_online": "LiRA, online",
    "modified_entropy_global": "modified entropy, one threshold",
    "nn": "neural network",
    "nn_class": "neural network and class",
    "nn_class_adam": "neural network and class, Adam",
    "noise_robustness": "robustness to noise",
    "nsh": "NSH",
    "nsh_log": "NSH on logarithms",
    "ranked_nn": "neural network, sorted scores",
    "rmia_offline": "RMIA, offline",
    "rmia_online": "RMIA, online",
    "samia": "SAMIA",
    "top1": "largest score",
    "top3_nn": "neural network, three scores",
    # metrics
    "auc": "AUC",
    "fpr": "FPR",
    "generalization_gap": "generalisation gap",
    "tpr": "TPR",
    "tpr_at_0.01": "TPR at 1% FPR",
    "tpr_at_0.001": "TPR at 0.1% FPR",
}
_PURIFIERS = {"H": "a decoder", "I": "a judge"}  # whom a purifier G plays against
_NAMES = re.compile(
    rf"(?<![\w.])({'|'.join(map(re.escape, sorted(WORDS, key=len, reverse=True)))})(?!\w|\.\d)"
)
_GAMES = re.compile(r"(?:(?<=^)|(?<=, ))G((?: \+ [HI])*)(?=$|[,:])")


def in_words(text: str) -> str:
    """`text` with each code name in it put into words; those of no known name with spaces for underscores.

    in_words("dp_sgd 0.3, whole_pipeline") is "DP-SGD 0.3, whole pipeline"; mathematics ($...$) stays as it is.
    """
    if text == "none":
        return "no defence"
    if "$" in text:
        return text
    text = _GAMES.sub(_game, _NAMES.sub(lambda found: WORDS[found[1]], text))
    return re.sub(r"(?<=\w)_(?=\w)", " ", text)


def _game(found: re.Match) -> str:
    against = " and ".join(_PURIFIERS[letter] for letter in found[1].replace(" + ", ""))
    return f"purifier against {against}" if against else "purifier"


def metric_name(metric: str) -> str:
    """What a metric is called on an axis."""
    return in_words(metric)


def model_name(compression: str, level: float | None) -> str:
    """What a model is called in tables and pictures: original, control, "l1_filter 0.7" or "dorefa, 4 bits"."""
    if compression == "none":
        return "original"
    if is_control(level):
        return "control"
    if level < 1:
        return f"{compression} {level:g}"
    return f"{compression}, {width_name(level)}"


def width_name(bits: float) -> str:
    """A bit-width in words: "1 bit", "1.58 bits"."""
    return f"{bits:g} bit{'s' if bits > 1 else ''}"


def setting_name(
    compression: str,
    level: float | None,
    variant: str | None,
    defense: str | None,
    defense_strength: float | None,
    adversary: str | None = None,
    knowledge: str | None = None,
) -> str:
    """What a setting is called in tables, from its columns: "l1_filter 0.7", "ppb 4 adaptive, known members"."""
    by = ", known members" if knowledge == "known_members" else ""  # shadows are the rule
    if defense in (None, "none"):
        return (variant or model_name(compression, level)) + by
    strength = "" if defense_strength is None else f" {defense_strength:g}"
    return f"{defense}{strength}" + "".join(f" {part}" for part in (variant, adversary) if part) + by


def with_interval(estimate: Estimate, sign: str = "") -> str:
    """An estimate as "0.612 [0.597, 0.627]"; with the sign "+" as "+0.012 [-0.003, +0.027]"."""
    return _with_ends(*(f"{number:{sign}.3f}" for number in estimate))


def in_points(estimate: Estimate) -> str:
    """A difference of shares in hundredths, as "-14.0 [-15.2, -12.8]"."""
    return _with_ends(*(f"{100 * number:+.1f}" for number in estimate))


def _with_ends(value: str, low: str, high: str) -> str:
    """An interval that is not known, say of a single target, is said to be none."""
    return f"{value} (no interval)" if "nan" in low + high else f"{value} [{low}, {high}]"
