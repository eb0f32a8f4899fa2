"""What matters on which task: chosen on some seeds, judged on others."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.atlas import CHOICES, alike, as_trials, compare, loss_table
from benchmarks.records import TASKS, Records, record
from benchmarks.replays import Rows
from ppo_jax.errors import UserError
from ppo_jax.programs import Checkpoint

BEST = {"CartPole-v1": 5e-4, "Pendulum-v1": 1e-3}
"""Task -> the learning rate that is best there."""


@dataclasses.dataclass
class Programs:
    """Returns depend on the distance from the best learning rate of a task, and on the seed."""

    best: float

    def run(self, keys, hyperparameters, checkpoints):
        level = -abs(np.log10(hyperparameters.learning_rate / self.best))
        for step in checkpoints:
            yield Checkpoint(step, step, level + 0.001 * np.arange(len(keys)), None, None, 0.0, 0.0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for task, best in BEST.items():
        settings = dataclasses.replace(TASKS[task], seeds=4)
        path = folder / f"trials_{task}.npz"
        record(settings, Programs(best), 24, 0, 0, path, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def tables(records):
    return {task: Rows(Records.load(records / f"trials_{task}.npz")) for task in BEST}


def test_each_task_has_its_own_best_and_together_is_between(tables):
    lost, chosen = compare(list(tables.values()))
    assert lost.shape == (2, len(CHOICES), 4)
    own = lost[:, 2]
    np.testing.assert_allclose(own.mean(axis=1), 0, atol=1e-6)
    assert (lost[:, 1].mean(axis=0) >= own.mean(axis=0)).all()
    assert lost[:, 1].mean() <= lost[:, 0].mean() + 1e-9
    rates = [params["learning_rate"] for params in next(iter(tables.values())).params]
    assert 4e-4 < rates[chosen] <= 1e-3
    baseline = next(iter(tables.values())).settings.baseline.hyperparameters.learning_rate
    assert rates[0] == pytest.approx(baseline)


def test_what_is_chosen_is_judged_on_a_seed_that_did_not_choose(tables):
    """On one seed a row is the best by luck: nothing is gained where the luck is judged."""
    lucky = {}
    for task, rows in tables.items():
        rows = rows.first(24)
        rows.returns = rows.returns.copy()
        rows.returns[5, :, 2] += 50.0
        lucky[task] = rows
    lost, _ = compare(list(lucky.values()))
    assert lost[0, 2, 2] > -1  # Chosen on the three others: no luck.
    assert lost[0, 2, [0, 1, 3]].min() > 0.01  # The lucky row, judged where it has none.


def test_tables_are_cut_to_the_rows_that_all_have(tables):
    first, second = BEST
    cut = alike({first: tables[first], second: tables[second].first(9)})
    assert [len(rows.points) for rows in cut.values()] == [9, 9]
    assert [len(rows.scores_on([0, 1])) for rows in cut.values()] == [9, 9]
    other = tables[second].first(9)
    other.points = other.points[::-1]
    with pytest.raises(UserError, match="Pendulum-v1 holds other configurations"):
        alike({first: tables[first], second: other})


def test_rows_are_trials_of_a_study(tables):
    rows = next(iter(tables.values()))
    first, *_, last = as_trials(rows)
    assert first.is_baseline
    assert first.is_complete
    assert not last.is_baseline
    assert last.score == pytest.approx(rows.scores[-1])
    assert last.configuration(rows.settings) == rows.settings.space.decode(rows.params[-1])


def test_the_last_row_is_that_of_the_means():
    lost = np.array([[[0.4, 0.6], [0.2, 0.4], [0.1, 0.1]], [[0.0, 0.2], [0.4, 0.2], [0.1, 0.1]]])
    rows = loss_table(["a", "b"], lost).rows
    assert [row[0] for row in rows] == ["a", "b", "mean"]
    assert rows[0][1].startswith("0.50 (")
    assert rows[2][1].startswith("0.30 (")
    assert rows[2][4] == "+0.20 (+0.20 … +0.20)"


def test_the_learning_rate_is_what_matters(records, tmp_path, in_process):
    small = ("--records", records, "--resamples", 5, "--output", tmp_path)
    done = in_process("benchmarks.atlas", *small)
    assert done.returncode == 0
    assert "best together: --learning-rate" in done.stdout
    found = json.loads((tmp_path / "atlas.json").read_text())
    for shares in found["importances"].values():
        assert next(iter(shares)) == "learning_rate"
    assert np.shape(found["lost"]["values"]) == (2, 3, 4)
    assert (tmp_path / "atlas.png").exists()


def test_one_table_alone_has_nothing_to_compare(tmp_path, refusal):
    assert "fewer than two tables" in refusal("benchmarks.atlas", "--records", tmp_path)
