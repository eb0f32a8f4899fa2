"""Sums of float32 that do not stop growing: each carries what rounding has cut off.

A plain float32 sum drops every term below half a unit in its last place, so means over a
million iterations drift and a count of steps stands still at 2^28. A sum of two float32 numbers,
the rounded one and its remainder, keeps 48 bits (Knuth, The Art of Computer Programming,
volume 2, section 4.2.2, theorem B).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class CompensatedSum(NamedTuple):
    """A sum of trees of float32 arrays.

    Attributes:
      value: the sum, rounded to float32.
      remainder: the exact sum minus `value`, rounded; a tree of the same structure.
    """

    value: Any
    remainder: Any

    @classmethod
    def zero(cls, like: Any) -> "CompensatedSum":
        """Return the empty sum of trees like `like`."""
        zeros = jax.tree.map(jnp.zeros_like, like)
        return cls(zeros, zeros)

    def plus(self, term: Any) -> "CompensatedSum":
        """Return this sum with `term` added, a tree of the same structure and shapes."""
        value = jax.tree.map(jnp.add, self.value, term)
        lost = jax.tree.map(_rounded_off, self.value, term, value)
        remainder = jax.tree.map(jnp.add, self.remainder, lost)
        total = jax.tree.map(jnp.add, value, remainder)
        return CompensatedSum(total, jax.tree.map(_rounded_off, value, remainder, total))


def _rounded_off(a: jax.Array, b: jax.Array, total: jax.Array) -> jax.Array:
    """Return a + b - total exactly, where `total` is a + b rounded; of any two magnitudes."""
    of_b = total - a
    of_a = total - of_b
    return (a - of_a) + (b - of_b)
