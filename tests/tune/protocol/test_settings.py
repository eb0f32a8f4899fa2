import dataclasses
import json
import pickle

import pytest
from gymnax.environments.classic_control.cartpole import CartPole

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace


def test_defaults_follow_the_protocol():
    settings = Settings()
    assert settings.checkpoints() == [50_000, 100_000, 150_000, 200_000]
    assert settings.seeds == 4
    assert settings.config.n_steps_choices == (1024, 2048, 4096)


def test_last_checkpoint_is_the_end_of_training():
    assert Settings(total_steps=120_000).checkpoints() == [50_000, 100_000, 120_000]


@pytest.mark.parametrize(("objective", "score"), [("mean", 2.5), ("final", 4.0), ("tail", 3.5)])
def test_score(objective, score):
    assert Settings(objective=objective).score([1.0, 2.0, 3.0, 4.0]) == score


def test_json_restores_the_settings():
    settings = Settings(
        env_kwargs=(("max_steps_in_episode", 9),),
        space=SearchSpace.from_tables({"gamma": {"value": 0.9}, "num_envs": {"value": 8}}),
        reference_score=561.5,
    )
    restored = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert restored.to_dict() == settings.to_dict()
    assert restored.config == settings.config


def test_what_is_given_in_another_form_is_kept_in_one(tmp_path):
    kwargs, tables = {"gravity": 9.0, "force_mag": 5.0}, {"gamma": {"value": 0.9}}
    settings = Settings(env=CartPole, env_kwargs=kwargs, space=tables)
    assert settings.env == "gymnax.environments.classic_control.cartpole:CartPole"
    assert settings.env_kwargs == (("force_mag", 5.0), ("gravity", 9.0))
    assert settings.space == SearchSpace.from_tables(tables)
    assert Settings.env == "CartPole-v1"
    path = tmp_path / "space.toml"
    path.write_text("[gamma]\nvalue = 0.9\n")
    assert Settings(space=path).space == Settings(space=str(path)).space == settings.space
    assert Settings(agent={"hidden_sizes": [8]}).agent == AgentConfig(hidden_sizes=(8,))
    assert Settings(space="wide").space == SearchSpace.named("wide")
    based = Settings(space={"base": "wide", **tables}).space
    assert based.fixed == (("gamma", 0.9),)
    assert "normalize_rewards" in based.tuned_agent

    for same in (pickle.loads(pickle.dumps(settings)), dataclasses.replace(settings)):
        assert same == settings
        assert hash(same) == hash(settings)
    assert settings != Settings(env=CartPole, space=tables)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": 0}, "seeds must be an integer of at least 1, but got 0"),
        ({"total_steps": -5}, "total_steps"),
        ({"eval_every": 300_000}, "eval_every must be at most total_steps"),
        ({"objective": "best"}, "objective must be one of mean, final, tail, but got 'best'"),
        ({"pruner_percentile": 0.0}, "between 0 and 100"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**32}, "seed must be"),
        ({"reference_score": float("nan")}, "reference_score must be a number"),
        ({"env": 3}, "env must be a name, or a class or object of an environment"),
        ({"env_kwargs": "gravity"}, "env_kwargs must be a mapping of names to values"),
        ({"agent": 3}, "agent must be an AgentConfig or a mapping, but got 3"),
        ({"agent": {"num_env": 8}}, "unknown agent setting 'num_env'; did you mean 'num_envs'"),
        ({"space": 3}, "space must be a SearchSpace, a name, a file, or a mapping .* but got 3"),
        ({"space": "wdie"}, "space must be one of standard, wide, .* did you mean 'wide'"),
        ({"space": "missing.toml"}, "cannot read missing.toml"),
        ({"space": {"gama": {"value": 0.9}}}, r"unknown parameter \[gama\]; did you mean 'gamma'"),
        ({"space": {"gamma": (0.9, 0.99)}}, r"\[gamma\] must be a table"),
        ({"space": {"base": "wdie"}}, "base must be one of .* did you mean 'wide'"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        Settings(**values)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"batch_size": {"choices": [8192]}}, "batch_size=8192 with n_steps=1024"),
        ({"batch_size": {"choices": [300]}}, "batch_size must divide n_steps"),
        ({"n_steps": {"value": 1000}}, "n_steps must be a multiple of num_envs"),
        ({"num_envs": {"value": 3}}, "num_envs=3"),
    ],
)
def test_combinations_that_cannot_work_are_refused(tables, message):
    with pytest.raises(UserError, match=message):
        Settings(space=SearchSpace.from_tables(tables))
