"""Loops whose state and outputs are packed into one array each, where every launch counts.

A GPU writes each output of a trip of :func:`jax.lax.scan` with a kernel of its own, and copies
each part of its state with another; for small arrays a launch costs more than the writing. On
CPU, which has no launches, packing only costs.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

_Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(step: _Step, carry: Any, xs: Any) -> tuple[Any, Any]:
    """Return what ``jax.lax.scan(step, carry, xs)`` returns, bit for bit."""

    def plain(carry: Any, xs: Any) -> tuple[Any, Any]:
        scanned: tuple[Any, Any] = jax.lax.scan(step, carry, xs)
        return scanned

    result: tuple[Any, Any] = jax.lax.platform_dependent(
        carry, xs, cpu=plain, default=partial(packed_scan, step)
    )
    return result


def packed_scan(step: _Step, carry: Any, xs: Any) -> tuple[Any, Any]:
    """Scan with state and outputs packed, whatever the device."""
    first = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], xs))
    outputs_like = jax.eval_shape(step, carry, first)[1]
    carry_like = jax.eval_shape(lambda: carry)

    def packing(packed: Any, x: Any) -> tuple[Any, Any]:
        carry, outputs = step(unpack(packed, carry_like), x)
        return pack(carry), pack(outputs)

    packed, outputs = jax.lax.scan(packing, pack(carry), xs)
    return unpack(packed, carry_like), unpack(outputs, outputs_like)


_Packed = tuple[list[jax.Array], list[jax.Array]]
"""Words, an array for each number of rows; and the leaves that are not packed."""


def pack(tree: Any) -> _Packed:
    """Put the leaves of a tree that have equally many rows side by side, as words.

    Packed are numbers of four bytes, bytes and flags, ``[n, ...]``; words are uint32 ``[n,
    words]``. Others, such as keys and scalars, stay as they are.
    """
    leaves = jax.tree.leaves(tree)
    groups = _groups(leaves)
    words = [
        jnp.concatenate([_words(leaves[place]) for place in places], axis=1)
        for places in groups.values()
    ]
    return words, [leaf for leaf in leaves if not _is_packed(leaf)]


def unpack(packed: _Packed, like: Any) -> Any:
    """Return the tree that was packed, or a stack of such trees along leading axes.

    Args:
      packed: of :func:`pack`, its arrays stacked along any number of leading axes.
      like: a tree of the same structure, shapes and types, without those axes.
    """
    leaves, structure = jax.tree.flatten(like)
    words, others = packed
    found: dict[int, jax.Array] = {}
    for stacked, places in zip(words, _groups(leaves).values(), strict=True):
        first = 0
        for place in places:
            leaf = leaves[place]
            size = math.prod(leaf.shape[1:])
            count = size // 4 if _is_dense(leaf) else size
            part = _leaf(stacked[..., first : first + count], leaf)
            found[place] = part.reshape(*stacked.shape[:-1], *leaf.shape[1:])
            first += count
    unpacked = (place for place, leaf in enumerate(leaves) if not _is_packed(leaf))
    found.update(zip(unpacked, others, strict=True))
    return jax.tree.unflatten(structure, [found[place] for place in range(len(leaves))])


def _groups(leaves: Sequence[Any]) -> dict[int, list[int]]:
    """Return number of rows -> places of the leaves that are packed together."""
    groups: dict[int, list[int]] = {}
    for place, leaf in enumerate(leaves):
        if _is_packed(leaf):
            groups.setdefault(leaf.shape[0], []).append(place)
    return groups


def _is_packed(leaf: Any) -> bool:
    known = (jnp.float32, jnp.int32, jnp.uint32, jnp.uint8, jnp.bool_)
    return leaf.ndim > 0 and leaf.dtype in known


def _is_dense(leaf: Any) -> bool:
    """Return whether four numbers of `leaf` share a word."""
    return bool(leaf.dtype == jnp.uint8 and math.prod(leaf.shape[1:]) % 4 == 0)


def _words(leaf: jax.Array) -> jax.Array:
    rows = leaf.reshape(len(leaf), -1)
    if _is_dense(leaf):
        return jax.lax.bitcast_convert_type(rows.reshape(len(leaf), -1, 4), jnp.uint32)
    if leaf.dtype in (jnp.bool_, jnp.uint8):
        return rows.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(rows, jnp.uint32)


def _leaf(words: jax.Array, like: Any) -> jax.Array:
    if _is_dense(like):
        return jax.lax.bitcast_convert_type(words, jnp.uint8)
    if like.dtype in (jnp.bool_, jnp.uint8):
        return words.astype(like.dtype)
    return jax.lax.bitcast_convert_type(words, like.dtype)
