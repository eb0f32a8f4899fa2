"""Values as text for people: terminal, report.html and pictures.

Intervals inside sentences come from :mod:`ppo_jax.text`. Machines read JSON, which holds every
digit.
"""

import math
from collections.abc import Mapping
from typing import Any

from ppo_jax.statistics import CONFIDENCE
from ppo_jax.text import confidence_text, fixed, interval_text
from ppo_jax.text import plural as plural
from tune.analysis.bounds import BoundHit
from tune.evidence.statistics import Estimate
from tune.protocol.space import COMPLEMENT

MISSING = "–"


def number(value: Any) -> str:
    """Return a setting, hyperparameter or p-value, also a list or a table of them.

    >>> [number(v) for v in (None, True, 3e-4, 0.00031415, 2048, 494.57, "relu", -0.0)]
    ['–', 'yes', '0.0003', '0.0003142', '2048', '494.6', 'relu', '0']
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:z.4g}" if math.isfinite(value) else MISSING
    if isinstance(value, (list, tuple)):
        return ", ".join(map(number, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {number(v)}" for k, v in value.items()) or MISSING
    return str(value)


def score(value: float | None, digits: int | None = None, *, signed: bool = False) -> str:
    """Return a return or a score, with as many decimals as it needs where that is not said.

    >>> score(494.57), score(-0.5), score(None)
    ('494.6', '-0.500', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    return fixed(value, digits, signed=signed)


def parameter(name: str) -> str:
    """Return what is drawn under a parameter's name in Optuna.

    >>> parameter("one_minus_gamma"), parameter("learning_rate")
    ('1 − gamma', 'learning_rate')
    """
    return f"1 − {name.removeprefix(COMPLEMENT)}" if name.startswith(COMPLEMENT) else name


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.163), percent(0.0042, 1)
    ('16%', '0.4%')
    """
    return f"{share:z.{digits}%}"


def estimate(found: Estimate | None, digits: int, *, signed: bool = False) -> str:
    """Return an estimate with its interval, for a table; 95% where it says nothing else.

    >>> estimate(Estimate(9.9, (6.7, 13.1)), 1, signed=True)
    '+9.9 (+6.7 to +13.1)'
    >>> estimate(Estimate(0.5, (0.4, 0.6), confidence=0.97), 3)
    '0.500 (97%: 0.400 to 0.600)'
    >>> estimate(None, 1)
    '–'
    """
    if found is None:
        return MISSING
    text = fixed(found.value, digits, signed=signed)
    if found.interval is None:
        return text
    ends = interval_text(found.interval, digits, signed=signed)
    if found.confidence != CONFIDENCE:
        ends = f"{confidence_text(found.confidence)}: {ends}"
    return f"{text} ({ends})"


def steps(count: int) -> str:
    """Return a number of environment steps.

    >>> steps(1_000_000)
    '1,000,000'
    """
    return f"{count:,}"


def steps_in_short(count: int) -> str:
    """Return a number of environment steps, rounded.

    >>> [steps_in_short(count) for count in (512, 50_000, 1_234_567, 56_000_000, 2_000_000_000)]
    ['512', '50k', '1.23M', '56M', '2B']
    """
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{float(f'{count / size:.3g}'):g}{unit}"
    return str(count)


def duration_left(low: float, high: float) -> str:
    """Return how long something takes that ends between `low` and `high` seconds from now.

    One number where the two are close.

    >>> duration_left(37, 40), duration_left(150, 160), duration_left(20, 300)
    ('40 s', '2.7 min', '0.3 to 5.0 min')
    >>> duration_left(900, 1500), duration_left(7000, 14000)
    ('15 to 25 min', '1.9 to 3.9 h')
    """
    size, unit = next(
        (size, unit)
        for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (math.inf, 3600, "h"))
        if high < limit
    )
    digits = 1 if unit == "h" or (unit == "min" and high < 600) else 0
    shown = [f"{seconds / size:.{digits}f}" for seconds in (low, high)]
    if high <= 1.25 * low or high < 10:
        shown = shown[1:]
    return f"{' to '.join(shown)} {unit}"


def duration(seconds: float | None) -> str:
    """Return a duration, with the unit that suits its length.

    >>> [duration(s) for s in (None, 0.42, 59.6, 754.0, 8000.0)]
    ['–', '0.4 s', '60 s', '12.6 min', '2.2 h']
    """
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def bound_sentence(name: str, hit: BoundHit) -> str:
    """Return which bound of the search space the best trials hit, and where to move it.

    >>> bound_sentence("gamma", BoundHit("low", 0.95, 0.92, 5, 6))
    '5 of the 6 best trials are at or near the lower bound 0.95 of gamma: widen it to 0.92'
    """
    side = "lower" if hit.side == "low" else "upper"
    return (
        f"{hit.count} of the {hit.best} best trials are at or near the {side} bound "
        f"{number(hit.bound)} of {name}: widen it to {number(hit.widen_to)}"
    )
