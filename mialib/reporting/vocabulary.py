"""From the words of the code and of the results table to the words of tables and pictures."""

from mialib.measures import Estimate
from mialib.study.rows import is_control

# what guessing gets
CHANCE = {"auc": 0.5, "balanced_accuracy": 0.5, "tpr_at_0.01": 0.01, "tpr_at_0.001": 0.001}
LEVEL_NAMES = {"sparsity": "sparsity", "ratio": "compression of the weights", "bits": "bit-width"}
_METRIC_NAMES = {"auc": "AUC", "tpr_at_0.01": "TPR at 1% FPR", "tpr_at_0.001": "TPR at 0.1% FPR"}


def metric_name(metric: str) -> str:
    """What a metric is called on an axis."""
    return _METRIC_NAMES.get(metric, metric.replace("_", " ").replace("generalization", "generalisation"))


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
    value, low, high = (f"{number:{sign}.3f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def in_points(estimate: Estimate) -> str:
    """A difference of shares in hundredths, as "-14.0 [-15.2, -12.8]"."""
    value, low, high = (f"{100 * number:+.1f}" for number in estimate)
    return f"{value} [{low}, {high}]"
