"""A budget of wall clock: what fits, with clocks and programs that take no time."""

import dataclasses
from datetime import datetime, timedelta
from types import SimpleNamespace

import optuna
import pytest

from ppo_jax.errors import UserError
from tests.tune.conftest import FakePrograms
from tune import session
from tune.analysis.analysis import Analysis
from tune.options import Arguments, Place, Search
from tune.protocol.budget import Budget, parse_budget, proof_seconds, seconds_per_step
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord


class Clock:
    """A clock that fake programs and reports move."""

    now = 0.0

    def __call__(self):
        return self.now


def trial(seconds, steps=200_000):
    return SimpleNamespace(
        is_finished=True, is_complete=True, seconds=seconds, training_seconds=seconds,
        evaluation_seconds=0.0, means={steps // 2: 0.0, steps: 1.0},
    )  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    return Arguments(search=Search(budget="10m"), place=Place(output=tmp_path)).plan()


def test_durations():
    assert [parse_budget(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    for text in ("10", "m", "-5m", "0s", "5 days", "nan", "1e3s"):
        with pytest.raises(UserError, match="--budget must be a duration"):
            parse_budget(text)
    with pytest.raises(UserError, match="--budget is for one process, but got --workers 2"):
        Arguments(search=Search(budget="5m"), place=Place(workers=2)).plan()


def test_trials_are_asked_for_while_they_and_the_proof_fit(plan):
    clock = Clock()
    budget = Budget(600, clock, 0.0)
    assert budget.has_room([], plan)
    trials = [trial(40.0), trial(10.0)]
    clock.now = 289  # Half of it is the proof's, as the whole one would take longer.
    assert proof_seconds(plan, seconds_per_step(trials)) > 600
    assert budget.has_room(trials, plan)
    clock.now = 291
    assert not budget.has_room(trials, plan)
    short = dataclasses.replace(plan, validate_steps=0)
    clock.now = 579
    assert budget.has_room(trials, short)


def test_a_trial_is_stopped_where_the_proof_would_not_fit(plan):
    clock = Clock()
    budget, trials = Budget(600, clock, 0.0), [trial(40.0), trial(10.0)]
    clock.now = 355
    assert not budget.is_overrun(trials, plan)
    assert budget.is_overrun(trials, plan, ahead=10)
    clock.now = 361
    assert budget.is_overrun(trials, plan)
    assert not budget.is_overrun([], plan)  # The baseline goes on.
    short = dataclasses.replace(plan, validate_steps=0)
    clock.now = 579
    assert not budget.is_overrun(trials, short, ahead=10)
    assert budget.is_overrun(trials, short, ahead=12)


def test_time_between_sessions_is_no_time_of_a_trial():
    """One that was killed and continued an hour later does not take an hour."""
    started = datetime(2024, 1, 1)
    study = optuna.create_study(direction="maximize")
    study.add_trial(
        optuna.trial.create_trial(
            value=1.0,
            user_attrs={"interrupted": 1, "training_seconds": 4.0, "evaluation_seconds": 1.0},
        )
    )
    (found,) = (TrialRecord.of(trial) for trial in study.trials)
    found = dataclasses.replace(found, started=started, finished=started + timedelta(hours=1))
    assert found.seconds == 5.0
    assert dataclasses.replace(found, interrupted=0).seconds == 3600.0


def test_the_proof_counts_both_configurations_and_all_finalists(plan):
    # 20 seeds in groups of 4, twice, and 3 finalists with the baseline.
    assert proof_seconds(plan, 1e-6) == pytest.approx((2 * 5 + 3 + 1) * 1_000_000 * 1e-6)
    alone = dataclasses.replace(plan, finalists=0, validate_seeds=21)
    assert proof_seconds(alone, 1e-6) == pytest.approx(2 * 6)
    short = dataclasses.replace(plan, validate_steps=plan.settings.total_steps)
    assert proof_seconds(short, 1e-6) == pytest.approx(2 * 5 * 0.2)  # No finalists: too short.


@pytest.mark.parametrize("left", [60, 150, 300, 599])
def test_the_proof_fits_into_what_is_left(plan, left):
    budget = Budget(600, lambda: 600.0 - left, 0.0)
    per_step = 5 / 200_000
    fitted = budget.fitted(plan, per_step)
    if left > 60:
        assert proof_seconds(fitted, per_step) <= left - 10
    assert fitted.validate_steps >= plan.settings.total_steps
    assert budget.fitted(fitted, per_step, steps_are_fixed=True).validate_steps == (
        fitted.validate_steps
    )
    assert budget.fitted(plan, 1e-9) == plan


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs a study with a budget of ten minutes, on a clock of its own.

    It takes the seconds of a checkpoint of 50,000 steps, of trials and of what is longer, and
    returns the results, the lines that were printed and the seconds that were taken.
    """
    clock = Clock()
    monkeypatch.setattr("ppo_jax.policy.save", lambda *_, **__: None)
    monkeypatch.setattr("tune.session.write_report", lambda *_: None)
    monkeypatch.setattr("tune.report.results.analyse", Analysis.skipped)
    # What a trial has taken by the same clock.
    monkeypatch.setattr(
        "tune.protocol.trials.TrialRecord.seconds",
        property(lambda record: (record.training_seconds or 0.0) + 1),
    )

    class Slow(FakePrograms):
        def __init__(self, of_trials, of_proof):
            super().__init__()
            self.of_trials, self.of_proof = of_trials, of_proof

        def run(self, keys, hyperparameters, checkpoints, *further):
            before, speed = 0, self.of_trials if checkpoints[-1] == 200_000 else self.of_proof
            for checkpoint in super().run(keys, hyperparameters, checkpoints, *further):
                seconds = speed * (checkpoint.step - before) / 50_000
                clock.now += seconds
                before = checkpoint.step
                yield checkpoint._replace(training_seconds=seconds, evaluation_seconds=0.0)

    def run(of_trials, of_proof):
        lines = []
        silent = ("study_started", "trial_started", "checkpoint", "trial_finished")
        proof = ("seeds_checkpoint", "proof_started")
        progress = SimpleNamespace(
            **dict.fromkeys((*silent, *proof), lambda *_: None), line=lines.append
        )
        search = Search(budget="10m", trials=25)
        plan = Arguments(search=search, place=Place(output=tmp_path)).plan()
        assert plan.settings == Settings()
        clock.now = 0.0
        budget = Budget(600, clock, 0.0)
        results = session.run(plan, Slow(of_trials, of_proof), progress, budget)
        return results, lines, clock.now

    return run


@pytest.mark.parametrize("speed", [pytest.param(2, marks=pytest.mark.slow), 11])
def test_a_command_ends_with_a_verdict_in_its_time(command, speed):
    results, _, taken = command(speed, speed)
    assert results.validation is not None
    assert 1 <= len(results.finished) <= 25
    assert 300 < taken <= 600
    again, _, taken = command(speed, speed)
    assert len(again.finished) >= len(results.finished)  # The same command goes on.
    assert taken <= 600


def test_time_that_finalists_have_not_taken_is_for_more_seeds(command):
    results, lines, taken = command(4, 1)
    (planned,) = (line for line in lines if "of the budget are left" in line and "8 seeds" in line)
    assert "up to 8 seeds" in planned
    assert results.validation.verdict.looks[-1] == 20
    assert taken <= 600
