"""The networks against plain matrix products."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config import AgentConfig
from ppo_jax.environments import Continuous, Discrete, Spaces, make
from ppo_jax.errors import UserError
from ppo_jax.networks import JointActorCritic, make_network, policy_outputs, product, state_value


@pytest.mark.parametrize("batch", [(), (7,), (3, 5)])
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 20])
def test_gradients_of_a_product_are_those_of_matmul(batch, columns):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*batch, 6))
    kernel = jax.random.normal(keys[1], (6, columns))
    weight = jax.random.normal(keys[2], (*batch, columns))

    def gradients(multiply):
        return jax.jit(jax.grad(lambda *args: (multiply(*args) * weight).sum(), (0, 1)))(x, kernel)

    np.testing.assert_allclose(
        product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-6
    )
    for ours, theirs in zip(gradients(product), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_product_on_lanes():
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], (4, 7, 6)), jax.random.normal(keys[1], (4, 6, 9))

    def gradient(multiply):
        return jax.vmap(jax.grad(lambda x, k: jnp.tanh(multiply(x, k)).sum(), 1))(x, kernel)

    np.testing.assert_allclose(gradient(product), gradient(jnp.matmul), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar"])
def test_observations_of_any_shape_are_flattened(random_params, name):
    environment = make(name)
    network = make_network(AgentConfig(hidden_sizes=(5,), network="mlp"), environment.spaces)
    shape = environment.spaces.observation_shape
    observation = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 3, *shape))
    params = random_params(network, observation.shape)
    logits = policy_outputs(network, params, observation)
    value = state_value(network, params, observation)
    assert logits.shape == (2, 3, environment.spaces.action_space.n)
    assert value.shape == (2, 3)
    rows = np.asarray(observation, np.float32).reshape(6, -1)

    def mlp(layers):
        hidden = np.tanh(rows @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
        return hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]

    tower = jax.tree.map(np.asarray, params["params"])
    np.testing.assert_allclose(logits.reshape(6, -1), mlp(tower["actor"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value.reshape(6, 1), mlp(tower["critic"]), rtol=1e-4, atol=1e-5)


CONTINUOUS = Continuous((-1.0, 0.0), (1.0, 2.0))


@pytest.mark.parametrize(
    ("action_space", "hidden_sizes"),
    [(Discrete(3), ()), (CONTINUOUS, (6,)), (Discrete(3), (6, 6, 4))],
)
def test_joint_network_is_actor_and_critic(random_params, action_space, hidden_sizes):
    spaces = Spaces((2, 3), action_space)
    network = make_network(AgentConfig(hidden_sizes=hidden_sizes), spaces)
    joint = JointActorCritic(network)
    observation = jax.random.normal(jax.random.key(0), (7, 2, 3))
    params = random_params(network, observation.shape)
    joined = joint.join(params)
    assert jax.tree.structure(joint.split(joined)) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, joint.split(joined), params)

    def loss(network, params):
        outputs, values = network.apply(params, observation)
        return jnp.sin(outputs).sum() + jnp.cos(values).sum(), (outputs, values)

    expected, ours = (
        jax.jit(jax.grad(partial(loss, module), has_aux=True))(weights)
        for module, weights in ((network, params), (joint, joined))
    )
    gradient = ours[0]
    ours = joint.split(ours[0]), ours[1]
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, ours, expected)
    # Nothing but actor and critic: a step along the gradient leaves what is padded zero.
    padded = jax.tree.map(jnp.subtract, gradient, joint.join(joint.split(gradient)))
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(padded))


IMAGES = Spaces((7, 6, 2), Discrete(3))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_convolutions_are_those_of_xla(random_params, batch):
    agent = AgentConfig(conv_features=(3, 5), hidden_sizes=(4,), activation="relu")
    network = make_network(agent, IMAGES)
    images = jax.random.normal(jax.random.key(0), (*batch, 7, 6, 2))
    params = random_params(network, images.shape)
    layers = params["params"]["critic_convolutions"]
    x = images.reshape(-1, 7, 6, 2)
    for name in ("Dense_0", "Dense_1"):
        kernel = layers[name]["kernel"].reshape(3, 3, x.shape[-1], -1)
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions)
        x = jax.nn.relu(x + layers[name]["bias"])
    assert x.shape[1:] == (3, 2, 5)
    first, last = params["params"]["critic"].values()
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ first["kernel"] + first["bias"])
    expected = (hidden @ last["kernel"] + last["bias"]).reshape(batch)
    np.testing.assert_allclose(state_value(network, params, images), expected, rtol=1e-4, atol=1e-5)
    assert policy_outputs(network, params, images).shape == (*batch, 3)


def test_auto_is_a_cnn_for_images_alone():
    agent = AgentConfig()
    assert make_network(agent, IMAGES).conv_features == agent.conv_features
    for shape in ((4,), (10, 5), (2, 9, 3)):
        assert make_network(agent, Spaces(shape, Discrete(2))).conv_features == ()
    assert make_network(AgentConfig(network="mlp"), IMAGES).conv_features == ()


@pytest.mark.parametrize("squash", [False, True])
def test_the_spread_of_continuous_actions_is_a_parameter_of_its_own(squash):
    agent = AgentConfig(initial_log_std=-0.7, squash_actions=squash)
    network = make_network(agent, Spaces((5,), Continuous((-1.0, 0.0), (1.0, 2.0))))
    observations = jax.random.normal(jax.random.key(0), (9, 5))
    params = network.init(jax.random.key(1), observations)
    np.testing.assert_allclose(params["params"]["log_std"], [-0.7, -0.7])
    outputs = policy_outputs(network, params, observations)
    assert outputs.shape == (9, 4)
    np.testing.assert_allclose(outputs[:, 2:], -0.7, rtol=1e-6)
    assert np.abs(outputs[:, :2]).max() < 0.1


@pytest.mark.parametrize(
    ("agent", "spaces", "message"),
    [
        ({"network": "cnn"}, Spaces((4,), Discrete(2)), "needs images of at least 3 × 3"),
        ({"network": "cnn"}, Spaces((2, 9, 1), Discrete(2)), r"shape \(2, 9, 1\)"),
        ({"squash_actions": True}, Spaces((4,), Discrete(2)), "is for continuous actions"),
        ({"squash_actions": True}, Spaces((4,), Continuous((-1.0,), (np.inf,))), "finite bounds"),
    ],
)
def test_what_the_spaces_do_not_allow_is_refused(agent, spaces, message):
    with pytest.raises(UserError, match=message):
        make_network(AgentConfig(**agent), spaces)
