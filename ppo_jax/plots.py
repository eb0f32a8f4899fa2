"""Drawing without a display, and the learning curve of a training run."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, ScalarFormatter

from ppo_jax.files import replacing

BLUE, ORANGE, GREEN, GREY, DARK = "#0072b2", "#d55e00", "#009e73", "#9ca3af", "#374151"
"""Okabe and Ito's blue, vermilion and bluish green, which colour-blind readers tell apart."""
LINE = "#e5e7eb"

COLOR_NAMES = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    GREY: "grey",
    DARK: "dark",
    LINE: "line",
}
"""Colour -> the variable of a page's style sheet that stands for it."""

LEAST_SPAN = 0.05
"""An axis shows at least this share of its largest value, so that rounding looks like nothing."""

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": LINE,
    "text.color": DARK,
    "axes.edgecolor": DARK,
    "axes.labelcolor": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of `width` × `height` inches and write it as PNG, whole or not at all."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format="png")


def inline_svg(draw: Callable[[Axes], None], width: float, height: float) -> str:
    """Return what `draw` draws on axes of `width` × `height` inches, as SVG for a page.

    The colours of this module become the style sheet's variables ``--blue``, ``--orange``,
    ``--green``, ``--grey``, ``--dark`` and ``--line``, so that a page can be light or dark;
    text takes the page's font.
    """
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, name in COLOR_NAMES.items():
        text = text.replace(color, f"var(--{name})")
    return re.sub(r" (width|height)=\"[\d.]+pt\"", "", text, count=2)


def show_span(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Widen the axis `which`, x or y, once all is drawn, where it is zoomed into rounding."""
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    missing = LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
    if missing > 0:
        limits = low - missing / 2, high + missing / 2
        _ = axes.set_ylim(limits) if which == "y" else axes.set_xlim(limits)
    axis = axes.yaxis if which == "y" else axes.xaxis
    if isinstance(axis.get_major_formatter(), ScalarFormatter):
        axes.ticklabel_format(axis=which, useOffset=False)


def label_steps(axes: Axes) -> None:
    """Label an axis of environment steps and of greedy returns over them."""
    axes.set(xlabel="environment steps", ylabel="mean return (greedy)")
    axes.xaxis.set_major_formatter(FuncFormatter(_short_steps))


def draw_learning_curve(
    axes: Axes, title: str, steps: Sequence[int] | np.ndarray, returns: np.ndarray
) -> None:
    """Draw ``[checkpoints, seeds]`` returns: a thin line a seed, and their mean."""
    axes.plot(steps, returns, color=BLUE, alpha=0.35, linewidth=1)
    mean = np.ma.masked_invalid(returns).mean(axis=1).filled(np.nan)
    axes.plot(steps, mean, color=BLUE, marker="o", linewidth=2.5, label="mean over seeds")
    axes.set_title(title)
    label_steps(axes)
    axes.legend(loc="best")


def _short_steps(steps: float, _: int) -> str:
    return f"{steps / 1e6:g}M" if steps >= 1e6 else f"{steps / 1e3:g}k" if steps else "0"
