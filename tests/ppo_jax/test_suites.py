"""Suites besides gymnax; each is tested where its package is installed: ``make test-suites``."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.environments import Continuous, Discrete, MultiDiscrete, make, suites
from ppo_jax.environments.contract import check_contract
from ppo_jax.errors import UserError

ROOT = Path(__file__).parents[2]
SPACES = {
    "brax/inverted_pendulum": ((4,), Continuous((-1.0,), (1.0,)), 1000),
    "brax/ant": ((27,), Continuous((-1.0,) * 8, (1.0,) * 8), 1000),
    "navix/Navix-Empty-5x5-v0": ((5, 5, 3), Discrete(7), 100),
    "craftax/Craftax-Classic-Symbolic-v1": ((1345,), Discrete(17), 10_000),
    "jumanji/Snake-v1": ((12 * 12 * 5 + 1 + 4,), Discrete(4), 4000),
    "jumanji/Tetris-v0": ((2 * 10 * 10 + 2 * 4 * 4 + 1 + 40,), Discrete(40), 400),
    "jumanji/Cleaner-v0": ((3 * 10 * 10 + 11 * 3 * 2 + 1 + 12,), MultiDiscrete((4,) * 3), 100),
    "xminigrid/MiniGrid-Empty-5x5": ((7, 7, 2), Discrete(6), 100),
    "playground/CartpoleBalance": ((5,), Continuous((-1.0,), (1.0,)), 1000),
}

PACKAGES = {"playground": "mujoco_playground"}
"""Suites whose package has another name."""


def installed(name):
    suite = name.partition("/")[0]
    return importlib.util.find_spec(PACKAGES.get(suite, suite)) is not None


def needs(name):
    package = name.partition("/")[0]
    return pytest.param(
        name, marks=pytest.mark.skipif(not installed(name), reason=f"{package} is not installed")
    )


@pytest.mark.parametrize("name", [needs(name) for name in SPACES])
def test_an_environment_keeps_the_protocol(name, random_action):
    shape, actions, limit = SPACES[name]
    environment = make(name)
    assert environment.name == name
    check_contract(environment)
    assert environment.spaces.observation_shape == shape
    assert environment.spaces.action_space == actions
    assert environment.max_episode_steps == limit
    reset, step = jax.jit(environment.reset), jax.jit(environment.step)
    state, observation = reset(jax.random.key(0))
    other, other_observation = reset(jax.random.key(1))
    if "Empty-5x5" not in name and "Cleaner" not in name:  # They have one start.
        assert (observation != other_observation).any(), "starts are to differ"
    for t in range(5):
        key = jax.random.fold_in(jax.random.key(2), t)
        timestep = step(key, state, random_action(environment, key))
        assert jax.tree.structure(timestep.state) == jax.tree.structure(other)
        assert timestep.observation.shape == shape
        assert timestep.observation.dtype == environment.observation_dtype
        assert np.isfinite(timestep.observation).all()
        assert timestep.reward.shape == timestep.terminated.shape == timestep.truncated.shape == ()
        assert timestep.reward.dtype == jnp.float32
        assert timestep.terminated.dtype == timestep.truncated.dtype == bool
        state = timestep.state


LIMITS = {
    "brax/inverted_pendulum": "max_steps_in_episode",
    "navix/Navix-Empty-5x5-v0": "max_steps_in_episode",
    "craftax/Craftax-Classic-Symbolic-v1": "max_timesteps",
    "jumanji/Cleaner-v0": "max_steps_in_episode",
    "xminigrid/MiniGrid-Empty-5x5": "max_steps",
    "playground/CartpoleBalance": "max_steps_in_episode",
}


@pytest.mark.parametrize("name", [needs(name) for name in LIMITS])
def test_a_time_limit_truncates_and_does_not_terminate(name):
    environment = make(name, ((LIMITS[name], 3),))
    assert environment.max_episode_steps == 3
    state, _ = environment.reset(jax.random.key(0))
    space = environment.spaces.action_space
    match space:
        case Discrete():
            rest = jnp.int32(0)
        case MultiDiscrete(sizes):
            rest = jnp.ones(len(sizes), jnp.int32)  # Of all cleaners to the right, into a wall.
        case Continuous():
            rest = jnp.zeros(space.size)
    step, flags = jax.jit(environment.step), []
    for t in range(3):
        timestep = step(jax.random.key(t), state, rest)
        flags.append((bool(timestep.terminated), bool(timestep.truncated)))
        state = timestep.state
    assert flags == [(False, False), (False, False), (False, True)]


@pytest.mark.skipif(not installed("brax"), reason="brax is not installed")
def test_a_fallen_pole_of_brax_terminates():
    environment = make("brax/inverted_pendulum")
    state, _ = environment.reset(jax.random.key(0))
    step = jax.jit(environment.step)
    for t in range(100):
        timestep = step(jax.random.key(t), state, jnp.ones(1))
        state = timestep.state
        if timestep.terminated:
            break
    assert timestep.terminated
    assert not timestep.truncated


@pytest.mark.parametrize("name", [needs(name) for name in LIMITS])
def test_an_environment_trains(name, train_a_little):
    metrics = train_a_little(name, env_kwargs=((LIMITS[name], 20),))[-1]
    assert (metrics.episodes > 0).all()
    assert (metrics.episode_length <= 20).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("barx/ant", "unknown suite 'barx'.*; did you mean 'brax'"),
        ("gymnax/CartPole-v1", "unknown suite 'gymnax'.*no suite in their name"),
    ],
)
def test_an_unknown_suite_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        make(name)


@pytest.mark.parametrize("suite", suites.names())
def test_a_suite_that_is_not_installed_is_named_with_its_extra(suite, monkeypatch):
    monkeypatch.setitem(sys.modules, f"ppo_jax.environments.suites.{suite}", None)
    with pytest.raises(UserError, match=rf"needs the package {suite}: .*ppo-jax-tune\[{suite}\]"):
        make(f"{suite}/anything")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("brax/ants", (), "did you mean 'ant'"),
        ("brax/ant", (("backend", "fast"),), "backend must be one of generalized"),
        ("brax/ant", (("wings", 2),), "no parameter 'wings'"),
        ("navix/Navix-Empty-5x5", (), "did you mean 'Navix-Empty-5x5-v0'"),
        ("navix/Navix-Empty-5x5-v0", (("observation", "smell"),), "symbolic_first_person"),
        ("craftax/Craftax-Symbolic", (), "did you mean 'Craftax-Symbolic-v1'"),
        ("craftax/Craftax-Symbolic-v1", (("max_timesteps", 0),), "at least 1, but got 0"),
        ("jumanji/Snake", (), "did you mean 'Snake-v1'"),
        ("jumanji/Sokoban-v0", (), "is not supported: it downloads its levels"),
        ("jumanji/Snake-v1", (("num_row", 5),), "did you mean 'num_rows'"),
        ("xminigrid/MiniGrid-Emty-5x5", (), "did you mean 'MiniGrid-Empty-5x5'"),
        ("xminigrid/XLand-MiniGrid-R1-9x9", (), "is not supported: its tasks are downloaded"),
        ("xminigrid/MiniGrid-Empty-5x5", (("max_steps", 0),), "at least 1, but got 0"),
        ("playground/CartpoleBalanc", (), "did you mean 'CartpoleBalance'"),
        ("playground/CartpoleBalance", (("impl", "c"),), "impl must be one of jax, warp"),
    ],
)
def test_mistakes_are_refused(name, kwargs, message):
    if not installed(name):
        pytest.skip(f"{name.partition('/')[0]} is not installed")
    with pytest.raises(UserError, match=message):
        make(name, kwargs)


def test_every_suite_is_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert suites.names() == ["brax", "craftax", "jumanji", "navix", "playground", "xminigrid"]
    assert set(suites.names()) <= set(project["optional-dependencies"])


def test_a_suite_is_a_module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def load(name, kwargs): return name, dict(kwargs)")
    monkeypatch.setattr(suites, "__path__", [*suites.__path__, str(tmp_path)])
    assert "mine" in suites.names()
    assert make("mine/thing", (("speed", 3),)) == ("thing", {"speed": 3})


def test_private_api_of_brax():
    envs = pytest.importorskip("brax.envs")
    assert isinstance(envs._envs, dict)
    assert "ant" in envs._envs
    assert isinstance(envs.get_environment("ant"), envs._envs["ant"])


def test_private_api_of_navix():
    navix = pytest.importorskip("navix")
    environment = navix.make("Navix-Empty-5x5-v0", max_steps=2)
    timestep = environment.reset(jax.random.key(0))
    for time in (1, 2, 3):  # Past the limit: it does not reset.
        timestep = environment._step(timestep, jnp.int32(0))
        assert timestep.t == time


def test_api_of_gymnax_beyond_reset_and_step():
    environment, parameters = gymnax.make("CartPole-v1")
    parameters = parameters.replace(max_steps_in_episode=2)
    _, state = environment.reset(jax.random.key(0), parameters)
    for time in (1, 2, 3):  # Past the limit: it does not reset.
        _, state, *_ = environment.step_env(jax.random.key(1), state, jnp.int32(0), parameters)
        assert state.time == time
        assert bool(environment.is_truncated(state, parameters)) is (time >= 2)
