"""Pictures of examples: members and non-members, private faces and what was redrawn of them.

Figures are built without pyplot, so that nothing is registered, shown or left open. A notebook shows one as
the last line of a cell, after `%matplotlib inline` in its setup.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mialib.figures import alt, style
from mialib.measures import metrics
from mialib.reporting.vocabulary import in_words

PICTURE = 0.8  # inches; width of a picture in `gallery`, less where many stand in a row


@style.theme()
def examples(data, member, nonmember, count: int = 16) -> Figure:
    """The first `count` members and non-members of one model: pictures, or rows of features as stripes.

    data: a Dataset; member, nonmember: bool (n,).
    """
    picture, panels = style.figure(6.4, 1.5 if data.is_image else 2.6, columns=1, rows=2)
    pairs = ("members", member), ("non-members", nonmember)
    for axes, (title, mask) in zip(panels, pairs, strict=True):
        chosen = mask.nonzero()[:count, 0].to(data.x.device)
        x = data.x[chosen].cpu().numpy()
        if data.is_image:
            x = np.concatenate(list(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])), axis=2).transpose(1, 2, 0)
        axes.imshow(x, cmap="gray", aspect="equal" if data.is_image else "auto", interpolation="nearest")
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    kind = "pictures" if data.is_image else "rows of features as stripes"
    shown = ", ".join(f"{min(count, int(mask.sum()))} {title}" for title, mask in pairs)
    picture.alt = f"The first {kind} of one model: {shown}."
    return picture


@style.theme()
def gallery(rows: Mapping, captions: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """One row of pictures for each name, one above the other, to be compared column by column.

    rows: name -> pictures (n, c, h, w) with one or three channels, (n, h, w), or features (n, d), which are drawn as
        stripes; all in [0, 1], the same n in each row. Arrays, or tensors on any device.
    captions: name of a row -> n short texts below its pictures, say their errors.
    Raises ValueError for rows of different n, other shapes or values, and captions that fit no row.
    """
    rows = {name: metrics.numbers(pictures) for name, pictures in rows.items()}
    captions = {name: list(texts) for name, texts in (captions or {}).items()}
    count = _check_gallery(rows, captions)
    gap, line = 0.06, 0.19  # between pictures, height of a line of text; the unit is a picture's width
    figure = alt.Picture()  # its size is known at the end
    axes = figure.add_axes((0, 0, 1, 1))
    top, middles = 0.0, []
    for name, pictures in rows.items():
        if pictures.ndim == 2:
            pictures, height = pictures[:, None], 1 - gap  # a pixel high, and stretched
        else:
            height = (1 - gap) * pictures.shape[-2] / pictures.shape[-1]
        if pictures.ndim == 4:
            pictures = np.moveaxis(pictures, 1, 3)
        for column, picture in enumerate(pictures):
            place = (column + gap / 2, column + 1 - gap / 2, top + height, top)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=place)
        for column, text in enumerate(captions.get(name, [])):
            axes.text(column + 0.5, top + height + 0.02, text, ha="center", va="top", fontsize=7)
        middles.append(top + height / 2)
        lines = max((text.count("\n") + 1 for text in captions.get(name, [])), default=0)
        top += height + gap + line * lines
    axes.set(xlim=(0, count), ylim=(top, 0), xticks=[], aspect="auto")
    axes.set_yticks(middles, [style.folded(in_words(name), 24) for name in rows])
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    figure.draw_without_rendering()
    labels = max(label.get_window_extent().width for label in axes.get_yticklabels()) / figure.dpi + 0.1
    size = min(PICTURE, (style.WIDTH - labels) / count)
    width, height = labels + size * count, size * top
    figure.set_size_inches(width, height)
    axes.set_position((labels / width, 0, size * count / width, 1))
    kind = (
        "pictures" if any(pictures.ndim > 2 for pictures in rows.values()) else "rows of features as stripes"
    )
    figure.alt = (
        f"{count} {kind} in each of {len(rows)} lines, to be compared: {alt.listed(map(in_words, rows))}."
    )
    if captions:
        written = "; ".join(
            f"{in_words(name)}: {', '.join(texts)}" for name, texts in list(captions.items())[:4]
        )
        figure.alt += f" Written below the first lines: {written}."
    return figure


def _check_gallery(rows: dict, captions: dict) -> int:
    """The number of pictures in each row."""
    if not rows:
        raise ValueError("rows is empty; it must hold at least one row of pictures")
    count = len(next(iter(rows.values())))
    for name, pictures in rows.items():
        if pictures.ndim not in (2, 3, 4) or pictures.ndim == 4 and pictures.shape[1] not in (1, 3):
            raise ValueError(
                f"rows[{name!r}] has shape {pictures.shape}; it must be (n, 1 or 3, h, w), (n, h, w) or (n, d)"
            )
        if len(pictures) != count or count == 0:
            raise ValueError(
                f"rows[{name!r}] has {len(pictures)} pictures, the first row {count}; equal numbers needed"
            )
        if not (pictures.min() >= 0 and pictures.max() <= 1):
            raise ValueError(
                f"rows[{name!r}] holds {pictures.min():g} to {pictures.max():g}; pixels must be in [0, 1]"
            )
    for name, texts in captions.items():
        if name not in rows:
            raise ValueError(f"captions names {name!r}; there are {list(rows)}")
        if len(texts) != count:
            raise ValueError(f"captions[{name!r}] has {len(texts)} texts for {count} pictures")
    return count
