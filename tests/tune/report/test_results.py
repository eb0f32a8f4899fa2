import dataclasses
import math
import re
from html import escape

import pytest
from optuna.trial import TrialState
from scipy import stats

from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, TrialRecord
from tune.report.files import load_results, write_report
from tune.report.html import render_html
from tune.report.notebook import ShownResults
from tune.report.results import shown_score
from tune.report.stored import read_study
from tune.search.study import run_optimization
from tune.session import train_best_config


def trial(number, state=TrialState.COMPLETE, **changes):
    values = {field.name: None for field in dataclasses.fields(TrialRecord)}
    values |= {"hyperparameters": Hyperparameters()}
    values |= {"params": {}, "distributions": {}, "returns": {}, "diverged_seeds": []}
    values |= {"means": {50_000: 1.0}, "environment_steps": 100, "interrupted": 0}
    return TrialRecord(**{**values, "number": number, "state": state, **changes})


def results_of(*trials, compilations=()):
    return ShownResults.of(StudyRecord("mine", Settings(), trials, compilations))


def test_counts_and_sums_are_of_all_trials():
    found = results_of(
        trial(0, score=4.0, is_baseline=True, training_seconds=2.0),
        trial(1, score=5.0, training_seconds=1.0, evaluation_seconds=0.5),
        trial(2, TrialState.PRUNED),
        trial(3, TrialState.RUNNING, environment_steps=7),
    )
    assert found.counts == {"running": 1, "complete": 2, "pruned": 1}
    assert found.environment_steps == 307
    assert found.seconds == {"trials": 0, "compilation": 0, "training": 3.0, "evaluation": 0.5}
    assert (found.best.number, found.best_score, found.baseline_score) == (1, 5.0, 4.0)
    assert found.gain is None, "no returns, no gain"
    assert found.verdict is None
    assert found.recommendation is None
    assert "Not validated on fresh seeds." in found._repr_html_()
    assert "mine: 1 running, 2 complete, 1 pruned trials" in repr(found)


def test_gain_is_the_difference_of_the_scores_with_its_interval():
    def curve(seeds):
        return dict.fromkeys(Settings().checkpoints(), seeds)

    best, baseline = [5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 2.0, 3.0]
    found = results_of(
        trial(0, score=2.0, is_baseline=True, returns=curve(baseline), params={}),
        trial(1, score=6.5, returns=curve(best)),
    )
    expected = stats.ttest_ind(best, baseline, equal_var=False).confidence_interval(0.95)
    assert found.gain.value == 4.5
    assert found.gain.interval == pytest.approx((expected.low, expected.high))


def test_a_baseline_that_is_the_best_gains_nothing_on_itself():
    returns = {step: [1.0, 2.0, 2.0, 3.0] for step in Settings().checkpoints()}
    found = results_of(trial(0, score=2.0, is_baseline=True, returns=returns, params={}))
    assert found.best is found.baseline
    assert found.gain is None


def test_the_baseline_has_the_number_of_its_trial():
    """A worker was killed in trial 0, and its configuration ran again."""
    found = results_of(
        trial(0, TrialState.FAIL, is_baseline=True), trial(1, score=2.0, is_baseline=True)
    )
    page = render_html(found)
    tile = re.search(r"baseline on tuning seeds</div>.*?</div><div[^>]*>(.*?)</div>", page, re.S)
    assert tile[1] == "trial 1"


def test_programs_compiled_are_those_of_the_busiest_process():
    log = {"seconds": 1.5, "versions": {"jax": "1"}, "device": {"count": 1}}
    found = results_of(
        compilations=[
            {"programs": {"training": 2}, **log},
            {"programs": {"training": 1, "evaluation": 1}, **log, "versions": {"jax": "2"}},
        ]
    )
    assert found.programs_compiled == {"evaluation": 1, "training": 2}
    assert found.seconds["compilation"] == 3.0
    assert found.made_with["versions"] == {"jax": "2"}


def test_pruned_trial_is_shown_at_its_last_checkpoint():
    means = {50_000: 1.0, 100_000: 3.0}
    assert shown_score(trial(1, TrialState.PRUNED, means=means)) == 3.0
    assert shown_score(trial(1, TrialState.PRUNED, means={50_000: math.nan})) is None
    assert shown_score(trial(1, TrialState.PRUNED, means={})) is None
    assert shown_score(trial(1, TrialState.RUNNING, means=means)) is None
    assert shown_score(trial(1, means=means, score=2.0)) == 2.0


def test_report_is_written_from_the_results_alone(programs, tmp_path):
    programs.untrained = 5000.0
    programs.returns = lambda hp, step, seed: step / 1000 + 5000 * hp.gamma + seed
    study = run_optimization(4, Settings(sampler="random"), output=tmp_path, programs=programs)
    params = StudyRecord.of(study).best.hyperparameters
    train_best_config(params, 400_000, output=tmp_path, study=study, programs=programs)
    results = load_results(study, StudyFolder(tmp_path))
    read = read_study(tmp_path)
    assert (read.verdict, read.best_score) == (results.verdict, results.best_score)
    with pytest.raises(UserError, match=r"elsewhere/study\.db does not exist"):
        read_study(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="folder must be a path, but got 3"):
        read_study(3)
    elsewhere = StudyFolder(tmp_path / "elsewhere")
    write_report(results, elsewhere)
    assert {path.name for path in elsewhere.path.iterdir()} == {
        "optimization_results.json",
        "optimization_results.png",
        "all_trials.json",
        "validation.png",
        "recommended.json",
        "report.html",
    }
    recommended = (tmp_path / "recommended.json").read_text()
    assert elsewhere.recommended.read_text() == recommended
    assert results.verdict in elsewhere.report.read_text()

    # A notebook shows of them what is in it.
    verdict = escape(results.verdict)
    for shown in (results, results.validation, results.recommendation):
        assert verdict in shown._repr_html_()
    html = results._repr_html_()
    assert html.count("<svg") == 1
    assert f">{results.best_score:.1f}</td>" in html
    assert escape(results.recommendation.command) in html
    assert f'level of the winner</th><td style="text-align:left">{shown_level(results)}' in (
        results.validation._repr_html_()
    )
    assert repr(results) == f"<StudyResults CartPole-v1: 4 complete trials; {results.verdict}>"


def shown_level(results):
    return f"{results.validation.winner.summary.mean.value:.1f}, 95% interval"
