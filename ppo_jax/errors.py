"""Messages for users' mistakes; the errors themselves are plain ``ValueError``s."""

import difflib
from collections.abc import Iterable


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a ``; did you mean ...?`` hint for `name`, or an empty string.

    >>> nearest("CartPol-v1", ["CartPole-v1", "Acrobot-v1"])
    "; did you mean 'CartPole-v1'?"
    >>> nearest("xyz", ["CartPole-v1"])
    ''
    """
    by_lower_case = {candidate.lower(): candidate for candidate in allowed}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f"; did you mean {by_lower_case[matches[0]]!r}?" if matches else ""
