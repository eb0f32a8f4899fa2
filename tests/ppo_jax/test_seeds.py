"""Keys by purpose: disjoint, and the same however many seeds there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.seeds import evaluation_key, iteration_key, seed_keys


def data(keys):
    return {tuple(row) for row in np.asarray(jax.random.key_data(keys))}


@pytest.mark.parametrize("root", [0, 1, 42])
def test_keys_of_purposes_are_disjoint(root):
    keys = [data(seed_keys(root, purpose, 1000)) for purpose in range(3)]
    assert len(set.union(*keys)) == 3000


def test_keys_of_roots_are_disjoint():
    keys = [data(seed_keys(root, p, 100)) for root in range(5) for p in range(3)]
    assert len(set.union(*keys)) == sum(map(len, keys))


@pytest.mark.parametrize("purpose", [0, 1])
def test_a_seed_is_the_same_however_many_there_are(purpose):
    few, many = (jax.random.key_data(seed_keys(3, purpose, n)) for n in (3, 50))
    np.testing.assert_array_equal(few, many[:3])


def test_evaluation_and_training_never_share_a_key():
    key = seed_keys(0, 0, 1)[0]
    iterations = jax.vmap(lambda i: iteration_key(key, i))(jnp.arange(10_000))
    checkpoints = jax.vmap(lambda i: evaluation_key(key, i))(jnp.arange(10_000))
    assert len(data(iterations) | data(checkpoints)) == 20_000


def test_keys_follow_from_root_purpose_seed_and_iteration_by_fold_in():
    """Results stay reproducible only while these derivations do not change."""
    fold_in = jax.random.fold_in
    key = fold_in(fold_in(jax.random.key(5), 2), 3)
    assert data(seed_keys(5, 2, 4)[3:]) == data(key[None])
    assert data(iteration_key(key, 7)[None]) == data(fold_in(key, 7)[None])
    expected = fold_in(fold_in(key, np.uint32(2**32 - 1)), 7)
    assert data(evaluation_key(key, 7)[None]) == data(expected[None])
