"""The protocol every environment follows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ppo_jax.errors import UserError, is_number, nearest


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions 0 … n - 1, int32 scalars."""

    n: int


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several discrete actions at once, int32 ``[len(sizes)]``; the i-th is below ``sizes[i]``."""

    sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions float32 ``[size]`` within bounds; a bound may be infinite."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """Numbers of an action."""
        return len(self.low)


ActionSpace = Discrete | MultiDiscrete | Continuous

BYTE = 255.0
"""Scale of images of bytes."""

IMAGE, NUMBERS, CHOICES, MASK = "image", "numbers", "choices", "mask"
"""Kinds of :class:`Part`."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One array of an observation that consists of several, as a dictionary does.

    Attributes:
      path: keys and indices that lead to it.
      shape: of the array; () for a lone number.
      kind: ``image``, ``[height, width, channels]``, which goes through the convolutions;
        ``numbers``; ``choices``, integers that the network sees one-hot; or ``mask``, which is
        nonzero for each action that is allowed, ``[actions]`` in the order of the logits.
      choices: of ``choices``, how many there are.
      scale: numbers are divided by it, those of an image of bytes by 255.
    """

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    kind: str = NUMBERS
    choices: int = 1
    scale: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers the network sees of it."""
        return math.prod(self.shape) * self.choices

    def flat(self, observation: Any) -> jax.Array:
        """Return this part of `observation` as the network sees it, float32 ``[..., size]``."""
        value = observation
        for key in self.path:
            value = value[key]
        value = jnp.asarray(value)
        batch = value.shape[: value.ndim - len(self.shape)]
        if value.shape != batch + self.shape:
            raise UserError(
                f"observation{''.join(f'[{key!r}]' for key in self.path)} must have shape "
                f"[..., {', '.join(map(str, self.shape))}], but got {value.shape}"
            )
        if self.kind == CHOICES:
            value = jax.nn.one_hot(value, self.choices)
        elif self.kind == MASK:
            value = value != 0
        return value.reshape(*batch, self.size).astype(jnp.float32) / self.scale


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What a network sees and what it has to give.

    Attributes:
      observation_shape: of what the network sees, at least one dimension.
      action_space: of the actions.
      discrete_observations: where the environment's own observation is an integer, how
        many there are; the network sees it one-hot, ``[discrete_observations]``.
      parts: of an observation of several arrays, in the order in which the one vector that the
        network sees holds them: images first, a mask last. See :meth:`of_parts`.
      scale: observations are stored as they are, and divided by it where they are not
        normalised; 255 for images of bytes, so that the network sees [0, 1].
    """

    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    discrete_observations: int | None = None
    parts: tuple[Part, ...] = ()
    scale: float = 1.0

    @classmethod
    def of_parts(cls, parts: Sequence[Part], action_space: ActionSpace) -> "Spaces":
        """Return the spaces of an environment whose observation has several parts.

        Images that differ in height or width from the first one are numbers like others.

        >>> Spaces.of_parts([Part(("mask",), (2,), MASK), Part(("x",), (3,))], Discrete(2)).flat(
        ...     {"mask": jnp.array([True, False]), "x": jnp.arange(3)}
        ... )
        Array([0., 1., 2., 1., 0.], dtype=float32)
        """
        first = next((part.shape[:2] for part in parts if part.kind == IMAGE), None)
        parts = [
            dataclasses.replace(part, kind=NUMBERS)
            if part.kind == IMAGE and part.shape[:2] != first
            else part
            for part in parts
        ]
        order = {IMAGE: 0, NUMBERS: 1, CHOICES: 1, MASK: 2}
        ordered = tuple(sorted(parts, key=lambda part: order[part.kind]))
        return cls((sum(part.size for part in ordered),), action_space, parts=ordered)

    def flat(self, observation: Any) -> jax.Array:
        """Return the one vector of an observation with parts, float32 ``[..., size]``."""
        return jnp.concatenate([part.flat(observation) for part in self.parts], axis=-1)

    @property
    def image_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the images at the beginning of the vector; they share height and width."""
        return tuple(part.shape for part in self.parts if part.kind == IMAGE)

    @property
    def mask_size(self) -> int:
        """Length of the action mask at the end of the vector; 0 without one."""
        return sum(part.size for part in self.parts if part.kind == MASK)

    @property
    def measured_shape(self) -> tuple[int, ...]:
        """Shape of what running statistics describe: all that the network sees but for a mask."""
        *others, last = self.observation_shape
        return (*others, last - self.mask_size)


def number_of_logits(space: ActionSpace) -> int:
    """Return how many logits a policy of `space` has, of continuous actions 0."""
    match space:
        case Discrete(n):
            return n
        case MultiDiscrete(sizes):
            return sum(sizes)
    return 0


class Timestep(NamedTuple):
    """What one environment step led to, also where the episode ends with it.

    Attributes:
      state: state after the step.
      observation: observation of `state`, ``[*observation_shape]``.
      reward: float32 scalar.
      terminated: whether the episode ended in a terminal state; there is no return
        after it.
      truncated: whether the episode was cut off by a time limit; the return after it
        is to be bootstrapped. Both may be true; then it has terminated.
    """

    state: Any
    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class Environment(Protocol):
    """A pure, traceable environment.

    It does not reset itself: who steps it replaces the states of ended episodes. So
    fresh starts can be drawn many at a time, and an evaluation need not draw any.

    Attributes:
      observation_dtype: float32, or a smaller type that holds every observation.
      max_episode_steps: no episode is longer.
      costly_reset: whether a reset takes much longer than a step. Then fresh starts are
        drawn once in a block of steps; an environment whose episode ends twice in one
        begins both in the same state.
    """

    name: str
    spaces: Spaces
    observation_dtype: jnp.dtype
    max_episode_steps: int
    costly_reset: bool

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return (state, observation) of a new episode."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step with `action`, as the action space has it."""
        ...


def checked_kwargs(
    name: str, defaults: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `kwargs` of the environment `name` as the types of their `defaults`.

    Raises:
      UserError: for a name without a default, or a value of another type.
    """
    for key in kwargs:
        if key not in defaults:
            raise UserError(
                f"environment {name!r} has no parameter {key!r}{nearest(key, defaults)} "
                f"(known: {', '.join(defaults)})"
            )
    checked = {key: _like(defaults[key], name, key, value) for key, value in kwargs.items()}
    for limit in ("max_steps_in_episode", "max_timesteps", "max_steps"):
        if checked.get(limit, 1) < 1:
            raise UserError(
                f"environment parameter {limit} must be at least 1, but got {checked[limit]}"
            )
    return checked


def _like(default: Any, name: str, key: str, value: Any) -> Any:
    """Return `value` as the type of `default`, or refuse it."""
    kind = type(default)
    # JAX counts in 32 bits.
    fits = not isinstance(value, (int, float)) or abs(value) < 2**31
    if fits and kind is float and is_number(value):
        value = float(value)
    if type(value) is kind and fits:
        return value
    raise UserError(
        f"environment {name!r} takes {key} as {kind.__name__} (default {default!r}), "
        f"but got {value!r}"
    )
