import json

import pytest

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
