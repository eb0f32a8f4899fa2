import json

import numpy as np
import pytest

from ppo_jax import policy
from ppo_jax.errors import UserError
from tune.report import save_optimization_results
from tune.settings import Settings
from tune.study import run_optimization
from tune.validation import find_validation, train_best_config, validation_steps


@pytest.fixture(autouse=True)
def saved_policies(monkeypatch):
    """Policies are networks; these programs have none, so keep what would be saved."""
    saved = []
    monkeypatch.setattr(
        policy, "save", lambda folder, config, params, **extra: saved.append((params, extra))
    )
    return saved


def test_improved(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: 400.0 + 50 * (hp.gamma == 0.98) + seed
    result = train_best_config({"gamma": 0.98}, 300_000, output=tmp_path, tuning_score=460.0)
    assert result.sentence.startswith("Improved: the best configuration reaches 45")
    assert result.comparison.difference == result.over_training.difference == 50.0
    assert result.optimism == pytest.approx(460.0 - result.validation_score)
    assert result.winner.returns.shape == (6, 10)
    data = json.loads((tmp_path / "validation.json").read_text())
    assert data["verdict"] == result.sentence
    assert np.shape(data["winner"]["returns"]) == np.shape(data["baseline"]["returns"]) == (6, 10)
    assert data["steps"] == [50_000 * i for i in range(1, 7)]
    assert (tmp_path / "validation.png").stat().st_size > 10_000
    (params, extra), *rest = saved_policies
    assert not rest
    assert extra["hyperparameters"]["gamma"] == 0.98
    assert params["kernel"] == extra["training"]["seed"] % programs.seeds


def test_worse_and_no_clear_difference(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 400.0 - 50 * (hp.gamma == 0.98) + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path)
    assert result.sentence.startswith("Worse: ")
    assert "keep the defaults" in result.sentence
    programs.returns = lambda hp, step, seed: 400.0 + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path)
    assert result.sentence.startswith("No clear difference: ")


def test_winner_that_is_the_baseline_is_trained_once(programs, tmp_path):
    result = train_best_config({}, 100_000, output=tmp_path, seeds=4)
    assert result.is_baseline
    assert len(programs.runs) == 1
    assert result.sentence.startswith("No clear difference: no trial beat the default")


def test_diverged_seeds_are_reported_and_left_out(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: np.nan if seed == 1 else 100.0 + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path, seeds=4)
    data = json.loads((tmp_path / "validation.json").read_text())
    assert data["winner"]["diverged_seeds"] == [1]
    assert data["winner"]["returns"][0] == [100.0, None, 102.0, 103.0]
    assert result.winner_summary.seeds == 3
    assert saved_policies[0][1]["training"]["seed"] == 3


def test_all_seeds_diverged_gives_a_verdict_and_no_policy(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: np.nan if hp.gamma == 0.98 else 1.0 + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path, seeds=4)
    assert "every seed of the winner diverged" in result.sentence
    assert saved_policies == []


def test_groups_of_seeds_fill_the_lanes_of_the_study(programs, tmp_path):
    train_best_config({"gamma": 0.98}, 100_000, output=tmp_path, seeds=10)
    assert [len(keys) for keys, _, _ in programs.runs] == [4, 4, 2] * 2
    keys = [tuple(key) for keys, _, _ in programs.runs[:3] for key in keys]
    assert len(set(keys)) == 10


def test_takes_the_best_params_of_saved_results(programs, tmp_path):
    study = run_optimization(5, output=tmp_path)
    save_optimization_results(study, tmp_path)
    params = json.loads((tmp_path / "optimization_results.json").read_text())["best_params"]
    result = train_best_config(params, 100_000, output=tmp_path)
    assert result.winner.hyperparameters.to_dict() == params


def test_steps_hold_the_checkpoints_of_the_study():
    settings = Settings(total_steps=120_000)
    assert validation_steps(settings, 200_000) == [50_000, 100_000, 120_000, 150_000, 200_000]
    assert validation_steps(settings, 30_000) == [30_000]


def test_finds_only_a_validation_of_the_same_question(programs, tmp_path):
    settings, params = Settings(), {"gamma": 0.98}
    assert find_validation(tmp_path, params, settings, 100_000, 4) is None
    train_best_config(params, 100_000, output=tmp_path, seeds=4)
    assert find_validation(tmp_path, params, settings, 100_000, 4)["num_steps"] == 100_000
    assert find_validation(tmp_path, {"gamma": 0.97}, settings, 100_000, 4) is None
    assert find_validation(tmp_path, params, settings, 200_000, 4) is None
    assert find_validation(tmp_path, params, settings, 100_000, 5) is None
    assert find_validation(tmp_path, params, Settings(seed=1), 100_000, 4) is None
    (tmp_path / "validation.json").write_text("{")
    assert find_validation(tmp_path, params, settings, 100_000, 4) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"gama": 0.9}}, "did you mean 'gamma'"),
        ({"params": {"gamma": 2.0}}, "gamma must be"),
        ({"params": {}, "num_steps": 0}, "num_steps"),
        ({"params": {}, "seeds": 0}, "seeds"),
        ({"params": {"batch_size": 300}}, "batch_size"),
    ],
)
def test_mistakes_are_named_before_anything_is_created(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        train_best_config(**arguments, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
