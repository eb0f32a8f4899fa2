"""Pictures and films without anything on them: drawing takes longest of all a report needs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase, register_backend
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from ppo_jax.environments import Environment
from ppo_jax.playback import drawing
from ppo_jax.playback.film import Film
from ppo_jax.policy import Policy


class _BlankPNG(FigureCanvasAgg):
    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        figure.clear()


class _BlankSVG(FigureCanvasSVG):
    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        figure.clear()


def _blank_film(policy: Policy, environment: Environment, most: int = 1) -> Film:  # noqa: ARG001
    return Film(1.0, iter([np.zeros((2, 2, 3), np.uint8)]))


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Have the block write figures of every kind as blank ones."""
    in_short = drawing.in_short
    draw_nothing()
    try:
        yield
    finally:
        register_backend("png", FigureCanvasAgg)
        register_backend("svg", FigureCanvasSVG)
        drawing.in_short = in_short


def draw_nothing() -> None:
    """Have this process write figures of every kind as blank ones, and films of one picture."""
    drawing.in_short = _blank_film
    kinds: dict[str, type[FigureCanvasBase]] = {"png": _BlankPNG, "svg": _BlankSVG}
    for name, canvas in kinds.items():
        register_backend(name, canvas)
