"""Environments that break their contract in one place, each refused in a line that names it."""

import sys
import types

import jax.numpy as jnp
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from ppo_jax.environments import Continuous, Discrete, Spaces, Timestep, make
from ppo_jax.environments.contract import check_contract
from ppo_jax.errors import UserError


class Own:
    """Follows the protocol, but for the attributes that a test gives."""

    def __init__(self, **changes):
        self.name = "own"
        self.spaces = Spaces((2,), Discrete(2))
        self.observation_dtype = jnp.dtype(jnp.float32)
        self.max_episode_steps = 5
        self.costly_reset = False
        self.seen = jnp.zeros(2)
        self.after = None
        self.reward = jnp.float32(0)
        self.done = jnp.bool_(False)
        vars(self).update(changes)

    def reset(self, key):
        return jnp.zeros(()), self.seen

    def step(self, key, state, action):
        after = state if self.after is None else self.after
        return Timestep(after, self.seen, self.reward, self.done, self.done)


def test_what_keeps_to_the_contract_passes():
    check_contract(Own())
    check_contract(Own(spaces=Spaces((2,), Continuous((-1.0, -jnp.inf), (1.0, jnp.inf)))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"seen": jnp.zeros(3)},
            r"observation of reset must be float32\[2\], but got float32\[3\]",
        ),
        ({"seen": jnp.zeros(2, int)}, r"observation of reset must be float32\[2\], but got int32"),
        ({"after": jnp.int32(1)}, r"step turns state from float32\[\] into int32\[\]"),
        ({"after": {"x": jnp.zeros(())}}, r"step turns state from float32\[\] into nothing"),
        ({"reward": jnp.zeros(1)}, r"the reward of step must be float32\[\], but got float32\[1\]"),
        ({"done": jnp.int32(0)}, r"terminated of step must be bool\[\], but got int32\[\]"),
        ({"max_episode_steps": 0}, "max_episode_steps must be an integer from 1 .*, but got 0"),
        ({"max_episode_steps": None}, "max_episode_steps .*, but got None"),
        ({"spaces": Spaces((), Discrete(2))}, "observation_shape must be"),
        ({"spaces": Spaces((2,), Discrete(0))}, "number of actions must be a positive integer"),
        ({"spaces": Spaces((2,), Continuous((1.0,), (0.0,)))}, "action bounds must be low below"),
        ({"spaces": Spaces((2,), Continuous((jnp.nan,), (0.0,)))}, "action bounds must be low"),
        ({"spaces": Spaces((2,), "many")}, "action space must be Discrete, MultiDiscrete or"),
    ],
)
def test_a_misfit_is_named_with_its_place(change, message):
    with pytest.raises(UserError, match=f"environment 'own': .*{message}"):
        check_contract(Own(**change))


@pytest.mark.parametrize("name", ["name", "costly_reset", "observation_dtype"])
def test_what_is_missing_is_named(name):
    own = Own()
    delattr(own, name)
    with pytest.raises(UserError, match=f"environment 'Own' has no '{name}'"):
        check_contract(own)


@struct.dataclass
class State:
    x: object
    time: object


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 5


class Fitting(environment.Environment):
    """An environment of gymnax's kind; a test changes a part of it."""

    start, shape, seen, results, clock = 0.0, (2,), (2,), 5, ()

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(jnp.asarray(self.start), jnp.zeros(self.clock, jnp.int32))
        return self.look(state), state

    def step_env(self, key, state, action, params):
        state = State(state.x + 0.5, state.time + 1)
        return (self.look(state), state, 1.0, False, {})[: self.results]

    def look(self, state):
        return jnp.zeros(self.seen) + state.x

    def observation_space(self, params):
        return spaces.Box(-9.0, 9.0, self.shape)

    def action_space(self, params):
        return spaces.Discrete(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"clock": (1,)}, None),
        ({"shape": (), "seen": (1,)}, None),
        ({"start": 0}, r"step turns state\.x from int32\[\] into float32\[\]"),
        ({"shape": (3,)}, r"the shape \(3,\) of its space, but got \(2,\)"),
        ({"shape": (3, 2), "seen": (2, 3)}, r"the shape \(3, 2\) of its space, but got \(2, 3\)"),
        (
            {"results": 4},
            r"step fails in step \(\w+\.py, line \d+\): ValueError: not enough values",
        ),
    ],
)
def test_an_environment_of_gymnaxs_kind_is_checked_when_it_is_made(monkeypatch, change, message):
    module = types.ModuleType("made_here")
    module.Env = type("Env", (Fitting,), change)
    monkeypatch.setitem(sys.modules, "made_here", module)
    if message is None:
        assert make("made_here:Env").spaces.observation_shape == (change.get("shape", (2,)) or (1,))
        return
    with pytest.raises(UserError, match=f"environment 'made_here:Env'.*{message}"):
        make("made_here:Env")
