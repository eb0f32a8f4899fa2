"""Collecting transitions from an environment whose every step is known."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Discrete, Spaces, Timestep, make
from ppo_jax.networks import make_network
from ppo_jax.normalization import CLIP, EPSILON
from ppo_jax.rollout import collect, reset_actors

NUM_ENVS = 3
CONFIG = TrainConfig(
    env="counter",
    agent=AgentConfig(num_envs=NUM_ENVS, hidden_sizes=(8,)),
    n_steps_choices=(12, 24, 60),
    batch_size_choices=(6,),
)
# Of the first episode of each environment.
LENGTHS = np.array([3, 5, 4])


class Counter:
    """Observes [steps of the episode, length of its episodes, last action]; pays the action + 1.

    Episodes of odd length terminate, those of even length are truncated.
    """

    name = "counter"
    spaces = Spaces((3,), Discrete(2))
    observation_dtype = jnp.float32
    max_episode_steps = 5
    costly_reset = False

    def reset(self, key):
        state = jnp.array([0, jax.random.randint(key, (), 3, 6), -1], jnp.float32)
        return state, state

    def step(self, _key, state, action):
        time, length, _ = state
        after = jnp.array([time + 1, length, action], jnp.float32)
        ended = after[0] == length
        odd = length % 2 == 1
        return Timestep(
            state=after,
            observation=after,
            reward=action + jnp.float32(1),
            terminated=ended & odd,
            truncated=ended & ~odd,
        )


ENVIRONMENT = Counter()
NETWORK = make_network(CONFIG.agent, ENVIRONMENT.spaces)
roll = jax.jit(partial(collect, CONFIG, ENVIRONMENT, NETWORK, gamma=0.9))


@pytest.fixture(scope="module")
def params():
    params = NETWORK.init(jax.random.key(0), jnp.zeros(3))
    # The first policy is nearly uniform; make it lean, each observation its own way.
    return jax.tree.map(lambda x: x * 200 if x.shape == (8, 2) else x, params)


@pytest.fixture
def actors():
    actors = reset_actors(CONFIG, ENVIRONMENT, jax.random.key(1))
    start = jnp.stack([jnp.zeros(3), jnp.asarray(LENGTHS, jnp.float32), -jnp.ones(3)], axis=1)
    return type(actors)(start, start, actors.episode_return, actors.episode_length)


@pytest.mark.parametrize("n_steps", CONFIG.n_steps_choices)
def test_transitions_are_what_happened_in_the_order_of_time(params, actors, n_steps):
    rows = n_steps // NUM_ENVS
    after, rollout, totals = roll(params, actors, jax.random.key(2), jnp.int32(n_steps))
    rollout = jax.tree.map(np.asarray, rollout)
    assert set(np.unique(rollout.action[:rows])) == {0, 1}

    episodes, returns, lengths = 0, 0.0, 0
    drawn = []
    for n in range(NUM_ENVS):
        time, length, last_action, episode_return = 0, LENGTHS[n], -1, 0.0
        for t in range(rows):
            if time == 0 and t > 0:
                length = rollout.observation[t, n, 1]
                drawn.append(length)
            assert rollout.observation[t, n].tolist() == [time, length, last_action]
            last_action, time = rollout.action[t, n], time + 1
            assert rollout.reward[t, n] == last_action + 1
            episode_return += last_action + 1
            ended = time == length
            assert rollout.terminated[t, n] == (ended and length % 2 == 1)
            assert rollout.truncated[t, n] == (ended and length % 2 == 0)
            if ended:
                episodes, returns, lengths = (
                    episodes + 1,
                    returns + episode_return,
                    lengths + time,
                )
                time, last_action, episode_return = 0, -1, 0.0
        assert after.observation[n, ::2].tolist() == [time, last_action]
        assert after.episode_length[n] == time
        assert after.episode_return[n] == episode_return
    assert totals == (episodes, returns, lengths)
    if n_steps == CONFIG.max_n_steps:
        assert set(drawn) == {3, 4, 5}, "episodes are to start in states of their own"


@pytest.mark.parametrize("n_steps", CONFIG.n_steps_choices)
def test_the_tail_of_the_buffer_is_zero(params, actors, n_steps):
    rows = n_steps // NUM_ENVS
    _, rollout, _ = roll(params, actors, jax.random.key(2), jnp.int32(n_steps))
    for leaf in jax.tree.leaves(rollout):
        assert leaf.shape[:2] == (CONFIG.max_n_steps // NUM_ENVS, NUM_ENVS)
        np.testing.assert_array_equal(leaf[rows:], 0)
    assert (rollout.reward[:rows] > 0).all()


def test_values_and_log_probabilities_are_those_of_the_network(params, actors):
    _, rollout, _ = roll(params, actors, jax.random.key(2), jnp.int32(60))
    logits, value = NETWORK.apply(params, rollout.observation)
    np.testing.assert_allclose(rollout.value, value, rtol=1e-5, atol=1e-6)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    expected = np.take_along_axis(log_probs, np.asarray(rollout.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(rollout.log_prob, expected, rtol=1e-4, atol=1e-5)
    assert log_probs.std() > 0.1


def test_next_value_is_that_of_the_observation_before_the_reset(params, actors):
    _, rollout, _ = roll(params, actors, jax.random.key(2), jnp.int32(60))
    time, length, _ = np.moveaxis(np.asarray(rollout.observation), -1, 0)
    final = np.stack([time + 1, length, rollout.action], axis=-1)
    expected = NETWORK.apply(params, jnp.asarray(final), method="value")
    np.testing.assert_allclose(rollout.next_value, expected, rtol=1e-5, atol=1e-6)
    # At an end it is not the value of what comes next.
    ended = np.asarray(rollout.terminated | rollout.truncated)[:-1]
    assert (np.abs(rollout.next_value[:-1] - rollout.value[1:])[ended] > 1e-3).all()
    np.testing.assert_allclose(
        rollout.next_value[:-1][~ended], rollout.value[1:][~ended], rtol=1e-5, atol=1e-6
    )


def test_actors_carry_on_where_they_stopped(params, actors):
    first, _, first_totals = roll(params, actors, jax.random.key(2), jnp.int32(24))
    then, rollout, then_totals = roll(params, first, jax.random.key(3), jnp.int32(24))
    np.testing.assert_array_equal(rollout.observation[0], first.observation)
    assert first.episode_length.any()
    assert then_totals.episodes == (rollout.terminated | rollout.truncated).sum()
    lengths = first_totals.length_sum + then_totals.length_sum
    assert lengths + then.episode_length.sum() == 2 * 24


def test_a_rollout_is_the_beginning_of_a_longer_one(params, actors):
    key = jax.random.key(2)
    _, short, _ = roll(params, actors, key, jnp.int32(12))
    _, long, _ = roll(params, actors, key, jnp.int32(60))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:4], b[:4], rtol=1e-5), short, long)


def test_actions_depend_on_the_key(params, actors):
    one, other = (
        roll(params, actors, jax.random.key(seed), jnp.int32(60))[1].action for seed in (2, 3)
    )
    assert (one != other).any()


def test_environments_and_blocks_draw_their_own_actions(params, actors):
    uniform = jax.tree.map(jnp.zeros_like, params)
    _, rollout, _ = roll(uniform, actors, jax.random.key(2), jnp.int32(60))
    assert (rollout.action[:, 0] != rollout.action[:, 1]).any()
    rows = CONFIG.block_size // NUM_ENVS
    assert len(np.unique(rollout.action.reshape(-1, rows * NUM_ENVS), axis=0)) == 60 // 12
    assert 15 < rollout.action.sum() < 45


def test_environments_start_in_states_of_their_own():
    actors = reset_actors(CONFIG, make("CartPole-v1"), jax.random.key(0))
    assert actors.observation.shape == (NUM_ENVS, 4)
    assert len(np.unique(actors.observation)) == NUM_ENVS * 4
    np.testing.assert_array_equal(actors.episode_return, 0)
    np.testing.assert_array_equal(actors.episode_length, 0)


NORMALIZING = dataclasses.replace(
    CONFIG,
    agent=dataclasses.replace(CONFIG.agent, normalize_observations=True, normalize_rewards=True),
)


@pytest.fixture(scope="module")
def normalized_rollout(params):
    actors = reset_actors(NORMALIZING, ENVIRONMENT, jax.random.key(1))
    # Lengths as in LENGTHS, so that some episodes end and others do not.
    roll = jax.jit(partial(collect, NORMALIZING, ENVIRONMENT, NETWORK, gamma=0.9))
    return actors, *roll(params, actors, jax.random.key(2), jnp.int32(60))


def replay(actors, rollout):
    """Play the rollout's actions in plain NumPy; yield what each step saw and led to."""
    state = np.asarray(actors.env_state)
    starts = replayed_starts(rollout)
    for t, actions in enumerate(np.asarray(rollout.action)):
        after = np.stack([state[:, 0] + 1, state[:, 1], actions], axis=1)
        ended = after[:, 0] == after[:, 1]
        yield state, after, ended, actions + 1.0
        state = np.where(ended[:, None], starts[t], after)


def replayed_starts(rollout):
    """Return the states that new episodes start in, drawn as `collect` draws them."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(2)))(jnp.arange(len(rollout.action)))
    reset_keys = [jax.random.split(key, 3)[2] for key in keys]
    reset = jax.vmap(lambda key: ENVIRONMENT.reset(key)[1])
    return [np.asarray(reset(jax.random.split(key, NUM_ENVS))) for key in reset_keys]


def test_observations_are_normalized_by_all_seen_so_far_the_first_included(
    params, normalized_rollout
):
    actors, after, rollout, _ = normalized_rollout
    seen = []

    def normalize(x):
        rows = np.concatenate(seen)
        scaled = (x - rows.mean(0)) / np.sqrt(rows.var(0) + EPSILON)
        return np.clip(scaled, -CLIP, CLIP)

    steps = list(replay(actors, rollout))
    for t, (state, final, _, _) in enumerate(steps):
        seen.append(state)
        np.testing.assert_allclose(rollout.observation[t], normalize(state), rtol=1e-3, atol=1e-3)
        if t + 1 < len(steps):
            seen.append(steps[t + 1][0])
            expected = NETWORK.apply(params, jnp.float32(normalize(final)), method="value")
            np.testing.assert_allclose(rollout.next_value[t], expected, rtol=1e-3, atol=1e-3)
            seen.pop()
    statistics = after.observation_statistics
    assert statistics.weight == (60 // NUM_ENVS + 1) * NUM_ENVS
    seen.append(np.asarray(after.observation))
    rows = np.concatenate(seen)
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, rows.var(0), rtol=1e-3)


def test_rewards_are_divided_by_the_spread_of_discounted_returns(normalized_rollout):
    actors, after, rollout, totals = normalized_rollout
    discounted, seen = np.zeros(NUM_ENVS), []
    for t, (_, _, ended, reward) in enumerate(replay(actors, rollout)):
        discounted = 0.9 * discounted + reward
        seen.append(discounted)
        deviation = np.sqrt(np.concatenate(seen).var() + EPSILON)
        expected = np.clip(reward / deviation, -CLIP, CLIP)
        np.testing.assert_allclose(rollout.reward[t], expected, rtol=1e-3)
        discounted = np.where(ended, 0, discounted)
    np.testing.assert_allclose(after.discounted_return, discounted, rtol=1e-5)
    # What is reported is the return of the environment.
    assert totals.return_sum == int(totals.return_sum)
    assert totals.return_sum >= totals.length_sum
