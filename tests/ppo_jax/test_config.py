"""The static half of a run."""

import dataclasses
import json
import re

import pytest

from ppo_jax.config import AgentConfig, TrainConfig, config_for
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters


def test_defaults_fit_the_default_hyperparameters():
    TrainConfig().check(Hyperparameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs must be an integer of at least 1, but got 0"),
        ({"num_envs": -4}, "but got -4"),
        ({"num_envs": 2.0}, "num_envs must be an integer"),
        ({"num_envs": True}, "num_envs must be an integer"),
        ({"hidden_sizes": (64, 0)}, "hidden_sizes must be an integer of at least 1, but got 0"),
        ({"activation": "tahn"}, "activation must be one of tanh, .*did you mean 'tanh'"),
    ],
)
def test_agents_that_cannot_be_are_refused_with_their_numbers(settings, message):
    with pytest.raises(UserError, match=message):
        AgentConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"matmul_precision": "hihgest"},
            "matmul_precision must be one of default, high, highest, but got 'hihgest'",
        ),
        ({"eval_episodes": 0}, "eval_episodes must be an integer of at least 1"),
        ({"n_steps_choices": ()}, "n_steps_choices must name at least one size"),
        ({"batch_size_choices": ()}, "batch_size_choices must name at least one size"),
        ({"n_steps_choices": (0,)}, "but got 0"),
        ({"batch_size_choices": (-1,)}, "but got -1"),
        (
            {"agent": AgentConfig(num_envs=10)},
            "multiple of num_envs, but got n_steps=1024 with num_envs=10",
        ),
        (
            {"batch_size_choices": (2048,)},
            "at most n_steps, but got batch_size=2048 with n_steps=1024",
        ),
        (
            {"batch_size_choices": (128, 100)},
            "divide n_steps, but got batch_size=100 with n_steps=1024",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_their_numbers(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("choices", "largest", "block"),
    [((1024, 2048, 4096), 4096, 1024), ((96, 64), 96, 32), ((48,), 48, 48), ((160, 64), 160, 32)],
)
def test_blocks_fit_into_every_rollout(choices, largest, block):
    config = TrainConfig(
        agent=AgentConfig(num_envs=16), n_steps_choices=choices, batch_size_choices=(16,)
    )
    assert config.max_n_steps == largest
    assert config.block_size == block


def test_configurations_are_hashable_and_frozen():
    assert hash(TrainConfig()) == hash(TrainConfig())
    assert TrainConfig() == TrainConfig()
    assert TrainConfig(agent=AgentConfig(num_envs=8)) != TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().env = "Acrobot-v1"


def test_a_configuration_as_json():
    config = TrainConfig(env_kwargs=(("gravity", 9.0),), agent=AgentConfig(num_envs=8))
    values = json.loads(json.dumps(config.to_dict()))
    assert values == config.to_dict()
    assert set(values) == {f.name for f in dataclasses.fields(TrainConfig)} - {
        "switched_normalization"  # How it is compiled, not what is run.
    }
    assert values["env_kwargs"] == {"gravity": 9.0}
    assert AgentConfig.from_dict(values["agent"]) == config.agent


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 512}, "n_steps must be one of 1024, 2048, 4096 in .* but got 512"),
        ({"batch_size": 64}, "batch_size must be one of 128, 256, 512 in .* but got 64"),
    ],
)
def test_hyperparameters_outside_the_choices_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig().check(Hyperparameters(**settings))


def test_a_configuration_for_given_shapes_alone():
    hyperparameters = Hyperparameters(n_steps=96, batch_size=48)
    config = config_for(hyperparameters, agent=AgentConfig(num_envs=8, hidden_sizes=(16,)))
    assert config.n_steps_choices == (96,)
    assert config.batch_size_choices == (48,)
    assert config.agent.num_envs == 8
    config.check(hyperparameters)
    with pytest.raises(UserError, match=re.escape("n_steps=100 with num_envs=16")):
        config_for(Hyperparameters(n_steps=100, batch_size=50), agent=AgentConfig(num_envs=16))
