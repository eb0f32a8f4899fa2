"""The gymnax suite (https://github.com/RobertTLange/gymnax) and users' environments like its own.

Of gymnax's interface this module needs more than ``reset`` and ``step``: ``step_env``, which
does not reset, and ``is_truncated``; tests/ppo_jax/test_suites.py pins both.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import gymnax
import jax
import jax.numpy as jnp

from ppo_jax.environments.base import BYTE, Timestep, checked_kwargs
from ppo_jax.environments.spaces import spaces_of
from ppo_jax.errors import UserError, nearest

_NOT_OFFLINE = {"MNISTBandit-bsuite": "it downloads its data when it is made"}


class GymnaxEnvironment:
    """A gymnax environment behind the protocol.

    Args:
      name: what the user calls it.
      env, params: as ``gymnax.make`` returns them.
      observation_dtype: a type that holds every observation.
    """

    costly_reset = False

    def __init__(
        self, name: str, env: Any, params: Any, observation_dtype: Any = jnp.float32
    ) -> None:
        self.name = name
        self._env, self._params = env, params
        self.spaces = spaces_of(
            f"environment {name!r}", env.observation_space(params), env.action_space(params)
        )
        of_bytes = self.spaces.scale == BYTE
        self.observation_dtype = jnp.dtype(jnp.uint8 if of_bytes else observation_dtype)
        self.max_episode_steps = int(params.max_steps_in_episode)

    @classmethod
    def registered(cls, name: str, kwargs: Mapping[str, Any]) -> "GymnaxEnvironment":
        """Return the environment that gymnax registers as `name`."""
        if name not in gymnax.registered_envs:
            raise UserError(
                f"unknown environment {name!r}{nearest(name, gymnax.registered_envs)} "
                f"(known: {', '.join(gymnax.registered_envs)})"
            )
        if name in _NOT_OFFLINE:
            raise UserError(f"environment {name!r} is not supported: {_NOT_OFFLINE[name]}")
        default_env, defaults = gymnax.make(name)
        constructor, parameters = _split(name, type(default_env), defaults, kwargs)
        env, params = gymnax.make(name, **constructor)
        # MinAtar shows which objects stand where: yes or no, in a byte in place of four.
        binary = name.endswith("-MinAtar")
        return cls(name, env, params.replace(**parameters), jnp.uint8 if binary else jnp.float32)

    @classmethod
    def of(cls, name: str, factory: Any, kwargs: Mapping[str, Any]) -> "GymnaxEnvironment":
        """Return the environment that `factory` makes: a class of gymnax's kind, or a function.

        The function returns such an environment, alone or with its parameters. `kwargs`
        are arguments of the factory or fields of the parameters.
        """
        made = factory()
        env, defaults = made if isinstance(made, tuple) else (made, made.default_params)
        constructor, parameters = _split(name, factory, defaults, kwargs)
        if constructor:
            made = factory(**constructor)
            env, defaults = made if isinstance(made, tuple) else (made, made.default_params)
        return cls(name, env, defaults.replace(**parameters))

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        observation, state = self._env.reset(key, self._params)
        return state, self._seen(observation)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        # `step` of gymnax would draw a fresh start with every step and mostly drop it.
        observation, state, reward, terminated, _ = self._env.step_env(
            key, state, action, self._params
        )
        return Timestep(
            state=state,
            observation=self._seen(observation),
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=jnp.asarray(terminated, jnp.bool_).reshape(()),
            truncated=jnp.asarray(self._env.is_truncated(state, self._params), jnp.bool_).reshape(
                ()
            ),
        )

    def _seen(self, observation: Any) -> jax.Array:
        """Return what the network sees."""
        if self.spaces.parts:
            return self.spaces.flat(observation)
        shape = self.spaces.observation_shape
        discrete = self.spaces.discrete_observations
        observation = jnp.asarray(observation)
        # A lone number may come as an array of one; nothing else may change its shape unseen.
        expected = () if discrete is not None or shape == (1,) else shape
        if observation.shape not in (expected, expected or (1,)):
            raise UserError(
                f"environment {self.name!r}: an observation must have the shape {expected} of its "
                f"space, but got {observation.shape}"
            )
        if discrete is not None:
            return jax.nn.one_hot(observation.reshape(()), discrete)
        shaped: jax.Array = observation.astype(self.observation_dtype).reshape(shape)
        return shaped


def _split(
    name: str, factory: Any, defaults: Any, kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split `kwargs` into arguments of `factory` and fields of the parameters; check both."""
    fields = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
    arguments = inspect.signature(factory).parameters.values()
    known = {a.name: a.default for a in arguments if a.default is not a.empty} | fields
    checked = checked_kwargs(name, known, kwargs)
    constructor = {k: v for k, v in checked.items() if k not in fields}
    return constructor, {k: v for k, v in checked.items() if k in fields}
