"""What samplers draw depends on the study's seed and the number of the draw alone."""

import dataclasses
import importlib.util
import tomllib
from pathlib import Path

import optuna
import pytest

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.search import storage
from tune.search.optuna_private import CachedStorage
from tune.search.samplers import SAMPLERS, make_sampler
from tune.search.study import run_optimization

INSTALLED = [
    name
    for name, sampler in SAMPLERS.items()
    if sampler.package is None or importlib.util.find_spec(sampler.package) is not None
]

ONE_OF_A_KIND = [
    name if name in ("gp", "random") else pytest.param(name, marks=pytest.mark.slow)
    for name in INSTALLED
]
"""The default with a state of its own, and one of those that are seeded by the draw."""

DRAWN = {
    "random": [(0.0005301379452363247, 6), (0.000952890785396392, 5), (0.0005012350782727415, 9)],
    "qmc": [(0.0005301379452363247, 6), (8.000735462135617e-05, 4), (3.1439233623785765e-05, 7)],
}
"""Learning rate and number of epochs of the first three draws at seed 0."""


class Killed(Exception):
    """Ends a study right after one of its writes to the storage."""


def parameters(study):
    return [trial.params for trial in study.trials]


def settings_for(sampler):
    return Settings(sampler=sampler, sampler_startup_trials=3, pruner="none")


@pytest.fixture
def kill_after(monkeypatch):
    """Return a function: the study that runs is killed after so many further writes."""
    remaining = 0

    def counted(write):
        def call(*args, **kwargs):
            nonlocal remaining
            result = write(*args, **kwargs)
            remaining -= 1
            if remaining == 0:
                raise Killed
            return result

        return call

    kind = storage._resilient(CachedStorage)
    for name in (
        "create_new_trial",
        "set_trial_param",
        "set_trial_user_attr",
        "set_trial_system_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
    ):
        monkeypatch.setattr(kind, name, counted(getattr(kind, name)))

    def kill_after(writes):
        nonlocal remaining
        remaining = writes

    return kill_after


@pytest.mark.parametrize("sampler", ONE_OF_A_KIND)
def test_interrupted_study_has_the_trials_of_an_uninterrupted_one(
    programs, tmp_path, kill_after, sampler
):
    programs.returns = lambda hp, step, _: step / 1000 * hp.gamma - 1e5 * hp.learning_rate
    settings = dataclasses.replace(settings_for(sampler), pruner="median")
    whole = run_optimization(9, settings, output=tmp_path / "whole", programs=programs)
    # Strides that are prime to the number of writes of a trial: every kind of write is met.
    kills = 0
    for run in range(200):
        kill_after(31 + run % 7)
        try:
            study = run_optimization(9, settings, output=tmp_path / "broken", programs=programs)
            break
        except Killed:
            kills += 1
    assert kills > 4
    assert parameters(study) == parameters(whole)
    for name in ("state", "value", "intermediate_values"):
        assert [getattr(t, name) for t in study.trials] == [getattr(t, name) for t in whole.trials]
    returns = [[t.user_attrs["returns"] for t in s.trials] for s in (study, whole)]
    assert returns[0] == returns[1]
    # A sampler that learns may suggest nothing hopeless.
    assert sampler in ("gp", "tpe") or "PRUNED" in {trial.state.name for trial in whole.trials}


@pytest.mark.parametrize("sampler", INSTALLED)
def test_draws_differ_between_trials_and_between_seeds(programs, tmp_path, sampler):
    first = run_optimization(5, settings_for(sampler), output=tmp_path / "a", programs=programs)
    assert len({tuple(p.values()) for p in parameters(first)}) == 5
    other = dataclasses.replace(settings_for(sampler), seed=1)
    second = run_optimization(5, other, output=tmp_path / "b", programs=programs)
    assert parameters(first)[1:] != parameters(second)[1:]


def test_a_trial_without_its_neighbours_draws_the_same():
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


def test_retry_of_another_trial_does_not_count_as_a_draw():
    settings, space = settings_for("random"), SearchSpace()

    def second_draw(retries):
        study = optuna.create_study(sampler=make_sampler(settings))
        space.suggest(study.ask())
        for _ in range(retries):
            study.enqueue_trial(study.trials[0].params, user_attrs={"retry_of": 0})
            space.suggest(study.ask())
        trial = study.ask()
        space.suggest(trial)
        return trial.params

    assert second_draw(retries=0) == second_draw(retries=2)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draws_of_a_seed_stay_what_they_were(sampler):
    """Numbers that earlier versions drew; a study of theirs goes on with its own draws."""
    study = optuna.create_study(sampler=make_sampler(settings_for(sampler)))
    for _ in range(3):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
        trial.suggest_int("n_epochs", 3, 10)
        study.tell(trial, 0.0)
    drawn = [tuple(trial.params.values()) for trial in study.trials]
    assert drawn == DRAWN[sampler]


def test_grid_runs_every_point_once_and_stops_there(programs, tmp_path):
    fixed = {
        name: {"drop": True} for name, _ in SearchSpace().tuned if name not in ("gamma", "n_epochs")
    }
    settings = Settings(
        sampler="grid", grid_points=2, pruner="none", space=SearchSpace.from_tables(fixed)
    )
    study = run_optimization(20, settings, output=tmp_path, programs=programs)
    points = [tuple(p.values()) for p in parameters(study)[1:]]
    assert len(points) == len(set(points)) == 4


def test_missing_package_says_what_to_install(programs, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"sampler 'optuna-gp' needs the package torch; .*tune\[optuna-gp\]"
    ):
        run_optimization(
            2, Settings(sampler="optuna-gp"), output=tmp_path / "out", programs=programs
        )
    assert not (tmp_path / "out").exists()


def test_unknown_sampler_is_refused_before_anything_is_created(programs, tmp_path):
    with pytest.raises(UserError, match=r"sampler must be one of gp, tpe, .*did you mean 'tpe'"):
        run_optimization(2, Settings(sampler="tpee"), output=tmp_path / "out", programs=programs)
    assert not (tmp_path / "out").exists()


def test_extras_of_samplers_install_their_packages():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for sampler in SAMPLERS.values():
        if sampler.package is not None:
            assert any(line.startswith(sampler.package) for line in extras[sampler.extra])


@pytest.mark.parametrize(
    ("space", "points", "count"),
    [("standard", 6, "15,116,544"), ("wide", 3, "41,990,400"), ("standard", 10**7, "")],
)
def test_a_grid_that_no_memory_holds_is_refused(space, points, count, tmp_path):
    settings = Settings(space=space, sampler="grid", grid_points=points)
    message = f"at most 1,000,000 points, but {points} values .* make {count}.*; lower --grid-po"
    with pytest.raises(UserError, match=message):
        run_optimization(1, settings, output=tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert make_sampler(dataclasses.replace(settings, space="standard", grid_points=4)) is not None
