"""What the tests of all suites of environments share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.devices import SeedMesh
from ppo_jax.environments import Continuous, Discrete, MultiDiscrete
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Programs
from ppo_jax.seeds import TRAINING, seed_keys


@pytest.fixture
def random_action():
    def random_action(environment, key):
        match environment.spaces.action_space:
            case Discrete(n):
                return jax.random.randint(key, (), 0, n)
            case MultiDiscrete(sizes):
                return jax.random.randint(key, (len(sizes),), 0, np.array(sizes))
            case Continuous(low, high):
                return jax.random.uniform(
                    key, (len(low),), jnp.float32, np.array(low), np.array(high)
                )

    return random_action


@pytest.fixture
def train_a_little():
    def train_a_little(name, env_kwargs=(), **agent):
        """Train two seeds for three updates; return the programs, the state and the metrics."""
        config = TrainConfig(
            name,
            env_kwargs,
            agent=AgentConfig(num_envs=4, hidden_sizes=(8,), conv_features=(4,), **agent),
            n_steps_choices=(64,),
            batch_size_choices=(32,),
            eval_episodes=2,
        )
        programs = Programs(config, 2)
        hyperparameters = Hyperparameters(n_steps=64, batch_size=32, n_epochs=2)
        state = programs.init(seed_keys(0, TRAINING, 2))
        state, metrics = programs.train_until(state, hyperparameters, 192, 192)
        assert np.asarray(state.finite).all()
        for values in jax.tree.leaves((metrics.loss, metrics.explained_variance)):
            assert values.shape == (2,)
            assert np.isfinite(values).all()
        # Every step belongs to an episode that has ended or to one that is running.
        ended = np.nan_to_num(metrics.episode_length * metrics.episodes)
        running = np.asarray(state.actors.episode_length).sum(axis=1)
        np.testing.assert_allclose(ended + running, 192, rtol=1e-5)
        return programs, state, metrics

    return train_a_little


@pytest.fixture
def accelerator_forms(monkeypatch):
    """What is compiled in the test has the form of an accelerator's, and runs on CPU."""

    def default_of(*args, default, **_):
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_of)
    monkeypatch.setattr(SeedMesh, "few_launches", True)
