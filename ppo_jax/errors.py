"""User-facing errors and did-you-mean hints.

Checks of single values that the whole package shares live here too; what a configuration
must satisfy as a whole is checked by its dataclass.
"""

import difflib
import importlib.util
import sys
from collections.abc import Iterable


class UserError(ValueError):
    """The user asked for something impossible; the message says what is possible.

    Command lines print the message as one line and exit with status 2.
    """


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return a ``; did you mean ...?`` hint for `name`, or an empty string.

    >>> nearest("CartPol-v1", ["CartPole-v1", "Acrobot-v1"])
    "; did you mean 'CartPole-v1'?"
    >>> nearest("xyz", ["CartPole-v1"])
    ''
    """
    by_lower_case = {candidate.lower(): candidate for candidate in allowed}
    matches = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    return f"; did you mean {by_lower_case[matches[0]]!r}?" if matches else ""


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ``UserError`` unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise UserError(
            f"{name} must be one of {', '.join(choices)}, "
            f"but got {value!r}{nearest(str(value), choices)}"
        )


def is_number(value: object) -> bool:
    """Return whether `value` is an int or float within the range of finite floats, not a bool."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


LARGEST_COUNT = 2**24
"""Loop counts are int32 and compared with float32, which is exact up to here."""

LARGEST_STEPS = 10**12
"""Largest number of environment steps, counted on the host in Python integers."""


def require_count(name: str, value: object, low: int = 1, high: int = LARGEST_COUNT) -> None:
    """Raise a ``UserError`` unless `value` is an integer from `low` to `high`, both included."""
    if type(value) is not int or not low <= value <= high:
        limit = f" and at most {high}" if type(value) is int and value > high else ""
        raise UserError(f"{name} must be an integer of at least {low}{limit}, but got {value!r}")


def require_package(module: str, extra: str, option: str) -> None:
    """Raise a ``UserError`` unless the package `module` is installed.

    Args:
      module: name to import.
      extra: extra of this project that installs it.
      option: command-line option that needs it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{option} needs the package {module}; install it with "
            f"`pip install 'ppo-jax-tune[{extra}]'`"
        )
