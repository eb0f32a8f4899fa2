"""Numbers that are not finite, planted at every place, end as a seed that has diverged."""

import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import evaluation, learner, trainer
from ppo_jax.config import AgentConfig, config_for
from ppo_jax.environments import make
from ppo_jax.hyperparameters import Hyperparameters

HYPERPARAMETERS = Hyperparameters(n_steps=32, batch_size=16, n_epochs=2)


class Planted:
    """CartPole whose rewards or observations are not finite once the pole leans to the right."""

    name = "Planted"
    reward = observation = False
    costly_reset = False

    def __init__(self):
        inner = make("CartPole-v1", (("max_steps_in_episode", 11),))
        self.spaces, self.observation_dtype = inner.spaces, inner.observation_dtype
        self.max_episode_steps, self.reset, self._inner = 11, inner.reset, inner

    def step(self, key, state, action):
        timestep = self._inner.step(key, state, action)
        leans = timestep.observation[2] > 0
        return timestep._replace(
            reward=jnp.where(leans & self.reward, jnp.nan, timestep.reward),
            observation=jnp.where(leans & self.observation, jnp.nan, timestep.observation),
        )


class InReward(Planted):
    reward = True


class InObservation(Planted):
    observation = True


@pytest.fixture(autouse=True)
def module(monkeypatch):
    planted = ModuleType("planted")
    planted.Nowhere, planted.InReward, planted.InObservation = Planted, InReward, InObservation
    monkeypatch.setitem(sys.modules, "planted", planted)


@jax.custom_vjp
def bad_gradient(x):
    return x


bad_gradient.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.nan,))


def config(name, **agent):
    return config_for(
        HYPERPARAMETERS,
        AgentConfig(num_envs=4, hidden_sizes=(), **agent),
        env=f"planted:{name}",
        eval_episodes=4,
    )


def train(config):
    def run(key):
        state = trainer.init(config, key)
        return trainer.train_until(config, state, HYPERPARAMETERS.to_arrays(), 2, 2)

    state, _ = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(
        jax.random.key(0)
    )
    return state


def test_nothing_planted_nothing_found():
    state = train(config("Nowhere"))
    assert state.finite
    returns = evaluation.evaluate(config("Nowhere"), state.params, jax.random.key(1))
    assert np.isfinite(returns).all()


@pytest.mark.parametrize(
    ("name", "normalized"),
    [
        ("InReward", False),
        ("InObservation", True),
        pytest.param("InReward", True, marks=pytest.mark.slow),
        pytest.param("InObservation", False, marks=pytest.mark.slow),
    ],
)
def test_environment_in_training(name, normalized):
    switches = {"normalize_observations": normalized, "normalize_rewards": normalized}
    assert not train(config(name, **switches)).finite


@pytest.mark.parametrize("name", ["InReward", "InObservation"])
def test_environment_in_evaluation(name):
    state = trainer.init(config(name), jax.random.key(0))
    returns = evaluation.evaluate(config(name), state.params, jax.random.key(1))
    assert np.isnan(returns).any()


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_loss_and_gradient(monkeypatch, place):
    loss = learner._loss

    def planted(*args):
        value, metrics = loss(*args)
        return (value * jnp.nan if place == "loss" else bad_gradient(value)), metrics

    monkeypatch.setattr(learner, "_loss", planted)
    assert not train(config("Nowhere")).finite
