"""Whole studies: what is read of their folders, and what is said of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measuring, studies
from benchmarks.measuring import Report
from benchmarks.processes import ProcessError
from benchmarks.studies import Arguments, Found, command, has_ended, plot, study_table
from ppo_jax.config import AgentConfig
from ppo_jax.hyperparameters import Hyperparameters

STEPS = [100_000, 500_000, 750_000, 1_000_000]


def write(folder, level="improved", recommended="winner", seed=0, trials=30, verdict="Improved."):
    """Write the files of a validated study: the winner reaches 30, the baseline 25 and diverges."""
    winner = np.outer([10.0, 20.0, 30.0, 40.0], [0.5, 1.5])
    difference = {"value": 5.0, "interval": [1.0, 9.0]}
    files = {
        "recommended": {
            "hyperparameters": Hyperparameters(gamma=0.9).to_dict(),
            "agent": AgentConfig(num_envs=4).to_dict(),
        },
        "validation": {
            "recommended": recommended,
            "winner": {"returns": winner.tolist()},
            "baseline": {"returns": [[25.0, None]] * 4},
            "level": level and {"difference": difference},
            "level_outcome": level,
            "speed_outcome": level and "worse",
            "seeds": {"root": seed},
            "seeds_trained": 2,
            "steps": STEPS,
        },
        "optimization_results": {"n_trials": {"total": trials}, "verdict": verdict},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_what_a_folder_says(tmp_path):
    write(tmp_path, seed=2)
    found = Found.read(tmp_path)
    assert (found.seed, found.trials, found.seeds) == (2, 30, 2)
    assert found.recommended == [10.0, 20.0, 30.0, 40.0]
    assert found.default == [25.0] * 4
    assert found.levels == (30.0, 25.0)
    assert found.difference == (5.0, 1.0, 9.0)
    assert found.configuration == {"gamma": 0.9, "num_envs": 4}
    assert found.is_improved
    assert [found.at(steps) for steps in (50_000, 100_000, 240_000, 1_000_000, 10**7)] == [
        *(None, 10.0, 20.0, 40.0, None)
    ]
    write(tmp_path, None, "baseline")
    found = Found.read(tmp_path)
    assert found.levels == (25.0, 25.0)
    assert found.difference is None
    assert not found.is_improved


def test_a_row_says_both_outcomes_and_what_is_published(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", None, "baseline")
    found = [Found.read(tmp_path / name) for name in ("0", "1")]
    first, second = study_table({"CartPole-v1": found, "brax/ant": found[:1]}).rows[:2]
    assert first == (
        *("CartPole-v1, 0", "25.0", "30.0", "+5.0 (+1.0 … +9.0)", "improved", "worse"),
        *("10.0", "490.0 ± 6.1 at 500k", "20.0"),
    )
    assert second[3:6] == ("defaults won", "", "")
    plot({"CartPole-v1": found}, tmp_path / "studies.png")
    assert (tmp_path / "studies.png").exists()


def test_studies_are_run_once_by_the_command_of_a_user(tmp_path, monkeypatch, in_process):
    ran = []

    def output_of(whole, environment):
        ran.append(whole[2:-1])
        write(Path(whole[-1]), seed=int(whole[whole.index("--seed") + 1]))
        return ""

    monkeypatch.setattr(studies, "output_of", output_of)
    small = ("--envs", "Asterix-MinAtar", "CartPole-v1", "--seeds", 0, 1, "--trials", 12)
    small += ("--fix", "activation")
    places = ("--folders", tmp_path / "studies", "--output", tmp_path)
    done = in_process("benchmarks.studies", *small, *places)
    assert done.returncode == 0
    arguments = Arguments(trials=12, fix=("activation",))
    assert ran[0] == ["tune.run", *command("Asterix-MinAtar", arguments, 0), "--output"]
    assert ran[3] == ["tune.run", *command("CartPole-v1", arguments, 1), "--output"]
    assert "--space wide --fix activation --trials 12 --seed 1" in " ".join(ran[3])
    assert "CartPole-v1, seed 1: 30.0 against 25.0 with the defaults" in done.stdout
    results = json.loads((tmp_path / "studies.json").read_text())
    assert [len(found) for found in results["studies"].values()] == [2, 2]
    in_process("benchmarks.studies", *small, *places)
    assert len(ran) == 4


def test_published_studies_are_joined_and_not_run_again(tmp_path, monkeypatch, in_process):
    ran = []

    def output_of(whole, environment):
        ran.append(whole[whole.index("--env") + 1])
        write(Path(whole[-1]), seed=int(whole[whole.index("--seed") + 1]))
        return ""

    monkeypatch.setattr(studies, "output_of", output_of)
    monkeypatch.setattr(measuring, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(Report, "publish", publish_without_documentation)
    (tmp_path / "published").mkdir()

    def run(place, *options):
        places = ("--folders", tmp_path / place, "--output", tmp_path / place)
        return in_process("benchmarks.studies", "--publish", *options, *places)

    assert run("a", "--envs", "CartPole-v1", "--seeds", 1).returncode == 0
    both = ("--envs", "CartPole-v1", "Pendulum-v1", "--seeds", 0, 1)
    assert run("b", *both).returncode == 0
    assert ran == ["CartPole-v1", "CartPole-v1", "Pendulum-v1", "Pendulum-v1"]
    found = json.loads((tmp_path / "published" / "studies.json").read_text())["studies"]
    assert {env: [one["seed"] for one in its] for env, its in found.items()} == {
        "Pendulum-v1": [0, 1],
        "CartPole-v1": [0, 1],
    }
    write(tmp_path / "again", seed=1)
    assert Found.from_dict(found["CartPole-v1"][1]) == Found.read(tmp_path / "again")
    refused = run("c", *both, "--trials", 12)
    assert refused.returncode == 2
    assert "measured with trials 30, and these would be with trials 12" in refused.stderr


def publish_without_documentation(report, paths):
    for path in paths:
        (measuring.PUBLISHED / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("changes", "ended"),
    [({}, True), ({"trials": 29}, False), ({"verdict": None}, False), ({"trials": 31}, True)],
)
def test_a_study_has_ended_with_a_verdict_on_all_trials(changes, ended, tmp_path):
    assert not has_ended(tmp_path, 30)
    write(tmp_path, **changes)
    assert has_ended(tmp_path, 30) == ended


def test_a_study_that_fails_is_named(tmp_path, monkeypatch, in_process):
    def output_of(whole, environment):
        raise ProcessError("error: no memory")

    monkeypatch.setattr(studies, "output_of", output_of)
    places = ("--folders", tmp_path / "studies", "--output", tmp_path)
    done = in_process("benchmarks.studies", "--envs", "CartPole-v1", *places)
    assert done.returncode == 2
    assert "CartPole-v1-0 failed: error: no memory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--envs", "CartPole"), "CartPole-v1"), (("--trials", 0), "--trials")],
)
def test_wrong_arguments(options, message, refusal):
    assert message in refusal("benchmarks.studies", *options)
