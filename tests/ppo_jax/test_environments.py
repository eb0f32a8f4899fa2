"""The gymnax suite behind the protocol."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.environments import Continuous, Discrete, make
from ppo_jax.errors import UserError

OFFLINE = [name for name in gymnax.registered_envs if name != "MNISTBandit-bsuite"]


def slow_but(*names):
    """Return all environments, of which only `names` are not slow."""
    return [
        name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in OFFLINE
    ]


@pytest.mark.parametrize(
    ("name", "shape", "actions", "limit"),
    [
        ("CartPole-v1", (4,), Discrete(2), 500),
        ("Acrobot-v1", (6,), Discrete(3), 500),
        ("MountainCar-v0", (2,), Discrete(3), 200),
        ("Breakout-MinAtar", (10, 10, 4), Discrete(3), 1000),
        ("Pendulum-v1", (3,), Continuous((-2.0,), (2.0,)), 200),
        ("PointRobot-misc", (6,), Continuous((-0.1, -0.1), (0.1, 0.1)), 100),
        ("FrozenLake-misc", (16,), Discrete(4), 100),
        ("Catch-bsuite", (10, 5), Discrete(3), 1000),
    ],
)
def test_spaces(name, shape, actions, limit):
    environment = make(name)
    assert environment.spaces.observation_shape == shape
    assert environment.spaces.action_space == actions
    assert environment.max_episode_steps == limit


# One of each family, and those that the protocol has to adapt.
KINDS = (
    *("CartPole-v1", "Pendulum-v1", "Catch-bsuite", "MemoryChain-bsuite", "FrozenLake-misc"),
    *("PointRobot-misc", "GaussianBandit-misc", "FourRooms-misc", "Breakout-MinAtar"),
)


@pytest.mark.parametrize("name", slow_but(*KINDS))
def test_every_environment_keeps_the_protocol_and_steps_as_gymnax_does(name, random_action):
    environment, (suite, parameters) = make(name), gymnax.make(name)
    assert environment.name == name
    step, its_step = jax.jit(environment.step), jax.jit(suite.step)
    state, observation = environment.reset(jax.random.key(3))
    for t in range(12):
        assert observation.shape == environment.spaces.observation_shape
        assert observation.dtype == environment.observation_dtype
        key = jax.random.fold_in(jax.random.key(4), t)
        action = random_action(environment, key)
        # It splits its key for the reset that it draws with every step.
        timestep = step(jax.random.split(key)[0], state, action)
        assert timestep.reward.shape == timestep.terminated.shape == timestep.truncated.shape == ()
        assert timestep.reward.dtype == jnp.float32
        assert timestep.terminated.dtype == timestep.truncated.dtype == bool
        _, _, reward, terminated, truncated, info = its_step(key, state, action, parameters)
        theirs = info["final_observation"]
        if name == "FrozenLake-misc":
            theirs = np.eye(16)[theirs]
        np.testing.assert_allclose(timestep.observation, theirs, atol=1e-5)
        np.testing.assert_allclose(timestep.reward, np.reshape(reward, ()), rtol=1e-6)
        assert timestep.terminated == np.reshape(terminated, ())
        assert timestep.truncated == truncated
        ended = timestep.terminated | timestep.truncated
        state, observation = environment.reset(key) if ended else timestep[:2]


@pytest.mark.parametrize("name", slow_but("Catch-bsuite"))
def test_every_environment_trains(name, train_a_little):
    _, _, metrics = train_a_little(name)
    limit = make(name).max_episode_steps
    assert (np.nan_to_num(metrics.episode_length) <= limit).all()
    assert (metrics.episodes > 0).all() or limit * 4 > 192


@pytest.mark.parametrize(
    "name", ["Pendulum-v1", pytest.param("Breakout-MinAtar", marks=pytest.mark.slow)]
)
def test_everything_normalized_trains(name, train_a_little):
    squash = {"squash_actions": True} if name == "Pendulum-v1" else {}
    programs, state, _ = train_a_little(
        name, normalize_observations=True, normalize_rewards=True, **squash
    )
    returns = programs.evaluate(state, 0)
    assert returns.shape == (2, 2)
    assert np.isfinite(returns).all()


def play(environment, action, steps, seed=0):
    """Return the timesteps of `steps` steps with one action; no choice for MountainCar."""
    state, observation = environment.reset(jax.random.key(seed))
    step, timesteps = jax.jit(environment.step), []
    for t in range(steps):
        timestep = step(jax.random.fold_in(jax.random.key(seed), t), state, jnp.int32(action))
        timesteps.append(timestep)
        state = timestep.state
    return observation, timesteps


def test_the_time_limit_truncates():
    environment = make("MountainCar-v0", (("max_steps_in_episode", 7),))
    assert environment.max_episode_steps == 7
    _, timesteps = play(environment, 1, 7)
    assert [bool(t.truncated) for t in timesteps] == [False] * 6 + [True]
    assert not any(t.terminated for t in timesteps)


def test_a_falling_pole_terminates_and_is_not_truncated():
    environment = make("CartPole-v1")
    _, timesteps = play(environment, 1, 12)
    assert not any(t.truncated for t in timesteps)
    end = next(t for t in timesteps if t.terminated)
    # The observation is that of the fallen pole, not of a new episode.
    assert abs(end.observation[2]) > 12 * 2 * np.pi / 360
    assert end.reward == 1


@pytest.mark.parametrize(
    "game",
    [
        *("Breakout", "SpaceInvaders"),
        *(pytest.param(g, marks=pytest.mark.slow) for g in ("Asterix", "Freeway", "Seaquest")),
    ],
)
def test_a_byte_holds_an_observation_of_minatar(game):
    suite, parameters = gymnax.make(f"{game}-MinAtar")

    def step(carry, key):
        action_key, step_key = jax.random.split(key)
        action = suite.action_space(parameters).sample(action_key)
        observation, state, *_ = suite.step(step_key, carry[0], action, parameters)
        return (state, jnp.asarray(observation, jnp.float32)), observation

    observation, state = suite.reset(jax.random.key(0), parameters)
    keys = jax.random.split(jax.random.key(1), 400)
    _, observations = jax.lax.scan(step, (state, jnp.asarray(observation, jnp.float32)), keys)
    assert set(np.unique(observations)) == {0, 1}


def test_falling_in_the_last_step_is_both():
    _, timesteps = play(make("CartPole-v1"), 1, 12)
    length = [bool(t.terminated) for t in timesteps].index(True) + 1
    _, timesteps = play(make("CartPole-v1", (("max_steps_in_episode", length),)), 1, length)
    assert timesteps[-1].terminated
    assert timesteps[-1].truncated


def test_parameters_change_the_dynamics():
    heavy = make("CartPole-v1", (("force_mag", 1.0), ("gravity", 20.0)))
    _, ours = play(heavy, 1, 1)
    _, default = play(make("CartPole-v1"), 1, 1)
    assert abs(ours[0].observation[1]) < abs(default[0].observation[1])


def test_an_integer_is_a_number():
    one, other = (make("CartPole-v1", (("gravity", g),)) for g in (10, 10.5))
    _, (first,) = play(one, 1, 1)
    assert first.observation.dtype == jnp.float32
    _, (second,) = play(other, 1, 1)
    assert not np.array_equal(first.observation, second.observation)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("CartPol-v1", "CartPole-v1"), ("cartpole-v1", "CartPole-v1"), ("Acrobat-v1", "Acrobot-v1")],
)
def test_an_unknown_name_gets_the_nearest(name, suggestion):
    with pytest.raises(UserError, match=f"'{name}'; did you mean '{suggestion}'.*MountainCar-v0"):
        make(name)


def test_what_downloads_is_refused_with_the_reason():
    with pytest.raises(UserError, match="'MNISTBandit-bsuite' is not supported: it downloads"):
        make("MNISTBandit-bsuite")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_steps": 10}, "no parameter 'max_steps'; did you mean 'max_steps_in_episode'"),
        ({"gravitiy": 9.0}, "did you mean 'gravity'"),
        ({"zzz": 1}, r"no parameter 'zzz' \(known: .*gravity"),
        ({"gravity": "heavy"}, "takes gravity as float .*but got 'heavy'"),
        ({"gravity": True}, "takes gravity as float .*but got True"),
        ({"max_steps_in_episode": 10.5}, "takes max_steps_in_episode as int .*but got 10.5"),
        ({"max_steps_in_episode": 0}, "at least 1, but got 0"),
        ({"max_steps_in_episode": -5}, "at least 1, but got -5"),
    ],
)
def test_wrong_parameters_are_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        make("CartPole-v1", tuple(kwargs.items()))


@pytest.mark.parametrize("name", ["DiscountingChain-bsuite", "FourRooms-misc"])
def test_an_environment_can_be_made_while_a_program_is_traced(name):
    kwargs = (("max_steps_in_episode", 23),)
    observation = jax.jit(lambda key: make(name, kwargs).reset(key)[1])(jax.random.key(0))
    environment = make(name, kwargs)
    state, again = environment.reset(jax.random.key(0))
    np.testing.assert_array_equal(observation, again)
    environment.step(jax.random.key(1), state, jnp.int32(0))


@pytest.mark.parametrize("value", [31.0, True])
def test_a_wrong_type_is_refused_also_where_an_equal_value_was_used(value):
    make("CartPole-v1", (("max_steps_in_episode", int(value)),))
    with pytest.raises(UserError, match=f"but got {value}"):
        make("CartPole-v1", (("max_steps_in_episode", value),))


@pytest.mark.parametrize(
    ("name", "value"), [("max_steps_in_episode", 2**40), ("gravity", float("nan"))]
)
def test_numbers_that_do_not_fit_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        make("CartPole-v1", ((name, value),))
