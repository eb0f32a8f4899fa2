"""Rules for the finalists, compared where what short trials show is not what counts in the end."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.finalists import RULES, SHORTER, STUDIES, Ended, regret_table
from benchmarks.records import Records, record
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings

SETTINGS = Settings()
SEEDS = np.linspace(-0.2, 0.2, 8)


def early(hyperparameters):
    return 10 * np.log10(hyperparameters.learning_rate / 1e-5)


def late(hyperparameters):
    return 400 * (hyperparameters.gamma - 0.9)


class Programs:
    """Returns begin at :func:`early` and end at :func:`late`."""

    def run(self, keys, hyperparameters, checkpoints):
        last = SETTINGS.checkpoints()[-1]
        for step in checkpoints:
            gone = max(0.0, step / last - 1 / SHORTER) / (1 - 1 / SHORTER)
            level = (1 - gone) * early(hyperparameters) + gone * late(hyperparameters)
            yield Checkpoint(step, step, level + SEEDS[: len(keys)], None, None, 0.0, 0.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "trials_CartPole-v1.npz"
    settings = dataclasses.replace(SETTINGS, seeds=8)
    record(settings, Programs(), 48, 0, 400_000, path, Console(quiet=True))
    return path


@pytest.mark.parametrize("answers", STUDIES)
def test_trials_are_short_and_levels_those_of_the_end(path, answers):
    records = Records.load(path)
    (ended,) = STUDIES[answers](records, 12, 1)
    study = ended.study
    assert study.settings.total_steps == SETTINGS.total_steps // SHORTER
    assert len(study.ranked) == 11  # A trial ends with a whole rollout, after more steps.
    assert study.baseline is not None
    for trial in study.ranked:
        assert trial.score == pytest.approx(early(trial.hyperparameters), abs=2)
        assert ended.levels[trial.number] == pytest.approx(late(trial.hyperparameters), abs=2)
    ends = [late(known.hyperparameters) for known in records.configurations()]
    gap = max(ends) - np.median(ends)
    for trial in study.ranked:
        lacking = (max(ends) - late(trial.hyperparameters)) / gap
        assert ended.regrets[trial.number] == pytest.approx(lacking, abs=0.1)


CHOSEN = {"finalists": 4, "highest expected score": 4, "five finalists": 6, "all trials": 11}
"""Rule -> how many of eleven trials it chooses, with the default."""


@pytest.mark.parametrize("rule", RULES)
def test_the_winner_is_the_best_of_those_that_a_rule_chooses(path, rule):
    (ended,) = STUDIES["rows"](Records.load(path), 12, 1)
    chosen = [trial.number for trial in RULES[rule](ended.study)]
    assert ended.study.baseline.number in chosen
    assert len(chosen) == CHOSEN[rule]
    best = max(chosen, key=lambda number: ended.levels[number])
    assert ended.regret(rule) == ended.regrets[best]
    others = Ended(ended.study, dict.fromkeys(chosen, 0.0) | {chosen[1]: 1.0}, {chosen[1]: 0.25})
    assert others.regret(rule) == 0.25


def test_a_table_has_a_mean_of_each_kind_of_answer():
    found = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.4], [0.2, 0.2, 0.2], [0.0, 0.0, 0.0]])
    regrets = {"model": {"a": found, "b": found + 0.2}, "rows": {"a": found}}
    rows = regret_table(regrets).rows
    assert [row[:3] for row in rows] == [
        *[("a", "model", "0.200"), ("b", "model", "0.400"), ("mean", "model", "0.300")],
        *[("a", "rows", "0.200"), ("mean", "rows", "0.200")],
    ]
    assert rows[0][3:5] == ("0.300", "-0.100 (-0.348 … +0.148)")


def test_command(path, tmp_path, in_process):
    places = ("--records", path.parent, "--output", tmp_path)
    small = ("--env", "CartPole-v1", "--studies", 5, "--trials", 6)
    done = in_process("benchmarks.samplers", "--finalists", *small, *places)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "finalists.json").read_text())
    outcomes = results["outcomes"]
    regrets = np.load(tmp_path / outcomes["file"])
    for answers in STUDIES:
        assert outcomes["axes"][answers] == [["CartPole-v1"], list(RULES), "study"]
        assert regrets[answers].shape == (1, len(RULES), 5)
        assert (regrets[answers] < 1.5).all()
    assert (tmp_path / "finalists.png").read_bytes().startswith(b"\x89PNG")
