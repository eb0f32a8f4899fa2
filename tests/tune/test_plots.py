import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from tune.plots import plot_optimization
from tune.settings import Settings

LR = optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)


def trials(params):
    for number in range(6):
        trial = create_trial(
            state=TrialState.PRUNED if number in (2, 4) else TrialState.COMPLETE,
            value=float(number),
            params=dict.fromkeys(params, 1e-05 * (number + 1)),
            distributions=dict.fromkeys(params, LR),
            intermediate_values={50_000: 3.0},
            user_attrs={"baseline": number == 0},
        )
        trial.number = number
        yield trial


@pytest.mark.parametrize("params", [("learning_rate", "clip_epsilon"), ("learning_rate",), ()])
@pytest.mark.parametrize("importances", [{"learning_rate": 0.9, "clip_epsilon": 0.1}, {}])
def test_draws_whatever_was_tuned(tmp_path, params, importances):
    path = tmp_path / "picture.png"
    settings = Settings(reference_score=561.5)
    plot_optimization(list(trials(params)), settings, importances, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_draws_an_empty_study(tmp_path):
    plot_optimization([], Settings(), {}, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_pruned_trials_are_told_apart(tmp_path):
    from matplotlib.figure import Figure

    from tune.plots import _scatter

    axes = Figure().subplots()
    _scatter(axes, list(trials(["learning_rate"])), lambda trial: trial.number)
    labels = [collection.get_label() for collection in axes.collections]
    assert labels == ["complete", "pruned (last checkpoint)"]
    assert [len(np.asarray(c.get_offsets())) for c in axes.collections] == [4, 2]
