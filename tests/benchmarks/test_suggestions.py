"""What a suggestion costs."""

import optuna
import pytest

from benchmarks import suggestions
from tune.protocol.settings import Settings
from tune.search.samplers.gp import GPSampler


def test_suggestions_are_made_for_studies_of_the_right_size(monkeypatch):
    seen = []
    draw = GPSampler.sample_relative

    def spied(self, study, trial, space):
        seen.append(
            (len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])), trial.number)
        )
        return draw(self, study, trial, space)

    monkeypatch.setattr(GPSampler, "sample_relative", spied)
    settings = Settings(pruner="none")
    for study, count in zip(suggestions.studies_of(settings, [4, 12]), [4, 12], strict=True):
        assert suggestions.milliseconds(study, settings, 2) > 0
        assert seen[-2:] == [(count, count)] * 2
        assert len({trial.value for trial in study.trials}) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", 0), "--trials must be an integer of at least 1"),
        (("--samplers", "gpp"), "did you mean 'gp'?"),
    ],
)
def test_mistakes_are_one_line(refusal, arguments, message):
    assert message in refusal("benchmarks.suggestions", *arguments)
