"""Packed loops return what plain ones return, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax import packing

ROWS = 3
TREE = {
    "numbers": jnp.array([[0.0, -0.0], [jnp.nan, jnp.inf], [1e-40, 3.5]], jnp.float32),
    "counts": jnp.array([1, -2, 3], jnp.int32),
    "flags": jnp.array([True, False, True]),
    "image": jnp.arange(ROWS * 8, dtype=jnp.uint8).reshape(ROWS, 2, 2, 2),
    "bytes": jnp.arange(ROWS * 3, dtype=jnp.uint8).reshape(ROWS, 3),
    "other rows": jnp.arange(5.0),
    "scalar": jnp.float32(2),
    "key": jax.random.key(0),
    "nothing": None,
}


def equal(one, other):
    def bits(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return x.shape, x.dtype, np.asarray(x).tobytes()

    assert jax.tree.map(bits, one) == jax.tree.map(bits, other)


def test_what_is_packed_is_unpacked():
    packed = packing.pack(TREE)
    assert [words.shape for words in packed[0]] == [(ROWS, 2 + 1 + 1 + 2 + 3), (5, 1)]
    assert len(packed[1]) == 2, "neither keys nor scalars are packed"
    equal(packing.unpack(packed, jax.eval_shape(lambda: TREE)), TREE)


def test_packed_loop_equals_a_plain_one():
    def step(carry, x):
        carry = {**carry, "numbers": carry["numbers"] + x, "flags": ~carry["flags"]}
        outputs = {name: carry[name] for name in ("numbers", "flags", "image", "scalar")}
        return carry, outputs

    xs = jnp.arange(4.0)
    equal(packing.packed_scan(step, TREE, xs), jax.lax.scan(step, TREE, xs))
    equal(packing.scan(step, TREE, xs), jax.lax.scan(step, TREE, xs))
