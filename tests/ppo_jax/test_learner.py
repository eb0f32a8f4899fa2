"""Shuffling and the optimizer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import index_of, make_optimizer, shuffle, shuffle_rollout

SIZES = [1, 2, 3, 32, 100, 1024, 1025, 65_536, 65_537, 100_000]


@pytest.mark.parametrize("size", SIZES)
def test_shuffle_is_a_permutation(size):
    order = shuffle(jax.random.key(size), size)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [size for size in SIZES if size >= 32])
def test_shuffle_differs_between_keys_and_from_the_identity(size):
    one, other = (np.asarray(shuffle(jax.random.key(seed), size)) for seed in (0, 1))
    # A random permutation has one fixed point on average.
    assert (one == other).sum() < 12
    assert (one == np.arange(size)).sum() < 12
    np.testing.assert_array_equal(one, shuffle(jax.random.key(0), size))


@pytest.mark.parametrize("size", [5, 8])
def test_shuffle_puts_every_entry_in_every_place_equally_often(size):
    draws = 8000
    keys = jax.random.split(jax.random.key(0), draws)
    orders = np.asarray(jax.jit(jax.vmap(partial(shuffle, size=size)))(keys))
    counts = np.stack([(orders == entry).sum(0) for entry in range(size)])
    expected = draws / size
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    # And not only one by one: neighbours too, each ordered pair as often as any other.
    pairs = np.unique(orders[:, 0] * size + orders[:, 1], return_counts=True)[1]
    assert len(pairs) == size * (size - 1)
    expected = draws / len(pairs)
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected)


def test_large_shuffles_are_roughly_uniform():
    for size in (65_536, 65_537):
        order = np.asarray(shuffle(jax.random.key(2), size))
        correlation = np.corrcoef(order, np.arange(size))[0, 1]
        assert abs(correlation) < 5 / np.sqrt(size)
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / np.sqrt(size)


@pytest.mark.parametrize("n_steps", [48, 64, 160])
def test_a_shorter_rollout_is_shuffled_in_front(n_steps):
    config = TrainConfig(
        agent=AgentConfig(num_envs=4), n_steps_choices=(48, 160, 64), batch_size_choices=(16,)
    )
    order = jax.jit(partial(shuffle_rollout, config))(jax.random.key(0), jnp.int32(n_steps))
    assert order.shape == (160,)
    np.testing.assert_array_equal(np.sort(order[:n_steps]), np.arange(n_steps))
    np.testing.assert_array_equal(order[:n_steps], shuffle(jax.random.key(0), n_steps))


@pytest.mark.parametrize("choices", [(7,), (128, 256, 512), (512, 128)])
def test_index_of(choices):
    for index, value in enumerate(choices):
        assert jax.jit(lambda value: index_of(value, choices))(value) == index


def numpy_adam(gradients, learning_rate, max_grad_norm):
    """Adam (arXiv:1412.6980, algorithm 1) on gradients clipped by their global norm."""
    params, m, v = [[np.zeros_like(g, np.float64) for g in gradients[0]] for _ in range(3)]
    for t, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient))
        for i, g in enumerate(gradient):
            g = g.astype(np.float64) * min(1.0, max_grad_norm / norm)
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            m_hat, v_hat = m[i] / (1 - 0.9**t), v[i] / (1 - 0.999**t)
            params[i] = params[i] - learning_rate * m_hat / (np.sqrt(v_hat) + 1e-5)
    return params


def test_the_optimizer_clips_by_global_norm_and_does_adam():
    random = np.random.default_rng(0)
    # Small and large gradients, in leaves of very different size: an elementwise clip or
    # one a leaf would turn the direction. Some so small that Adam's epsilon counts.
    gradients = [
        [
            (scale * random.normal(size=(3, 2))).astype(np.float32),
            (scale * 10 * random.normal(size=4)).astype(np.float32),
        ]
        for scale in (1e-6, 1e-5, 0.01, 1.0, 30.0)
    ]
    traces = []

    @jax.jit
    def optimize(gradients, hyperparameters):
        traces.append(None)
        optimizer = make_optimizer(hyperparameters)
        params = [jnp.zeros_like(g) for g in gradients[0]]
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    for learning_rate, max_grad_norm in [(1e-2, 0.5), (3e-4, 0.5), (1e-2, 2.0), (1e-2, 1e6)]:
        hyperparameters = Hyperparameters(
            learning_rate=learning_rate, max_grad_norm=max_grad_norm
        ).to_arrays()
        computed = optimize(gradients, hyperparameters)
        expected = numpy_adam(gradients, learning_rate, max_grad_norm)
        for ours, theirs in zip(computed, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert len(traces) == 1, "the learning rate or the norm was compiled in"
