"""Tiny environments whose values and best actions are known exactly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import evaluation, trainer
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Discrete, Spaces, Timestep
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network

CONFIG = TrainConfig(
    env="a probe",
    agent=AgentConfig(num_envs=8, hidden_sizes=(16,)),
    n_steps_choices=(64,),
    batch_size_choices=(32,),
    eval_episodes=64,
)


class Probe:
    """An environment whose state is (steps of this episode, a random sign, the first action)."""

    name = "a probe"
    max_episode_steps = 2
    costly_reset = False

    def __init__(self, length=1, ending="terminated"):
        self.length, self.ending = length, ending

    spaces = Spaces((2,), Discrete(2))
    observation_dtype = jnp.float32

    def reset(self, key):
        state = (jnp.int32(0), jax.random.rademacher(key, (), jnp.int32), jnp.int32(0))
        return state, self.observe(state)

    def step(self, _key, state, action):
        time, sign, first_action = state
        first_action = jnp.where(time == 0, action, first_action)
        after = (time + 1, sign, first_action)
        ended = time + 1 == self.length
        return Timestep(
            state=after,
            observation=self.observe(after),
            reward=jnp.where(ended, self.reward(sign, first_action), 0.0).astype(jnp.float32),
            terminated=ended & (self.ending != "truncated"),
            truncated=ended & (self.ending != "terminated"),
        )

    def observe(self, state):
        """Show the time and nothing else."""
        return jnp.array([state[0] == 0, state[0] > 0], jnp.float32)

    def reward(self, _sign, _first_action):
        return 1.0


class Unchanging(Probe):
    """A probe that always looks the same."""

    def observe(self, _state):
        return jnp.ones(2, jnp.float32)


class Choice(Probe):
    """A probe that pays for choosing the sign it showed at the start."""

    def observe(self, state):
        time, sign, _ = state
        return jnp.array([jnp.where(time == 0, sign, 0), time > 0], jnp.float32)

    def reward(self, sign, first_action):
        return (first_action == (sign > 0)).astype(jnp.float32)


def train(monkeypatch, environment, iterations=150, **settings):
    """Return what evaluates the trained network, and its parameters."""
    for module in (trainer, evaluation):
        monkeypatch.setattr(module, "make", lambda *_: environment)
    hyperparameters = Hyperparameters(
        n_steps=64,
        batch_size=32,
        **{"learning_rate": 3e-3, "anneal_learning_rate": True, "entropy_coef": 0.0, **settings},
    ).to_arrays()
    state = jax.jit(partial(trainer.init, CONFIG))(jax.random.key(0))
    count = np.int32(iterations)
    train_until = jax.jit(
        partial(trainer.train_until, CONFIG),
        compiler_options={"xla_backend_optimization_level": 0},  # Compiles faster.
    )
    state, _ = train_until(state, hyperparameters, count, count)
    assert state.finite
    return make_network(CONFIG.agent, environment.spaces), state.params


def values(monkeypatch, environment, observations, **settings):
    network, params = train(monkeypatch, environment, **settings)
    return network.apply(params, jnp.asarray(observations, jnp.float32), method="value")


FIRST, SECOND = (1, 0), (0, 1)


@pytest.mark.parametrize(
    ("ending", "value"),
    [("terminated", 1.0), ("truncated", 2.0), ("both", 1.0)],
)
def test_the_value_of_a_constant_reward(monkeypatch, ending, value):
    # After a truncation the reward would have gone on: 1 / (1 - gamma).
    learned = values(monkeypatch, Unchanging(1, ending), (1, 1), gamma=0.5)
    np.testing.assert_allclose(learned, value, atol=0.02)


def test_a_delayed_reward_is_discounted(monkeypatch):
    learned = values(monkeypatch, Probe(length=2), [FIRST, SECOND], gamma=0.7)
    np.testing.assert_allclose(learned, [0.7, 1.0], atol=0.03)


def test_a_truncation_bootstraps_from_the_observation_before_the_reset(monkeypatch):
    # The episode is cut off in an observation like its second: V = 1 + V/2 there. With the
    # observation after the reset it would be 1 + V(FIRST)/2 = 4/3.
    learned = values(monkeypatch, Probe(2, "truncated"), [FIRST, SECOND], gamma=0.5)
    np.testing.assert_allclose(learned, [1.0, 2.0], atol=0.04)


@pytest.mark.parametrize("length", [1, 2])
def test_the_action_that_the_observation_asks_for_is_learned(monkeypatch, length):
    # With two steps the reward comes one step after the action that earned it.
    _, params = train(monkeypatch, Choice(length), iterations=80)
    returns = jax.jit(partial(evaluation.evaluate, CONFIG))(params, jax.random.key(1))
    np.testing.assert_array_equal(returns, 1.0)
