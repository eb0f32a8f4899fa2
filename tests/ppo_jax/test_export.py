"""Configurations go to other implementations and come back the same; what is lost is named."""

import ast
import json
import math

import pytest
import yaml

from ppo_jax import command_line, presets
from ppo_jax.config import AgentConfig
from ppo_jax.environments.base import Continuous, Discrete, Spaces
from ppo_jax.errors import UserError
from ppo_jax.export import __main__ as export
from ppo_jax.export import correspondence, writing
from ppo_jax.export.reading import read
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.presets import Preset
from tune.options import Arguments as StudyArguments

CARTPOLE = Spaces((4,), Discrete(2))
PENDULUM = Spaces((3,), Continuous((-2.0,), (2.0,)))

CHANGED = Preset(
    env="Pendulum-v1",
    env_kwargs=(("max_steps_in_episode", 100),),
    total_steps=300_000,
    hyperparameters=Hyperparameters(
        learning_rate=1e-3,
        gamma=0.9,
        gae_lambda=0.8,
        clip_epsilon=0.3,
        value_coef=0.7,
        entropy_coef=0.0,
        max_grad_norm=1.5,
        n_steps=512,
        batch_size=64,
        n_epochs=7,
        target_kl=0.03,
        anneal_learning_rate=True,
        anneal_clip_epsilon=True,
        normalize_advantages=False,
        value_clip_epsilon=0.25,
        adam_beta1=0.8,
        adam_epsilon=1e-6,
    ),
    agent=AgentConfig(
        num_envs=8,
        hidden_sizes=(32, 16),
        activation="relu",
        initial_log_std=-0.5,
        normalize_observations=True,
    ),
    evidence={},
)


def preset(**hyperparameters):
    return Preset("CartPole-v1", (), 100_000, Hyperparameters(**hyperparameters), AgentConfig(), {})


def source(found, spaces=CARTPOLE):
    return writing.Source.of(found, spaces)


def back(text, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_text(text)
    return read(path)


@pytest.mark.parametrize(
    ("found", "spaces"),
    [
        (CHANGED, PENDULUM),
        (preset(), CARTPOLE),
        (preset(clip_value_loss=False, anneal_clip_epsilon=True), CARTPOLE),
        (preset(anneal_clip_epsilon=True), CARTPOLE),
        (presets.load("MountainCar-v0"), Spaces((2,), Discrete(3))),
    ],
)
def test_what_goes_to_rl_zoo_comes_back_the_same(found, spaces, tmp_path):
    returned, notes = back(writing.rl_zoo(source(found, spaces)), tmp_path, ".yml")
    assert notes == ()
    assert returned.hyperparameters == found.hyperparameters
    assert returned.agent == found.agent
    assert (returned.env, returned.env_kwargs) == (found.env, found.env_kwargs)
    assert returned.total_steps == found.total_steps


def test_a_preset_file_is_read_as_it_was_written(tmp_path):
    returned, _ = back(writing.preset(CHANGED, ("a loss",)), tmp_path, ".toml")
    assert returned == CHANGED
    assert presets.load(str(tmp_path / "file.toml")) == CHANGED
    assert "# - a loss" in (tmp_path / "file.toml").read_text()


def test_values_are_those_of_their_definitions():
    """What Stable-Baselines3's and CleanRL's code make of them, by hand."""
    theirs = correspondence.to_sb3(correspondence.ours_of(CHANGED.hyperparameters, CHANGED.agent))
    assert theirs["n_steps"] * theirs["n_envs"] == 512
    assert (theirs["n_steps"], theirs["batch_size"]) == (64, 64)
    assert math.isclose(theirs["vf_coef"] * 2.0**2, 0.7 * 0.5 * 2.0**2)  # An error of 2.
    assert math.isclose(1.5 * theirs["target_kl"], 0.03)
    assert theirs["learning_rate"] == correspondence.Schedule(1e-3)
    assert theirs["policy_kwargs.optimizer_kwargs.betas"] == [0.8, 0.999]
    options = correspondence.to_cleanrl(
        correspondence.ours_of(preset().hyperparameters, AgentConfig())
    )
    assert options["num-steps"] * options["num-envs"] / options["num-minibatches"] == 256
    assert options["vf-coef"] == 0.5
    assert options["target-kl"] is None


RL_ZOO = """
CartPole-v1:
  n_envs: 8
  n_timesteps: !!float 1e5
  policy: 'MlpPolicy'
  n_steps: 32
  batch_size: 256
  gae_lambda: 0.8
  gamma: 0.98
  n_epochs: 20
  ent_coef: 0.0
  learning_rate: lin_0.001
  clip_range: lin_0.2

MountainCarContinuous-v0:
  normalize: true
  n_envs: 1
  n_timesteps: !!float 20000
  policy: 'MlpPolicy'
  batch_size: 256
  n_steps: 8
  use_sde: True
  policy_kwargs: "dict(log_std_init=-3.29, ortho_init=False, activation_fn=nn.GELU,
    net_arch=dict(pi=[256], vf=[64]))"
"""


def test_rl_zoos_own_settings_are_read(tmp_path):
    path = tmp_path / "ppo.yml"
    path.write_text(RL_ZOO)
    found, notes = read(path, "CartPole-v1")
    assert notes == ()
    assert found.total_steps == 100_000
    assert found.hyperparameters == Hyperparameters(
        n_steps=256, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, entropy_coef=0.0,
        learning_rate=1e-3, anneal_learning_rate=True, anneal_clip_epsilon=True, value_coef=1.0,
        clip_value_loss=False,
    )  # fmt: skip
    assert found.agent == AgentConfig(num_envs=8)

    found, notes = read(path, "MountainCarContinuous-v0")
    assert found.hyperparameters.batch_size == found.hyperparameters.n_steps == 8
    assert found.agent == AgentConfig(
        num_envs=1, hidden_sizes=(256,), activation="gelu", initial_log_std=-3.29,
        normalize_observations=True, normalize_rewards=True,
    )  # fmt: skip
    told = " ".join(notes)
    for word in ("use_sde", "ortho_init", "log_std_init", "net_arch vf", "batch_size = 256"):
        assert word in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"squash_actions": True}, "squash_actions = True: no counterpart"),
        ({"anneal_entropy_coef": True}, "anneal_entropy_coef = True: no counterpart"),
        ({"weight_decay": 0.1}, "weight_decay = 0.1: no counterpart"),
        ({"anneal_learning_rate": True, "learning_rate_end": 0.5}, "along a line to zero there"),
        ({"target_kl": 0.1}, "target_kl: looked at after each minibatch"),
        ({"activation": "gelu"}, "activation gelu"),
        ({"network": "lstm"}, "network = lstm: without memory there"),
        ({"network": "my_module:Mine"}, "network = my_module:Mine: an MLP there"),
    ],
)
def test_what_cannot_be_carried_is_named(change, words):
    agent = {k: v for k, v in change.items() if hasattr(AgentConfig, k)}
    others = {k: v for k, v in change.items() if k not in agent}
    found = Preset("Pendulum-v1", (), 1000, Hyperparameters(**others), AgentConfig(**agent), {})
    plain = Preset("Pendulum-v1", (), 1000, Hyperparameters(), AgentConfig(), {})
    text = writing.rl_zoo(source(found, PENDULUM)).replace("\n#  ", "")
    assert words in text
    assert words not in writing.rl_zoo(source(plain, PENDULUM)).replace("\n#  ", "")


def test_every_changed_setting_is_carried_or_named():
    """Also those that are added later."""
    default = correspondence.ours_of(Hyperparameters(), AgentConfig())
    carried = {row.ours for row in correspondence.ROWS} | correspondence.ELSEWHERE
    for name, value in default.items():
        other = (not value) if isinstance(value, bool) else "x" if isinstance(value, str) else 7
        named = correspondence.differences(default | {name: other}, lambda row: row.sb3, ())
        assert (name in carried) != (named == [f"{name} = {other}: no counterpart"]), name


def test_the_script_is_python_with_the_schedules_as_they_are():
    found = preset(anneal_learning_rate=True, learning_rate_end=0.5, learning_rate=1e-3)
    text = writing.sb3(source(found))
    ast.parse(text)
    assert "learning_rate=LinearSchedule(0.001, 0.0005, 1.0)" in text
    cosine = writing.sb3(source(preset(anneal_clip_epsilon=True, cosine_annealing=True)))
    rate = eval(cosine.split("clip_range=")[1].split(",\n")[0], {"math": math})
    assert [rate(1.0), round(rate(0.5), 9), rate(0.0)] == [0.2, 0.1, 0.0]
    continuous = writing.sb3(source(CHANGED, PENDULUM))
    ast.parse(continuous)
    assert "RescaleAction(env, min_action=-1.0, max_action=1.0)" in continuous
    assert 'make_vec_env("Pendulum-v1", 8, seed=seed' in continuous
    assert "VecNormalize(env, gamma=0.9, norm_obs=True, norm_reward=False" in continuous


def test_cleanrl_is_told_what_it_has_options_for():
    text = writing.cleanrl(source(preset(anneal_clip_epsilon=True)))
    assert "python cleanrl/ppo.py --env-id CartPole-v1 --total-timesteps 100000" in text
    assert "--num-steps 128 --num-minibatches 8" in text
    assert "--no-anneal-lr" in text
    assert "# - anneal_clip_epsilon = True: no counterpart" in text
    text = writing.cleanrl(source(CHANGED, PENDULUM)).replace("\n#  ", "")
    assert "cleanrl/ppo_continuous_action.py" in text
    for word in ("hidden_sizes = [32, 16]", "normalize_rewards = False: true there"):
        assert word in text


def test_the_command_reads_and_writes(tmp_path, capsys):
    path = tmp_path / "recommended.json"
    recommended = {
        "environment": {"name": "CartPole-v1", "kwargs": {}},
        "hyperparameters": Hyperparameters(gamma=0.98).to_dict(),
        "agent": AgentConfig().to_dict(),
        "total_steps": 200_000,
    }
    path.write_text(json.dumps(recommended))
    zoo, toml = tmp_path / "ppo.yml", tmp_path / "mine.toml"
    export.main([str(path), "--to", "rl-zoo", "--output", str(zoo)])
    assert yaml.safe_load(zoo.read_text())["CartPole-v1"]["gamma"] == 0.98
    export.main([str(zoo), "--from", "rl-zoo", "--output", str(toml)])
    found = presets.read(toml)
    assert found.hyperparameters == Hyperparameters(gamma=0.98)
    capsys.readouterr()
    export.main([str(toml), "--to", "cleanrl"])
    assert "--gamma 0.98" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CartPole-v1: {learning_rate: cos_1}", "learning_rate must be a number or lin_"),
        ("CartPole-v1: {gamma: 2.0}", "gamma must be a number"),
        ("CartPole-v1: {n_steps: 1.5}", "n_steps must be an integer"),
        ("CartPole-v1: {policy_kwargs: '__import__(1)'}", "expected an expression like dict"),
        ("CartPole-v1: {policy_kwargs: 'dict(activation_fn=nn.ELU)'}", "activation_fn must be"),
        ("CartPole-v1: 3", "a table of settings for each environment"),
        ("a: {}\nb: {}", "--env must name one of a, b"),
        ("[", "not valid YAML"),
        ("CartPole-v1: {target_kl: [1]}", "wrong type"),
        ("CartPole-v1: {gamma: 2026-13-01}", "not valid YAML: month must be in 1..12"),
        ("CartPole-v1: {env_kwargs: {max_episode_steps: [1]}}", "env_kwargs must be a mapping"),
        (
            "a0: &a0 [1, 2, 3]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
            "it must hold at most 100,000 values, aliases written out, but has more",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "ppo.yml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"ppo\.yml") as error:
        read(path)
    assert message in str(error.value)


def test_keys_that_are_no_text_and_aliases_are_read(tmp_path):
    path = tmp_path / "ppo.yml"
    path.write_text("1: {gamma: 0.9}")
    assert read(path)[0].hyperparameters.gamma == 0.9
    path.write_text("Acrobot-v1: &a {gamma: 0.9}\nCartPole-v1: {<<: *a, n_steps: 256}")
    assert read(path, "CartPole-v1")[0].hyperparameters.gamma == 0.9


def test_a_study_starts_from_any_of_the_files(tmp_path, capsys):
    path = tmp_path / "ppo.yml"
    path.write_text(RL_ZOO)
    options = ["--baseline", str(path), "--env", "CartPole-v1", "--total-steps", "100k"]
    arguments = command_line.parse(StudyArguments, "tune", options)
    baseline = arguments.settings().baseline
    found, _ = read(path, "CartPole-v1")
    assert (baseline.hyperparameters, baseline.agent) == (found.hyperparameters, found.agent)
    options = ["--baseline", str(path), "--env", "MountainCarContinuous-v0"]
    command_line.parse(StudyArguments, "tune", options)
    assert "not carried: use_sde = True" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.parse(StudyArguments, "tune", [*options, "--preset", "CartPole-v1"])
    assert "exclude each other" in capsys.readouterr().err
