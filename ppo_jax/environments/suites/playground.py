"""MuJoCo Playground (https://github.com/google-deepmind/mujoco_playground): MJX's robots."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from mujoco_playground import registry

from ppo_jax.environments.base import Environment, Spaces, Timestep, checked_kwargs
from ppo_jax.environments.spaces import continuous
from ppo_jax.errors import UserError, nearest

IMPLEMENTATIONS = ("jax", "warp")


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the Playground environment `name`; see :class:`PlaygroundEnvironment`."""
    return PlaygroundEnvironment(name, kwargs)


class PlaygroundEnvironment:
    """An environment of MuJoCo Playground, without Playground's own wrappers.

    Where it has an observation for the actor and a privileged one for the critic, both see that
    of the actor.

    Args:
      name: without the suite, ``CartpoleBalance``.
      kwargs: numbers and texts of the environment's configuration, of which ``impl`` is ``jax``
        (by default) or ``warp``, and ``max_steps_in_episode``.
    """

    costly_reset = True
    observation_dtype = jnp.dtype(jnp.float32)

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        known = sorted(registry.ALL_ENVS)
        if name not in known:
            raise UserError(
                f"unknown Playground environment {name!r}{nearest(name, known)} "
                f"(known: {', '.join(known)})"
            )
        self.name = f"playground/{name}"
        config: Any = registry.get_default_config(name)
        plain = {k: v for k, v in config.items() if isinstance(v, bool | int | float | str)}
        plain["max_steps_in_episode"] = int(plain.pop("episode_length"))
        if "impl" in plain:
            plain["impl"] = IMPLEMENTATIONS[0]
        chosen = plain | checked_kwargs(self.name, plain, kwargs)
        if chosen.get("impl", IMPLEMENTATIONS[0]) not in IMPLEMENTATIONS:
            raise UserError(
                f"impl must be one of {', '.join(IMPLEMENTATIONS)}, but got {chosen['impl']!r}"
            )
        self.max_episode_steps = int(chosen.pop("max_steps_in_episode"))
        chosen["episode_length"] = self.max_episode_steps
        self._env: Any = registry.load(name, config_overrides=chosen)
        seen = self._env.observation_size
        size = seen["state"] if isinstance(seen, Mapping) else seen
        shape = (size,) if isinstance(size, int) else tuple(map(int, size))
        self.spaces = Spaces(shape, continuous(-1.0, 1.0, (int(self._env.action_size),)))

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        # Its environments keep a key without a type in the state, and some read its numbers.
        state = self._env.reset(jax.random.key_data(key))
        return (state, jnp.int32(0)), self._seen(state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        del key  # The state has a key of its own.
        before, time = state
        after = self._env.step(before, action)
        return Timestep(
            state=(after, time + 1),
            observation=self._seen(after),
            reward=jnp.asarray(after.reward, jnp.float32),
            terminated=after.done > 0.5,
            truncated=time + 1 >= self.max_episode_steps,
        )

    def _seen(self, state: Any) -> jax.Array:
        observation = state.obs
        if isinstance(observation, Mapping):
            observation = observation["state"]
        return jnp.asarray(observation, jnp.float32)
