"""The pruners, by name, on trials whose returns are a formula."""

import optuna
import pytest

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.search.pruners import PRUNERS, make_pruner
from tune.search.study import run_optimization


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruners_stop_a_hopeless_trial(programs, tmp_path, pruner):
    programs.returns = lambda hp, step, _: step / 1000 * (hp.gamma > 0.98)
    settings = Settings(pruner=pruner, sampler="random", pruner_startup_trials=2)
    study = run_optimization(12, settings, output=tmp_path, programs=programs)
    states = [trial.state.name for trial in study.trials]
    assert states[0] == "COMPLETE"
    assert ("PRUNED" in states) == (pruner != "none")
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert all(min(trial.intermediate_values) == 50_000 for trial in pruned)
    assert all(max(trial.intermediate_values) >= 100_000 for trial in pruned)


def test_unknown_pruner_is_refused_before_anything_is_created(programs, tmp_path):
    with pytest.raises(UserError, match=r"pruner must be one of median, .*did you mean 'median'"):
        run_optimization(2, Settings(pruner="medain"), output=tmp_path / "out", programs=programs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("percentile", "pruned"), [(25.0, True), (75.0, False)])
def test_the_percentile_is_the_share_of_trials_that_go_on(percentile, pruned):
    settings = Settings(
        pruner="percentile",
        pruner_percentile=percentile,
        pruner_startup_trials=1,
        pruner_warmup_checkpoints=0,
    )
    study = optuna.create_study(direction="maximize", pruner=make_pruner(settings))
    step = settings.checkpoints()[0]
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        trial = study.ask()
        trial.report(value, step)
        study.tell(trial, value)
    trial = study.ask()
    trial.report(2.5, step)  # Better than two of five.
    assert trial.should_prune() == pruned


def test_warmup_longer_than_a_trial_never_prunes():
    settings = Settings(pruner="median", pruner_warmup_checkpoints=99)
    assert make_pruner(settings)._n_warmup_steps == settings.total_steps
