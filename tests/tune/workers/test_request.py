"""The request of a worker, there and back."""

import dataclasses
from pathlib import Path

import pytest

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.tracking import TrackingConfig
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.workers.request import WorkerRequest

REQUEST = WorkerRequest(
    n_trials=7,
    settings=Settings(
        env_kwargs=(("max_steps_in_episode", 9),),
        space=SearchSpace.from_tables({"gamma": {"value": 0.9}}),
        seed=3,
    ),
    output=Path("a study with späces"),
    storage="postgresql://me:secret@host/studies",
    study_name="mine",
    worker_timeout=30.0,
    max_retries=2,
    tracking=TrackingConfig(tensorboard=True),
)


def test_json_restores_the_request():
    line = REQUEST.to_json()
    assert "\n" not in line
    assert WorkerRequest.from_json(line) == REQUEST


def test_password_is_not_shown():
    assert "secret" not in repr(REQUEST)


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[]", '{"n_trials": 3}'])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"python -m tune\.run --workers N") as caught:
        WorkerRequest.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_worker_may_import_the_network_that_its_study_was_asked_for(monkeypatch):
    settings = Settings(agent=AgentConfig(network="mine:Network"))
    request = dataclasses.replace(REQUEST, settings=settings)
    text = request.to_json()
    monkeypatch.setattr("ppo_jax.config._asked", set())  # As in another process.
    assert WorkerRequest.from_json(text) == request
