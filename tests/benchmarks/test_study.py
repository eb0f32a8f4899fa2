"""The benchmark of whole studies; nothing here depends on how fast they are."""

import json
import time
from pathlib import Path

import jax
import pytest
from rich.console import Console

from benchmarks import peers, study, study_worker
from benchmarks.processes import ProcessError
from benchmarks.study import AT_ONCE, OURS, USUAL, Arguments

TINY = ("--trials", 2, "--seeds", 2, "--total-steps", 2048, "--eval-every", 1024)


@pytest.mark.slow
def test_every_strategy_does_the_same_work(in_process, monkeypatch, tmp_path: Path):
    def ask(what, cache, **request):
        return getattr(study_worker, what)({"started": time.monotonic(), **request})

    monkeypatch.setattr(study, "ask", ask)
    done = in_process(
        "benchmarks.study", *TINY, "--starts", 1, "--zoo-trials", 0, "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "study.json").read_text())
    ours, at_once, usual = results["strategies"]
    assert [strategy["name"] for strategy in results["strategies"]] == [OURS, AT_ONCE, USUAL]
    assert ours["environment_steps"] >= 2 * 2 * 2048
    assert ours["environment_steps"] == at_once["environment_steps"] == usual["environment_steps"]
    assert ours["compilations"] == 3
    assert at_once["compilations"] == usual["compilations"] == 2 * 3
    for strategy in results["strategies"]:
        assert sum(strategy["parts"].values()) == pytest.approx(strategy["seconds"]["median"])
        ratio = ours["seconds"]["median"] / strategy["seconds"]["median"]
        assert strategy["ratio"]["median"] == pytest.approx(ratio)
        assert f"{strategy['seconds']['median']:.1f}" in done.stdout
    for event in ("first_step", "first_checkpoint"):
        first, second = (results["starts"][event][f"{name} start"] for name in ("first", "second"))
        ratio = second["median"] / first["median"]
        assert results["starts"][event]["ratio"]["median"] == pytest.approx(ratio)
    assert results["rl_zoo"] is None
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_worker_starts_a_study_and_answers():
    cache = jax.config.jax_compilation_cache_dir
    settings = {"env": "CartPole-v1", "seeds": 2, "total_steps": 2048, "eval_every": 1024}
    marks = study.ask("start", cache, settings=settings)
    assert 0 < marks["first_step"] < marks["first_checkpoint"]


def test_a_tuner_that_cannot_be_installed_is_reported(monkeypatch):
    def fail(*_):
        raise ProcessError("cannot be installed: no network")

    monkeypatch.setattr(peers, "build", fail)
    found = study.measure_zoo(Arguments(), Console(quiet=True))
    assert found == {"failure": "cannot be installed: no network"}
    spread = study.Spread.of([10.0])
    ours = study.Strategy(OURS, spread, {}, 1000, 3, 1.0, spread / spread)
    assert study.zoo_table(ours, found).rows[1][2] == "cannot be installed: no network"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", 0), "--trials must be an integer of at least 1, but got 0"),
        (("--starts", -1), "--starts must be an integer of at least 0, but got -1"),
        (("--eval-every", 300_000), "eval_every must be at most total_steps"),
        (("--env", "CartPol-v1"), "did you mean 'CartPole-v1'?"),
    ],
)
def test_mistakes_are_one_line(refusal, tmp_path, arguments, message):
    assert message in refusal("benchmarks.study", *arguments, "--output", tmp_path / "results")
    assert not (tmp_path / "results").exists()
