import dataclasses

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
    _scatter,
    draw_contour,
    draw_learning_curves,
    draw_slice,
    plot_optimization,
)
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


@pytest.mark.parametrize("params", [("learning_rate", "clip_epsilon"), ("learning_rate",), ()])
def test_draws_whatever_was_tuned(tmp_path, params):
    path = tmp_path / "picture.png"
    settings = Settings(reference_score=561.5)
    plot_optimization(results(trials(params), settings), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_draws_an_empty_study(tmp_path):
    plot_optimization(results([]), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_learning_curves_distinguish_all_states():
    made = list(trials(("learning_rate",)))
    made[5] = dataclasses.replace(made[5], state=TrialState.RUNNING, score=None)
    axes = Figure().subplots()
    draw_learning_curves(axes, results(made))
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {"baseline", "complete", "pruned", "best (trial 3)", "running"}
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [50_000, 50_000]


def test_slice_has_the_scale_and_the_good_range_of_its_parameter():
    made = list(trials(("learning_rate",)))
    found = analyse(made, Settings())
    axes = Figure().subplots()
    draw_slice(axes, made, Settings(), "learning_rate", found)
    assert axes.get_xscale() == "log"
    (band,) = [patch for patch in axes.patches if patch.get_alpha() == 0.12]
    low, high = found.good_ranges["learning_rate"].values
    assert band.get_x() == pytest.approx(low)
    assert band.get_x() + band.get_width() == pytest.approx(high)


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
    surrogate = Surrogate.fit(axes_of_all, made)
    axes = Figure().subplots()
    draw_contour(axes, made, surrogate, pair)
    assert (axes.get_xlabel(), axes.get_ylabel()) == pair
    assert axes.get_xscale() == ("log" if pair[0] == "learning_rate" else "linear")
    if pair[0] == "n_steps":
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1024", "2048", "4096"]


def test_slices_distinguish_pruned_trials():
    axes = Figure().subplots()
    _scatter(axes, list(trials(["learning_rate"])), lambda trial: trial.number)
    labels = [collection.get_label() for collection in axes.collections]
    assert labels == ["complete", "pruned (last checkpoint)"]
    assert [len(np.asarray(c.get_offsets())) for c in axes.collections] == [4, 2]
