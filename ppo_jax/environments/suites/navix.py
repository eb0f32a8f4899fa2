"""The Navix suite (https://github.com/epignatelli/navix): MiniGrid in JAX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import navix

from ppo_jax.environments.base import BYTE, Discrete, Environment, Spaces, Timestep, checked_kwargs
from ppo_jax.errors import UserError, nearest


# Private API of Navix, pinned by tests/ppo_jax/test_suites.py: a step without the automatic
# reset of ``Environment.step``, which takes a step to reset.
def _step(environment: Any, timestep: Any, action: jax.Array) -> Any:
    return environment._step(timestep, action)


_OBSERVATIONS = {
    "symbolic": navix.observations.symbolic,
    "symbolic_first_person": navix.observations.symbolic_first_person,
    "rgb": navix.observations.rgb,
    "rgb_first_person": navix.observations.rgb_first_person,
}


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the Navix environment `name`; see :class:`NavixEnvironment`."""
    return NavixEnvironment(name, kwargs)


class NavixEnvironment:
    """A Navix environment.

    Args:
      name: without the suite, ``Navix-Empty-5x5-v0``.
      kwargs: ``observation`` (symbolic, symbolic_first_person, rgb, rgb_first_person) and
        ``max_steps_in_episode``.
    """

    costly_reset = True

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        known = sorted(navix.registry())
        if name not in known:
            raise UserError(
                f"unknown Navix environment {name!r}{nearest(name, known)} "
                f"(known: {', '.join(known)})"
            )
        defaults: dict[str, Any] = {"observation": "symbolic", "max_steps_in_episode": 100}
        chosen = defaults | checked_kwargs(f"navix/{name}", defaults, kwargs)
        observation = str(chosen["observation"])
        if observation not in _OBSERVATIONS:
            raise UserError(
                f"observation must be one of {', '.join(_OBSERVATIONS)}, but got {observation!r}"
            )
        self.name = f"navix/{name}"
        self.max_episode_steps = int(chosen["max_steps_in_episode"])
        self._env = navix.make(
            name, max_steps=self.max_episode_steps, observation_fn=_OBSERVATIONS[observation]
        )
        self._draws = observation.startswith("rgb")
        seen = jax.eval_shape(lambda: self._env.reset(jax.random.key(0)).observation)
        self.observation_dtype = jnp.dtype(jnp.uint8)
        actions = Discrete(len(self._env.action_set))
        self.spaces = Spaces(tuple(seen.shape), actions, scale=BYTE if self._draws else 1.0)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        return self._kept(self._env.reset(key))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        del key  # MiniGrid's steps are deterministic, or draw from a key in the state.
        after = _step(self._env, state, action)
        kept, observation = self._kept(after)
        return Timestep(
            state=kept,
            observation=observation,
            reward=jnp.asarray(after.reward, jnp.float32),
            terminated=after.is_termination(),
            truncated=after.t >= self.max_episode_steps,
        )

    def _kept(self, timestep: Any) -> tuple[Any, jax.Array]:
        """Return a timestep without what nobody reads, and its observation."""
        observation = timestep.observation.astype(self.observation_dtype)
        nothing = jnp.zeros((), jnp.uint8)
        kept = timestep.replace(observation=nothing, action=jnp.int32(0))
        if not self._draws:  # Pictures of everything, of no use to symbols.
            kept = kept.replace(state=kept.state.replace(cache=None))
        return kept, observation
