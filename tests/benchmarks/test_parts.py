"""The counts behind the limits, by hand."""

import pytest

from benchmarks.parts import products, work
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.hyperparameters import Hyperparameters

DEFAULTS = Hyperparameters()


def test_the_work_of_a_transition_of_cartpole():
    found = work(TrainConfig(), DEFAULTS)
    actor, critic = 2 * (4 * 64 + 64 * 64 + 64 * 2), 2 * (4 * 64 + 64 * 64 + 64 * 1)
    assert found.rollout_flops == actor + 2 * critic
    # No gradient of an observation is needed.
    inputs = 2 * (64 * 64 + 64 * 2) + 2 * (64 * 64 + 64 * 1)
    assert found.update_flops == 4 * (2 * (actor + critic) + inputs)
    parameters = (5 * 64 + 65 * 64 + 65 * 2) + (5 * 64 + 65 * 64 + 65 * 1)
    row = 4 * 4 + 5 * 4
    assert found.bytes == pytest.approx(5 * row + 4 * 7 * 4 * parameters / 256)


def test_an_image_is_counted_in_bytes():
    row = 10 * 10 * 4 + 5 * 4
    found = work(
        TrainConfig("Breakout-MinAtar", agent=AgentConfig(hidden_sizes=(), network="mlp")), DEFAULTS
    )
    parameters = 401 * 3 + 401
    assert found.bytes == pytest.approx(5 * row + 4 * 7 * 4 * parameters / 256)
    assert found.update_flops == 4 * 2 * 2 * 400 * (3 + 1)


@pytest.mark.parametrize("env", ["CartPole-v1", "Breakout-MinAtar"])
@pytest.mark.parametrize("hidden_sizes", [(), (8,), (64, 64), (16, 8, 4)])
def test_the_products_of_a_minibatch_are_the_work_of_its_transitions(env, hidden_sizes):
    config = TrainConfig(env, agent=AgentConfig(hidden_sizes=hidden_sizes, network="mlp"))
    flops = sum(count * 2 * m * k * n for (m, k, n), count in products(config, DEFAULTS).items())
    assert flops * DEFAULTS.n_epochs == work(config, DEFAULTS).update_flops * DEFAULTS.batch_size
