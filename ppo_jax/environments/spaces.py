"""The spaces of gymnax and of Gymnasium as ours.

Both libraries name their kinds of spaces alike, so a space is told by the name of its class, and
neither library is imported.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppo_jax.environments.base import (
    BYTE,
    CHOICES,
    IMAGE,
    MASK,
    NUMBERS,
    ActionSpace,
    Continuous,
    Discrete,
    MultiDiscrete,
    Part,
    Spaces,
    number_of_logits,
)
from ppo_jax.errors import UserError

MASK_KEY = "action_mask"
"""The key of a dictionary of observations that says which actions are allowed."""


def spaces_of(name: str, observation_space: Any, action_space: Any) -> Spaces:
    """Return the spaces of the environment that is called `name`.

    Dictionaries and tuples become one vector, in the order of their keys; see :class:`Part`.
    The entry ``action_mask`` of a dictionary is the mask of the actions.

    Raises:
      UserError: for a kind of space that is not supported.
    """
    actions = _action_space(name, action_space)
    match _kind(observation_space):
        case "Discrete" if _from_zero(observation_space):
            n = int(observation_space.n)
            return Spaces((n,), actions, discrete_observations=n)
        case "Box":
            # A lone number is an array of one.
            shape = tuple(map(int, observation_space.shape)) or (1,)
            image = len(shape) == 3 and _holds_bytes(observation_space)
            return Spaces(shape, actions, scale=BYTE if image else 1.0)
    parts = list(_parts(name, observation_space, ()))
    for part in parts:
        if part.kind == MASK and part.size != number_of_logits(actions):
            raise UserError(
                f"{name}: {MASK_KEY} must have {number_of_logits(actions)} entries, one for each "
                f"of its actions {action_space}, but its shape is {part.shape}"
            )
    return Spaces.of_parts(parts, actions)


def _action_space(name: str, space: Any) -> ActionSpace:
    match _kind(space):
        case "Discrete" if _from_zero(space):
            return Discrete(int(space.n))
        case "MultiDiscrete" if _from_zero(space):
            return MultiDiscrete(tuple(map(int, np.ravel(space.nvec))))
        case "MultiBinary":
            return MultiDiscrete((2,) * math.prod(space.shape))
        case "Box" if len(space.shape) == 1:
            return continuous(space.low, space.high, space.shape)
    raise UserError(
        f"{name} is not supported: its actions are {space}; supported are Discrete and "
        "MultiDiscrete from 0 on, MultiBinary, and Box with one dimension"
    )


def _parts(name: str, space: Any, path: tuple[str | int, ...]) -> Iterator[Part]:
    """Yield the arrays of an observation."""
    kind = _kind(space)
    if kind == "Dict":
        for key in sorted(space.spaces):
            yield from _parts(name, space.spaces[key], (*path, key))
    elif kind == "Tuple":
        for index, item in enumerate(space.spaces):
            yield from _parts(name, item, (*path, index))
    elif path == (MASK_KEY,):
        size = np.shape(space.nvec) if kind == "MultiDiscrete" else space.shape
        yield Part(path, tuple(map(int, size)), MASK)
    elif kind == "Discrete" and _from_zero(space):
        yield Part(path, (), CHOICES, int(space.n))
    elif kind == "MultiDiscrete" and _from_zero(space):
        yield Part(path, np.shape(space.nvec), CHOICES, int(np.max(space.nvec)))
    elif kind in ("Box", "MultiBinary"):
        shape = tuple(map(int, space.shape))
        image = kind == "Box" and len(shape) == 3
        scale = BYTE if image and _holds_bytes(space) else 1.0
        yield Part(path, shape, IMAGE if image else NUMBERS, scale=scale)
    else:
        raise UserError(
            f"{name} is not supported: its observations are {space}; supported are Box, Discrete "
            "and MultiDiscrete from 0 on, MultiBinary, and Dict and Tuple of them"
        )


def _holds_bytes(space: Any) -> bool:
    return bool(np.dtype(space.dtype) == np.uint8 and np.all(np.asarray(space.high) == BYTE))


def _kind(space: Any) -> str:
    """Return which kind a space is of; also that of a class derived from one."""
    names = [parent.__name__ for parent in type(space).__mro__]
    known = ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict", "Tuple")
    return next((name for name in names if name in known), "")


def _from_zero(space: Any) -> bool:
    return not np.any(getattr(space, "start", 0))


def continuous(low: Any, high: Any, shape: tuple[int, ...]) -> Continuous:
    """Return the action space of `shape`, ``(size,)``, within bounds that broadcast to it."""

    def bound(value: np.float32) -> float:
        # Suites write the largest float32 for a bound that is none.
        none = abs(value) >= np.finfo(np.float32).max
        return math.copysign(math.inf, value) if none else float(str(value))

    def bounds(values: Any) -> tuple[float, ...]:
        return tuple(map(bound, np.broadcast_to(np.asarray(values, np.float32), shape)))

    return Continuous(bounds(low), bounds(high))
