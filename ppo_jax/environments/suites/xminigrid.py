"""XLand-MiniGrid (https://github.com/dunnolab/xland-minigrid): the tasks of MiniGrid in it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import xminigrid

from ppo_jax.environments.base import Discrete, Environment, Spaces, Timestep, checked_kwargs
from ppo_jax.errors import UserError, nearest


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the environment `name` of XLand-MiniGrid; see :class:`XLandMiniGridEnvironment`."""
    return XLandMiniGridEnvironment(name, kwargs)


class XLandMiniGridEnvironment:
    """An environment of XLand-MiniGrid, seen as the symbols in front of the agent.

    Its meta-environments, ``XLand-MiniGrid-...``, have no task of their own: theirs are
    downloaded.

    Args:
      name: without the suite, ``MiniGrid-Empty-5x5``.
      kwargs: numbers among its parameters; the time limit is ``max_steps``.
    """

    costly_reset = True
    observation_dtype = jnp.dtype(jnp.uint8)

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        registered = xminigrid.registered_environments()
        known = sorted(known for known in registered if known.startswith("MiniGrid-"))
        if name in registered and name not in known:
            raise UserError(
                f"environment 'xminigrid/{name}' is not supported: its tasks are downloaded"
            )
        if name not in known:
            raise UserError(
                f"unknown environment of XLand-MiniGrid {name!r}{nearest(name, known)} "
                f"(known: {', '.join(known)})"
            )
        self.name = f"xminigrid/{name}"
        self._env: Any
        params: Any
        self._env, params = xminigrid.make(name)
        fields = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
        plain = {k: v for k, v in fields.items() if isinstance(v, (bool, int, float))}
        self._params = params.replace(**checked_kwargs(self.name, plain, kwargs))
        self.max_episode_steps = int(self._params.max_steps)
        shape = tuple(map(int, self._env.observation_shape(self._params)))
        self.spaces = Spaces(shape, Discrete(int(self._env.num_actions(self._params))))

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        return self._kept(self._env.reset(self._params, key))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        del key  # The state has a key of its own.
        after = self._env.step(self._params, state, action)
        kept, observation = self._kept(after)
        return Timestep(
            state=kept,
            observation=observation,
            reward=jnp.asarray(after.reward, jnp.float32),
            terminated=after.discount == 0.0,
            truncated=after.state.step_num >= self.max_episode_steps,
        )

    def _kept(self, timestep: Any) -> tuple[Any, jax.Array]:
        """Return a timestep without what no step reads, and its observation."""
        observation = timestep.observation.astype(self.observation_dtype)
        kept = timestep.replace(
            observation=jnp.zeros((), jnp.uint8),
            step_type=jnp.uint8(0),
            reward=jnp.float32(0),
            discount=jnp.float32(1),
        )
        return kept, observation
