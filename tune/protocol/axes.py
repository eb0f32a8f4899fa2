"""Tuned parameters as axes of the unit cube.

An :class:`Axis` maps the values of one parameter to [0, 1] and back, and integrates over it.
The models over all axes are in :mod:`tune.search.model`, which proposes trials, and in
:mod:`tune.analysis.surrogate`, which explains them.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tune.protocol.trials import TrialRecord


@dataclasses.dataclass(frozen=True)
class Axis:
    """A tuned parameter, scaled to [0, 1].

    Each value of an integer or a list of choices owns a cell and is represented by the middle
    of that cell. Cells are equally wide on the parameter's scale, linear or logarithmic.

    Attributes:
      name: the parameter.
      distribution: where its values come from.
    """

    name: str
    distribution: BaseDistribution

    @property
    def is_list(self) -> bool:
        """Whether the parameter is a choice from a list."""
        return isinstance(self.distribution, CategoricalDistribution)

    @property
    def is_ordered(self) -> bool:
        """Whether values that are close on the axis are alike; two values always are."""
        if not isinstance(self.distribution, CategoricalDistribution):
            return True
        choices = self.distribution.choices
        return len(choices) <= 2 or all(type(choice) in (int, float) for choice in choices)

    @property
    def low(self) -> Any:
        """The lowest value, or the first choice."""
        return self.values[0] if self.values is not None else self._range.low

    @property
    def high(self) -> Any:
        """The highest value, or the last choice."""
        return self.values[-1] if self.values is not None else self._range.high

    @property
    def is_log(self) -> bool:
        """Whether the parameter's scale is logarithmic."""
        return bool(getattr(self.distribution, "log", False))

    @functools.cached_property
    def values(self) -> tuple[Any, ...] | None:
        """All values of an integer or a list of choices; None for real numbers.

        Numeric choices are sorted.
        """
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            numeric = all(type(choice) in (int, float) for choice in choices)
            return tuple(sorted(choices)) if numeric else tuple(choices)
        if isinstance(distribution, IntDistribution):
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        return None

    def to_unit(self, value: Any) -> float:
        """Return the point in [0, 1] that represents `value`."""
        if self.is_list:
            assert self.values is not None
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high = self._ends
        return (self._scale(value) - low) / (high - low)

    def from_unit(self, point: float) -> Any:
        """Return the value at `point` of [0, 1], an int for an integer parameter."""
        if self.is_list:
            assert self.values is not None
            return self.values[min(int(point * len(self.values)), len(self.values) - 1)]
        if point in (0.0, 1.0):  # The exact bounds, without the rounding errors of the scale.
            return self.high if point else self.low
        low, high = self._ends
        scaled = low + point * (high - low)
        value = math.exp(scaled) if self.is_log else scaled
        return round(value) if self.values is not None else value

    def grid(self, points: int = 101) -> np.ndarray:
        """Return points in [0, 1]: the middles of all cells, or `points` evenly spaced ones."""
        if self.values is None or len(self.values) > points:
            return np.linspace(0.0, 1.0, points)
        return np.array([self.to_unit(value) for value in self.values])

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Return points and weights, ``[nodes]`` each; weighted sums are means over the axis."""
        if self.values is not None:
            cells = self.grid(len(self.values))
            edges = np.concatenate([[0.0], (cells[1:] + cells[:-1]) / 2, [1.0]])
            return cells, np.diff(edges)
        points, weights = np.polynomial.legendre.leggauss(24)
        return (points + 1) / 2, weights / 2

    @property
    def _range(self) -> FloatDistribution | IntDistribution:
        assert isinstance(self.distribution, (FloatDistribution, IntDistribution))
        return self.distribution

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        half = self._range.step / 2 if isinstance(self._range, IntDistribution) else 0.0
        return self._scale(self._range.low - half), self._scale(self._range.high + half)

    def _scale(self, value: float) -> float:
        return math.log(value) if self.is_log else float(value)


def find_axis(trials: Sequence[TrialRecord], name: str) -> Axis | None:
    """Return the axis of the parameter `name`; None if no trial has it."""
    spaces = (t.distributions[name] for t in trials if name in t.distributions)
    distribution = next(spaces, None)
    return None if distribution is None else Axis(name, distribution)


def common_axes(trials: Sequence[TrialRecord]) -> list[Axis]:
    """Return the parameters that vary and have the same distribution in all of `trials`."""
    if not trials:
        return []
    first, *others = trials
    candidates = ((name, first.distributions[name]) for name in first.params)
    return [
        Axis(name, distribution)
        for name, distribution in candidates
        if not distribution.single()
        and all(trial.distributions.get(name) == distribution for trial in others)
    ]
