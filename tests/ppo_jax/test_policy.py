"""Policies on disk."""

import hashlib
import json
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.networks import make_network
from ppo_jax.normalization import RunningStatistics
from ppo_jax.policy import load, save
from ppo_jax.programs import Weights

CONFIG = TrainConfig(
    env="Acrobot-v1",
    env_kwargs=(("max_steps_in_episode", 50),),
    agent=AgentConfig(hidden_sizes=(16, 8), activation="relu"),
)
NETWORK = make_network(CONFIG.agent, make(CONFIG.env, CONFIG.env_kwargs).spaces)
OBSERVATIONS = np.random.default_rng(0).normal(size=(3, 40, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(NETWORK, (6,))


@pytest.fixture
def folder(tmp_path, params):
    save(tmp_path / "deep" / "policy", CONFIG, Weights(params, None), score=np.float32(1.5))
    return tmp_path / "deep" / "policy"


def test_a_loaded_policy_acts_as_the_network_did(folder, params):
    loaded = load(folder)
    assert jax.tree.structure(loaded.weights.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded.weights.params, params)
    expected = NETWORK.apply(params, OBSERVATIONS, method="policy").argmax(-1)
    assert len(np.unique(expected)) > 1
    actions = loaded.act(OBSERVATIONS)
    assert isinstance(actions, np.ndarray)
    assert actions.dtype == np.int32
    np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("shape", [(), (40,), (3, 40)])
def test_one_observation_or_any_batch(folder, shape):
    loaded = load(str(folder))
    observations = OBSERVATIONS[(0,) * (2 - len(shape))]
    everything = loaded.act(OBSERVATIONS)
    assert loaded.act(observations).shape == shape
    np.testing.assert_array_equal(loaded.act(observations), everything[(0,) * (2 - len(shape))])
    sampled = loaded.act(observations, jax.random.key(0))
    assert sampled.shape == shape
    assert sampled.dtype == np.int32


@pytest.mark.parametrize("batch", [(0,), (3, 0)])
@pytest.mark.parametrize(("name", "action"), [("CartPole-v1", ()), ("Pendulum-v1", (1,))])
def test_an_empty_batch_gives_no_actions(saved, name, action, batch):
    _, _, loaded = saved(TrainConfig(name))
    shape = loaded.spaces.observation_shape
    actions = loaded.act(np.zeros((*batch, *shape)))
    assert actions.shape == (*batch, *action)
    assert actions.dtype == loaded.act(np.zeros(shape)).dtype


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ((OBSERVATIONS[0, 0], {}), r"shape \[\.\.\., 6\], but got a tuple; Gymnasium's reset"),
        ([[1, 2, 3, 4], [1, 2, 3]], r"shape \[\.\.\., 6\], but got \[\[1, 2"),
        (["a"] * 6, r"shape \[\.\.\., 6\] and hold numbers, but got \['a'"),
        (None, "hold numbers, but got None"),
    ],
)
def test_what_is_no_observation_is_refused_in_a_line(folder, observation, message):
    with pytest.raises(UserError, match=message):
        load(folder).act(observation)


def test_plain_lists_are_observations(folder):
    assert load(folder).act([0.0, 1, 2, 3, 4, 5]).shape == ()


def test_actions_are_drawn_from_the_distribution(folder, params):
    loaded = load(folder)
    observation = np.broadcast_to(OBSERVATIONS[0, 0], (4000, 6))
    actions = loaded.act(observation, jax.random.key(0))
    np.testing.assert_array_equal(actions, loaded.act(observation, jax.random.key(0)))
    probabilities = jax.nn.softmax(NETWORK.apply(params, OBSERVATIONS[0, 0], method="policy"))
    frequencies = np.bincount(actions, minlength=3) / len(actions)
    np.testing.assert_allclose(frequencies, probabilities, atol=0.04)
    assert (actions != loaded.act(observation, jax.random.key(1))).any()


@pytest.mark.parametrize("shape", [(5,), (7,), (3, 5), (6, 1), ()])
def test_observations_of_another_shape_are_refused(folder, shape):
    with pytest.raises(UserError, match=r"shape \[\.\.\., 6\], but got "):
        load(folder).act(np.zeros(shape))


def test_a_seed_in_place_of_a_key_is_refused(folder):
    with pytest.raises(UserError, match=r"key must be one that jax\.random\.key makes, but got 0"):
        load(folder).act(np.zeros(6), key=0)


def test_the_description_says_what_it_is(folder):
    description = json.loads((folder / "policy.json").read_text())
    assert description["format"] == policy.FORMAT
    assert description["environment"] == {
        "name": "Acrobot-v1",
        "kwargs": {"max_steps_in_episode": 50},
        "observation_shape": [6],
        "discrete_observations": None,
        "action_space": {"kind": "discrete", "n": 3},
    }
    assert description["agent"] == CONFIG.agent.to_dict()
    assert description["observation_statistics"] is None
    assert description["score"] == 1.5
    assert {"jax", "flax", "python", "ppo_jax"} <= set(description["versions"])
    assert load(folder).description == description


def test_saving_replaces_an_older_policy_and_leaves_nothing_else(folder, params):
    save(folder, CONFIG, Weights(jax.tree.map(jnp.zeros_like, params), None))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "model.safetensors", "policy.json"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(load(folder).weights.params))


def test_a_readme_of_ones_own_is_kept(tmp_path, params):
    (tmp_path / "README.md").write_text("# Mine")
    save(tmp_path, CONFIG, Weights(params, None))
    assert (tmp_path / "README.md").read_text() == "# Mine"


@pytest.mark.parametrize("name", ["model.safetensors", "policy.json"])
def test_a_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"cannot read .*{name}"):
        load(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "policy.json"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(folder, name, part):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=f"cannot read .*{name}"):
        load(folder)


@pytest.mark.parametrize("content", [b"not a policy at all", b"\xff" * 100])
@pytest.mark.parametrize("name", ["model.safetensors", "policy.json"])
def test_another_kind_of_file_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load(folder)


def rewrite(folder, change):
    path = folder / "policy.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.clear(), "is not a policy"),
        (lambda d: d.update(format=99), "format must be 2, but got 99"),
        (lambda d: d.pop("agent"), "is not a policy: .*agent"),
        (lambda d: d["environment"].pop("action_space"), "is not a policy"),
        (lambda d: d["environment"].pop("kwargs"), "is not a policy: .*kwargs"),
        (lambda d: d["environment"].pop("name"), "is not a policy: .*name"),
        (lambda d: d["environment"].update(kwargs=None), "env_kwargs must be a mapping"),
        (lambda d: d["environment"].update(name=[]), r"name of an environment, but got \[\]"),
        (lambda d: d.pop("versions"), "is not a policy: .*versions"),
        (lambda d: d.update(versions=3), "versions and training must be tables, but got 3"),
        (lambda d: d["agent"].update(normalize_observations=True), "does not hold the network"),
        (lambda d: d["agent"].update(activation="cube"), "activation must be .* but got 'cube'"),
        (lambda d: d["agent"].update(hidden_sizes=[16]), "does not hold the network"),
        (lambda d: d["agent"].update(hidden_sizes=[16, 9]), "does not hold the network"),
        (lambda d: d["agent"].update(hidden_sizes=None), "must be a tuple .*but got None"),
        (lambda d: d["agent"].update(wings=2), "unknown agent setting 'wings'"),
        (lambda d: actions(d).update(n=4), "does not hold the network"),
        (lambda d: actions(d).update(kind="wild"), "discrete or continuous, but got 'wild'"),
        (lambda d: d["environment"].update(observation_shape=[5]), "does not hold the network"),
    ],
)
def test_an_altered_description_is_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


def actions(description):
    return description["environment"]["action_space"]


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("agent", {"hidden_sizes": ["wide"]}),
        ("agent", {"hidden_sizes": [-8]}),
        ("agent", {"hidden_sizes": [float("inf")]}),
        ("environment", {"action_space": {"kind": "discrete", "n": "two"}}),
        ("environment", {"action_space": {"kind": "discrete", "n": -1}}),
        ("environment", {"action_space": {"kind": "continuous", "low": [1], "high": [0]}}),
        ("environment", {"action_space": {"kind": "continuous", "low": "x", "high": [0]}}),
        ("environment", {"observation_shape": [2**24] * 4}),
        ("environment", {"action_space": {"kind": "discrete", "n": 2**24}}),
        ("agent", {"hidden_sizes": [2**24] * 4}),
        ("agent", {"hidden_sizes": [1] * 1000}),
        ("environment", {"observation_shape": []}),
        ("environment", {"observation_shape": 6}),
        ("environment", {"discrete_observations": 7}),
    ],
)
def test_sizes_that_are_none_are_refused(folder, part, change):
    rewrite(folder, lambda d: d[part].update(change))
    with pytest.raises(UserError):
        load(folder)


def test_a_file_of_weights_that_is_too_large_is_not_read(folder, monkeypatch):
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(10**9)  # A hole: it takes no room on the disk.
    monkeypatch.setattr(type(path), "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"takes [0-9,]+ bytes .* the file has 1,000,000,000"):
        load(folder)


@pytest.mark.parametrize("damage", ["zeros", "one bit"])
def test_weights_that_are_damaged_in_the_middle_are_noticed(folder, damage):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "zeros":
        content[-64:-32] = bytes(32)
    else:
        content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load(folder)
    rewrite(folder, lambda d: d.pop("sha256"))  # As earlier versions wrote it.
    load(folder)


@pytest.fixture
def saved(tmp_path, random_params):
    """Return a function that saves a policy; it returns its network, parameters and the policy."""

    def saved(config, statistics=None):
        environment = make(config.env, config.env_kwargs)
        network = make_network(config.agent, environment.spaces)
        params = random_params(network, environment.spaces.observation_shape, scale=0.1)
        save(tmp_path, config, Weights(params, statistics))
        return network, params, load(tmp_path)

    return saved


def test_continuous_actions_lie_in_their_bounds(saved):
    network, params, loaded = saved(TrainConfig("Pendulum-v1"))
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    means = network.apply(params, observations, method="policy")[:, :1]
    actions = loaded.act(observations)
    assert actions.shape == (50, 1)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, np.clip(2 * means, -2, 2), rtol=1e-5)
    drawn = loaded.act(observations, jax.random.key(0))
    assert np.abs(drawn).max() <= 2
    assert (drawn != actions).any()


def test_observation_statistics_travel_with_the_policy(saved):
    statistics = RunningStatistics(np.float32([1, 2, 3]), np.float32([4, 9, 16]), np.float32(1000))
    config = TrainConfig("Pendulum-v1", agent=AgentConfig(normalize_observations=True))
    network, params, loaded = saved(config, statistics)
    assert loaded.weights.observation_statistics.weight == 1000
    observations = np.random.default_rng(0).normal(2, 3, size=(50, 3)).astype(np.float32)
    seen = (observations - [1, 2, 3]) / np.array([2, 3, 4])
    expected = np.clip(2 * network.apply(params, np.float32(seen), method="policy")[:, :1], -2, 2)
    np.testing.assert_allclose(loaded.act(observations), expected, rtol=1e-4, atol=1e-5)


def test_integer_observations_are_taken_as_they_are(saved):
    network, params, loaded = saved(TrainConfig("FrozenLake-misc"))
    expected = network.apply(params, np.eye(16, dtype=np.float32), method="policy").argmax(-1)
    np.testing.assert_array_equal(loaded.act(np.arange(16)), expected)
    np.testing.assert_array_equal(loaded.act(np.eye(16)), expected)
    assert loaded.act(5) == expected[5]
    with pytest.raises(UserError, match="from 0 to 15, but got 16"):
        loaded.act(16)


def replace_tensors(folder, tensors):
    """Put other tensors into a policy, with the digest that belongs to them."""
    path = folder / "model.safetensors"
    save_file(tensors, path)
    description = json.loads((folder / "policy.json").read_text())
    description["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "policy.json").write_text(json.dumps(description))


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.float16])
def test_tensors_of_another_type_are_refused(folder, dtype):
    tensors = load_file(folder / "model.safetensors")
    replace_tensors(folder, {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    with pytest.raises(UserError, match="does not hold the network"):
        load(folder)


def test_tensors_of_a_type_that_numpy_lacks_are_refused(folder):
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(2)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="holds numbers of the type 'BF16'"):
        load(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"policy"'])
def test_a_description_of_another_kind_is_refused(folder, content):
    (folder / "policy.json").write_text(content)
    with pytest.raises(UserError, match="is not a policy"):
        load(folder)


@pytest.mark.parametrize("change", ["missing", "added", "reshaped", "renamed"])
def test_altered_tensors_are_refused(folder, change):
    tensors = load_file(folder / "model.safetensors")
    name = "params/actor/Dense_0/kernel"
    if change == "missing":
        del tensors[name]
    elif change == "added":
        tensors["params/extra"] = np.zeros(3, np.float32)
    elif change == "reshaped":
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    else:
        tensors["params/actor/Dense_0/weights"] = tensors.pop(name)
    replace_tensors(folder, tensors)
    with pytest.raises(UserError, match="does not hold the network"):
        load(folder)


class Bomb:
    def __reduce__(self):
        return partial(pytest.fail, "unpickled"), ()


@pytest.mark.parametrize("name", ["model.safetensors", "policy.json"])
def test_nothing_is_unpickled(folder, monkeypatch, name):
    for function in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, function, partial(pytest.fail, f"pickle.{function}"))
    load(folder)
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError):
        load(folder)


def test_numbers_that_are_not_finite_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).flat[0] = np.nan
    replace_tensors(folder, tensors)
    with pytest.raises(UserError, match="not finite"):
        load(folder)
