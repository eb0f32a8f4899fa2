"""Fields of dataclasses that may be given in more forms than the one they are kept in."""

from collections.abc import Callable
from typing import Generic, TypeVar

Given = TypeVar("Given")
Kept = TypeVar("Kept")


class Converted(Generic[Given, Kept]):
    """A field that keeps ``convert(given)``.

    It is a descriptor, so type checkers know both forms: what ``__init__`` takes and what the
    attribute is. See "Descriptor-typed fields" in the documentation of :mod:`dataclasses`.

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     numbers: Converted[list[int], tuple[int, ...]] = Converted(tuple, [])
    >>> Example([1, 2]).numbers
    (1, 2)

    Args:
      convert: a function that leaves alone what it has returned.
      default: of the field, in any form.
    """

    def __init__(self, convert: Callable[[Given], Kept], default: Given) -> None:
        self._convert, self._default = convert, convert(default)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Kept:
        if instance is None:
            return self._default
        kept: Kept = vars(instance)[self._name]
        return kept

    def __set__(self, instance: object, value: Given) -> None:
        vars(instance)[self._name] = self._convert(value)
