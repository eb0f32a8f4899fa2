"""Checks of values in files and storages, which anyone may edit.

They only look at types. Whether a value belongs to the study is checked where it is used.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppo_jax.errors import UserError, is_number, require_count


@contextlib.contextmanager
def named(place: object) -> Iterator[None]:
    """Say in every ``UserError`` of the block in which place the value is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def table(value: Any, name: str) -> Mapping[str, Any]:
    """Return `value`.

    Raises:
      UserError: unless it is a table, as JSON's objects.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{name} must be a table, but got {_short(value)}")
    return value


def items(value: Any, name: str) -> Sequence[Any]:
    """Return `value`.

    Raises:
      UserError: unless it is a list.
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{name} must be a list, but got {_short(value)}")
    return value


def number(value: Any, name: str) -> Any:
    """Return `value`.

    Raises:
      UserError: unless it is a finite number.
    """
    if not is_number(value):
        raise UserError(f"{name} must be a number, but got {_short(value)}")
    return value


def count(value: Any, name: str) -> int:
    """Return `value`.

    Raises:
      UserError: unless it is a positive integer.
    """
    require_count(name, value)
    return int(value)


def numbers(value: Any, name: str) -> np.ndarray:
    """Return a list of numbers, or of lists of them, as floats; NaN for None.

    Raises:
      UserError: unless it is such a list, and as long in all places.
    """
    for item in items(value, name):
        if isinstance(item, (list, tuple)):
            numbers(item, name)
        elif not (item is None or isinstance(item, float) or is_number(item)):
            raise UserError(f"{name} must be numbers, but got {_short(item)}")
    try:
        return np.array(value, np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} must be a list of lists of one length") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
