"""Running statistics of observations and returns, kept inside the compiled program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CLIP = 10.0
"""Normalised values are clipped to [-CLIP, CLIP], as in Gymnasium and Stable-Baselines3."""

EPSILON = 1e-8
"""Added to a variance before its root is taken."""


class RunningStatistics(NamedTuple):
    """Mean and variance of all values seen; of the shape of one value.

    Attributes:
      weight: float32 scalar, how many values have been seen. From 2^24 on a float32
        counts in coarser steps, which then no longer matters.
    """

    mean: jax.Array
    variance: jax.Array
    weight: jax.Array

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "RunningStatistics":
        """Return statistics of nothing: they leave values as they are."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.float32(0))

    def updated(self, batch: jax.Array) -> "RunningStatistics":
        """Take in `batch`, ``[n, ...]`` (Chan et al., 1979, the parallel algorithm)."""
        batch = batch.astype(jnp.float32)
        count = batch.shape[0]
        total = self.weight + count
        share = count / total
        delta = batch.mean(axis=0) - self.mean
        variance = (
            self.variance * (1 - share) + batch.var(axis=0) * share + delta**2 * share * (1 - share)
        )
        return RunningStatistics(self.mean + delta * share, variance, total)


def normalized(statistics: RunningStatistics, values: jax.Array) -> jax.Array:
    """Return `values`, ``[..., *shape]``, with mean 0 and variance 1 by `statistics`, clipped."""
    scaled = (values - statistics.mean) * jax.lax.rsqrt(statistics.variance + EPSILON)
    return jnp.clip(scaled, -CLIP, CLIP)


def scaled(statistics: RunningStatistics, values: jax.Array) -> jax.Array:
    """Return `values` over the standard deviation of `statistics`, clipped; the sign stays."""
    return jnp.clip(values * jax.lax.rsqrt(statistics.variance + EPSILON), -CLIP, CLIP)
