"""``python -m ppo_jax.evaluate``, as a user runs it, and in the real Gymnasium."""

import json
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ppo_jax import command_line, evaluate, policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.networks import make_network
from ppo_jax.normalization import RunningStatistics
from ppo_jax.playback.gymnasium import Gymnasium
from ppo_jax.programs import Weights
from ppo_jax.statistics import t_interval


@pytest.fixture
def random_policy(random_params):
    """Return a function that saves a policy that is not uniform."""

    def save(folder, name, **agent):
        config = TrainConfig(env=name, agent=AgentConfig(hidden_sizes=(8,), **agent))
        spaces = make(name).spaces
        shape = spaces.observation_shape
        params = random_params(make_network(config.agent, spaces), shape, scale=2.0, seed=1)
        statistics = None
        if config.agent.normalize_observations:
            rows = np.random.default_rng(2).normal(0.5, 3, (50, *shape)).astype(np.float32)
            statistics = RunningStatistics.empty(shape).updated(rows)
        policy.save(folder, config, Weights(params, statistics))
        return folder

    return save


def linear_policy(folder, name, kernel, logits, **kwargs):
    """Save a policy whose logits are `logits` times the tanh of a linear feature."""
    config = TrainConfig(
        env=name, env_kwargs=tuple(kwargs.items()), agent=AgentConfig(hidden_sizes=(1,))
    )
    network, start = make_network(config.agent, make(name).spaces), np.zeros(len(kernel))
    shapes = jax.eval_shape(network.init, jax.random.key(0), start)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    actor = params["params"]["actor"]
    actor["Dense_0"]["kernel"] = np.float32(kernel)[:, None]
    actor["Dense_1"]["kernel"] = np.float32([logits])
    policy.save(folder, config, Weights(params, None))
    return folder


def balancing_policy(folder, **kwargs):
    """Save one that pushes the cart to where the pole falls, and to the middle."""
    return linear_policy(folder, "CartPole-v1", [0.02, 0.05, 1.0, 0.5], [0.0, 1.0], **kwargs)


def swinging_policy(folder):
    """Save one that pulls against the upper link and so swings the acrobot up."""
    return linear_policy(folder, "Acrobot-v1", [0.0, 0, 0, 0, -1, 0], [-1.0, 0, 1])


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command in this process, whose backend has started."""
    monkeypatch.setattr(command_line, "start_backend", lambda: None)

    def run(folder, *options):
        arguments = [str(folder), *map(str, options)]
        evaluate._run(command_line.parse(evaluate.Arguments, "evaluate", arguments))

    return run


@pytest.mark.slow
def test_plays_here_and_in_gymnasium_and_films_it(in_process, tmp_path):
    folder = balancing_policy(tmp_path / "policy")
    film, results = tmp_path / "films" / "cartpole.gif", tmp_path / "results.json"
    done = in_process(
        *("ppo_jax.evaluate", folder, "--episodes", 30, "--gymnasium", "CartPole-v1"),
        *("--record", film, "--json", results),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("return  500.0, 95% interval 500.0 to 500.0") == 2
    assert "Gymnasium − CartPole-v1  +0.0, 95% interval +0.0 to +0.0" in done.stdout
    found = json.loads(results.read_text())
    for place in (found, found["gymnasium"]):
        assert place["returns"] == [500.0] * 30
        assert place["lengths"] == [500] * 30
    assert found["environment"] == {"name": "CartPole-v1", "kwargs": {}}
    assert found["difference"]["value"] == 0
    with Image.open(film) as image:
        assert image.n_frames > 50
        assert image.size == (600, 400)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CartPole-v1", []),
        ("CartPole-v1", ["--sample"]),
        ("Acrobot-v1", []),
        ("Pendulum-v1", []),
        ("Pendulum-v1", ["--sample"]),
    ],
)
def test_a_policy_scores_the_same_in_gymnasium(tmp_path, run, random_policy, name, options):
    if name == "Acrobot-v1":
        folder = swinging_policy(tmp_path / "policy")
    else:
        folder = random_policy(tmp_path / "policy", name, normalize_observations=True)
    results = tmp_path / "results.json"
    run(folder, "--episodes", 30, "--gymnasium", name, "--json", results, *options)
    found = json.loads(results.read_text())
    # Twice the interval: this is to find what is wrong, not what is rare.
    low, high = found["difference"]["interval"]
    assert abs(found["difference"]["value"]) <= high - low
    assert found["gymnasium"]["length"]["max"] <= make(name).max_episode_steps
    assert found["return"]["min"] < found["return"]["max"]


def test_parameters_are_those_of_training_and_can_be_overridden(tmp_path, run, capsys):
    folder = balancing_policy(tmp_path / "policy", max_steps_in_episode=70)
    run(folder, "--episodes", 3)
    assert "return  70.0" in capsys.readouterr().out
    run(folder, "--episodes", 3, "--env-kwargs", "max_steps_in_episode=40")
    assert "length  40.0 steps, 40 to 40" in capsys.readouterr().out


def test_sampled_actions_follow_the_seed(tmp_path, run, random_policy):
    folder = random_policy(tmp_path / "policy", "CartPole-v1")
    returns = []
    for number, options in enumerate([("--sample",), ("--sample",), ("--sample", "--seed", 1), ()]):
        run(folder, "--episodes", 20, "--json", tmp_path / f"{number}.json", *options)
        returns.append(json.loads((tmp_path / f"{number}.json").read_text())["returns"])
    assert returns[0] == returns[1]
    assert returns[0] != returns[2]
    assert returns[0] != returns[3]


def test_one_episode_has_no_interval(tmp_path, run, capsys):
    run(balancing_policy(tmp_path / "policy"), "--episodes", 1, "--gymnasium", "CartPole-v1")
    assert capsys.readouterr().out.count("no interval from a single episode") == 3


@pytest.fixture
def endless():
    """Register a cart pole that never falls, without a time limit, and return its name."""
    gymnasium = pytest.importorskip("gymnasium")

    class Endless(gymnasium.Env):
        metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 50}
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(4, np.float32), {}

        def step(self, action):
            return np.zeros(4, np.float32), 1.0, False, False, {}

        def render(self):
            return np.zeros((8, 8, 3), np.uint8)

    gymnasium.register("Endless-v0", Endless)
    yield "Endless-v0"
    del gymnasium.registry["Endless-v0"]


def test_an_episode_that_never_ends_is_one_line(tmp_path, endless, monkeypatch):
    monkeypatch.setattr("ppo_jax.playback.gymnasium.LONGEST_EPISODE", 50)
    played = Gymnasium(endless, policy.load(balancing_policy(tmp_path / "policy")))
    message = r"Endless-v0: an episode has not ended after 50 steps; register it with max_"
    with pytest.raises(UserError, match=message):
        played.play(3, seed=0, sample=False)
    with pytest.raises(UserError, match=message):
        list(played.frames(seed=0, sample=False).frames)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [t_interval(rng.normal(1, 2, 8)) for _ in range(1000)]
    assert np.mean([low < 1 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.02)
    differences = [
        evaluate._difference(rng.normal(1, 2, 8), rng.normal(0, 5, 12))["interval"]
        for _ in range(1000)
    ]
    assert np.mean([low < 1 < high for low, high in differences]) == pytest.approx(0.95, abs=0.02)


def test_intervals_by_their_textbook_formulas():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 2, 8), rng.normal(0, 5, 12)
    half = stats.t.ppf(0.975, 7) * a.std(ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(t_interval(a), (a.mean() - half, a.mean() + half), rtol=1e-12)
    squares = np.array([a.var(ddof=1) / 8, b.var(ddof=1) / 12])
    freedom = squares.sum() ** 2 / (squares**2 / [7, 11]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(squares.sum())
    value = a.mean() - b.mean()
    found = evaluate._difference(a, b)
    np.testing.assert_allclose(found["interval"], (value - half, value + half), rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [500.0, 0.1, 0.0])
def test_equal_returns_have_an_interval_of_width_zero(value):
    same = np.full(7, value)
    assert t_interval(same) == pytest.approx((value, value), rel=1e-15)
    assert evaluate._difference(same, same)["interval"] == (0.0, 0.0)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
@pytest.mark.parametrize(
    "name", [pytest.param("Breakout-MinAtar", marks=pytest.mark.slow), "Pendulum-v1"]
)
def test_films_of_environments_that_do_not_draw_themselves(
    tmp_path, run, random_policy, name, suffix, capsys
):
    folder = random_policy(tmp_path / "policy", name)
    film = tmp_path / f"film{suffix}"
    kwargs = ("--env-kwargs", "max_steps_in_episode=12")
    run(folder, "--episodes", 2, "--sample", "--record", film, *kwargs)
    assert f"in {film}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [film.name, "policy"]
    content = film.read_bytes()
    assert content.startswith(b"GIF89a") if suffix == ".gif" else content[4:8] == b"ftyp"
    if suffix == ".gif":
        with Image.open(film) as image:
            assert image.size == (400, 424)
            frames = []
            for number in range(image.n_frames):
                image.seek(number)
                frames.append(np.array(image.convert("RGB")))
        assert len(frames) > 4
        assert (frames[0][30:] != frames[-1][30:]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "0"], "--episodes must be an integer of at least 1, but got 0"),
        (["--seed", "-1"], "--seed"),
        (["--record", "film.avi"], "ends in .gif or .mp4, but got 'film.avi'"),
        (["--gymnasium", "CartPol-v1"], "Did you mean: `CartPole`"),
        (["--gymnasium", "Acrobot-v1"], r"Acrobot-v1 has observations of shape \(6,\) and actions"),
        (["--gymnasium", "nowhere:Acrobot-v1"], "No module named 'nowhere'"),
        (["--gymnasium", "Blackjack-v1"], r"has observations of shape \(45,\) and actions"),
        (["--env-kwargs", "gravitiy=1.0"], "did you mean 'gravity'"),
        (["--json", "policy"], "is a folder"),
        (["--json", "policy/policy.json/results.json"], "is not a folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_played(
    tmp_path, run, options, message, monkeypatch, capsys
):
    balancing_policy(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run("policy", *options)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_code_that_a_policy_names_is_not_run_unless_asked_for(tmp_path, run, monkeypatch, capsys):
    """Whoever hands on a policy must not decide what its reader's computer imports."""
    (tmp_path / "theirs.py").write_text("raise SystemExit('it was imported')")
    folder = balancing_policy(tmp_path / "policy")
    path = folder / "policy.json"
    described = json.loads(path.read_text())
    described["environment"]["name"] = "theirs:make"
    path.write_text(json.dumps(described))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'theirs:make', whose code .* pass --env theirs:make"):
        run(folder)
    with pytest.raises(SystemExit, match="it was imported"):
        run(folder, "--env", "theirs:make")
    run(folder, "--env", "CartPole-v1", "--episodes", 2)
    assert "CartPole-v1: 2 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "module", "extra"),
    [
        (["--gymnasium", "CartPole-v1"], "gymnasium", "gymnasium"),
        (["--record", "film.mp4"], "imageio_ffmpeg", "film"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path, run, options, module, extra, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    folder = balancing_policy(tmp_path / "policy")
    message = rf"{options[0]}.* needs the package {module}; .*ppo-jax-tune\[{extra}\]"
    with pytest.raises(UserError, match=message):
        run(folder, *options)


def test_what_cannot_be_drawn_is_refused(tmp_path, run, random_policy):
    folder = random_policy(tmp_path / "policy", "FrozenLake-misc")
    with pytest.raises(UserError, match="cannot draw FrozenLake-misc"):
        run(folder, "--record", tmp_path / "film.gif")


def test_a_mistake_is_one_line_and_status_2(command, tmp_path):
    done = command("ppo_jax.evaluate", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read ")
    assert len(done.stderr.strip().splitlines()) == 1
