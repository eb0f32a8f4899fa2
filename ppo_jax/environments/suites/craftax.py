"""The Craftax suite (https://github.com/MichaelTMatthews/Craftax)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name

from ppo_jax.environments.base import Discrete, Environment, Spaces, Timestep, checked_kwargs
from ppo_jax.errors import UserError, nearest

NAMES = (
    "Craftax-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Classic-Pixels-v1",
)

_NEVER = 2**30


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the Craftax environment `name`; see :class:`CraftaxEnvironment`."""
    return CraftaxEnvironment(name, kwargs)


class CraftaxEnvironment:
    """A Craftax environment.

    Args:
      name: without the suite, ``Craftax-Symbolic-v1``.
      kwargs: fields of its parameters; the time limit is ``max_timesteps``.
    """

    observation_dtype = jnp.dtype(jnp.float32)
    costly_reset = True

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        if name not in NAMES:
            raise UserError(
                f"unknown Craftax environment {name!r}{nearest(name, NAMES)} "
                f"(known: {', '.join(NAMES)})"
            )
        self.name = f"craftax/{name}"
        self._env: Any = make_craftax_env_from_name(name, auto_reset=False)
        params: Any = self._env.default_params
        fields = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
        plain = {k: v for k, v in fields.items() if isinstance(v, (bool, int, float))}
        self._params = params.replace(**checked_kwargs(self.name, plain, kwargs))
        self._endless = self._params.replace(max_timesteps=_NEVER)
        self.max_episode_steps = int(self._params.max_timesteps)
        shape = tuple(map(int, self._env.observation_space(self._params).shape))
        self.spaces = Spaces(shape, Discrete(int(self._env.action_space(self._params).n)))

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        observation, state = self._env.reset_env(key, self._params)
        return state, observation.astype(self.observation_dtype)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        observation, after, reward, _, _ = self._env.step_env(key, state, action, self._params)
        return Timestep(
            state=after,
            observation=observation.astype(self.observation_dtype),
            reward=jnp.asarray(reward, jnp.float32),
            # Its own flag does not tell death from the time limit.
            terminated=jnp.asarray(self._env.is_terminal(after, self._endless), jnp.bool_),
            truncated=after.timestep >= self.max_episode_steps,
        )
