"""Real studies in pairs, on programs that a formula answers for."""

import dataclasses
import datetime
import json

import numpy as np
import pytest

from benchmarks import real
from benchmarks.equal_steps import RERUN_SEEDS, RERUN_TOP
from benchmarks.real import JUDGING_SEEDS, Outcome, Studies, Training, ended_within, outcome_table
from ppo_jax.errors import UserError
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings
from tune.search.pool import ProgramPool

SETTINGS = Settings(total_steps=4_096, eval_every=1_024, pruner="none")


class Pool(ProgramPool):
    """Programs for any agent: returns rise with the learning rate, and seeds differ."""

    def __init__(self, settings):
        super().__init__(settings)
        self.trained = []

    def programs(self, agent):
        return _Runner(self)


@dataclasses.dataclass
class _Runner:
    pool: Pool

    def run(self, keys, hyperparameters, checkpoints):
        self.pool.trained.append(hyperparameters)
        for step in checkpoints:
            level = np.log10(hyperparameters.learning_rate)
            yield Checkpoint(step, step, level + 0.01 * np.arange(len(keys)), None, None, 0.0, 0.0)


@pytest.fixture
def studies():
    long = dataclasses.replace(SETTINGS, seeds=JUDGING_SEEDS)
    budget = 20 * SETTINGS.seeds * SETTINGS.total_steps
    return Studies(SETTINGS, Pool(SETTINGS), Pool(long), budget)


def test_all_strategies_spend_the_same_steps_and_the_best_is_found(studies):
    found = studies.of_seed(0)
    assert list(found) == list(real.STRATEGIES)
    assert found["gp"].trials == found["tpe"].trials == 20
    reruns = (RERUN_TOP + 1) * RERUN_SEEDS // SETTINGS.seeds
    assert found["tpe, best rerun"].trials == 20 - reruns
    trained = [np.log10(found.learning_rate) for found in studies.pool.trained]
    first = slice(0, 20)
    assert found["gp"].score == pytest.approx(max(trained[first]) + 0.045)
    assert found["gp"].final == pytest.approx(found["gp"].score)
    assert len(found["gp"].in_time) == 2
    assert all(outcome.seconds > 0 for outcome in found.values())


def test_reruns_choose_among_the_best_and_the_default(studies):
    studies.of_seed(0)
    reruns, judged = RERUN_TOP + 1, studies.long_pool.trained
    assert reruns < len(judged) <= reruns + 5
    assert SETTINGS.baseline.hyperparameters in judged


def test_who_begins_changes_from_seed_to_seed(studies, monkeypatch):
    begun = []

    def run_trials(settings, *others, **named):
        begun.append((settings.sampler, settings.seed))
        return original(settings, *others, **named)

    original = real.run_trials
    monkeypatch.setattr(real, "run_trials", run_trials)
    studies.of_seed(0)
    studies.of_seed(1)
    assert begun == [("gp", 0), ("tpe", 0), ("tpe", 0), ("tpe", 1), ("tpe", 1), ("gp", 1)]


def test_a_configuration_is_trained_once(studies):
    judge = Training(SETTINGS, studies.long_pool, 1)
    first = judge.curve(SETTINGS.baseline)
    assert judge.curve(SETTINGS.baseline) == first
    assert len(first) == 4
    assert len(studies.long_pool.trained) == 1


def test_a_study_that_is_cut_keeps_what_had_ended(studies):
    study = real.run_trials(SETTINGS, studies.pool, studies.budget, "model")
    begun = study.trials[0].started
    trials = [
        dataclasses.replace(trial, finished=begun + datetime.timedelta(seconds=10 + trial.number))
        for trial in study.trials
    ]
    study = dataclasses.replace(study, trials=trials)
    assert [t.number for t in ended_within(study, 12.5).trials] == [0, 1, 2]
    assert [t.number for t in ended_within(study, 1.0).trials] == [0]
    assert len(ended_within(study, 100.0).trials) == 20


def test_differences_are_those_of_pairs():
    scores = [(-400.0, -500.0), (-300.0, -420.0), (-350.0, -460.0)]
    found = [
        {"gp": Outcome(30, 50.0, a, a, (a - 10,)), "tpe": Outcome(28, 40.0, b, b)}
        for a, b in scores
    ]
    first, second = outcome_table("Pendulum-v1", found).rows
    assert first[:2] == ("gp", "30")
    assert first[-2:] == ("", "")
    assert second[4] == "-500.0"
    assert second[-2].startswith("+110.0 (+85.2")
    assert second[-1].startswith("+100.0 (+75.2")


def test_what_is_found_is_said_and_written(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(real, "ProgramPool", Pool)
    small = ("--trials", 12, "--studies", 5, "--output", tmp_path)
    done = in_process("benchmarks.samplers", "--real", *small)
    assert done.returncode == 0
    assert "Pendulum-v1: mean score of the winner on 10 fresh seeds" in done.stdout
    results = json.loads((tmp_path / "real.json").read_text())
    assert [list(study) for study in results["studies"]] == [list(real.STRATEGIES)] * 5
    assert (tmp_path / "real.png").exists()


def test_what_has_ended_is_not_run_again(tmp_path, in_process, monkeypatch):
    ran = []

    def of_seed(self, seed):
        ran.append(seed)
        if len(ran) == 4:
            raise UserError("no memory is left")
        return {name: Outcome(9, 1.0, -seed, -seed, (-seed,) * 2) for name in real.STRATEGIES}

    monkeypatch.setattr(real, "ProgramPool", Pool)
    monkeypatch.setattr(Studies, "of_seed", of_seed)
    run = ("benchmarks.samplers", "--real", "--output", tmp_path, "--trials", 12, "--studies")
    stopped = in_process(*run, 5)
    assert stopped.returncode == 2
    whole = in_process(*run, 6)
    assert whole.returncode == 0
    assert ran == [0, 1, 2, 3, 3, 4, 5]
    assert [line.split(":")[0] for line in whole.stdout.splitlines() if "seed " in line[:6]] == [
        f"seed {seed}" for seed in range(6)
    ]
    other = ("benchmarks.samplers", "--real", "--output", tmp_path, "--trials", 13, "--studies", 5)
    in_process(*other)
    assert ran[7:] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--replays",), "--real trains every trial and does not go with --replays"),
        (("--env", "CartPole-v1", "Pendulum-v1"), "--real is of one table, but got --env"),
    ],
)
def test_options_that_do_not_go_together(options, message, refusal):
    assert message in refusal("benchmarks.samplers", "--real", *options)
