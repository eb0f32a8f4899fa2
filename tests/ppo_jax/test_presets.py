"""Presets: every file is a configuration that works, and options still change it."""

import math
import shlex

import pytest

import ppo_jax
from ppo_jax import command_line, presets, train
from ppo_jax.config import AgentConfig, config_for
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network
from tune import options


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_configuration_for_its_environment(name):
    preset = presets.load(name)
    assert preset.env == name
    assert preset.total_steps >= 100_000
    config = config_for(
        preset.hyperparameters, preset.agent, env=preset.env, env_kwargs=preset.env_kwargs
    )
    if not name.startswith(("brax/", "navix/", "craftax/")):
        make_network(config.agent, make(preset.env, preset.env_kwargs).spaces)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_says_what_it_rests_on(name):
    evidence = presets.load(name).evidence
    low, high = evidence["interval"]
    assert low <= evidence["score"] <= high
    assert math.isfinite(evidence["score"])
    assert evidence["seeds"] >= 5
    assert evidence["trials"] >= 10
    assert evidence["command"].startswith("python -m tune.run")
    assert name in evidence["command"]


@pytest.mark.parametrize("name", presets.names())
def test_the_command_of_a_study_is_one_that_still_runs(name):
    program, *words = shlex.split(presets.load(name).evidence["command"].partition("tune.run")[2])
    command_line.parse(options.Arguments, "python -m tune.run", [program, *words])


def test_an_unknown_preset_gets_the_nearest():
    with pytest.raises(UserError, match="no preset 'CartPole-v2'; did you mean 'CartPole-v1'"):
        presets.load("CartPole-v2")


@pytest.fixture
def pendulum(monkeypatch):
    """A preset that differs from the defaults in every part."""
    preset = presets.Preset(
        env="Pendulum-v1",
        env_kwargs=(("max_steps_in_episode", 100),),
        total_steps=200_000,
        hyperparameters=Hyperparameters(gamma=0.9, n_steps=512, batch_size=64),
        agent=AgentConfig(num_envs=32, normalize_observations=True),
        evidence={},
    )
    monkeypatch.setattr(presets, "load", lambda _: preset)
    return preset


def parse(*options):
    return command_line.parse(train.Arguments, "train", options)


def test_a_preset_takes_the_place_of_the_defaults(pendulum):
    arguments = parse("--preset", "Pendulum-v1")
    assert arguments.env == "Pendulum-v1"
    assert arguments.env_kwargs == ("max_steps_in_episode=100",)
    assert arguments.hyperparameters == pendulum.hyperparameters
    assert arguments.agent == pendulum.agent
    assert arguments.preset == "Pendulum-v1"


def test_options_change_a_preset(pendulum):
    options = ("--gamma", "0.95", "--no-normalize-observations", "--num-envs", "8")
    arguments = parse(*options, "--preset=Pendulum-v1", "--env", "Acrobot-v1")
    assert arguments.env == "Acrobot-v1"
    assert arguments.hyperparameters == Hyperparameters(gamma=0.95, n_steps=512, batch_size=64)
    assert arguments.agent == AgentConfig(num_envs=8)
    # What the preset has set can be asked for as well.
    assert parse("--preset", "Pendulum-v1", "--normalize-observations").agent == pendulum.agent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env = 3", "env must be the name of an environment, but got 3"),
        ('env = "CartPole-v1"\ntotal_steps = "1"', "total_steps must be an integer .* got '1'"),
        ('env = "CartPole-v1"\nenv_kwargs = 3', "env_kwargs must be a mapping"),
        ('env = "CartPole-v1"\nevidence = 3', "evidence must be a table, but got 3"),
    ],
)
def test_a_file_that_holds_no_preset_is_refused(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"mine.toml: {message}"):
        presets.load(str(path))


def test_a_file_does_not_decide_what_is_imported(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('env = "elsewhere:make"\n')
    message = "names the environment 'elsewhere:make', whose code would be imported and run"
    with pytest.raises(UserError, match=message):
        ppo_jax.train(preset=str(path))
    for kind in (train.Arguments, options.Arguments):
        with pytest.raises(SystemExit):
            command_line.parse(kind, "it", ["--preset", str(path)])
        assert message in capsys.readouterr().err
    assert parse("--preset", str(path), "--env", "elsewhere:make").env == "elsewhere:make"


@pytest.mark.parametrize("options", [("--preset", "CartPol-v1"), ("--preset",)])
def test_a_mistake_is_one_line_and_status_2(options, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
