"""The protocol every environment follows."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ppo_jax.errors import UserError, is_number, nearest


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions 0 … n - 1, int32 scalars."""

    n: int


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions float32 ``[size]`` within bounds; a bound may be infinite."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """Numbers of an action."""
        return len(self.low)


ActionSpace = Discrete | Continuous


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What a network sees and what it has to give.

    Attributes:
      observation_shape: of what the network sees, at least one dimension.
      action_space: discrete or continuous.
      discrete_observations: where the environment's own observation is an integer, how
        many there are; the network sees it one-hot, ``[discrete_observations]``.
    """

    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    discrete_observations: int | None = None


class Timestep(NamedTuple):
    """What one environment step led to, also where the episode ends with it.

    Attributes:
      state: state after the step.
      observation: observation of `state`, ``[*observation_shape]``.
      reward: float32 scalar.
      terminated: whether the episode ended in a terminal state; there is no return
        after it.
      truncated: whether the episode was cut off by a time limit; the return after it
        is to be bootstrapped. Both may be true; then it has terminated.
    """

    state: Any
    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class Environment(Protocol):
    """A pure, traceable environment.

    It does not reset itself: who steps it replaces the states of ended episodes. So
    fresh starts can be drawn many at a time, and an evaluation need not draw any.

    Attributes:
      observation_dtype: float32, or a smaller type that holds every observation.
      max_episode_steps: no episode is longer.
      costly_reset: whether a reset takes much longer than a step. Then fresh starts are
        drawn once in a block of steps; an environment whose episode ends twice in one
        begins both in the same state.
    """

    name: str
    spaces: Spaces
    observation_dtype: jnp.dtype
    max_episode_steps: int
    costly_reset: bool

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return (state, observation) of a new episode."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step with `action`, as the action space has it."""
        ...


def checked_kwargs(
    name: str, defaults: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `kwargs` of the environment `name` as the types of their `defaults`.

    Raises:
      UserError: for a name without a default, or a value of another type.
    """
    for key in kwargs:
        if key not in defaults:
            raise UserError(
                f"environment {name!r} has no parameter {key!r}{nearest(key, defaults)} "
                f"(known: {', '.join(defaults)})"
            )
    checked = {key: _like(defaults[key], name, key, value) for key, value in kwargs.items()}
    for limit in ("max_steps_in_episode", "max_timesteps"):
        if checked.get(limit, 1) < 1:
            raise UserError(
                f"environment parameter {limit} must be at least 1, but got {checked[limit]}"
            )
    return checked


def _like(default: Any, name: str, key: str, value: Any) -> Any:
    """Return `value` as the type of `default`, or refuse it."""
    kind = type(default)
    # JAX counts in 32 bits.
    fits = not isinstance(value, (int, float)) or abs(value) < 2**31
    if fits and kind is float and is_number(value):
        value = float(value)
    if type(value) is kind and fits:
        return value
    raise UserError(
        f"environment {name!r} takes {key} as {kind.__name__} (default {default!r}), "
        f"but got {value!r}"
    )
