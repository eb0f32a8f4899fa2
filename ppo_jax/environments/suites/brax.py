"""The Brax suite (https://github.com/google/brax): rigid bodies, continuous actions."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from brax import envs

from ppo_jax.environments.base import Environment, Spaces, Timestep, checked_kwargs
from ppo_jax.environments.spaces import continuous
from ppo_jax.errors import UserError, nearest

# Private API of Brax, pinned by tests/ppo_jax/test_suites.py; Brax lists its names nowhere else.
_REGISTERED: dict[str, Any] = envs._envs

BACKENDS = ("generalized", "positional", "spring", "mjx")


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the Brax environment `name`; see :class:`BraxEnvironment`."""
    return BraxEnvironment(name, kwargs)


class BraxEnvironment:
    """A Brax environment, without Brax's own wrappers.

    Brax's wrappers treat a time limit as a termination and start every episode in the state
    of the first reset. Here a limit truncates, and every episode starts in a new state.

    Args:
      name: without the suite, ``ant``.
      kwargs: of the environment's constructor, and ``max_steps_in_episode``.
    """

    observation_dtype = jnp.dtype(jnp.float32)
    costly_reset = False

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        known = [known for known in _REGISTERED if known != "fast"]  # That one tests Brax.
        if name not in known:
            raise UserError(
                f"unknown Brax environment {name!r}{nearest(name, known)} "
                f"(known: {', '.join(known)})"
            )
        constructor = inspect.signature(_REGISTERED[name].__init__).parameters.values()
        defaults = {p.name: p.default for p in constructor if p.default is not p.empty}
        defaults = {"backend": "generalized", **defaults, "max_steps_in_episode": 1000}
        checked = checked_kwargs(f"brax/{name}", defaults, kwargs)
        if checked.get("backend", BACKENDS[0]) not in BACKENDS:
            raise UserError(
                f"backend must be one of {', '.join(BACKENDS)}, but got {checked['backend']!r}"
            )
        self.name = f"brax/{name}"
        self.max_episode_steps = checked.pop("max_steps_in_episode", 1000)
        self._env = envs.get_environment(name, **checked)
        actions = continuous(-1.0, 1.0, (self._env.action_size,))
        self.spaces = Spaces((self._env.observation_size,), actions)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        state = self._env.reset(key)
        return (state, jnp.int32(0)), self._observation(state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        del key  # Physics is deterministic.
        before, time = state
        after = self._env.step(before, action)
        return Timestep(
            state=(after, time + 1),
            observation=self._observation(after),
            reward=jnp.asarray(after.reward, jnp.float32),
            terminated=after.done > 0.5,
            truncated=time + 1 >= self.max_episode_steps,
        )

    def _observation(self, state: Any) -> jax.Array:
        return jnp.asarray(state.obs, jnp.float32)
