"""Actions of several parts, masks, and observations of several parts."""

import dataclasses
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gymnasium_spaces
from gymnasium.experimental.functional import FuncEnv
from gymnax.environments import spaces as gymnax_spaces
from scipy import special, stats

from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.distributions import MultiCategorical
from ppo_jax.environments import (
    Continuous,
    Discrete,
    MultiDiscrete,
    Part,
    Spaces,
    Timestep,
    make,
)
from ppo_jax.environments.base import CHOICES, IMAGE, MASK, NUMBERS
from ppo_jax.environments.contract import check_contract
from ppo_jax.environments.spaces import spaces_of
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import JointActorCritic, make_network, policy_outputs
from ppo_jax.normalization import RunningStatistics, normalized
from ppo_jax.programs import Programs, Weights, lane_weights
from ppo_jax.seeds import TRAINING, seed_keys

SIZES = (3, 2, 4)
LOGITS = np.random.default_rng(0).normal(scale=2, size=(50, sum(SIZES))).astype(np.float32)


def split(logits):
    """Return the logits of each choice, in NumPy."""
    return np.split(logits, np.cumsum(SIZES)[:-1], axis=-1)


def test_several_choices_are_independent_categorical_ones():
    several = MultiCategorical(SIZES)
    raw = np.stack([np.random.default_rng(n).integers(0, n, 50) for n in SIZES], axis=1)
    each = [special.log_softmax(x.astype(float), axis=-1) for x in split(LOGITS)]
    expected = sum(x[np.arange(50), raw[:, i]] for i, x in enumerate(each))
    found = several.log_prob(jnp.asarray(LOGITS), jnp.asarray(raw, jnp.int32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    entropies = sum(stats.entropy(np.exp(x), axis=-1) for x in each)
    np.testing.assert_allclose(several.entropy(jnp.asarray(LOGITS)), entropies, rtol=1e-5)
    mode = np.stack([x.argmax(-1) for x in split(LOGITS)], axis=-1)
    np.testing.assert_array_equal(several.mode(jnp.asarray(LOGITS)), mode)

    draws = several.sample(LOGITS[0], several.noise(jax.random.key(0), (20_000,)))
    assert draws.shape == (20_000, 3)
    assert draws.dtype == jnp.int32
    for i, x in enumerate(split(LOGITS[0])):
        frequencies = np.bincount(draws[:, i], minlength=SIZES[i]) / 20_000
        np.testing.assert_allclose(frequencies, special.softmax(x), atol=0.018)
    # The joint frequency is the product: no choice follows another one.
    both = np.mean((draws[:, 0] == mode[0, 0]) & (draws[:, 2] == mode[0, 2]))
    alone = [np.mean(draws[:, i] == mode[0, i]) for i in (0, 2)]
    assert both == pytest.approx(np.prod(alone), abs=0.018)


@pytest.mark.parametrize("actions", [Discrete(6), MultiDiscrete((2, 4))], ids=["one", "several"])
def test_a_mask_takes_probability_and_entropy_from_what_it_forbids(random_params, actions):
    width = 6
    spaces = Spaces.of_parts([Part(("x",), (3,)), Part(("action_mask",), (width,), MASK)], actions)
    network = make_network(AgentConfig(hidden_sizes=(8,)), spaces)
    rng = np.random.default_rng(0)
    mask = rng.random((40, width)) < 0.5
    mask[:, [0, 2]] = True
    x = rng.normal(size=(40, 3)).astype(np.float32)
    seen = spaces.flat({"x": x, "action_mask": mask})
    assert seen.shape == (40, 9)
    params = random_params(network, seen.shape)

    free = policy_outputs(network, params, spaces.flat({"x": x, "action_mask": np.ones((40, 6))}))
    parts = [width] if isinstance(actions, Discrete) else list(actions.sizes)
    ends = np.cumsum(parts)[:-1]
    allowed, logits = (np.split(y, ends, axis=1) for y in (mask, np.asarray(free, float)))
    weights = [np.exp(a) * m for a, m in zip(logits, allowed, strict=True)]
    probabilities = [w / w.sum(1, keepdims=True) for w in weights]
    entropy = sum(stats.entropy(p, axis=1) for p in probabilities)

    distribution = network.distribution
    outputs = policy_outputs(network, params, seen)
    np.testing.assert_allclose(distribution.entropy(outputs), entropy, rtol=1e-4, atol=1e-5)
    joint = JointActorCritic(network)
    joined, _ = joint.apply(joint.join(params), seen)
    np.testing.assert_allclose(joined, outputs, rtol=1e-5, atol=1e-5)
    raw = distribution.sample(outputs, distribution.noise(jax.random.key(2), (40,)))
    taken = np.asarray(raw).reshape(40, -1)
    rows = np.arange(40)
    chosen = [p[rows, taken[:, i]] for i, p in enumerate(probabilities)]
    assert np.min(chosen) > 0
    np.testing.assert_allclose(
        distribution.log_prob(outputs, raw), np.log(chosen).sum(0), rtol=1e-4, atol=1e-5
    )
    best = np.asarray(distribution.mode(outputs)).reshape(40, -1)
    for i, p in enumerate(probabilities):
        np.testing.assert_array_equal(best[:, i], p.argmax(1))

    def loss(params):
        outputs = policy_outputs(network, params, seen)
        return (distribution.log_prob(outputs, raw) + distribution.entropy(outputs)).sum()

    gradient = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.isfinite(leaf).all() for leaf in gradient)


class Doors:
    """Two choices, of which a mask that differs from step to step forbids some.

    A forbidden choice costs 1000, so a return tells whether one was ever taken. The best choice
    of both is the largest that is allowed.
    """

    name = "doors"
    max_episode_steps = 8
    costly_reset = False
    observation_dtype = jnp.dtype(jnp.float32)
    spaces = Spaces.of_parts(
        [
            Part(("action_mask",), (7,), MASK),
            Part(("place",), (), CHOICES, 8),
            Part(("photo",), (3, 3, 1), IMAGE, scale=255.0),
        ],
        MultiDiscrete((3, 4)),
    )

    def reset(self, key):
        state = (jnp.int32(0), self.mask(key))
        return state, self.seen(state)

    def step(self, key, state, action):
        time, mask = state
        chosen = jnp.stack([action[0], 3 + action[1]])
        allowed = mask[chosen].all()
        after = (time + 1, self.mask(key))
        reward = jnp.where(allowed, action.sum() / 5, -1000.0).astype(jnp.float32)
        ended = after[0] == self.max_episode_steps
        return Timestep(after, self.seen(after), reward, ended, jnp.array(False))

    def mask(self, key):
        free = jax.random.bernoulli(key, 0.5, (7,))
        return free.at[jnp.array([0, 3])].set(True)

    def seen(self, state):
        time, mask = state
        return self.spaces.flat(
            {
                "action_mask": mask,
                "place": jnp.minimum(time, 7),
                "photo": jnp.full((3, 3, 1), 255, jnp.uint8),
            }
        )


@pytest.fixture
def doors(monkeypatch):
    module = ModuleType("doors")
    module.Doors = Doors
    monkeypatch.setitem(sys.modules, "doors", module)
    return "doors:Doors"


def train(env, steps, **agent):
    config = TrainConfig(
        env,
        agent=AgentConfig(num_envs=8, hidden_sizes=(16,), conv_features=(2,), **agent),
        n_steps_choices=(128,),
        batch_size_choices=(64,),
        eval_episodes=32,
    )
    programs = Programs(config, 2)
    hyperparameters = Hyperparameters(n_steps=128, batch_size=64, learning_rate=3e-3)
    state = programs.init(seed_keys(0, TRAINING, 2))
    state, metrics = programs.train_until(state, hyperparameters, steps, steps)
    assert np.asarray(state.finite).all()
    return programs, state, metrics


def test_a_forbidden_action_is_never_taken_and_a_policy_of_parts_is_saved(doors, tmp_path):
    programs, state, metrics = train(doors, 12_800, normalize_observations=True)
    assert (metrics.episodes * 8 > 12_000).all()
    assert (metrics.episodic_return > 0).all(), "a forbidden action was taken in training"
    returns = programs.evaluate(state, 0)
    # The largest allowed choices pay 2/5 · E[max] = (1.25 + 2.125) / 5 a step; none pays 0.
    assert returns.min() > 0
    assert returns.mean() > 0.9 * 8 * (1.25 + 2.125) / 5

    policy.save(tmp_path, programs.config, lane_weights(state, 0))
    loaded = policy.load(tmp_path)
    assert loaded.spaces == Doors().spaces
    mask = np.tile([1, 0, 1, 1, 1, 0, 0], (5, 1))
    parts = {
        "action_mask": mask,
        "place": np.arange(5),
        "photo": np.full((5, 3, 3, 1), 255, np.uint8),
    }
    actions = loaded.act(parts)
    assert actions.tolist() == [[2, 1]] * 5
    np.testing.assert_array_equal(loaded.act(np.asarray(loaded.spaces.flat(parts))), actions)
    with pytest.raises(UserError, match=r"must have the parts \['photo'\], \['place'\]"):
        loaded.act({"place": 1})
    with pytest.raises(UserError, match=r"observation\['photo'\] must have shape"):
        loaded.act({**parts, "photo": np.zeros((5, 3, 3, 2))})


@pytest.mark.slow
def test_no_forbidden_action_in_a_million_steps(doors):
    """At the start of training, where every action is as likely as any other."""
    _, _, metrics = train(doors, 128 * 3907)
    assert metrics.episodes.sum() * 8 >= 1e6 - 128
    assert (metrics.episodic_return >= 0).all()


def test_statistics_leave_a_mask_alone():
    spaces = Doors().spaces
    assert spaces.measured_shape == (17,)
    batch = jax.random.normal(jax.random.key(0), (50, 24)) * 3 + 1
    statistics = RunningStatistics.empty(spaces.measured_shape).updated(batch)
    found = normalized(statistics, batch)
    np.testing.assert_array_equal(found[:, 17:], batch[:, 17:])
    np.testing.assert_allclose(found[:, :17].mean(0), 0, atol=1e-5)


KINDS = [gymnax_spaces, gymnasium_spaces]


@pytest.mark.parametrize("kinds", KINDS, ids=["gymnax", "gymnasium"])
def test_dictionaries_and_tuples(kinds):
    boxes = {
        "map": kinds.Box(0, 255, (8, 6, 3), np.uint8),
        "other": kinds.Box(0.0, 1.0, (2, 2, 1), np.float32),
        "more": kinds.Box(0, 255, (8, 6, 1), np.uint8),
    }
    inner = kinds.Tuple((kinds.Discrete(4), kinds.Box(-1.0, 1.0, (2,), np.float32)))
    mask = kinds.Box(0, 1, (5,), np.int8)
    space = kinds.Dict({**boxes, "inner": inner, "action_mask": mask})
    spaces = spaces_of("it", space, kinds.Discrete(5))
    assert [(part.path, part.kind) for part in spaces.parts] == [
        (("map",), IMAGE),
        (("more",), IMAGE),
        (("inner", 0), CHOICES),
        (("inner", 1), NUMBERS),
        (("other",), NUMBERS),
        (("action_mask",), MASK),
    ]
    assert spaces.image_shapes == ((8, 6, 3), (8, 6, 1))
    assert (spaces.mask_size, spaces.observation_shape) == (5, (144 + 48 + 4 + 2 + 4 + 5,))
    rng = np.random.default_rng(0)
    pixels, more = (rng.integers(0, 256, (8, 6, c), dtype=np.uint8) for c in (3, 1))
    seen = spaces.flat(
        {
            "map": pixels,
            "more": more,
            "other": np.full((2, 2, 1), 0.5),
            "inner": (2, np.array([-1.0, 1.0])),
            "action_mask": np.array([1, 0, 0, 1, 1]),
        }
    )
    expected = [pixels.ravel() / 255, more.ravel() / 255, [0, 0, 1, 0], [-1, 1], [0.5] * 4]
    np.testing.assert_allclose(seen, np.concatenate([*expected, [1, 0, 0, 1, 1]]), rtol=1e-6)
    # The convolutions see the images side by side, as one of four channels.
    network = make_network(AgentConfig(hidden_sizes=(4,), conv_features=(2,)), spaces)
    params = network.init(jax.random.key(0), seen)["params"]
    assert params["actor_convolutions"]["Dense_0"]["kernel"].shape == (9 * 4, 2)
    assert params["actor"]["Dense_0"]["kernel"].shape == (6 * 4 * 2 + 10, 4)
    # Without them all is flat, but for the mask.
    flat = make_network(AgentConfig(hidden_sizes=(4,), network="mlp"), spaces)
    assert flat.init(jax.random.key(0), seen)["params"]["actor"]["Dense_0"]["kernel"].shape == (
        202,
        4,
    )


def test_kinds_that_only_gymnasium_has():
    actions = gymnasium_spaces.MultiDiscrete([3, 2])
    spaces = spaces_of("it", gymnasium_spaces.MultiDiscrete([4, 2]), actions)
    assert spaces.action_space == MultiDiscrete((3, 2))
    np.testing.assert_array_equal(spaces.flat(np.array([1, 0])), [0, 1, 0, 0, 1, 0, 0, 0])
    spaces = spaces_of("it", gymnasium_spaces.MultiBinary(3), gymnasium_spaces.MultiBinary((2, 2)))
    assert spaces.action_space == MultiDiscrete((2,) * 4)
    np.testing.assert_array_equal(spaces.flat(np.array([1, 0, 1])), [1, 0, 1])


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (
            gymnasium_spaces.Text(3),
            gymnasium_spaces.Discrete(2),
            "it is not supported: its observations are Text",
        ),
        (
            gymnasium_spaces.Discrete(3, start=1),
            gymnasium_spaces.Discrete(2),
            "from 0 on",
        ),
        (
            gymnasium_spaces.Discrete(3),
            gymnasium_spaces.Box(-1, 1, (2, 2)),
            "its actions are Box.* supported are Discrete and MultiDiscrete from 0 on",
        ),
        (
            gymnasium_spaces.Dict({"action_mask": gymnasium_spaces.MultiBinary(3)}),
            gymnasium_spaces.Discrete(2),
            "action_mask must have 2 entries, one for each of its actions",
        ),
        (
            gymnasium_spaces.Dict({"action_mask": gymnasium_spaces.MultiBinary(3)}),
            gymnasium_spaces.Box(-1, 1, (3,)),
            "action_mask must have 0 entries",
        ),
    ],
)
def test_spaces_that_do_not_work_are_named(observations, actions, message):
    with pytest.raises(UserError, match=message):
        spaces_of("it", observations, actions)


class Line(FuncEnv):
    """A functional environment of Gymnasium: walk to the right end."""

    observation_space = gymnasium_spaces.Dict(
        {"place": gymnasium_spaces.Box(-9, 9, ()), "end": gymnasium_spaces.Discrete(2)}
    )
    action_space = gymnasium_spaces.Discrete(2)
    max_episode_steps = 30

    def initial(self, rng, params=None):
        return jax.random.randint(rng, (), -2, 3).astype(jnp.float32)

    def transition(self, state, action, rng, params=None):
        return state + 2.0 * action - 1.0

    def observation(self, state, rng, params=None):
        return {"place": state, "end": (state > 2).astype(jnp.int32)}

    def reward(self, state, action, next_state, rng, params=None):
        return jnp.where(next_state > 3, 1.0, -0.01)

    def terminal(self, state, rng, params=None):
        return state > 3


def test_a_functional_environment_of_gymnasium(monkeypatch):
    module = ModuleType("line")
    module.Line = Line
    monkeypatch.setitem(sys.modules, "line", module)
    environment = make("line:Line", (("max_steps_in_episode", 4),))
    assert environment.spaces.observation_shape == (3,)
    state, observation = environment.reset(jax.random.key(0))
    assert observation[2] == state[0]  # After the two of the key before.
    flags = []
    for t in range(4):
        timestep = environment.step(jax.random.key(t), state, jnp.int32(0))
        state = timestep.state
        flags.append((bool(timestep.terminated), bool(timestep.truncated)))
    assert flags == [(False, False)] * 3 + [(False, True)]
    state = (jnp.float32(3.0), jnp.int32(0))
    timestep = environment.step(jax.random.key(0), state, jnp.int32(1))
    assert timestep.terminated
    assert timestep.reward == 1
    assert make("line:Line").max_episode_steps == 30
    with pytest.raises(UserError, match="no parameter 'max_steps'; did you mean"):
        make("line:Line", (("max_steps", 4),))


class Screen(Line):
    """The same, shown as an image of bytes."""

    observation_space = gymnasium_spaces.Box(0, 255, (5, 5, 1), np.uint8)

    def observation(self, state, rng, params=None):
        return jnp.full((5, 5, 1), state, jnp.uint8)


def test_a_functional_environment_may_show_images_of_bytes():
    environment = make(Screen)
    _, observation = environment.reset(jax.random.key(0))
    assert observation.dtype == environment.observation_dtype == jnp.uint8


def test_continuous_actions_have_no_mask():
    parts = [Part(("x",), (3,)), Part(("action_mask",), (2,), MASK)]
    spaces = Spaces.of_parts(parts, Continuous((0.0,) * 2, (1.0,) * 2))
    environment = Doors()
    environment.spaces = spaces
    with pytest.raises(UserError, match="action mask must be 0 entries, but got 2"):
        check_contract(environment)


class Photo:
    """An environment that shows a photo; its first pixel says which action pays."""

    name = "photo"
    max_episode_steps = 4
    costly_reset = False
    observation_dtype = jnp.dtype(jnp.uint8)
    spaces = Spaces((5, 5, 1), Discrete(2), scale=255.0)

    def reset(self, key):
        state = (jnp.int32(0), jax.random.bernoulli(key))
        return state, self.seen(state)

    def step(self, key, state, action):
        after = (state[0] + 1, jax.random.bernoulli(key))
        reward = (action == state[1]).astype(jnp.float32)
        return Timestep(after, self.seen(after), reward, jnp.array(False), after[0] >= 4)

    def seen(self, state):
        return jnp.where(state[1], jnp.uint8(255), jnp.uint8(51)) * jnp.ones((5, 5, 1), jnp.uint8)


@pytest.mark.parametrize("kinds", KINDS, ids=["gymnax", "gymnasium"])
def test_images_of_bytes_are_seen_as_numbers_from_0_to_1(kinds, tmp_path, monkeypatch):
    image = kinds.Box(0, 255, (5, 5, 1), np.uint8)
    assert spaces_of("it", image, kinds.Discrete(2)) == Photo.spaces
    for other in (kinds.Box(0, 1, (5, 5, 1), np.uint8), kinds.Box(0, 255, (4,), np.uint8)):
        assert spaces_of("it", other, kinds.Discrete(2)).scale == 1
    module = ModuleType("photo")
    module.Photo = Photo
    monkeypatch.setitem(sys.modules, "photo", module)
    check_contract(Photo())
    config = TrainConfig("photo:Photo", agent=AgentConfig(hidden_sizes=(4,), conv_features=(2,)))
    plain = config.agent
    network = make_network(plain, Photo.spaces)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 1), dtype=np.uint8)
    params = jax.jit(network.init)(jax.random.key(0), pixels)
    unscaled = make_network(plain, dataclasses.replace(Photo.spaces, scale=1.0))
    expected = policy_outputs(unscaled, params, pixels / np.float32(255))
    np.testing.assert_allclose(policy_outputs(network, params, pixels), expected, rtol=1e-5)
    # Normalised, nothing is scaled; with statistics that are not applied it is.
    normalizing = make_network(
        dataclasses.replace(plain, normalize_observations=True), Photo.spaces
    )
    assert normalizing.scale == 1
    statistics = RunningStatistics.empty((5, 5, 1))._replace(applied=jnp.array(False))
    seen = normalized(statistics, jnp.asarray(pixels), 255.0)
    np.testing.assert_allclose(policy_outputs(normalizing, params, seen), expected, rtol=1e-5)

    policy.save(tmp_path, config, Weights(params, None))
    loaded = policy.load(tmp_path)
    assert loaded.spaces == Photo.spaces
    np.testing.assert_array_equal(loaded.act(pixels), expected.argmax(1))
    wrong = Photo()
    wrong.observation_dtype = jnp.dtype(jnp.float32)
    with pytest.raises(UserError, match="observation_dtype must be uint8, as its scale is 255"):
        check_contract(wrong)
