"""ONNX Runtime acts with an exported policy as the policy itself does."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import policy as policies
from ppo_jax.config import AgentConfig
from ppo_jax.environments.base import (
    IMAGE,
    MASK,
    NUMBERS,
    Continuous,
    Discrete,
    MultiDiscrete,
    Part,
    Spaces,
)
from ppo_jax.errors import UserError
from ppo_jax.export import __main__ as export
from ppo_jax.networks import make_network
from ppo_jax.normalization import RunningStatistics
from ppo_jax.policy import Policy
from ppo_jax.programs import Weights

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from ppo_jax.export.onnx import largest_difference, model_of, write  # noqa: E402

PARTS = Spaces.of_parts(
    [
        Part(("seen",), (5, 5, 2), IMAGE),
        Part(("speed",), (3,), NUMBERS),
        Part(("action_mask",), (4,), MASK),
    ],
    Discrete(4),
)
CASES = {
    "mlp": (Spaces((4,), Discrete(3)), AgentConfig(hidden_sizes=(8,))),
    "continuous": (
        Spaces((3,), Continuous((-2.0, -np.inf), (1.0, np.inf))),
        AgentConfig(hidden_sizes=(8, 4), activation="relu", normalize_observations=True),
    ),
    "squashed": (
        Spaces((3,), Continuous((-2.0,), (1.0,))),
        AgentConfig(hidden_sizes=(8,), activation="silu", squash_actions=True),
    ),
    "bounded on one side": (
        Spaces((3,), Continuous((-np.inf, 0.5), (0.5, np.inf))),
        AgentConfig(hidden_sizes=(8,)),
    ),
    "several": (
        Spaces((3,), MultiDiscrete((2, 5))),
        AgentConfig(hidden_sizes=(8,), activation="gelu"),
    ),
    "image": (
        Spaces((6, 5, 2), Discrete(3), scale=255.0),
        AgentConfig(hidden_sizes=(8,), conv_features=(4, 3), activation="relu"),
    ),
    "parts": (PARTS, AgentConfig(hidden_sizes=(8,), conv_features=(4,))),
    "parts, normalised": (
        PARTS,
        AgentConfig(hidden_sizes=(8,), conv_features=(4,), normalize_observations=True),
    ),
}


@pytest.fixture
def make(random_params):
    def policy(name):
        spaces, agent = CASES[name]
        params = random_params(make_network(agent, spaces), spaces.observation_shape)
        statistics = None
        if agent.normalize_observations:
            shape = spaces.measured_shape
            statistics = RunningStatistics(
                jnp.full(shape, 2.0), jnp.full(shape, 9.0), jnp.float32(100)
            )
        return Policy(agent, spaces, Weights(params, statistics), {})

    return policy


def run(policy, observation):
    session = runtime.InferenceSession(
        model_of(policy).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"observation": observation})


@pytest.mark.parametrize("name", CASES)
def test_actions_are_those_of_the_policy(make, name):
    policy = make(name)
    rng = np.random.default_rng(1)
    observation = rng.normal(0, 5, (50, *policy.spaces.observation_shape)).astype(np.float32)
    if mask := policy.network.mask_size:
        observation[:, -mask:] = rng.random((50, mask)) < 0.5
        observation[:, -1] = 1
    action, outputs = run(policy, observation)
    expected = policy.act(observation)
    assert (action.shape, action.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
    assert len(outputs) == 50
    if mask:
        assert observation[np.arange(50), action - 4].all(), "an action that the mask forbids"


def test_a_wrong_model_is_noticed(make):
    policy = make("mlp")
    content = model_of(policy).SerializeToString()
    assert largest_difference(policy, content) < 1e-6
    params = {"params": dict(policy.weights.params["params"])}
    actor = params["params"]["actor"]
    bias = actor["Dense_0"]["bias"] + 0.01
    params["params"]["actor"] = actor | {"Dense_0": actor["Dense_0"] | {"bias": bias}}
    other = dataclasses.replace(policy, weights=Weights(params, None))
    assert largest_difference(other, content) > 1e-4


def test_a_wrong_range_of_actions_is_noticed(make):
    policy = make("bounded on one side")
    content = model_of(policy).SerializeToString()
    assert largest_difference(policy, content) < 1e-6
    wide = Spaces((3,), Continuous((-np.inf, 0.5), (1.5, np.inf)))
    assert largest_difference(dataclasses.replace(policy, spaces=wide), content) > 1e-4


def test_the_command_writes_beside_the_policy(make, tmp_path, monkeypatch, capsys):
    policy = make("mlp")
    monkeypatch.setattr(policies, "load", lambda folder, network: policy)
    export.main([str(tmp_path), "--to", "onnx"])
    assert "outputs of ONNX Runtime within" in capsys.readouterr().out
    assert onnx.load(tmp_path / "policy.onnx").producer_name == "ppo_jax"


def test_a_network_with_memory_is_refused(make, tmp_path):
    policy = make("mlp")
    agent = dataclasses.replace(policy.agent, network="gru")
    with pytest.raises(UserError, match="mlp and cnn"):
        write(dataclasses.replace(policy, agent=agent), tmp_path / "x.onnx")


def test_an_unknown_network_is_refused(make, tmp_path):
    policy = make("mlp")
    params = {"params": policy.weights.params["params"] | {"cell": {"kernel": np.zeros(1)}}}
    with pytest.raises(UserError, match="mlp and cnn, but this network has cell"):
        write(dataclasses.replace(policy, weights=Weights(params, None)), tmp_path / "x.onnx")
