import pytest

from tune.analysis.pruning import savings
from tune.protocol.settings import Settings


def test_pruning_saves_the_rest_of_each_pruned_trial(make_trials, planted):
    trials = make_trials(planted, 6, pruned=(2, 4), running=(5,))
    saved = savings(trials[:5], Settings())
    assert saved.trials == 2
    assert saved.environment_steps == 2 * 600_000
    assert saved.seconds == pytest.approx(2 * 7.5)
    assert saved.share_of_steps == pytest.approx(1_200_000 / (5 * 800_000))
    nothing = savings(trials[:2], Settings())
    assert (nothing.trials, nothing.environment_steps, nothing.share_of_steps) == (0, 0, 0.0)
