"""The default sampler: what it proposes, and what it must not depend on."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from scipy import integrate, stats

from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.trials import BEGAN, TrialRecord
from tune.search.model import ScoreModel, axes_of, coordinates, unit_point
from tune.search.samplers import make_sampler
from tune.search.samplers.gp import log_expected_improvement, propose

SETTINGS = Settings(sampler_startup_trials=5, pruner="none")
SPACE = SETTINGS.space


def planted(hyperparameters):
    """Return a score with its best inside of the space; most parameters do not matter."""
    rate = np.log10(hyperparameters.learning_rate)
    return -((rate + 3.6) ** 2) * 40 - 500 * (hyperparameters.gamma - 0.98) ** 2


def new_study(settings=SETTINGS):
    return optuna.create_study(direction="maximize", sampler=make_sampler(settings))


def run(study, trials, score=planted):
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, finish(trial, score))
    return study


def finish(trial, score=planted):
    """Suggest and store what a trial of a study stores, and return the score."""
    hyperparameters = SPACE.suggest(trial).hyperparameters
    value = score(hyperparameters)
    trial.set_user_attr("hyperparameters", hyperparameters.to_dict())
    steps = SETTINGS.checkpoints()
    trial.set_user_attr("returns", {str(s): [value - 1, value + 1] for s in steps})
    for step in steps:
        trial.report(value, step)
    return value


@pytest.mark.parametrize("z", [-60.0, -8.0, -1.0, 0.0, 0.5, 6.0])
def test_expected_improvement_is_the_integral(z):
    gain, _ = integrate.quad(lambda x: x * stats.norm.pdf(x - z), max(0, z - 9), max(12, z + 9))
    if z > -30:  # Below, the integral has no digits left.
        assert log_expected_improvement(np.array([z]))[0] == pytest.approx(np.log(gain), abs=1e-6)
    expansion = stats.norm.logpdf(z) - 2 * np.log(abs(z) or 1)
    assert z > -30 or log_expected_improvement(np.array([z]))[0] == pytest.approx(
        expansion, abs=0.01
    )


def test_expected_improvement_rises_everywhere():
    values = log_expected_improvement(np.linspace(-2000, 20, 5001))
    assert (np.diff(values) > 0).all()


def test_it_finds_a_planted_best():
    study = run(new_study(), 25)
    start = max(t.value for t in study.trials[: SETTINGS.sampler_startup_trials])
    assert study.best_value > -2.0
    assert study.best_value > start
    assert abs(np.log10(study.best_params["learning_rate"]) + 3.6) < 0.3


def test_a_draw_depends_on_the_storage_and_its_number_alone():
    whole = run(new_study(), 12)
    for known in (3, 9):
        other = new_study()
        other.add_trials(whole.trials[:known])
        run(other, 12 - known)
        assert [t.params for t in other.trials] == [t.params for t in whole.trials]


def test_side_by_side_the_first_trials_are_whole_batches():
    def fifth(lanes):
        """Return the fifth trial after four, of which the first `lanes` began at once."""
        study = new_study()
        for number in range(4):
            trial = study.ask()
            if number < lanes:
                trial.set_user_attr(BEGAN, 0)
            study.tell(trial, finish(trial))
        return SPACE.suggest(study.ask())

    assert SETTINGS.sampler_startup_trials == 5
    sobol, by_model = fifth(0), fifth(4)
    assert sobol != by_model
    assert fifth(2) == by_model
    assert fifth(1) == sobol


def test_trials_that_run_at_the_same_time_get_points_of_their_own():
    study = run(new_study(), 8)
    trials = [study.ask() for _ in range(6)]
    for trial in trials:
        SPACE.suggest(trial)
    axes = axes_of(SETTINGS)
    points = np.array([unit_point(axes, t.params) for t in study.trials])
    distance = np.abs(points[:, None] - points[None]).max(axis=2) + np.eye(len(points))
    assert distance[-6:].min() > 0.05


def test_what_is_being_tried_counts_as_tried_with_what_is_expected_of_it():
    study = run(new_study(), 12)
    model = ScoreModel.fit([TrialRecord.of(trial) for trial in study.trials], SETTINGS)

    def proposal(pending):
        return propose(model, np.array(pending), np.random.default_rng(0))

    first = proposal(np.empty((0, len(model.axes))))
    near = first + 1e-3 * (0.5 - first)  # No candidate, but as good as the first.
    second = proposal([near])
    assert np.abs(second - first).max() > 0.02
    place = coordinates(model.axes, near[None])
    (mean,), (deviation,) = model.process.predict(place)
    (believed,), (left,) = model.process.believing(place).predict(place)
    assert believed == pytest.approx(mean, abs=0.05 * deviation)
    assert left < deviation


def test_a_draw_that_was_interrupted_stays_what_it_was():
    study = run(new_study(), 8)
    first, second = study.ask(), study.ask()
    SPACE.suggest(second)
    SPACE.suggest(first)
    again = optuna.Trial(study, first._trial_id)
    assert SPACE.suggest(again) == SPACE.suggest(first)


def test_a_pruned_and_a_diverged_trial_teach_it():
    study = run(new_study(), 6)
    trial = study.ask()
    finish(trial)
    study.tell(trial, state=TrialState.PRUNED)
    diverged = study.ask()
    diverged.set_user_attr("hyperparameters", SPACE.suggest(diverged).hyperparameters.to_dict())
    diverged.set_user_attr("returns", {"50000": [None, None]})
    study.tell(diverged, state=TrialState.PRUNED)
    run(study, 2)
    assert len({tuple(t.params.values()) for t in study.trials}) == 10


def test_a_space_of_choices_alone_is_drawn_without_repetition():
    tables = {name: {"drop": True} for name, _ in SearchSpace().tuned}
    space = SearchSpace.from_tables(
        {
            **tables,
            "n_epochs": {"low": 3, "high": 6},
            "batch_size": {"choices": [128, 256, 512]},
        }
    )
    settings = Settings(space=space, sampler_startup_trials=2, pruner="none")
    study = new_study(settings)
    for number in range(12):
        trial = study.ask()
        hyperparameters = space.suggest(trial).hyperparameters
        trial.set_user_attr("hyperparameters", hyperparameters.to_dict())
        study.tell(trial, float(hyperparameters.n_epochs + number % 2))
    assert len({tuple(t.params.values()) for t in study.trials}) == 12


def test_what_runs_is_known_where_a_parameter_has_one_choice_that_is_no_default():
    space = SPACE.changed_by({"n_steps": {"choices": [1024]}})
    settings = Settings(space=space, sampler_startup_trials=5, pruner="none")
    study = new_study(settings)
    begun = [study.ask() for _ in range(3)]
    drawn = [trial.relative_params for trial in begun]  # Stored, but not yet asked for.
    points = [unit_point(axes_of(settings), params) for params in drawn]
    np.testing.assert_allclose(study.sampler._pending(study.trials), points)
