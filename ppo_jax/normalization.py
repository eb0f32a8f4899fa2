"""Running statistics of observations and returns, kept inside the compiled program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax.compensated import CompensatedSum

CLIP = 10.0
"""Normalised values are clipped to [-CLIP, CLIP], as in Gymnasium and Stable-Baselines3."""

EPSILON = 1e-8
"""Added to a variance before its root is taken."""


class RunningStatistics(NamedTuple):
    """Mean and variance of all values seen; of the shape of one value.

    Where values are longer than the statistics, what is beyond them, an action mask, is left
    as it is.

    Attributes:
      mean: float32.
      variance: float32.
      weight: float32 scalar, how many values have been seen.
      remainder: what rounding has cut off `mean`, `variance` and `weight`. With it, statistics
        keep moving after 1e9 values; None once they are only used.
      applied: bool scalar, whether values are normalised at all: one program serves runs with
        and without. None where they always are.
    """

    mean: jax.Array
    variance: jax.Array
    weight: jax.Array
    remainder: tuple[jax.Array, jax.Array, jax.Array] | None = None
    applied: jax.Array | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "RunningStatistics":
        """Return statistics of nothing: they leave values as they are."""
        zeros = jnp.zeros(shape)
        return cls(zeros, jnp.ones(shape), jnp.float32(0), (zeros, zeros, jnp.float32(0)))

    def updated(self, batch: jax.Array) -> "RunningStatistics":
        """Take in `batch`, ``[n, ...]`` (Chan et al., 1979, the parallel algorithm)."""
        assert self.remainder is not None, "these statistics are complete"
        batch = self.measured(batch).astype(jnp.float32)
        mean_remainder, variance_remainder, _ = self.remainder
        share = batch.shape[0] / (self.weight + batch.shape[0])
        delta = batch.mean(axis=0) - self.mean - mean_remainder
        variance = jnp.where(self.weight > 0, self.variance, 0.0)  # Of nothing it is 1 by name.
        spread = batch.var(axis=0) + delta**2 * (1 - share) - variance - variance_remainder
        sums = CompensatedSum((self.mean, variance, self.weight), self.remainder)
        value, remainder = sums.plus((delta * share, spread * share, jnp.float32(batch.shape[0])))
        mean, variance, weight = value
        return RunningStatistics(mean, variance, weight, remainder, self.applied)

    def measured(self, values: jax.Array) -> jax.Array:
        """Return the part of `values`, ``[..., *shape]``, that the statistics describe."""
        return values[..., : self.mean.shape[-1]] if self.mean.ndim else values

    def completed(self) -> "RunningStatistics":
        """Return the statistics without what only further updates need."""
        return self._replace(remainder=None, applied=None)


def normalized(statistics: RunningStatistics, values: jax.Array, scale: float = 1.0) -> jax.Array:
    """Return `values`, ``[..., *shape]``, with mean 0 and variance 1 by `statistics`, clipped.

    Where they are not to be applied, the values divided by `scale`.
    """
    measured = statistics.measured(values)
    scaled = (measured - statistics.mean) * jax.lax.rsqrt(statistics.variance + EPSILON)
    clipped = _where_applied(statistics, jnp.clip(scaled, -CLIP, CLIP), measured / scale)
    if clipped.shape == values.shape:
        return clipped
    return jnp.concatenate([clipped, values[..., measured.shape[-1] :]], axis=-1)


def scaled(statistics: RunningStatistics, values: jax.Array) -> jax.Array:
    """Return `values` over the standard deviation of `statistics`, clipped; the sign stays."""
    scaled = jnp.clip(values * jax.lax.rsqrt(statistics.variance + EPSILON), -CLIP, CLIP)
    return _where_applied(statistics, scaled, values)


def _where_applied(statistics: RunningStatistics, new: jax.Array, old: jax.Array) -> jax.Array:
    return new if statistics.applied is None else jnp.where(statistics.applied, new, old)
