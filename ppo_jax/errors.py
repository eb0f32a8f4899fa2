"""Users' mistakes: one exception, and the hint that belongs into its message."""

import difflib
import importlib.util
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says what can.

    Command lines print the message as one line and exit with status 2.
    """


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


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ``UserError`` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise UserError(
            f"{name} must be one of {', '.join(choices)}, "
            f"but got {value!r}{nearest(str(value), choices)}"
        )


def require_count(name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raise a ``UserError`` unless `value` is an integer from `low` to `high`, both included."""
    fits = type(value) is int and low <= value and (high is None or value <= high)
    if not fits:
        limit = "" if high is None else f" and at most {high}"
        raise UserError(f"{name} must be an integer of at least {low}{limit}, but got {value!r}")


def require_package(module: str, extra: str, option: str) -> None:
    """Raise a ``UserError`` unless `module`, which the extra `extra` installs, is there."""
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{option} needs the package {module}; install it with "
            f"`pip install 'ppo-jax-tune[{extra}]'`"
        )
