"""What earlier studies are worth, on tables whose best configurations are known."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.earlier import EARLIER, MOMENTS, TableStudies, measure, regret_table
from benchmarks.records import Records, record, records_path
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings

TABLES = ("CartPole-v1", "Pendulum-v1")
SEEDS = np.linspace(-0.2, 0.2, 8)


def planted(hyperparameters):
    """Return a level whose best has a small region; the same task but for its scale."""
    away = np.log10(hyperparameters.learning_rate / 1e-4)
    return -40 * away**2 - 2000 * (hyperparameters.gamma - 0.97) ** 2


class Programs:
    """Returns are planted, from the first checkpoint on."""

    def __init__(self, scale):
        self.scale = scale

    def run(self, keys, hyperparameters, checkpoints):
        for step in checkpoints:
            returns = self.scale * (planted(hyperparameters) + SEEDS[: len(keys)])
            yield Checkpoint(step, step, returns, None, None, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for scale, name in enumerate(TABLES, 1):
        settings = dataclasses.replace(Settings(env=name), seeds=8)
        path = records_path(folder, name)
        record(settings, Programs(scale), 48, 0, 400_000, path, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def tables(folder):
    return [TableStudies(name, Records.load(records_path(folder, name)), 14) for name in TABLES]


def test_regret_is_that_of_the_best_among_the_first_trials(tables):
    table = tables[0]
    study = table.run(0)
    regrets = [table.regret(study, count) for count in range(1, len(study.trials) + 1)]
    assert regrets[-1] == table.regret(study)
    assert regrets[-1] < 0.3 < regrets[0]  # The default's learning rate is thrice the best one.
    levels = [planted(trial.hyperparameters) for trial in study.trials]
    (best,) = np.flatnonzero(regrets == min(regrets))[:1]
    assert max(levels[: best + 1]) > max(levels) - 2


def test_an_earlier_study_is_known(tables):
    first, second = tables
    alone = first.run(0)
    for earlier, same in ((first.run(1), True), (second.run(1), False)):
        study = first.run(0, earlier)
        warm = study.settings.warm_start
        assert warm.same_task == same
        assert len(warm.trials) == len(earlier.trials)
        assert study.trials[0].params == alone.trials[0].params
        assert study.trials[-1].params != alone.trials[-1].params


class Told:
    """A table whose studies are what they were told; each has a number in place of a regret."""

    def __init__(self, name):
        self.name = name
        self.known = []

    def run(self, seed, earlier=None):
        return self.name, seed, earlier

    def regret(self, study, trials):
        self.known.append((*study, trials))
        return len(self.known)


def test_studies_know_of_one_of_the_same_table_and_of_each_other_one_in_its_turn():
    tables = [Told("a"), Told("b"), Told("c")]
    regrets = measure(tables, 4, Console(quiet=True))
    assert regrets.shape == (3, len(MOMENTS), len(EARLIER), 4)
    for place, table in enumerate(tables):
        others = [other.name for other in tables if other is not table]
        for seed in range(4):
            before = (seed + 1) % 4
            same, other = (table.name, before, None), (others[seed % 2], before, None)
            for moment, trials in enumerate(MOMENTS):
                for kind, earlier in enumerate((None, same, other)):
                    told = table.known[int(regrets[place, moment, kind, seed]) - 1]
                    assert told == (table.name, seed, earlier, trials)


def test_a_table_has_the_means_of_every_moment():
    regrets = np.zeros((2, len(MOMENTS), len(EARLIER), 3))
    regrets[0, :, 0] = [0.3, 0.4, 0.5]
    regrets[1, 1, 1] = 0.2
    rows = regret_table(["a", "b"], regrets).rows
    assert [row[:3] for row in rows] == [
        *(("a", moment, "0.400") for moment in ("10", "20", "all")),
        *(("b", moment, "0.000") for moment in ("10", "20", "all")),
        *(("mean", moment, "0.200") for moment in ("10", "20", "all")),
    ]
    assert rows[4][3:5] == ("0.200", "-0.200 (-0.200 … -0.200)")


def test_command(folder, tmp_path, in_process):
    places = ("--records", folder, "--output", tmp_path)
    small = ("--earlier", "--studies", 5, "--trials", 6)
    done = in_process("benchmarks.samplers", *small, *places)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads((tmp_path / "earlier.json").read_text())["outcomes"]
    assert outcomes["axes"] == [list(TABLES), [10, 20, "all"], list(EARLIER), "study"]
    regrets = np.load(tmp_path / outcomes["file"])["regrets"]
    assert regrets.shape == (2, 3, 3, 5)
    assert (tmp_path / "earlier.png").read_bytes().startswith(b"\x89PNG")
