"""Action distributions as pure functions of a network's outputs.

A distribution is a static description; its parameters are the network's outputs,
``[..., width]``. What the learner stores and compares is the *raw* action, which
``action`` turns into what the environment takes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Distribution(Protocol):
    """What networks, rollout and losses need to know about the actions."""

    @property
    def width(self) -> int:
        """Number of outputs of the policy network."""
        ...

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of a raw action."""
        ...

    @property
    def raw_dtype(self) -> jnp.dtype:
        """Type of a raw action."""
        ...

    @property
    def state_independent_scale(self) -> bool:
        """Whether the second half of the outputs is a parameter rather than a network output."""
        ...

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of ``[*shape, width]``."""
        ...

    def sample(self, outputs: jax.Array, noise: jax.Array) -> jax.Array:
        """Turn outputs ``[..., width]`` and noise into raw actions ``[..., *raw_shape]``."""
        ...

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Return the raw actions of a greedy policy, ``[..., *raw_shape]``."""
        ...

    def log_prob(self, outputs: jax.Array, raw: jax.Array) -> jax.Array:
        """Return log-probabilities (or log-densities) ``[...]`` of raw actions, in nats."""
        ...

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Return entropies ``[...]`` in nats."""
        ...

    def action(self, raw: jax.Array) -> jax.Array:
        """Turn raw actions ``[..., *raw_shape]`` into what the environment takes."""
        ...


_MOST_COLUMNS = 32
"""Actions up to which a GPU goes over columns; beyond, one reduction costs it less."""

_Binary = Callable[[jax.Array, jax.Array], jax.Array]


def _over_columns(function: _Binary, x: jax.Array) -> jax.Array:
    """Reduce ``[..., n]`` to ``[..., 1]``, column by column."""
    return functools.reduce(function, jnp.split(x, x.shape[-1], axis=-1))


def _log_softmax(outputs: jax.Array) -> jax.Array:
    """Return log-probabilities ``[..., n]``.

    On a GPU every reduction ends a kernel, however short its rows are. Written as sums of
    columns all that follows from the logits is one.
    """

    def by_columns(outputs: jax.Array) -> jax.Array:
        if outputs.shape[-1] > _MOST_COLUMNS:
            return jax.nn.log_softmax(outputs)
        shifted = outputs - jax.lax.stop_gradient(_over_columns(jnp.maximum, outputs))
        return shifted - jnp.log(_over_columns(jnp.add, jnp.exp(shifted)))

    log_probs: jax.Array = jax.lax.platform_dependent(
        outputs, cpu=jax.nn.log_softmax, default=by_columns
    )
    return log_probs


def _taken(log_probs: jax.Array, raw: jax.Array) -> jax.Array:
    """Return ``log_probs[..., raw]``."""

    def gathered(log_probs: jax.Array, raw: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_probs, raw[..., None], axis=-1).squeeze(-1)

    def masked(log_probs: jax.Array, raw: jax.Array) -> jax.Array:
        # Without a gather, whose gradient is a scatter: both are kernels of their own.
        here = raw[..., None] == jnp.arange(log_probs.shape[-1])
        return _sum(jnp.where(here, log_probs, 0.0))

    taken: jax.Array = jax.lax.platform_dependent(log_probs, raw, cpu=gathered, default=masked)
    return taken


def _sum(x: jax.Array) -> jax.Array:
    """Return the sum over actions; see :func:`_log_softmax`."""

    def by_columns(x: jax.Array) -> jax.Array:
        if x.shape[-1] > _MOST_COLUMNS:
            return x.sum(axis=-1)
        return _over_columns(jnp.add, x).squeeze(-1)

    total: jax.Array = jax.lax.platform_dependent(
        x, cpu=partial(jnp.sum, axis=-1), default=by_columns
    )
    return total


def _argmax(x: jax.Array) -> jax.Array:
    """Return the first index of the largest, int32; see :func:`_log_softmax`."""

    def reduced(x: jax.Array) -> jax.Array:
        return jnp.argmax(x, axis=-1).astype(jnp.int32)

    def by_columns(x: jax.Array) -> jax.Array:
        if x.shape[-1] > _MOST_COLUMNS:
            return reduced(x)
        largest, index = x[..., 0], jnp.zeros(x.shape[:-1], jnp.int32)
        for column in range(1, x.shape[-1]):
            larger = x[..., column] > largest
            index = jnp.where(larger, column, index)
            largest = jnp.where(larger, x[..., column], largest)
        return index

    best: jax.Array = jax.lax.platform_dependent(x, cpu=reduced, default=by_columns)
    return best


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of `n` actions; the outputs are logits ``[..., n]``."""

    n: int

    raw_shape = ()
    raw_dtype = jnp.dtype(jnp.int32)
    state_independent_scale = False

    @property
    def width(self) -> int:
        """Number of logits."""
        return self.n

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw standard Gumbel noise, ``[*shape, n]``."""
        return jax.random.gumbel(key, (*shape, self.n))

    def sample(self, outputs: jax.Array, noise: jax.Array) -> jax.Array:
        """Return the index of the largest of logits + Gumbel noise, int32 ``[...]``.

        It is a sample of the distribution (Gumbel, 1954; Maddison et al., 2014,
        arXiv:1411.0030).
        """
        return self.mode(outputs + noise)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Return the most probable actions, int32 ``[...]``."""
        return _argmax(outputs)

    def log_prob(self, outputs: jax.Array, raw: jax.Array) -> jax.Array:
        """Return log-probabilities ``[...]`` of `raw`, in nats.

        >>> Categorical(2).log_prob(jnp.log(jnp.array([0.25, 0.75])), jnp.array(1)).round(4)
        Array(-0.2877, dtype=float32)
        """
        return _taken(_log_softmax(outputs), raw)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Return entropies ``[...]``, in nats.

        >>> Categorical(2).entropy(jnp.zeros(2)).round(4)
        Array(0.6931, dtype=float32)
        """
        log_probs = _log_softmax(outputs)
        return -_sum(jnp.exp(log_probs) * log_probs)

    def action(self, raw: jax.Array) -> jax.Array:
        """Return `raw` itself."""
        return raw


@dataclasses.dataclass(frozen=True)
class MultiCategorical:
    """Several independent choices; the outputs are their logits one after another.

    Attributes:
      sizes: how many alternatives each choice has.
    """

    sizes: tuple[int, ...]

    raw_dtype = jnp.dtype(jnp.int32)
    state_independent_scale = False

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of an action."""
        return (len(self.sizes),)

    @property
    def width(self) -> int:
        """Number of logits of all choices."""
        return sum(self.sizes)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw standard Gumbel noise, ``[*shape, width]``."""
        return jax.random.gumbel(key, (*shape, self.width))

    def sample(self, outputs: jax.Array, noise: jax.Array) -> jax.Array:
        """Return the samples of all choices, int32 ``[..., choices]``; see :class:`Categorical`."""
        return self.mode(outputs + noise)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Return the most probable alternative of each choice, int32 ``[..., choices]``."""
        return jnp.stack([choice.mode(x) for choice, x in self._choices(outputs)], axis=-1)

    def log_prob(self, outputs: jax.Array, raw: jax.Array) -> jax.Array:
        """Return log-probabilities ``[...]`` of `raw`: the sums over the choices, in nats."""
        chosen = enumerate(self._choices(outputs))
        return sum((choice.log_prob(x, raw[..., i]) for i, (choice, x) in chosen), jnp.float32(0))

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Return entropies ``[...]``: the sums over the choices, in nats."""
        return sum((choice.entropy(x) for choice, x in self._choices(outputs)), jnp.float32(0))

    def action(self, raw: jax.Array) -> jax.Array:
        """Return `raw` itself."""
        return raw

    def _choices(self, outputs: jax.Array) -> list[tuple[Categorical, jax.Array]]:
        """Return each choice with its logits, ``[..., size]``."""
        ends = np.cumsum(self.sizes)[:-1].tolist()
        split = jnp.split(outputs, ends, axis=-1)
        return [(Categorical(n), x) for n, x in zip(self.sizes, split, strict=True)]


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian; the outputs are means and log standard deviations.

    Its scale is that of the action range mapped to [-1, 1], so that an initial standard
    deviation means the same in every environment. The environment receives the action mapped
    to its bounds and clipped to them. A dimension with an infinite bound is not scaled.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    raw_dtype = jnp.dtype(jnp.float32)
    state_independent_scale = True

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of an action."""
        return (len(self.low),)

    @property
    def width(self) -> int:
        """A mean and a log standard deviation for each dimension."""
        return 2 * len(self.low)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw standard normal noise, ``[*shape, size]``."""
        return jax.random.normal(key, (*shape, *self.raw_shape))

    def sample(self, outputs: jax.Array, noise: jax.Array) -> jax.Array:
        """Return mean + standard deviation · noise, ``[..., size]``."""
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean + jnp.exp(log_std) * noise

    def mode(self, outputs: jax.Array) -> jax.Array:
        """Return the means, ``[..., size]``."""
        return jnp.split(outputs, 2, axis=-1)[0]

    def log_prob(self, outputs: jax.Array, raw: jax.Array) -> jax.Array:
        """Return log-densities ``[...]`` of `raw`, in nats."""
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        z = (raw - mean) * jnp.exp(-log_std)
        return jnp.sum(-0.5 * z**2 - log_std - _HALF_LOG_TAU, axis=-1)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Return differential entropies ``[...]``, in nats."""
        log_std = jnp.split(outputs, 2, axis=-1)[1]
        return jnp.sum(log_std + 0.5 + _HALF_LOG_TAU, axis=-1)

    def action(self, raw: jax.Array) -> jax.Array:
        """Map ``[-1, 1]`` to the bounds and clip to them, ``[..., size]``."""
        center, scale = self.range
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        return jnp.clip(center + scale * raw, low, high)

    @property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """What 0 is mapped to, and how far from it ±1 are, float32 ``[size]`` each."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        finite = np.isfinite(low) & np.isfinite(high)
        inner_low, inner_high = (np.where(finite, x, y) for x, y in ((low, -1), (high, 1)))
        half = np.float32(0.5)
        return half * (inner_high + inner_low), half * (inner_high - inner_low)


@dataclasses.dataclass(frozen=True)
class SquashedGaussian(Gaussian):
    """The tanh of a Gaussian, mapped to the bounds (Haarnoja et al., 2018, appendix C).

    The raw action is the one before the tanh, so nothing has to be inverted. Densities are
    those of its tanh, in (-1, 1).
    """

    def log_prob(self, outputs: jax.Array, raw: jax.Array) -> jax.Array:
        """Return log-densities ``[...]`` of tanh(`raw`), in nats."""
        return super().log_prob(outputs, raw) - jnp.sum(_log_tanh_slope(raw), axis=-1)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Return the Gaussian's entropies plus the mean log-slope of the tanh, in nats, ``[...]``.

        The second term has no closed form; Gauss-Hermite quadrature with 16 nodes estimates it.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        mean, log_std = jnp.split(outputs[..., None, :], 2, axis=-1)
        raw = mean + jnp.exp(log_std) * nodes.astype(np.float32)[:, None]
        slopes = jnp.sum(_log_tanh_slope(raw), axis=-1)
        shares = (weights / weights.sum()).astype(np.float32)
        return super().entropy(outputs) + jnp.sum(slopes * shares, axis=-1)

    def action(self, raw: jax.Array) -> jax.Array:
        """Map tanh(`raw`) to the bounds, ``[..., size]``."""
        return super().action(jnp.tanh(raw))


def _log_tanh_slope(x: jax.Array) -> jax.Array:
    """Return log(1 - tanh(x)^2), finite for every x."""
    return 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))
