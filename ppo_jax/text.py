"""Numbers and intervals as text, worded alike in every message, table and picture."""

import math


def printable(text: str) -> str:
    r"""Return `text` with escapes for characters that a terminal obeys or does not show.

    Names may hold them: of files, of studies, in what another hand has written.

    >>> printable("a\x1b[31m \u202egnp.txt é")
    'a\\x1b[31m \\u202egnp.txt é'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "trial"), plural(9, "trial")
    ('1 trial', '9 trials')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def decimals(*values: float) -> int:
    """Return how many decimals to show numbers with that are read together.

    The smaller the largest of them, the more: returns may be in the hundreds, or 0 and 1.

    >>> decimals(499.8, -0.3), decimals(-3.5), decimals(0.98, 0.02), decimals(0.0, math.nan)
    (1, 2, 3, 1)
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 1 if largest >= 10 or largest == 0 else 2 if largest >= 2 else 3


def fixed(value: float, digits: int | None = None, *, signed: bool = False) -> str:
    """Return `value` with `digits` decimals, or as many as it needs; a zero has no minus sign.

    >>> fixed(499.96), fixed(-0.04, 1), fixed(0.456), fixed(28.6, signed=True)
    ('500.0', '0.0', '0.456', '+28.6')
    """
    digits = decimals(value) if digits is None else digits
    return f"{value:{'+' if signed else ''}z.{digits}f}"


def interval_text(
    interval: tuple[float, float], digits: int | None = None, *, signed: bool = False
) -> str:
    """Return the two ends of an interval.

    >>> interval_text((-0.99, 10.38), signed=True)
    '-1.0 to +10.4'
    """
    digits = decimals(*interval) if digits is None else digits
    low, high = (fixed(end, digits, signed=signed) for end in interval)
    return f"{low} to {high}"


def estimate_text(
    value: float,
    interval: tuple[float, float] | None,
    digits: int | None = None,
    *,
    signed: bool = False,
    unit: str = "seed",
    confidence: float = 0.95,
) -> str:
    """Return an estimate with its interval, for a sentence or a line of output.

    Args:
      value: the estimate.
      interval: None if the sample is a single `unit`, which gives no interval.
      digits: decimals, as many as needed if not given.
      signed: write a plus sign.
      unit: what the sample consists of.
      confidence: of the interval.

    >>> estimate_text(9.9, (6.7, 13.1), signed=True)
    '+9.9, 95% interval +6.7 to +13.1'
    >>> estimate_text(0.51, None, unit="episode")
    '0.510, no interval from a single episode'
    """
    digits = decimals(value, *(interval or ())) if digits is None else digits
    text = fixed(value, digits, signed=signed)
    if interval is None:
        return f"{text}, no interval from a single {unit}"
    ends = interval_text(interval, digits, signed=signed)
    return f"{text}, {confidence_text(confidence)} interval {ends}"


def confidence_text(confidence: float) -> str:
    """Return a confidence in percent, with as many digits as it needs.

    >>> [confidence_text(share) for share in (0.95, 0.97, 0.99625)]
    ['95%', '97%', '99.62%']
    """
    return f"{100 * confidence:.4g}%"
