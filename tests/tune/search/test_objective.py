import functools

import numpy as np
import optuna
import pytest

import tune
from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.search.objective import objective, shared_pool


def new_study(settings=None, pruner=None):
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    if settings is not None:
        study.set_user_attr("settings", settings.to_dict())
    return study


class AlwaysPrune(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


def trial_in(programs):
    return functools.partial(objective, programs=programs)


@pytest.mark.slow
def test_needs_no_programs_of_its_caller():
    """As a script of a few lines calls it, with real training."""
    settings = Settings(total_steps=2048, eval_every=2048, eval_episodes=2, seeds=1)
    study = new_study(settings)
    study.optimize(tune.objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    programs = shared_pool(settings)
    assert programs.compile_log.programs["training"] == 1


def test_works_in_a_plain_optuna_study(programs):
    study = new_study()
    study.optimize(trial_in(programs), n_trials=3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    trial = study.trials[0]
    assert sorted(trial.intermediate_values) == Settings().checkpoints()
    assert trial.value == pytest.approx(sum(trial.intermediate_values.values()) / 4)


def test_reads_the_settings_of_the_study(programs):
    settings = Settings(total_steps=80_000, eval_every=40_000, seeds=2, objective="final")
    study = new_study(settings)
    study.optimize(trial_in(programs), n_trials=1)
    trial = study.trials[0]
    assert sorted(trial.intermediate_values) == [40_000, 80_000]
    assert trial.value == trial.intermediate_values[80_000]
    assert len(trial.user_attrs["returns"]["40000"]) == 2


def test_every_trial_runs_on_the_same_tuning_seeds(programs):
    study = new_study()
    study.optimize(trial_in(programs), n_trials=3)
    keys = [keys for keys, _, _ in programs.runs]
    assert keys[0] == keys[1] == keys[2]
    assert len({tuple(key) for key in keys[0]}) == 4


def test_records_scores_steps_seconds(programs):
    study = new_study()
    study.optimize(trial_in(programs), n_trials=1)
    attributes = study.trials[0].user_attrs
    gamma = attributes["hyperparameters"]["gamma"]
    assert attributes["returns"]["50000"] == pytest.approx([50 + 100 * gamma + s for s in range(4)])
    assert attributes["environment_steps"] == 4 * 200_024
    assert attributes["training_seconds"] == 1.0
    assert attributes["evaluation_seconds"] == 0.5
    assert attributes["diverged_seeds"] == []


def test_prunes_when_the_pruner_says_so_but_never_the_baseline(programs):
    study = new_study(pruner=AlwaysPrune())
    study.enqueue_trial(Settings().space.baseline(), user_attrs={"baseline": True})
    study.optimize(trial_in(programs), n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert list(study.trials[1].intermediate_values) == [50_000]


def test_is_not_pruned_after_its_last_checkpoint(programs):
    study = new_study(Settings(total_steps=50_000), pruner=AlwaysPrune())
    study.optimize(trial_in(programs), n_trials=1)
    assert study.trials[0].state.name == "COMPLETE"


def test_diverged_seed_is_left_out_recorded_and_ends_the_trial(programs):
    programs.returns = lambda hp, step, seed: float("nan") if seed == 2 else 10.0 + seed
    study = new_study()
    study.enqueue_trial(Settings().space.baseline(), user_attrs={"baseline": True})
    study.optimize(trial_in(programs), n_trials=2)
    baseline, other = study.trials
    assert baseline.state.name == "COMPLETE"
    assert baseline.value == pytest.approx((10 + 11 + 13) / 3)
    assert baseline.user_attrs["diverged_seeds"] == [2]
    assert baseline.user_attrs["returns"]["50000"] == [10.0, 11.0, None, 13.0]
    assert other.state.name == "PRUNED"


def test_trial_whose_seeds_all_diverge_is_pruned_without_a_score(programs):
    programs.returns = lambda hp, step, seed: float("inf")
    study = new_study()
    study.optimize(trial_in(programs), n_trials=1)
    assert study.trials[0].state.name == "PRUNED"
    assert study.trials[0].intermediate_values == {}


@pytest.mark.parametrize(
    "study",
    [{}, {"direction": "minimize"}, {"directions": ["maximize", "maximize"]}],
    ids=["default", "minimize", "two objectives"],
)
def test_a_study_that_does_not_maximize_is_refused(programs, tmp_path, study):
    study = optuna.create_study(**study)
    with pytest.raises(UserError, match=r'direction="maximize"'):
        study.optimize(trial_in(programs), n_trials=1)
    with pytest.raises(UserError, match=r'direction="maximize"'):
        tune.save_optimization_results(study, tmp_path / "out")
    assert not programs.runs
    assert not (tmp_path / "out").exists()


def test_fixed_and_finished_trials_are_scored(programs):
    fixed = optuna.trial.FixedTrial(Settings().space.baseline())
    score = objective(fixed, programs=programs)
    study = optuna.create_study(direction="maximize")
    study.optimize(trial_in(programs), n_trials=1)
    assert objective(study.best_trial, programs=programs) == study.best_value
    assert score == pytest.approx(np.mean([50, 100, 150, 200]) + 99 + 1.5)
