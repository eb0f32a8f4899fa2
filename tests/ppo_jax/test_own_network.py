"""Networks of one's own: what is asked of them, and that files never decide what is imported."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from examples.own_network import SharedNetwork
from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Continuous, Discrete, MultiDiscrete, Part, Spaces
from ppo_jax.environments.base import MASK, NUMBERS
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import Experience, minibatch_gradient
from ppo_jax.networks import make_network, outputs_and_value, policy_outputs, state_value
from ppo_jax.programs import Weights

NAME = "examples.own_network:SharedNetwork"
AGENT = AgentConfig(network=NAME)
CONFIG = TrainConfig(agent=AGENT)

NETWORKS = """
import flax.linen as nn
import jax.numpy as jnp


class Flat(nn.Module):
    outputs: int

    def setup(self):
        self.layer = nn.Dense(self.outputs)

    def policy(self, x):
        return self.layer(x)

    def value(self, x):
        return self.layer(x)[:, :1]


class NoValue(nn.Module):
    outputs: int

    @nn.compact
    def policy(self, x):
        return nn.Dense(self.outputs)(x)


number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that nothing has imported yet; its name."""
    name = f"networks_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "spaces",
    [
        Spaces((4,), Discrete(3)),
        Spaces((2, 5), Continuous((-1.0, -2.0), (1.0, 2.0))),
        Spaces((4,), MultiDiscrete((2, 3))),
        Spaces.of_parts(
            [Part(("seen",), (4,), NUMBERS), Part(("action_mask",), (3,), MASK)], Discrete(3)
        ),
    ],
    ids=["discrete", "continuous", "several", "masked"],
)
def test_stands_between_our_observations_and_our_distributions(random_params, spaces):
    network = make_network(AGENT, spaces)
    shape = spaces.observation_shape
    params = random_params(network, shape)
    random = np.random.default_rng(0)
    observation = random.normal(size=(5, 2, *shape)).astype(np.float32)
    if spaces.mask_size:
        observation[..., -3:] = [1, 0, 1]
    outputs = np.asarray(policy_outputs(network, params, observation))
    assert outputs.shape == (5, 2, network.distribution.width)
    assert state_value(network, params, observation).shape == (5, 2)
    if spaces.mask_size:
        assert (outputs[..., 1] < -1e8).all()
    body = {"params": params["params"]["body"]}
    seen = observation.reshape(10, *shape)[..., : spaces.measured_shape[-1]]
    expected = np.asarray(network.body.apply(body, seen, method="policy")).reshape(5, 2, -1)
    allowed = [0, 2] if spaces.mask_size else range(expected.shape[-1])
    close = np.testing.assert_allclose
    close(outputs[..., allowed], expected[..., allowed], rtol=1e-6)
    flat = observation.reshape(10, *shape)
    action = network.distribution.sample(
        outputs.reshape(10, -1), network.distribution.noise(jax.random.key(0), (10,))
    )
    number = jnp.linspace(-1, 1, 10)
    batch = Experience(flat, action, number, number, number, number)
    gradient, _ = minibatch_gradient(params, network, batch, number, Hyperparameters())
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    both = outputs_and_value(network, params, flat)
    close(both[1], state_value(network, params, flat), rtol=1e-6)


def test_what_it_names_critic_learns_at_the_rate_of_the_critic(random_params):
    network = make_network(AGENT, Spaces((4,), Discrete(2)))
    found = network.of_critic(random_params(network, (4,)))["params"]["body"]
    critics = {name for name, part in found.items() if ravel_pytree(part)[0].any()}
    assert critics == {"critic"}
    assert not network.can_be_joined


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MODULE:Flat", r"policy must have the shape \(3, 2\) and value \(3,\), .* and \(3, 1\)"),
        ("MODULE:NoValue", "cannot be made: AttributeError"),
        ("MODULE:Flatt", "has no class or function 'Flatt'; did you mean 'Flat'"),
        ("MODULE:number", "has no class or function 'number'"),
        ("no_such_module:Flat", "network .* cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_does_not_keep_to_it_is_refused(module, name, message):
    with pytest.raises(UserError, match=message):
        make_network(AgentConfig(network=name.replace("MODULE", module)), Spaces((4,), Discrete(2)))


@pytest.mark.parametrize("name", ["a:b:c", ":Net", "module:", "../module:Net", "a b:c"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UserError, match="is named as module:Class, but got"):
        AgentConfig(network=name)


@pytest.fixture
def folder(tmp_path, random_params):
    network = make_network(AGENT, Spaces((4,), Discrete(2)))
    policy.of(CONFIG, Weights(random_params(network, (4,)), None)).save(tmp_path)
    return tmp_path


def test_a_policy_says_what_it_needs_and_acts_with_it(folder):
    described = json.loads((folder / "policy.json").read_text())
    assert described["needs"]["network"] == NAME
    loaded = policy.load(folder, SharedNetwork)
    assert loaded.agent == policy.load(folder, NAME).agent
    observations = np.random.default_rng(0).normal(size=(20, 4))
    expected = policy_outputs(loaded.network, loaded.weights.params, np.float32(observations))
    np.testing.assert_array_equal(loaded.act(observations), np.asarray(expected).argmax(-1))
    assert "needs" not in policy.of(TrainConfig(), loaded.weights).description


def test_a_policy_is_saved_under_the_name_that_it_was_loaded_with(folder, tmp_path, monkeypatch):
    text = (folder / "policy.json").read_text()
    (folder / "policy.json").write_text(text.replace(NAME, "elsewhere:Net"))
    policy.load(folder, SharedNetwork).save(tmp_path / "again")
    described = json.loads((tmp_path / "again" / "policy.json").read_text())
    assert described["agent"]["network"] == described["needs"]["network"] == NAME
    card = (tmp_path / "again" / "README.md").read_text()
    assert f"load(\"FOLDER\", network='{NAME}')" in card


def test_files_do_not_decide_what_is_imported(folder, module, refusal):
    path, name = folder / "policy.json", f"{module}:Flat"
    path.write_text(path.read_text().replace(NAME, name))
    message = f"names the network '{name}', whose code would be imported and run"
    with pytest.raises(UserError, match=message):
        policy.load(folder)
    assert message in refusal("ppo_jax.evaluate", folder)
    assert message in refusal("ppo_jax.export.__main__", folder, "--to", "onnx")
    with pytest.raises(UserError, match=message):
        AgentConfig.from_dict({"network": name})
    assert module not in sys.modules


def test_the_export_says_what_it_cannot_do_with_it(folder, refusal):
    pytest.importorskip("onnxruntime")
    onnx = (folder, "--to", "onnx", "--network", NAME)
    assert "--to onnx is for mlp and cnn" in refusal("ppo_jax.export.__main__", *onnx)


@pytest.mark.slow
def test_the_commands_train_and_evaluate_with_it(in_process, tmp_path):
    sizes = ("--total-steps", 4096, "--seeds", 2, "--output", tmp_path)
    trained = in_process("ppo_jax.train", "--network", NAME, *sizes, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    evaluate = ("ppo_jax.evaluate", tmp_path / "policy", "--episodes", 4, "--network", NAME)
    played = in_process(*evaluate, cwd=tmp_path)
    assert played.returncode == 0, played.stderr
