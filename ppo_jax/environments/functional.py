"""Environments like ``gymnasium.experimental.functional.FuncEnv``, written in JAX.

Their methods take a key where Gymnasium says ``rng``. Gymnasium itself is not imported.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ppo_jax.environments.base import BYTE, Timestep, checked_kwargs
from ppo_jax.environments.spaces import spaces_of


class FunctionalEnvironment:
    """A functional environment of Gymnasium behind the protocol.

    Args:
      name: what the user calls it.
      env: has ``initial``, ``transition``, ``observation``, ``reward``, ``terminal`` and two
        spaces. Its attribute ``max_episode_steps``, 1000 where it has none, limits an episode:
        the interface knows no time limit.
      kwargs: ``max_steps_in_episode``, and fields of the environment's default parameters.
    """

    costly_reset = False

    def __init__(self, name: str, env: Any, kwargs: Mapping[str, Any]) -> None:
        self.name, self._env = name, env
        params = getattr(env, "default_params", None)
        fields = _fields(params)
        limit = {"max_steps_in_episode": int(getattr(env, "max_episode_steps", 1000))}
        checked = limit | checked_kwargs(name, fields | limit, kwargs)
        self.max_episode_steps = int(checked.pop("max_steps_in_episode"))
        self._params = _replaced(params, checked)
        self.spaces = spaces_of(f"environment {name!r}", env.observation_space, env.action_space)
        of_bytes = self.spaces.scale == BYTE
        self.observation_dtype = jnp.dtype(jnp.uint8 if of_bytes else jnp.float32)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        state_key, observation_key = jax.random.split(key)
        state = self._env.initial(state_key, self._params)
        return (state, jnp.int32(0)), self._seen(state, observation_key)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        before, time = state
        keys = jax.random.split(key, 4)
        after = self._env.transition(before, action, keys[0], self._params)
        reward = self._env.reward(before, action, after, keys[1], self._params)
        terminated = self._env.terminal(after, keys[2], self._params)
        return Timestep(
            state=(after, time + 1),
            observation=self._seen(after, keys[3]),
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=jnp.asarray(terminated, jnp.bool_).reshape(()),
            truncated=time + 1 >= self.max_episode_steps,
        )

    def _seen(self, state: Any, key: jax.Array) -> jax.Array:
        """Return what the network sees of a state."""
        observation = self._env.observation(state, key, self._params)
        if self.spaces.parts:
            return self.spaces.flat(observation)
        if self.spaces.discrete_observations is not None:
            return jax.nn.one_hot(observation, self.spaces.discrete_observations)
        # A lone number is an array of one; the contract finds any other shape.
        return jnp.atleast_1d(jnp.asarray(observation, self.observation_dtype))


def _fields(params: Any) -> dict[str, Any]:
    """Return the parameters that may be overridden, and their values."""
    if dataclasses.is_dataclass(params):
        return {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    return dict(params._asdict()) if hasattr(params, "_asdict") else {}


def _replaced(params: Any, values: Mapping[str, Any]) -> Any:
    if not values:
        return params
    if hasattr(params, "_replace"):
        return params._replace(**values)
    return dataclasses.replace(params, **values)
