"""How results look in a notebook: a heading, a sentence, a picture, a small table.

What a class shows of itself is in its ``_repr_html_``, which notebooks call.
"""

import dataclasses
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Nothing else here needs Matplotlib.
    from _typeshed import DataclassInstance
    from matplotlib.axes import Axes


def card(
    title: str,
    rows: Mapping[str, object],
    *,
    text: str = "",
    draw: "Callable[[Axes], None] | None" = None,
) -> str:
    """Return HTML that shows a result.

    Args:
      title: a heading.
      rows: name -> value, shown as a table.
      text: a sentence below the heading.
      draw: draws on axes.
    """
    left = ' style="text-align:left"'
    lines = "".join(
        f"<tr><th{left}>{escape(name)}</th><td{left}>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    parts = [
        f"<strong>{escape(title)}</strong>",
        f"<p>{escape(text)}</p>" if text else "",
        "" if draw is None else _picture(draw),
        f"<table>{lines}</table>",
    ]
    return f'<div style="max-width:45em">{"".join(parts)}</div>'


def _picture(draw: "Callable[[Axes], None]") -> str:
    from ppo_jax.plots import BLUE, GREEN, GREY, ORANGE, inline_svg

    # Text and lines go with a light and a dark page.
    style = (
        f"--blue:{BLUE};--orange:{ORANGE};--green:{GREEN};--grey:{GREY};--dark:currentColor;"
        "--line:#88888844"
    )
    return f'<div style="{style}">{inline_svg(draw, 6.4, 3.6)}</div>'


def changed(settings: "DataclassInstance") -> str:
    """Return the fields of a dataclass that differ from their defaults, as keyword arguments.

    >>> from ppo_jax.hyperparameters import Hyperparameters
    >>> changed(Hyperparameters(gamma=0.9, n_epochs=5))
    'gamma=0.9, n_epochs=5'
    """
    differing = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    ]
    return ", ".join(differing) or "the defaults"
