"""What finished trials say about the score of their configurations."""

import dataclasses

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from scipy import stats

from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.axes import Axis
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.trials import TrialRecord, ranked
from tune.search.model import (
    HORIZON_CORRELATION,
    ScoreModel,
    axes_of,
    coordinates,
    observe,
    promising_by_model,
    ranked_by_model,
    unit_point,
)

SETTINGS = Settings()
STEPS = SETTINGS.checkpoints()


def trial(number, curve, **hyperparameters):
    """Return a trial with returns ``[checkpoints, seeds]``; pruned where they end early."""
    curve = np.array(curve, float)
    complete = len(curve) == len(STEPS)
    means = [float(np.ma.masked_invalid(row).mean()) for row in curve if np.isfinite(row).any()]
    return TrialRecord(
        number=number,
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        is_baseline=False,
        params={},
        distributions={},
        hyperparameters=Hyperparameters(**hyperparameters),
        score=SETTINGS.score(means) if complete else None,
        means=dict(zip(STEPS, means, strict=False)),
        returns=dict(zip(STEPS, curve, strict=False)),
        diverged_seeds=[],
        environment_steps=0,
        training_seconds=0.0,
        evaluation_seconds=0.0,
        interrupted=0,
        started=None,
        finished=None,
    )


def steady(number, mean, spread, checkpoints=4, seeds=4, **hyperparameters):
    """Return a trial whose seeds lie evenly around `mean` at each checkpoint."""
    seeds = mean + spread * np.linspace(-1, 1, seeds)
    return trial(number, np.tile(seeds, (checkpoints, 1)), **hyperparameters)


def test_value_is_the_score_and_variance_that_of_a_mean_drawn_to_the_pool():
    trials = [steady(0, 100, 3), steady(1, 200, 9)]
    own = [np.var(s * np.linspace(-1, 1, 4), ddof=1) for s in (3, 9)]
    pooled = np.mean(own)
    found = observe(trials, SETTINGS)
    assert [o.value for o in found] == [t.score for t in trials]
    expected = [(2 * pooled + 3 * variance) / 5 / 4 for variance in own]
    np.testing.assert_allclose([o.variance for o in found], expected)


@pytest.mark.parametrize(("objective", "counted"), [("mean", 4), ("final", 1)])
def test_variance_is_that_of_the_checkpoints_that_the_score_counts(objective, counted):
    settings = dataclasses.replace(SETTINGS, objective=objective)
    curve = np.random.default_rng(0).normal(size=(4, 6))
    (found,) = observe([trial(0, curve)], settings)
    scores = curve[-counted:].mean(axis=0)
    assert found.variance == pytest.approx(scores.var(ddof=1) / 6)


def test_a_single_seed_has_the_variance_of_the_others():
    found = observe([steady(0, 100, 3), steady(1, 200, 0, seeds=1)], SETTINGS)
    assert found[1].variance == pytest.approx(np.var(3 * np.linspace(-1, 1, 4), ddof=1))


def test_a_pruned_curve_is_completed_as_the_others_went_on():
    whole = [trial(i, np.outer([1, 2, 3, 4], np.full(4, 10.0 + i))) for i in range(8)]
    found = observe([*whole, trial(8, np.full((1, 4), 13.0))], SETTINGS)
    # As trial 3 went on, drawn a little towards the mean of all.
    assert whole[3].score <= found[-1].value < np.mean([t.score for t in whole])
    assert found[-1].variance > found[0].variance == pytest.approx(0.0)


def test_without_complete_trials_a_curve_goes_on_flat():
    (found,) = observe([trial(0, np.full((2, 4), 7.0))], SETTINGS)
    assert found.value == 7.0


def test_a_diverged_seed_counts_as_the_worst_return_of_any_trial():
    bad = trial(1, [[90, 90, 90, np.nan]])
    found = observe([steady(0, 50, 10), bad], SETTINGS)
    assert found[1].value < 85
    gone = trial(2, np.full((1, 4), np.nan))
    assert observe([steady(0, 50, 10), gone], SETTINGS)[1].value <= 40


def test_trials_that_say_nothing_are_left_out():
    unfinished = trial(0, np.zeros((0, 4)))
    assert observe([unfinished], SETTINGS) == []
    assert ScoreModel.fit([unfinished] * 5, SETTINGS) is None


def test_a_lucky_trial_does_not_rank_first():
    rates = np.geomspace(1e-5, 1e-3, 14)
    trials = [
        steady(i, 100 * (2 + np.log10(rate)), 25, learning_rate=rate)
        for i, rate in enumerate(rates)
    ]
    trials[5] = steady(5, trials[-1].score + 2, 300, learning_rate=rates[5])
    assert max(trials, key=lambda t: t.score).number == 5
    assert ranked_by_model(trials, SETTINGS)[0].number == 13


def test_few_trials_rank_by_their_scores():
    trials = [steady(i, mean, 1) for i, mean in enumerate([3, 9, 5])]
    assert [t.number for t in ranked_by_model(trials, SETTINGS)] == [1, 2, 0]


@pytest.fixture
def alike():
    """Trials 3 to 7, close to each other, are the best; 9 is the best of those far from them."""
    rng = np.random.default_rng(0)
    far = np.geomspace(1e-5, 2e-4, 3), rng.uniform(0.1, 0.3, 3)
    trials = [
        steady(i, 40.0 + 5 * i, 10, learning_rate=rate, clip_epsilon=clip)
        for i, (rate, clip) in enumerate(zip(*far, strict=True))
    ]
    trials += [
        steady(i, 100 + i, 10, learning_rate=9e-4 * (1 + i / 500), gamma=0.98) for i in range(3, 8)
    ]
    trials += [
        steady(8, 60, 10, learning_rate=1e-5, gae_lambda=0.9, n_steps=1024),
        steady(9, 90, 10, learning_rate=1e-5, gae_lambda=0.9, n_steps=4096, entropy_coef=0.01),
    ]
    return trials


def test_trials_that_are_alike_are_not_all_promising(alike):
    order = ranked_by_model(alike, SETTINGS)
    assert {trial.number for trial in order[:3]} < {3, 4, 5, 6, 7}
    taken = promising_by_model(alike, SETTINGS, ranked(alike), 3)
    assert taken[0].number == order[0].number
    assert taken[1].number == 9
    assert len({trial.number for trial in taken}) == 3
    everyone = promising_by_model(alike, SETTINGS, ranked(alike), 20)
    assert sorted(trial.number for trial in everyone) == list(range(10))


def test_the_second_adds_most_to_the_expected_maximum(alike):
    """Clark, 1961, "The greatest of a finite set of random variables": that of two, exactly."""
    model = ScoreModel.fit(alike, SETTINGS)
    points = model.process.points
    means, _ = model.process.predict(points)
    prior, posterior = model.process.covariances(points)
    covariance = posterior + (1 / HORIZON_CORRELATION**2 - 1) * prior
    first = int(means.argmax())
    spread = np.sqrt(np.diag(covariance) + covariance[first, first] - 2 * covariance[first])
    spread[first] = 1e-9
    distance = (means[first] - means) / spread
    maximum = (
        means[first] * stats.norm.cdf(distance)
        + means * stats.norm.cdf(-distance)
        + spread * stats.norm.pdf(distance)
    )
    number = [observation.trial.number for observation in model.observations]
    assert model.most_promising(number, 2) == [number[first], number[int(maximum.argmax())]]


def test_repeated_configurations_are_no_error(alike):
    again = [dataclasses.replace(t, number=t.number + 10) for t in alike] * 3
    taken = promising_by_model([*alike, *again], SETTINGS, ranked(alike), 3)
    assert len(taken) == 3


def test_a_configuration_that_was_tried_again_says_nothing_more(alike):
    again = [dataclasses.replace(trial, number=trial.number + 10) for trial in alike]
    cut = {step: alike[0].returns[step] for step in STEPS[:2]}
    pruned = dataclasses.replace(
        alike[0], number=30, state=TrialState.PRUNED, score=None, returns=cut, means={}
    )
    once, twice = (ScoreModel.fit(t, SETTINGS) for t in (alike, [pruned, *alike, *again]))
    assert twice.expected_scores() == once.expected_scores()


def test_a_space_in_which_nothing_varies_has_no_model(alike):
    names = [name for name, _ in SearchSpace().tuned if name != "batch_size"]
    space = SearchSpace().without(names).changed_by({"batch_size": {"choices": [256]}})
    settings = dataclasses.replace(SETTINGS, space=space)
    assert ScoreModel.fit(alike, settings) is None
    assert ranked_by_model(alike, settings) == ranked(alike)


def test_trials_outside_of_the_space_are_the_least_promising(alike):
    outside = steady(10, 1000, 1, learning_rate=0.5)
    among = [outside, *ranked(alike)]
    taken = promising_by_model([*alike, outside], SETTINGS, among, 11)
    assert [trial.number for trial in taken][-1] == 10
    assert promising_by_model(alike, SETTINGS, [], 3) == []
    few = promising_by_model(alike[:3], SETTINGS, ranked(alike[:3]), 2)
    assert [trial.number for trial in few] == [2, 1]


def test_points_outside_of_the_space_are_left_out():
    axes = axes_of(SETTINGS)
    assert unit_point(axes, Hyperparameters(learning_rate=0.5).to_dict()) is None
    assert unit_point(axes, Hyperparameters(n_steps=64).to_dict()) is None
    inside = unit_point(axes, Hyperparameters().to_dict())
    assert all(0 <= place <= 1 for place in inside)


def test_choices_without_an_order_are_all_equally_far_apart():
    choices = optuna.distributions.CategoricalDistribution(("tanh", "relu", "gelu"))
    points = coordinates([Axis("activation", choices)], np.array([[1 / 6], [1 / 2], [5 / 6]]))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_allclose(distances, 1 - np.eye(3))


def test_a_space_with_a_switch_and_a_zero_has_its_axes():
    space = SearchSpace.from_tables(
        {"clip_value_loss": {"choices": [True, False]}, "entropy_coef": {"choices": [0.0, 0.01]}}
    )
    axes = {axis.name: axis for axis in axes_of(Settings(space=space))}
    assert axes["clip_value_loss"].is_ordered
    for axis in axes.values():
        for place in axis.grid(len(axis.values) if axis.values else 5):
            assert unit_point([axis], {axis.name: axis.from_unit(place)}) is not None
