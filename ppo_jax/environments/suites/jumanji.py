"""The Jumanji suite (https://github.com/instadeepai/jumanji): games, packing, routing."""

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from jumanji import specs

from ppo_jax.environments.base import (
    CHOICES,
    IMAGE,
    MASK,
    NUMBERS,
    ActionSpace,
    Discrete,
    Environment,
    MultiDiscrete,
    Part,
    Spaces,
    Timestep,
    checked_kwargs,
)
from ppo_jax.environments.spaces import MASK_KEY, continuous
from ppo_jax.errors import UserError, nearest

_NOT_OFFLINE = {"Sokoban-v0": "it downloads its levels when it is made"}
_MOST_CHOICES = 32
"""Integers of at most so many values are seen one-hot, others as numbers."""


def load(name: str, kwargs: Mapping[str, Any]) -> Environment:
    """Return the Jumanji environment `name`; see :class:`JumanjiEnvironment`."""
    return JumanjiEnvironment(name, kwargs)


class JumanjiEnvironment:
    """A Jumanji environment.

    An action mask over combinations of several choices makes the action one choice among all
    combinations. Rewards of several agents are added.

    Jumanji ends an episode at its time limit like at any other end; here the limit is ours and
    truncates.

    Args:
      name: without the suite, ``Snake-v1``.
      kwargs: numbers that the environment's constructor takes, and ``max_steps_in_episode``: by
        default its own time limit, or 1000 where it has none.
    """

    costly_reset = True
    observation_dtype = jnp.dtype(jnp.float32)

    def __init__(self, name: str, kwargs: Mapping[str, Any]) -> None:
        known = sorted(jumanji.registered_environments())
        if name not in known:
            raise UserError(
                f"unknown Jumanji environment {name!r}{nearest(name, known)} "
                f"(known: {', '.join(known)})"
            )
        if name in _NOT_OFFLINE:
            raise UserError(f"environment 'jumanji/{name}' is not supported: {_NOT_OFFLINE[name]}")
        self.name = f"jumanji/{name}"
        default: Any = jumanji.make(name)
        arguments = inspect.signature(type(default)).parameters
        own = {
            argument.name: argument.default
            for argument in arguments.values()
            if isinstance(argument.default, bool | int | float) and argument.name != "time_limit"
        }
        limit = {"max_steps_in_episode": int(getattr(default, "time_limit", 1000))}
        checked = checked_kwargs(self.name, own | limit, kwargs)
        self.max_episode_steps = int((limit | checked)["max_steps_in_episode"])
        checked.pop("max_steps_in_episode", None)
        if "time_limit" in arguments:
            checked["time_limit"] = self.max_episode_steps + 2  # Never reached.
        self._env: Any = jumanji.make(name, **checked)
        self.spaces, self._shape = self._described()

    def _described(self) -> tuple[Spaces, tuple[int, ...] | None]:
        """Return the spaces, and the shape in which the environment takes a flat action."""
        parts = list(_parts(self._env.observation_spec, self._observed(None), ()))
        mask = next((part.shape for part in parts if part.path == (MASK_KEY,)), None)
        spec, shape = self._env.action_spec, None
        action: ActionSpace
        if isinstance(spec, specs.DiscreteArray):
            action = Discrete(int(spec.num_values))
        elif isinstance(spec, specs.MultiDiscreteArray):
            sizes = tuple(map(int, np.ravel(spec.num_values)))
            action = MultiDiscrete(sizes)
            if mask == sizes:
                action, shape = Discrete(math.prod(sizes)), sizes
        else:
            shape = tuple(map(int, spec.shape))
            size = (math.prod(shape),)
            low, high = (np.broadcast_to(b, shape).ravel() for b in (spec.minimum, spec.maximum))
            action = continuous(low, high, size)
        return Spaces.of_parts(parts, action), shape

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        state, timestep = self._env.reset(key)
        return (state, jnp.int32(0)), self.spaces.flat(self._observed(timestep))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step; see :meth:`ppo_jax.environments.base.Environment.step`."""
        del key  # The state has a key of its own.
        before, time = state
        after, timestep = self._env.step(before, self._taken(action))
        return Timestep(
            state=(after, time + 1),
            observation=self.spaces.flat(self._observed(timestep)),
            reward=jnp.asarray(timestep.reward, jnp.float32).sum(),
            terminated=timestep.last(),
            truncated=time + 1 >= self.max_episode_steps,
        )

    def _taken(self, action: jax.Array) -> jax.Array:
        """Return an action as the environment takes it."""
        if self._shape is None:
            return action
        if isinstance(self.spaces.action_space, Discrete):
            return jnp.stack(jnp.unravel_index(action, self._shape)).astype(jnp.int32)
        return action.reshape(self._shape)

    def _observed(self, timestep: Any) -> Any:
        """Return the observation of a timestep, or an example, as dictionaries."""
        spec = self._env.observation_spec
        return _named(spec.generate_value() if timestep is None else timestep.observation)


def _named(observation: Any) -> Any:
    """Return a tree of named tuples and dataclasses as dictionaries."""
    if hasattr(observation, "_asdict"):
        fields = observation._asdict()
    elif dataclasses.is_dataclass(observation):
        fields = {f.name: getattr(observation, f.name) for f in dataclasses.fields(observation)}
    else:
        return observation
    return {name: _named(value) for name, value in fields.items()}


def _parts(spec: Any, example: Any, path: tuple[str, ...]) -> Iterator[Part]:
    if isinstance(example, Mapping):
        for name in sorted(example):
            yield from _parts(getattr(spec, name), example[name], (*path, name))
        return
    shape = tuple(map(int, spec.shape))
    if path == (MASK_KEY,):
        yield Part(path, shape, MASK)
    elif np.issubdtype(spec.dtype, np.integer) and hasattr(spec, "maximum"):
        highest = int(np.max(spec.maximum))
        if highest < _MOST_CHOICES:
            yield Part(path, shape, CHOICES, highest + 1)
        else:
            yield Part(path, shape, NUMBERS, scale=float(min(highest, 2**24)))
    else:
        yield Part(path, shape, IMAGE if len(shape) == 3 else NUMBERS)
