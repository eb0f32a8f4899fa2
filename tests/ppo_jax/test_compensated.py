"""Sums of many float32 terms against exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.compensated import CompensatedSum


@pytest.mark.parametrize("term", [0.6931472, 1.0, 1e-3])
def test_a_million_terms_do_not_drift(term):
    term = np.float32(term)
    total = jax.jit(
        lambda: jax.lax.fori_loop(
            0, 10**6, lambda _, s: s.plus({"x": term}), CompensatedSum.zero({"x": jnp.float32(0)})
        )
    )()
    np.testing.assert_allclose(total.value["x"], np.float64(term) * 10**6, rtol=1e-7)
    plain = jax.jit(lambda: jax.lax.fori_loop(0, 10**6, lambda _, s: s + term, jnp.float32(0)))()
    assert term == 1.0 or abs(plain / (np.float64(term) * 10**6) - 1) > 1e-5


def test_a_count_goes_on_beyond_two_to_the_24():
    count = CompensatedSum(jnp.float32(2**24), jnp.float32(0))
    for _ in range(7):
        count = count.plus(jnp.float32(1))
    assert float(count.value) + float(count.remainder) == 2**24 + 7


def test_terms_of_any_size_and_sign():
    random = np.random.default_rng(0)
    terms = (random.normal(size=5000) * 10.0 ** random.integers(-6, 6, 5000)).astype(np.float32)
    total, _ = jax.lax.scan(
        lambda s, x: (s.plus(x), None), CompensatedSum.zero(jnp.float32(0)), jnp.asarray(terms)
    )
    exact = terms.astype(np.float64).sum()
    assert abs(float(total.value) + float(total.remainder) - exact) < 1e-10 * np.abs(terms).sum()
