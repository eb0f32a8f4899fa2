import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from optuna.trial import TrialState, create_trial

from tune.analysis.analysis import analyse
from tune.analysis.surrogate import Surrogate
from tune.protocol.axes import Axis
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.trials import StudyRecord, TrialRecord
from tune.report.figures import (
    draw_contour,
    draw_history,
    draw_learning_curves,
    draw_slice,
    plot_optimization,
)
from tune.report.marks import MARKS, Roles, draw_legend
from tune.report.results import StudyResults

LR = optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)


def trials(params):
    for number in range(6):
        trial = create_trial(
            state=TrialState.PRUNED if number in (2, 4) else TrialState.COMPLETE,
            value=float(number),
            params=dict.fromkeys(params, 1e-05 * (number + 1)),
            distributions=dict.fromkeys(params, LR),
            intermediate_values={50_000: float(number)},
            user_attrs={"baseline": number == 0},
        )
        trial.number = number
        yield TrialRecord.of(trial)


def results(made, settings=None):
    return StudyResults.of(StudyRecord("mine", settings or Settings(), list(made)))


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    few = functools.partial(analyse, resamples=5)
    monkeypatch.setattr("tune.report.results.analyse", few)


@pytest.mark.parametrize("params", [("learning_rate", "clip_epsilon"), ("learning_rate",), ()])
def test_draws_whatever_was_tuned(tmp_path, params):
    path = tmp_path / "picture.png"
    settings = Settings(reference_score=561.5)
    plot_optimization(results(trials(params), settings), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_overview_says_which_importances_are_too_uncertain(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "tune.report.figures.draw_importances", lambda _axes, _found, title: titles.append(title)
    )
    doubtful = results(trials(("learning_rate", "clip_epsilon")))
    sound = dataclasses.replace(
        doubtful, analysis=dataclasses.replace(doubtful.analysis, warning=None)
    )
    for found in (doubtful, sound):
        plot_optimization(found, tmp_path / "picture.png")
    assert titles == ["Importance: too uncertain to trust", "Importance"]


def test_draws_an_empty_study(tmp_path):
    plot_optimization(results([]), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_learning_curves_distinguish_all_states():
    made = list(trials(("learning_rate",)))
    made[5] = dataclasses.replace(made[5], state=TrialState.RUNNING, score=None)
    axes = Figure().subplots()
    draw_learning_curves(axes, results(made))
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {"baseline", "complete", "pruned", "best on tuning seeds", "running"}
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [50_000, 50_000]


def many_trials(score, params=("learning_rate", "clip_epsilon"), count=50):
    """Return trials spread over the space, whose score is a function of their point there."""
    rng = np.random.default_rng(0)
    for number in range(count):
        units = rng.random(len(params))
        made = create_trial(
            value=float(score(*units)),
            params={name: 10 ** (2 * unit - 5) for name, unit in zip(params, units, strict=True)},
            distributions=dict.fromkeys(params, LR),
            user_attrs={"baseline": number == 0},
        )
        made.number = number
        yield TrialRecord.of(made)


def test_slice_has_the_scale_and_the_good_range_of_its_parameter():
    found = results(many_trials(lambda rate, clip: 100 * rate))
    axes = Figure().subplots()
    draw_slice(axes, found, "learning_rate")
    assert axes.get_xscale() == "log"
    (band,) = [patch for patch in axes.patches if patch.get_alpha() == 0.12]
    low, high = found.analysis.good_ranges["learning_rate"].values
    assert band.get_x() == pytest.approx(low)
    assert band.get_x() + band.get_width() == pytest.approx(high)


def test_nothing_is_called_good_that_explains_nothing():
    found = results(many_trials(lambda rate, clip: 100 * rate))
    assert found.analysis.clear_ranges.keys() == {"learning_rate"}
    axes = Figure().subplots()
    draw_slice(axes, found, "clip_epsilon")
    assert not axes.patches
    assert "expected score" not in axes.get_legend_handles_labels()[1]


def test_pruned_trials_stand_in_a_strip_below_all_scores():
    axes = Figure().subplots()
    draw_history(axes, results(trials(["learning_rate"])))
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(crosses.get_xdata()) == [2, 4]
    height = axes.transAxes.inverted().transform(
        crosses.get_transform().transform(crosses.get_xydata())
    )[:, 1]
    low, high = axes.get_ylim()
    scores = [0.0, 1.0, 3.0, 5.0]
    assert max(height) < (min(scores) - low) / (high - low)
    assert min(axes.get_yticks()) >= 0.09 * (high - low) + low


def test_scores_that_differ_by_rounding_look_alike():
    made = [dataclasses.replace(trial, score=499.9 + 0.01 * trial.number) for trial in trials(())]
    axes = Figure().subplots()
    draw_history(axes, results(made))
    low, high = axes.get_ylim()
    assert high - low > 20
    assert low < 499.9 < high


def test_roles_are_marked_alike_in_one_legend():
    found = results(trials(["learning_rate"]))
    assert Roles.in_study(found).of == {5: ("best on tuning seeds",), 0: ("baseline",)}
    figure = Figure()
    for axes, draw in zip(figure.subplots(3), (draw_history, draw_learning_curves), strict=False):
        draw(axes, found)
    draw_slice(figure.axes[2], found, "learning_rate")
    for axes in figure.axes:
        drawn = {line.get_label(): line.get_marker() for line in axes.lines}
        assert drawn["best on tuning seeds"] == MARKS["best on tuning seeds"].marker
        assert drawn["baseline"] == MARKS["baseline"].marker
        assert axes.get_legend() is None
    draw_legend(figure)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels))
    assert {"baseline", "complete", "pruned", "best so far"} <= set(labels)


@pytest.mark.parametrize(
    "pair", [("learning_rate", "n_epochs"), ("n_steps", "batch_size"), ("n_steps", "gamma")]
)
def test_contour_shows_the_expected_score(pair):
    space, rng = SearchSpace(), np.random.default_rng(0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = []
    for _ in range(8):
        asked = study.ask()
        space.suggest(asked)
        made.append(
            TrialRecord.of(
                create_trial(
                    value=float(rng.random()),
                    params=asked.params,
                    distributions=asked.distributions,
                )
            )
        )
    axes_of_all = [Axis(name, d) for name, d in made[0].distributions.items()]
    found = results(made)
    analysis = dataclasses.replace(found.analysis, surrogate=Surrogate.fit(axes_of_all, made))
    axes = Figure().subplots()
    draw_contour(axes, dataclasses.replace(found, analysis=analysis), pair)
    assert (axes.get_xlabel(), axes.get_ylabel()) == pair
    assert axes.get_xscale() == ("log" if pair[0] == "learning_rate" else "linear")
    if pair[0] == "n_steps":
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1024", "2048", "4096"]


def test_a_baseline_that_won_is_the_baseline():
    won = SimpleNamespace(
        winner=SimpleNamespace(number=0),
        best=SimpleNamespace(number=3),
        baseline=SimpleNamespace(number=0),
        recommendation=SimpleNamespace(candidate=SimpleNamespace(number=0)),
    )
    expected = {0: ("baseline", "recommended"), 3: ("best on tuning seeds",)}
    assert Roles.in_study(won).of == expected
