"""Studies over the rows of recorded tables."""

import dataclasses

import numpy as np
import optuna
import pytest
from rich.console import Console

from benchmarks import replays
from benchmarks.equal_steps import WINNERS, run_trials
from benchmarks.records import TASKS, Records, record
from benchmarks.replays import RowPrograms, Rows, RowSampler
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings
from tune.search.pool import ProgramPool

STEPS = Settings().total_steps


class Pool(ProgramPool):
    """Programs for any agent: returns rise with the learning rate, seeds differ by their place."""

    def programs(self, agent):
        return _Runner(agent)


@dataclasses.dataclass
class _Runner:
    agent: object

    def run(self, keys, hyperparameters, checkpoints):
        for step in checkpoints:
            level = np.log10(hyperparameters.learning_rate) + hyperparameters.gamma
            returns = level * step / checkpoints[-1] + 0.001 * np.arange(len(keys))
            yield Checkpoint(step, step, returns, None, None, 0.0, 0.0)


@pytest.fixture(scope="module", params=["CartPole-v1", "Pendulum-v1-wide"])
def rows(request, tmp_path_factory):
    settings = dataclasses.replace(TASKS[request.param], seeds=8)
    path = tmp_path_factory.mktemp("records") / "trials.npz"
    record(settings, Pool(settings), 24, 0, 0, path, Console(quiet=True))
    return Rows(Records.load(path))


def test_a_table_holds_configurations_and_protocol(rows):
    assert rows.settings == dataclasses.replace(TASKS[_task(rows)], seeds=4)
    assert rows.returns.shape == (len(rows.points), 4, 8)
    baseline = rows.settings.baseline
    assert rows.row_of(baseline) == 0
    level = np.log10(baseline.hyperparameters.learning_rate) + baseline.hyperparameters.gamma
    expected = level * np.arange(1, 5)[:, None] / 4 + 0.001 * np.arange(8)
    np.testing.assert_allclose(rows.returns[0], expected, rtol=1e-6)


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
def test_a_study_takes_every_row_once(rows, sampler):
    settings = dataclasses.replace(
        rows.settings, sampler=sampler, sampler_startup_trials=5, pruner="none"
    )
    programs = RowPrograms(rows, [3, 1, 0, 2])
    study = run_trials(settings, programs, 10**9, "score", RowSampler(settings, rows))
    taken = [rows.row_of(trial.configuration(settings)) for trial in study.trials]
    assert sorted(taken) == list(range(len(rows.points)))
    assert taken[0] == 0
    for trial, row in zip(study.trials, taken, strict=True):
        np.testing.assert_allclose(
            trial.returns[settings.total_steps], rows.returns[row, -1, :4][[3, 1, 0, 2]]
        )


def test_the_model_chooses_among_the_rows(rows):
    """A learning rate is better the higher it is, and is found long before the rows are spent."""
    settings = dataclasses.replace(rows.settings, sampler_startup_trials=5, pruner="none")
    sampler = RowSampler(settings, rows)
    study = run_trials(settings, RowPrograms(rows, range(4)), 10**9, "score", sampler)
    taken = [rows.row_of(trial.configuration(settings)) for trial in study.trials]
    assert np.mean([taken.index(row) for row in np.argsort(-rows.scores)[:3]]) < 9


def test_tpe_takes_the_row_that_its_own_criterion_prefers(rows, monkeypatch):
    seen = []
    settings = dataclasses.replace(rows.settings, sampler="tpe", sampler_startup_trials=2)
    sampler = RowSampler(settings, rows)
    criterion = optuna.samplers.TPESampler._compute_acquisition_func

    def spied(self, samples, below, above):
        values = criterion(self, samples, below, above)
        seen.append((list(sampler._left), values))
        return values

    monkeypatch.setattr(optuna.samplers.TPESampler, "_compute_acquisition_func", spied)
    study = run_trials(
        settings, RowPrograms(rows, range(4)), 8 * 4 * settings.total_steps, "score", sampler
    )
    taken = [rows.row_of(trial.configuration(settings)) for trial in study.trials]
    assert len(seen) >= 5
    for (left, values), row in zip(seen, taken[-len(seen) :], strict=True):
        assert left[int(values.argmax())] == row


@pytest.mark.parametrize("winner", WINNERS)
def test_regret_is_that_of_the_winner_on_held_out_seeds(rows, winner):
    settings = dataclasses.replace(rows.settings, pruner="none")
    every = len(rows.points) * 4 * 2 * settings.total_steps
    regret, trials = replays.replay(rows, settings, every + 80 * settings.total_steps, winner)
    assert trials == len(rows.points)
    assert regret == pytest.approx(0, abs=0.02)
    assert rows.regret(float(np.median(rows.scores))) == 1
    assert rows.regret(float(rows.scores.max())) == 0
    assert replays.regret_of_trying_all(rows, settings.seed) == pytest.approx(0, abs=0.02)


def test_steps_of_reruns_are_kept_back(rows):
    settings = dataclasses.replace(rows.settings, pruner="none", sampler="random")
    budget = 60 * settings.total_steps
    _, all_in = replays.replay(rows, settings, budget, "score")
    _, kept_back = replays.replay(rows, settings, budget, "rerun")
    assert (all_in, kept_back) in {(15, 5), (14, 5), (14, 4)}


def test_lanes_spend_the_same_steps_with_less_known(rows):
    """The first trial is the baseline, for which no sampler is asked."""
    if rows.settings.space.tuned_agent:
        pytest.skip("lanes are of one agent")
    settings = dataclasses.replace(rows.settings, sampler_startup_trials=4, pruner="none")
    budget, known = 12 * 4 * 201_000, []

    class Sampler(RowSampler):
        def sample_relative(self, study, trial, search_space):
            known.append(sum(t.state.is_finished() for t in study.get_trials(deepcopy=False)))
            return super().sample_relative(study, trial, search_space)

    programs = RowPrograms(rows, range(4))
    run_trials(settings, programs, budget, "score", Sampler(settings, rows), lanes=4)
    assert known == [0] * 3 + [4] * 4 + [8] * 4
    known.clear()
    run_trials(settings, programs, budget, "score", Sampler(settings, rows))
    assert known == list(range(1, 12))


def test_what_is_lost_is_compared_in_pairs():
    regrets = np.zeros((1, 2, 4))
    regrets[0, 0] = [0.0, 0.1, 0.2, 0.1]
    regrets[0, 1] = regrets[0, 0] + [0.2, 0.3, 0.2, 0.3]
    table = replays.regret_table({"a": 9}, regrets, np.full((1, 2, 4), 7), np.zeros((1, 4)))
    (_, rows, trials, first, tpe, difference, bound), _ = table.rows
    assert (rows, trials, first, tpe) == ("9", "7, 7", "0.100", "0.350")
    assert bound == "0.000"
    assert difference == "-0.250 (-0.342 … -0.158)"


def _task(rows):
    return next(n for n, s in TASKS.items() if s == dataclasses.replace(rows.settings, seeds=4))
