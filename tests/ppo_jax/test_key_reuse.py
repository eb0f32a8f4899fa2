"""JAX's own checker finds no random key that is used for two purposes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import evaluation, trainer
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Discrete, Spaces, Timestep
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.rollout import collect
from ppo_jax.seeds import evaluation_key, seed_keys


class Dice:
    """An environment whose resets and steps show what they draw from their keys."""

    name = "dice"
    max_episode_steps = 4
    spaces = Spaces((2,), Discrete(2))
    observation_dtype = jnp.float32

    def __init__(self, costly_reset):
        self.costly_reset = costly_reset

    def reset(self, key):
        state = (jnp.int32(0), jax.random.uniform(key))
        return state, jnp.stack([state[1], 0.0])

    def step(self, key, state, _action):
        time, start = state
        drawn = jax.random.uniform(key)
        observation = jnp.stack([start, drawn])
        ended = time + 1 == self.max_episode_steps
        return Timestep((time + 1, start), observation, drawn, ended, jnp.array(False))


CONFIG = TrainConfig(
    env="dice",
    agent=AgentConfig(
        num_envs=4, hidden_sizes=(4,), normalize_observations=True, normalize_rewards=True
    ),
    n_steps_choices=(32, 64),
    batch_size_choices=(16,),
    eval_episodes=4,
)


@pytest.fixture(params=[False, True], ids=["cheap reset", "costly reset"])
def environment(request, monkeypatch):
    environment = Dice(request.param)
    for module in (trainer, evaluation):
        monkeypatch.setattr(module, "make", lambda _name, _kwargs: environment)
    return environment


@pytest.mark.usefixtures("environment")
def test_no_key_is_used_twice():
    hyperparameters = Hyperparameters(n_steps=64, batch_size=16, n_epochs=2).to_arrays()

    @jax.jit
    def run(key):
        state = trainer.init(CONFIG, key)
        state, metrics = trainer.train_until(
            CONFIG, state, hyperparameters, jnp.int32(2), jnp.int32(2)
        )
        statistics = state.actors.observation_statistics
        key = evaluation_key(state.key, 1)
        return metrics, evaluation.evaluate(CONFIG, state.params, key, statistics)

    with jax.debug_key_reuse(True):
        _, returns = run(seed_keys(0, 1, 1)[0])
    assert np.isfinite(returns).all()


def test_a_new_episode_shares_no_draw_with_the_steps_of_its_block(environment):
    """What a start shows is no number that a step of the rollout has drawn as well."""
    network = trainer.make_network(CONFIG.agent, environment.spaces)
    config = dataclasses.replace(CONFIG, agent=AgentConfig(num_envs=4, hidden_sizes=(4,)))
    state = trainer.init(config, jax.random.key(0))
    roll = jax.jit(partial(collect, config, environment, network))
    _, rollout, _ = roll(
        state.params, state.actors, jax.random.key(1), jnp.int32(64), jnp.float32(0.9)
    )
    ended = np.asarray(rollout.terminated)
    assert ended.any()
    observations = np.asarray(rollout.observation)
    starts = observations[1:][ended[:-1]][:, 0]
    drawn = observations[..., 1].ravel()
    assert not set(np.round(starts, 5)) & set(np.round(drawn, 5))
