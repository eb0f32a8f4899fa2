"""Numbers and intervals as text, worded alike in every message, table and picture."""


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


def fixed(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """Return `value` with `digits` decimals; a zero has no minus sign.

    >>> fixed(499.96), fixed(-0.04), fixed(0.456, 2), fixed(28.6, signed=True)
    ('500.0', '0.0', '0.46', '+28.6')
    """
    return f"{value:{'+' if signed else ''}z.{digits}f}"


def interval_text(interval: tuple[float, float], digits: int = 1, *, signed: bool = False) -> str:
    """Return the two ends of an interval.

    >>> interval_text((-0.99, 0.38), signed=True)
    '-1.0 to +0.4'
    """
    low, high = (fixed(end, digits, signed=signed) for end in interval)
    return f"{low} to {high}"


def estimate_text(
    value: float,
    interval: tuple[float, float] | None,
    digits: int = 1,
    *,
    signed: bool = False,
    unit: str = "seed",
    confidence: float = 0.95,
) -> str:
    """Return an estimate with its interval, for a sentence or a line of output.

    Args:
      value: the estimate.
      interval: None if the sample is a single `unit`, which gives no interval.
      digits: decimals.
      signed: write a plus sign.
      unit: what the sample consists of.
      confidence: of the interval.

    >>> estimate_text(9.9, (6.7, 13.1), signed=True)
    '+9.9, 95% interval +6.7 to +13.1'
    >>> estimate_text(9.9, None, unit="episode")
    '9.9, no interval from a single episode'
    """
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
