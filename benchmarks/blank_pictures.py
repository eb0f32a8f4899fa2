"""Pictures without anything on them: drawing takes longer than all else that a report needs."""

import contextlib
from collections.abc import Iterator
from typing import Any

from matplotlib.backend_bases import FigureCanvasBase, register_backend
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG


class _BlankPNG(FigureCanvasAgg):
    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        figure.clear()


class _BlankSVG(FigureCanvasSVG):
    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        figure.clear()


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Have the block write figures of every kind as blank ones."""
    draw_nothing()
    try:
        yield
    finally:
        register_backend("png", FigureCanvasAgg)
        register_backend("svg", FigureCanvasSVG)


def draw_nothing() -> None:
    """Have this process write figures of every kind as blank ones."""
    kinds: dict[str, type[FigureCanvasBase]] = {"png": _BlankPNG, "svg": _BlankSVG}
    for name, canvas in kinds.items():
        register_backend(name, canvas)
