"""Evaluation against a plain loop over the environment."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import evaluation
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Discrete, Spaces, Timestep, make
from ppo_jax.networks import make_network

EPISODES = 5


def configured(limit):
    return TrainConfig(
        env_kwargs=(("max_steps_in_episode", limit),),
        agent=AgentConfig(hidden_sizes=(8,)),
        eval_episodes=EPISODES,
    )


@pytest.fixture
def params_of(random_params):
    """Return a function that draws parameters of a policy that is not uniform."""

    def draw(config, seed=0):
        network = make_network(config.agent, make(config.env, config.env_kwargs).spaces)
        return random_params(network, (4,), scale=2.0, seed=seed)

    return draw


def plain_returns(config, params, key):
    """Each episode alone, one step after the other, with the keys that evaluation uses."""
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    step, logits_of = jax.jit(environment.step), jax.jit(partial(network.apply, method="policy"))
    reset_key, step_key = jax.random.split(key)
    returns = []
    for episode, its_key in enumerate(jax.random.split(reset_key, EPISODES)):
        state, observation = environment.reset(its_key)
        total, index, ended = 0.0, 0, False
        while not ended:
            action = int(np.argmax(logits_of(params, observation)))
            keys = jax.random.split(jax.random.fold_in(step_key, index), EPISODES)
            timestep = step(keys[episode], state, action)
            state, observation, index = timestep.state, timestep.observation, index + 1
            total += float(timestep.reward)
            ended = timestep.terminated or timestep.truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("seed", [0, 1])
def test_returns_equal_those_of_a_plain_loop(params_of, seed):
    config = configured(500)
    params, key = params_of(config, seed), jax.random.key(seed)
    returns = jax.jit(partial(evaluation.evaluate, config))(params, key)
    assert returns.shape == (EPISODES,)
    np.testing.assert_allclose(returns, plain_returns(config, params, key))
    assert len(set(returns.tolist())) > 1
    assert (returns < 500).all()


@pytest.mark.parametrize("limit", [1, 3, 32, 33, 40])
def test_episodes_stop_at_the_time_limit(params_of, limit):
    config = configured(limit)
    # It pushes to where the pole falls, so it stays up for long.
    params = jax.tree.map(jnp.zeros_like, params_of(config))
    params["params"]["actor"]["Dense_0"]["kernel"] = jnp.zeros((4, 8)).at[2:, 0].set(1.0)
    params["params"]["actor"]["Dense_1"]["kernel"] = jnp.zeros((8, 2)).at[0, 1].set(1.0)
    returns = jax.jit(partial(evaluation.evaluate, config))(params, jax.random.key(0))
    np.testing.assert_array_equal(returns, limit)


def test_the_same_key_gives_the_same_episodes(params_of):
    config = configured(100)
    evaluate = jax.jit(partial(evaluation.evaluate, config))
    params = params_of(config)
    one, again, other = (evaluate(params, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


class Ramp:
    """Pays 1, 2, 3, ... and ends after as many steps as its start drew."""

    name = "ramp"
    spaces = Spaces((1,), Discrete(2))
    observation_dtype = jnp.float32
    max_episode_steps = 40
    costly_reset = False

    def reset(self, key):
        state = jnp.array([0, jax.random.randint(key, (), 1, 41)])
        return state, state[:1].astype(jnp.float32)

    def step(self, _key, state, _action):
        after = state + jnp.array([1, 0])
        ended = after[0] == after[1]
        return Timestep(
            state=after,
            observation=after[:1].astype(jnp.float32),
            reward=after[0].astype(jnp.float32),
            terminated=ended & (after[1] % 2 == 0),
            truncated=ended & (after[1] % 2 == 1),
        )


def test_rewards_after_the_first_episode_do_not_count(monkeypatch, random_params):
    monkeypatch.setattr(evaluation, "make", lambda *_: Ramp())
    config = TrainConfig(env="ramp", agent=AgentConfig(hidden_sizes=()), eval_episodes=30)
    params = random_params(make_network(config.agent, Ramp().spaces), (1,))
    key = jax.random.key(3)
    returns = jax.jit(partial(evaluation.evaluate, config))(params, key)
    starts = jax.vmap(Ramp().reset)(jax.random.split(jax.random.split(key)[0], 30))[0]
    lengths = np.asarray(starts[:, 1])
    assert len(set(lengths)) > 10
    np.testing.assert_array_equal(returns, lengths * (lengths + 1) / 2)


class Dice(Ramp):
    """Pays a random number every step, for 40 steps."""

    def reset(self, _key):
        return jnp.array([0, 40]), jnp.zeros(1)

    def step(self, key, state, action):
        return super().step(key, state, action)._replace(reward=jax.random.uniform(key))


def test_every_step_of_every_episode_has_a_key_of_its_own(monkeypatch, random_params):
    monkeypatch.setattr(evaluation, "make", lambda *_: Dice())
    config = TrainConfig(env="dice", agent=AgentConfig(hidden_sizes=()), eval_episodes=3)
    params = random_params(make_network(config.agent, Dice().spaces), (1,))
    key = jax.random.key(3)
    returns = jax.jit(partial(evaluation.evaluate, config))(params, key)
    expected = np.zeros(3)
    for index in range(40):
        keys = jax.random.split(jax.random.fold_in(jax.random.split(key)[1], index), 3)
        expected += jax.vmap(jax.random.uniform)(keys)
    np.testing.assert_allclose(returns, expected, rtol=1e-5)
