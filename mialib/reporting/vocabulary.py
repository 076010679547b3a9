"""From the words of the results table to the words of tables and pictures."""


def model_name(compression: str, level: float | None) -> str:
    """What a model is called in tables and pictures: original, control, "l1_filter 0.7" or "dorefa, 4 bits"."""
    if compression == "none":
        return "original"
    if is_control(level):
        return "control"
    if level < 1:
        return f"{compression} {level:g}"
    return f"{compression}, {level:g} bit{'s' if level > 1 else ''}"


def is_control(level: float | None) -> bool:
    """Whether nothing is compressed at this level: a sparsity of 0, or the 32 bits of full precision."""
    return level in (0, 32)
