"""Trials without training: programs whose returns are a formula."""

import functools
import sqlite3
from typing import NamedTuple

import jax
import numpy as np
import pytest
import sqlalchemy

from ppo_jax.config import TrainConfig
from ppo_jax.programs import Checkpoint, CompileLog
from tune.analysis.analysis import analyse

collect_ignore = ["evidence/reproduce_statistics.py"]  # A script, run in a process of its own.


@pytest.fixture(autouse=True)
def _databases():
    """Close what a test has opened; SQLite need not survive a power cut, which is faster."""
    engines = set()  # Strong references: a collected engine leaves its connections open.

    def relax(connection, _):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    def remember(connection):
        engines.add(connection.engine)

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    sqlalchemy.event.listen(sqlalchemy.Engine, "engine_connect", remember)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "engine_connect", remember)
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
    for engine in engines:
        engine.dispose()


class FakeActors(NamedTuple):
    observation_statistics: None = None


class FakeState(NamedTuple):
    params: dict
    actors: FakeActors = FakeActors()


class FakePrograms:
    """Stands in for ``ppo_jax.programs.Programs``; learns instantly, as `returns` says.

    `returns(hyperparameters, step, seed)` is a seed's mean return at a checkpoint.
    """

    def __init__(self, seeds=4):
        self.seeds = seeds
        self.config = TrainConfig()
        self.compile_log = CompileLog()
        self.compile_log.add("training", 0.75)
        self.compile_log.add("evaluation", 0.25)
        self.runs = []
        self.untrained = 0.0
        self.returns = lambda hyperparameters, step, seed: (
            step / 1000 + 100 * hyperparameters.gamma + seed
        )

    def init(self, keys):
        return FakeState({"params": {"kernel": np.arange(self.seeds, dtype=np.float32)}})

    def evaluate(self, state, checkpoint):
        return np.full((self.seeds, 2), self.untrained)

    def run(self, keys, hyperparameters, checkpoints, passed=0, state=None):
        self.runs.append((jax.random.key_data(keys).tolist(), hyperparameters, checkpoints))
        for step in checkpoints[passed:]:
            seeds = range(len(keys))
            yield Checkpoint(
                step=step,
                environment_steps=step + 24,
                returns=np.array([self.returns(hyperparameters, step, s) for s in seeds], float),
                metrics=None,
                state=self.init(keys) if state is None else state,
                training_seconds=0.25,
                evaluation_seconds=0.125,
            )


class RecordedProgress:
    """What a session reports, as (name, arguments) pairs in order."""

    def __init__(self):
        self.events = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments: self.events.append((name, arguments))


@pytest.fixture
def progress():
    return RecordedProgress()


@pytest.fixture(scope="session")
def make_programs():
    """What makes programs for a fixture that several tests share."""
    return FakePrograms


@pytest.fixture
def programs(monkeypatch):
    fake = FakePrograms()
    # Intervals are tested in tests/tune/analysis; elsewhere they only have to be there.
    quick = functools.partial(analyse, resamples=3)
    monkeypatch.setattr("tune.report.results.analyse", quick)
    for module in ("statistics", "validation"):
        monkeypatch.setattr(f"tune.evidence.{module}.RESAMPLES", 99)
    return fake


@pytest.fixture
def pictures():
    """Draw the pictures of reports, which takes seconds."""


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Make reports without pictures, except for tests that ask for them."""
    if "pictures" in request.fixturenames:
        return
    monkeypatch.setattr("tune.report.html.inline_svg", lambda draw, width, height: "<svg></svg>")
    for name in ("plot_optimization", "plot_validation"):
        monkeypatch.setattr(
            f"tune.report.files.{name}", lambda results, path: path.write_bytes(b"picture")
        )
