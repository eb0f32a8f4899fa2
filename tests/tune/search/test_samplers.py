import dataclasses

import optuna
import pytest

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.search.samplers import make_sampler
from tune.search.study import run_optimization

SAMPLERS = ["tpe", "random", "qmc", "cmaes", "grid"]


class KilledAfter(Exception):
    """Ends a study wherever its `calls`-th write to the storage has just gone through."""


def parameters(study):
    return [trial.params for trial in study.trials]


def settings_for(sampler):
    return Settings(sampler=sampler, sampler_startup_trials=3, pruner="none")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_study_has_the_trials_of_an_uninterrupted_one(
    programs, tmp_path, monkeypatch, sampler
):
    programs.returns = lambda hp, step, seed: step / 1000 * hp.gamma - 1e5 * hp.learning_rate
    settings = dataclasses.replace(settings_for(sampler), pruner="median")
    whole = run_optimization(14, settings, output=tmp_path / "whole")

    storage = optuna.storages.RDBStorage
    remaining = 0

    def dying(write):
        def call(*args, **kwargs):
            nonlocal remaining
            remaining -= 1
            if remaining == 0:
                raise KilledAfter
            return write(*args, **kwargs)

        return call

    for name in (
        "_create_new_trial",
        "set_trial_param",
        "_set_trial_param",
        "set_trial_user_attr",
        "set_trial_system_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
    ):
        monkeypatch.setattr(storage, name, dying(getattr(storage, name)))
    # Strides that are prime to the number of writes of a trial: every kind of place is met.
    attempts = 0
    for lives in range(200):
        remaining = 31 + lives % 7
        try:
            study = run_optimization(14, settings, output=tmp_path / "broken")
            break
        except KilledAfter:
            attempts += 1
    assert attempts > 8
    assert parameters(study) == parameters(whole)
    for name in ("state", "value", "intermediate_values"):
        assert [getattr(t, name) for t in study.trials] == [getattr(t, name) for t in whole.trials]
    scores = [[t.user_attrs["returns"] for t in s.trials] for s in (study, whole)]
    assert scores[0] == scores[1]
    # TPE may suggest nothing hopeless.
    assert sampler == "tpe" or "PRUNED" in {trial.state.name for trial in whole.trials}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_differ_between_trials_and_between_seeds(programs, tmp_path, sampler):
    first = run_optimization(8, settings_for(sampler), output=tmp_path / "a")
    assert len({tuple(p.values()) for p in parameters(first)}) == 8
    other = Settings(sampler=sampler, sampler_startup_trials=3, pruner="none", seed=1)
    second = run_optimization(8, other, output=tmp_path / "b")
    assert parameters(first)[1:] != parameters(second)[1:]


def test_a_trial_without_its_neighbours_draws_the_same(programs):
    """Workers side by side: what one draws does not depend on how many the other has drawn."""
    settings, space = settings_for("random"), SearchSpace()

    def draw(number):
        study = optuna.create_study(sampler=make_sampler(settings))
        for _ in range(number):
            study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
        trial = study.ask()
        space.suggest(trial)
        return trial.params

    def draw_in_turn(numbers):
        study = optuna.create_study(sampler=make_sampler(settings))
        trials = [study.ask() for _ in numbers]
        for trial in reversed(trials):
            space.suggest(trial)
        return [trial.params for trial in trials]

    assert draw_in_turn(range(3)) == [draw(0), draw(1), draw(2)]


def test_grid_runs_every_point_once_and_stops_there(programs, tmp_path):
    fixed = {
        name: {"drop": True} for name, _ in SearchSpace().tuned if name not in ("gamma", "n_epochs")
    }
    settings = Settings(
        sampler="grid", grid_points=2, pruner="none", space=SearchSpace.from_tables(fixed)
    )
    study = run_optimization(20, settings, output=tmp_path)
    points = [tuple(p.values()) for p in parameters(study)[1:]]
    assert len(points) == len(set(points)) == 4


def test_missing_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sampler 'gp' needs the package torch; .*tune\[gp\]"):
        run_optimization(2, Settings(sampler="gp"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
