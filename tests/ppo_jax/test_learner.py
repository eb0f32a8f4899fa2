"""Shuffling, the optimizer, and when the epochs end."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Continuous, Discrete, Spaces
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import (
    Experience,
    index_of,
    make_optimizer,
    minibatch_advantages,
    optimizer_step,
    policy_advantages,
    shuffle,
    shuffle_rollout,
    update,
)
from ppo_jax.networks import JointActorCritic, make_network, policy_outputs

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


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"adam_beta1": 0.95, "adam_beta2": 0.99, "adam_epsilon": 1e-2},
        {"weight_decay": 0.3, "critic_learning_rate": 0.25},
        {"adam_beta1": 0.0, "weight_decay": 1e-3, "critic_learning_rate": 0.0},
    ],
)
def test_the_optimizer_equals_adamw_of_optax(values):
    random = np.random.default_rng(1)
    network = make_network(STOPPING.agent, SPACES)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros(3, np.float32))
    params, *gradients = (
        jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
        for _ in range(6)
    )
    h = Hyperparameters(learning_rate=0.01, **values)

    def adamw(learning_rate):
        return optax.adamw(
            learning_rate, h.adam_beta1, h.adam_beta2, h.adam_epsilon, weight_decay=h.weight_decay
        )

    groups = {"params": {"actor": "actor", "critic": "critic"}}
    theirs = optax.chain(
        optax.clip_by_global_norm(h.max_grad_norm),
        optax.multi_transform(
            {"actor": adamw(0.01), "critic": adamw(0.01 * h.critic_learning_rate)}, groups
        ),
    )
    ours, expected = params, params
    state, their_state = make_optimizer(h).init(params), theirs.init(params)
    for gradient in gradients:
        ours, state = optimizer_step(ours, network, state, gradient, h.to_arrays())
        updates, their_state = theirs.update(gradient, their_state, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours, expected)


def test_which_parameters_are_those_of_the_critic(random_params):
    network = make_network(STOPPING.agent, Spaces((3,), Continuous((-1.0,), (1.0,))))
    params = random_params(network, (3,))
    found = network.of_critic(params)
    parts = {name: set(map(bool, ravel_pytree(x)[0])) for name, x in found["params"].items()}
    assert parts == {"actor": {False}, "critic": {True}, "log_std": {False}}
    joint = JointActorCritic(network)
    apart = joint.split(joint.of_critic(joint.join(params)))
    jax.tree.map(np.testing.assert_array_equal, apart, found)


@pytest.mark.parametrize(("each", "whole"), [(True, False), (True, True), (False, True)])
def test_advantages_are_normalised_once(each, whole):
    h = Hyperparameters(normalize_advantages=each, advantages_by_rollout=whole)
    advantages = np.random.default_rng(0).normal(3, 5, (8, 2)).astype(np.float32)
    used = np.arange(8)[:, None] < np.array([6, 6])
    of_rollout = policy_advantages(advantages, used, h)
    expected = advantages
    if each and whole:
        expected = (advantages - advantages[:6].mean()) / advantages[:6].std()
    np.testing.assert_allclose(of_rollout, expected, rtol=1e-4, atol=1e-5)
    expected = np.asarray(of_rollout)[:4, 0]
    of_minibatch = minibatch_advantages(expected, h)
    if each and not whole:
        expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(of_minibatch, expected, rtol=1e-4, atol=1e-5)


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


STOPPING = TrainConfig(
    agent=AgentConfig(num_envs=2, hidden_sizes=(8,)),
    n_steps_choices=(32, 64),
    batch_size_choices=(16,),
)
SPACES = Spaces((3,), Discrete(2))


@pytest.fixture(scope="module")
def updated():
    """Update a network with given hyperparameters; a compiled function of them and a seed."""
    network = make_network(STOPPING.agent, SPACES)
    random = np.random.default_rng(0)
    observation = random.normal(size=(64, 3)).astype(np.float32)
    params = network.init(jax.random.key(0), observation)
    action = random.integers(2, size=64)
    log_prob = network.distribution.log_prob(policy_outputs(network, params, observation), action)
    noise = random.normal(size=(3, 64)).astype(np.float32)
    experience = jax.tree.map(jnp.asarray, Experience(observation, action, log_prob, *noise))
    optimizer_state = make_optimizer(Hyperparameters()).init(params)

    def run(hyperparameters, seed, **form):
        key = jax.random.fold_in(jax.random.key(1), seed)
        return update(
            STOPPING, network, params, optimizer_state, experience, hyperparameters, key, **form
        )

    return run


def stopping(target_kl, n_epochs=6):
    return Hyperparameters(
        learning_rate=1e-2, n_steps=64, batch_size=16, n_epochs=n_epochs, target_kl=target_kl
    ).to_arrays()


def test_update_with_few_launches_differs_by_rounding_alone(updated):
    hyperparameters = stopping(0.0, n_epochs=2)
    params, state, metrics = jax.jit(updated)(hyperparameters, 0)
    few = jax.jit(partial(updated, few_launches=True))(hyperparameters, 0)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, few, (params, state, metrics))


def test_epochs_end_when_the_policy_has_moved_too_far(updated):
    run = jax.jit(updated)
    # One program runs any number of epochs, so its results can be compared to the bit.
    plain = {n: run(stopping(0.0, n), 0) for n in range(1, 7)}
    totals = [0.0, *(n * float(plain[n][2].approx_kl) for n in plain)]
    kl = np.diff(totals)
    assert kl[2] > 1.1 * max(kl[:2]), "the third epoch is the first to exceed this target"
    for target, epochs in [(1e-9, 1), ((max(kl[:2]) + kl[2]) / 2, 3), (1e3, 6), (0.0, 6)]:
        jax.tree.map(np.testing.assert_array_equal, run(stopping(target), 0), plain[epochs])


def test_each_seed_stops_for_itself(updated):
    mean_kl = jax.jit(updated)(stopping(0.0), 2)[2].approx_kl
    targets = np.float32([1e-9, 0.0, mean_kl / 2, 1e3])
    batch = dataclasses.replace(stopping(0.0), target_kl=targets)
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, batch)
    together = jax.jit(jax.vmap(updated, (axes, 0)))(batch, np.arange(4))
    steps = []
    for lane, target in enumerate(targets):
        alone = jax.jit(updated)(stopping(target), lane)
        jax.tree.map(
            lambda x, y, lane=lane: np.testing.assert_allclose(x[lane], y, rtol=1e-4, atol=1e-6),
            together,
            alone,
        )
        steps.append(int(optax.tree_utils.tree_get(alone[1], "count")))
    assert steps[0] == 4
    assert steps[1] == steps[3] == 24
    assert 4 < steps[2] < 24
