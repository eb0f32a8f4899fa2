"""The gymnax suite (https://github.com/RobertTLange/gymnax)."""

import dataclasses
import inspect
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from ppo_jax.environments.base import Timestep
from ppo_jax.errors import UserError, nearest

_NOT_OFFLINE = {"MNISTBandit-bsuite": "it downloads its data when it is made"}


class GymnaxEnvironment:
    """A gymnax environment with discrete actions."""

    def __init__(self, name: str, kwargs: dict[str, Any]) -> None:
        if name not in gymnax.registered_envs:
            raise UserError(
                f"unknown environment {name!r}{nearest(name, gymnax.registered_envs)} "
                f"(known: {', '.join(gymnax.registered_envs)})"
            )
        if name in _NOT_OFFLINE:
            raise UserError(f"environment {name!r} is not supported: {_NOT_OFFLINE[name]}")
        self.name = name
        self._env, self._params = _configured(name, kwargs)
        observation_space = self._env.observation_space(self._params)
        action_space = self._env.action_space(self._params)
        _check_supported(name, observation_space, action_space)
        self.observation_shape = tuple(observation_space.shape)
        # MinAtar shows which objects stand where: yes or no, in a byte in place of four.
        binary = name.endswith("-MinAtar")
        self.observation_dtype = jnp.dtype(jnp.uint8 if binary else jnp.float32)
        self.num_actions = int(action_space.n)
        self.max_episode_steps = int(self._params.max_steps_in_episode)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = self._env.reset(key, self._params)
        return state, observation.astype(self.observation_dtype)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        # `step` of gymnax would draw a fresh start with every step and mostly drop it.
        observation, state, reward, terminated, _ = self._env.step_env(
            key, state, action, self._params
        )
        return Timestep(
            state=state,
            observation=observation.astype(self.observation_dtype),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, jnp.bool_),
            truncated=jnp.asarray(self._env.is_truncated(state, self._params), jnp.bool_),
        )


def _configured(name: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Split `kwargs` into constructor arguments and parameters and make the environment."""
    default_env, defaults = gymnax.make(name)
    parameters = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
    arguments = inspect.signature(type(default_env)).parameters.values()
    known = {a.name: a.default for a in arguments if a.default is not a.empty} | parameters
    for key, value in kwargs.items():
        if key not in known:
            raise UserError(
                f"environment {name!r} has no parameter {key!r}{nearest(key, known)} "
                f"(known: {', '.join(known)})"
            )
        kwargs = {**kwargs, key: _like(known[key], name, key, value)}
    if kwargs.get("max_steps_in_episode", 1) < 1:
        raise UserError(
            f"environment parameter max_steps_in_episode must be at least 1, "
            f"but got {kwargs['max_steps_in_episode']}"
        )
    env, params = gymnax.make(name, **{k: v for k, v in kwargs.items() if k not in parameters})
    return env, params.replace(**{k: v for k, v in kwargs.items() if k in parameters})


def _like(default: Any, name: str, key: str, value: Any) -> Any:
    """Return `value` as the type of `default`, or refuse it."""
    kind = type(default)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
    # JAX counts in 32 bits.
    fits = not isinstance(value, (int, float)) or abs(value) < 2**31
    if type(value) is kind and fits:
        return value
    raise UserError(
        f"environment {name!r} takes {key} as {kind.__name__} (default {default!r}), "
        f"but got {value!r}"
    )


def _check_supported(name: str, observation_space: Any, action_space: Any) -> None:
    missing = []
    if not isinstance(action_space, spaces.Discrete):
        missing.append(f"continuous actions, {action_space}")
    if not isinstance(observation_space, spaces.Box) or not observation_space.shape:
        shape = getattr(observation_space, "shape", "?")
        missing.append(f"observations that are not an array of numbers (shape {shape})")
    if missing:
        raise UserError(
            f"environment {name!r} is not supported yet: it has {' and '.join(missing)}; "
            "supported are arrays of numbers as observations, with discrete actions"
        )
