"""The protocol every environment follows."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


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
    """A pure, traceable environment with discrete actions.

    It does not reset itself: who steps it replaces the states of ended episodes. So
    fresh starts can be drawn many at a time, and an evaluation need not draw any.

    Attributes:
      observation_dtype: float32, or a smaller type that holds every observation.
      max_episode_steps: no episode is longer.
    """

    name: str
    observation_shape: tuple[int, ...]
    observation_dtype: jnp.dtype
    num_actions: int
    max_episode_steps: int

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return (state, observation) of a new episode."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step with `action`, an int32 scalar."""
        ...
