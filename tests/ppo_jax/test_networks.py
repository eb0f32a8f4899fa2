"""The networks against plain matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.networks import action_logits, make_network, product, state_value


@pytest.mark.parametrize("batch", [(), (7,), (3, 5)])
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 20])
def test_gradients_of_a_product_are_those_of_matmul(batch, columns):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*batch, 6))
    kernel = jax.random.normal(keys[1], (6, columns))
    weight = jax.random.normal(keys[2], (*batch, columns))

    def gradients(multiply):
        return jax.jit(jax.grad(lambda *args: (multiply(*args) * weight).sum(), (0, 1)))(x, kernel)

    np.testing.assert_allclose(product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=1e-5)
    for ours, theirs in zip(gradients(product), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_product_on_lanes():
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], (4, 7, 6)), jax.random.normal(keys[1], (4, 6, 9))

    def gradient(multiply):
        return jax.vmap(jax.grad(lambda x, k: jnp.tanh(multiply(x, k)).sum(), 1))(x, kernel)

    np.testing.assert_allclose(gradient(product), gradient(jnp.matmul), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar"])
def test_observations_of_any_shape_are_flattened(name):
    environment = make(name)
    network = make_network(TrainConfig(name, hidden_sizes=(5,)), environment)
    shape = environment.observation_shape
    observation = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 3, *shape))
    params = network.init(jax.random.key(1), observation)
    logits = action_logits(network, params, observation)
    value = state_value(network, params, observation)
    assert logits.shape == (2, 3, environment.num_actions)
    assert value.shape == (2, 3)
    rows = np.asarray(observation, np.float32).reshape(6, -1)

    def mlp(layers):
        hidden = np.tanh(rows @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
        return hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]

    tower = jax.tree.map(np.asarray, params["params"])
    np.testing.assert_allclose(logits.reshape(6, -1), mlp(tower["actor"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value.reshape(6, 1), mlp(tower["critic"]), rtol=1e-4, atol=1e-5)
