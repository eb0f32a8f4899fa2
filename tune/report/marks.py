"""What stands for winner, baseline and the best trial: alike in pictures, tables and the legend."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE
from tune.report.results import StudyResults

WINNER, BASELINE, BEST, RECOMMENDED = "winner", "baseline", "best on tuning seeds", "recommended"
COMPLETE, PRUNED = "complete", "pruned"


@dataclasses.dataclass(frozen=True)
class Mark:
    """How a kind of trial is drawn.

    Attributes:
      glyph: in text.
      marker: of Matplotlib.
      color: of both.
      size: of the marker, in points.
      filled: or an outline.
    """

    glyph: str
    marker: str
    color: str
    size: float
    filled: bool = True

    def draw(self, axes: Axes, x: Any, y: Any, label: str, **changes: Any) -> None:
        """Draw it at points, over all else."""
        style = {
            "linestyle": "none",
            "marker": self.marker,
            "markersize": self.size,
            "color": self.color,
            "markerfacecolor": self.color if self.filled else "none",
            "markeredgewidth": 0.5 if self.filled else 1.8,
            "zorder": 6,
            "clip_on": False,
        }
        axes.plot(x, y, label=label, **{**style, **changes})


MARKS = {
    WINNER: Mark("★", "*", GREEN, 14),
    BEST: Mark("▲", "^", GREEN, 8),
    BASELINE: Mark("◆", "D", DARK, 7),
    RECOMMENDED: Mark("◯", "o", ORANGE, 16, filled=False),
    COMPLETE: Mark("●", "o", BLUE, 6),
    PRUNED: Mark("×", "x", GREY, 6, filled=False),
}
"""Kind of trial -> its mark; of a trial of several kinds, the first, and a ring if recommended."""


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which trials a study has named.

    Attributes:
      of: number of a trial -> what it is, in the order of :data:`MARKS`.
    """

    of: Mapping[int, tuple[str, ...]]

    @classmethod
    def in_study(cls, results: StudyResults) -> "Roles":
        """Return the roles in a study, as far as it has come."""
        recommended = results.recommendation
        numbers = {
            WINNER: None if results.winner is None else results.winner.number,
            BEST: None if results.best is None else results.best.number,
            BASELINE: None if results.baseline is None else results.baseline.number,
            RECOMMENDED: None if recommended is None else recommended.candidate.number,
        }
        found: dict[int, tuple[str, ...]] = {}
        if numbers[WINNER] == numbers[BASELINE]:  # No trial has beaten it.
            del numbers[WINNER]
        for role, number in numbers.items():
            # That the winner was the best trial as well says nothing more.
            if number is not None and not (role == BEST and WINNER in found.get(number, ())):
                found[number] = (*found.get(number, ()), role)
        return cls(found)

    def draw(self, axes: Axes, number: int, x: float, y: float) -> None:
        """Draw the marks of a trial that has a role at a point."""
        first, *others = self.names(number)
        for role in (first, *(role for role in others if role in (BASELINE, RECOMMENDED))):
            MARKS[role].draw(axes, x, y, role)

    def names(self, number: int) -> Sequence[str]:
        """Return what a trial is."""
        return self.of.get(number, ())


def draw_legend(figure: Figure) -> None:
    """Draw one legend below a figure, for all of its axes."""
    found: dict[str, Any] = {}
    for axes in (axes for axes in figure.axes if axes.get_legend() is None):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    order = {label: place for place, label in enumerate(MARKS)}
    labels = sorted(found, key=lambda label: order.get(label, len(order)))
    if labels:
        figure.legend(
            [found[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=len(labels) if len(labels) <= 7 else -(-len(labels) // 2),
            fontsize=10,
        )
