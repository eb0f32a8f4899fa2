"""How results look in a notebook: a heading, a sentence, a picture, a small table.

What a class shows of itself is in its ``_repr_html_``, which notebooks call.
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

from ppo_jax.config import AgentConfig, changed
from ppo_jax.hyperparameters import Hyperparameters

if TYPE_CHECKING:  # Nothing else here needs Matplotlib.
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


def changes(settings: Hyperparameters | AgentConfig) -> str:
    """Return what differs from the defaults, as keyword arguments.

    >>> changes(Hyperparameters(gamma=0.9, n_epochs=5))
    'gamma=0.9, n_epochs=5'
    """
    differing = [f"{name}={getattr(settings, name)!r}" for name in changed(settings)]
    return ", ".join(differing) or "the defaults"
