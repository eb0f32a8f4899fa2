"""The protocol every environment follows."""

from typing import Any, NamedTuple, Protocol

import jax


class Timestep(NamedTuple):
    """What one environment step returns. The environment resets itself.

    Attributes:
      state: state after the step, or after the reset if the episode ended.
      observation: observation that belongs to `state`; float32, ``[*observation_shape]``.
      reward: float32 scalar.
      terminated: whether the episode ended in a terminal state; there is no return
        after it.
      truncated: whether the episode was cut off by a time limit; the return after it
        is to be bootstrapped. Both may be true; then it has terminated.
      final_observation: observation after the step and before any reset.
    """

    state: Any
    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_observation: jax.Array


class Environment(Protocol):
    """A pure, traceable, self-resetting environment with discrete actions."""

    name: str
    observation_shape: tuple[int, ...]
    num_actions: int
    max_episode_steps: int

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return (state, observation) of a new episode."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step with `action`, an int32 scalar."""
        ...
