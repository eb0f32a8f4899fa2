"""Networks at their start, and that starting many seeds ends."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppo_jax
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.networks import make_network

MANY_SEEDS = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.programs import Programs
from ppo_jax.seeds import TRAINING, seed_keys

programs = Programs(TrainConfig(agent=AgentConfig(hidden_sizes=(16, 16))), 8)
for root in range(20):
    state = programs.init(seed_keys(root, TRAINING, 8))
    jax.block_until_ready(state.params)
print("started", len(state.key))
"""


def test_initialising_many_seeds_does_not_hang():
    # jaxlib 0.10 can hang for ever on a batched QR on CPU, beyond the reach of a signal.
    result = subprocess.run(
        [sys.executable, "-c", MANY_SEEDS],
        env={**os.environ, "PYTHONPATH": str(Path(ppo_jax.__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert result.stdout == "started 8\n", result.stderr


def layers(hidden_sizes, env="CartPole-v1"):
    config = TrainConfig(env=env, agent=AgentConfig(hidden_sizes=hidden_sizes))
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    params = network.init(jax.random.key(0), jnp.zeros(environment.spaces.observation_shape))
    return params["params"]


@pytest.mark.parametrize("hidden_sizes", [(64, 64), (32, 8, 16), ()])
@pytest.mark.parametrize(("part", "gain", "width"), [("actor", 0.01, 3), ("critic", 1.0, 1)])
def test_kernels_are_orthogonal_with_the_gains_of_ppo(hidden_sizes, part, gain, width):
    network = layers(hidden_sizes, env="Acrobot-v1")[part]
    sizes = [6, *hidden_sizes, width]
    assert len(network) == len(sizes) - 1
    for i in range(len(network)):
        kernel = np.asarray(network[f"Dense_{i}"]["kernel"])
        assert kernel.shape == (sizes[i], sizes[i + 1])
        gain_here = gain if i == len(network) - 1 else np.sqrt(2)
        # Rows or columns, whichever are fewer, are orthogonal and of one length.
        gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
        expected = gain_here**2 * np.eye(len(gram))
        np.testing.assert_allclose(gram, expected, atol=1e-5 * gain_here**2)


def test_biases_are_zero():
    for leaf in jax.tree.leaves(layers((64, 64))):
        if leaf.ndim == 1:
            np.testing.assert_array_equal(leaf, 0)


def test_actor_and_critic_share_nothing():
    network = layers((16,))
    one, other = (network[part]["Dense_0"]["kernel"] for part in ("actor", "critic"))
    assert np.abs(one - other).max() > 0.1


def test_the_first_policy_is_nearly_uniform():
    environment = make("CartPole-v1")
    network = make_network(AgentConfig(), environment.spaces)
    params = {"params": layers((64, 64))}
    logits, value = network.apply(params, jax.random.normal(jax.random.key(0), (100, 4)))
    assert logits.shape == (100, 2)
    assert value.shape == (100,)
    assert np.abs(jax.nn.softmax(logits) - 0.5).max() < 0.02


@pytest.mark.parametrize(
    ("activation", "function"),
    [("tanh", jnp.tanh), ("relu", jax.nn.relu), ("gelu", jax.nn.gelu), ("silu", jax.nn.silu)],
)
def test_activations(activation, function):
    network = make_network(
        AgentConfig(hidden_sizes=(8,), activation=activation),
        make("CartPole-v1").spaces,
    )
    observation = jnp.array([0.5, -1.0, 2.0, 0.1])
    params = network.init(jax.random.key(0), observation)
    critic = params["params"]["critic"]
    hidden = function(observation @ critic["Dense_0"]["kernel"])
    expected = hidden @ critic["Dense_1"]["kernel"]
    np.testing.assert_allclose(
        network.apply(params, observation, method="value"), expected[0], rtol=1e-5
    )
