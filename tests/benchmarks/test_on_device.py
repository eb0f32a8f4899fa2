"""The measurement of a device, on CPU: contenders, what does not fit, predictions, the command."""

import json
import re
from itertools import count

import jax
import numpy as np
import pytest

from benchmarks import accelerator, on_device
from benchmarks.measuring import Spread
from benchmarks.on_device import Job, Prediction, Speed, StudySeconds, speed
from benchmarks.static_ppo import make_train
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.hyperparameters import Hyperparameters

ENV = "CartPole-v1"


@pytest.fixture
def job():
    return Job(ENV, agents=3, steps=1000, device=jax.devices()[0])


def test_a_timed_call_is_whole_iterations_of_all_agents(job, monkeypatch):
    assert job.updates == 2
    assert job.hyperparameters.n_steps in job.config.n_steps_choices
    job.config.check(job.hyperparameters)
    clock = count()
    monkeypatch.setattr(on_device.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(on_device, "CONTENDERS", {"fake": lambda job: lambda: 3 * job.steps})
    found = speed(job, "fake", rounds=2)
    assert found.steps_per_second == Spread.of([3000.0, 3000.0])
    assert found.compile_seconds == 0.0


def test_what_does_not_fit_the_device_is_said_and_another_error_is_raised(job, monkeypatch):
    def fails(message):
        def prepare(job):
            raise RuntimeError(message)

        return prepare

    contenders = {"large": fails("RESOURCE_EXHAUSTED: 1 TB"), "broken": fails("INTERNAL")}
    monkeypatch.setattr(on_device, "CONTENDERS", contenders)
    assert speed(job, "large", 1).steps_per_second is None
    with pytest.raises(RuntimeError, match="INTERNAL"):
        speed(job, "broken", 1)


def test_tables_name_ratios_and_what_is_missing(tmp_path):
    speeds = [
        Speed(ENV, "lanes", 4, 1.0, Spread.of([300.0])),
        Speed(ENV, "static, vmapped", 4, 1.0, Spread.of([100.0])),
        Speed(ENV, "lanes", 8, 1.0, None),
        Speed(ENV, "static, vmapped", 8, 1.0, Spread.of([100.0])),
    ]
    rows = on_device.speed_table(speeds).rows
    assert [row[5] for row in rows] == ["3.00", "1.00", "", "1.00"]
    assert rows[2][3] == "does not fit"
    (row,) = on_device.study_table([StudySeconds(20, 0, 9.0, 8.0, 30.0, 400.0)], 200_000).rows
    assert row[:3] == ("20", "auto", "9.0")
    compared = [Prediction("rollout", 0.001, 0.002), Prediction("ticks", None, 0.003)]
    rows = on_device.prediction_table(compared).rows
    assert rows == [("rollout", "1.00", "2.00", "2.00"), ("ticks", "", "3.00", "")]
    on_device.draw(speeds, tmp_path / "speeds.png")
    assert (tmp_path / "speeds.png").stat().st_size > 1000


def static_program(updates):
    config = TrainConfig(ENV, agent=AgentConfig(num_envs=4))
    hyperparameters = Hyperparameters(n_steps=512, batch_size=128, learning_rate=1e-3)
    return jax.jit(jax.vmap(make_train(config, hyperparameters, updates)))


def test_static_program_batches_no_qr():
    # On CPU, tasks that wait for tasks of their own in one small pool can wait for ever.
    text = static_program(1).lower(jax.random.split(jax.random.key(0), 2)).as_text()
    decompositions = re.findall(r'@lapack_sgeqrf_ffi.*num_batch_dims = "(\d)"', text)
    assert set(decompositions) == {"0"}


@pytest.mark.slow
def test_static_program_learns():
    keys = jax.random.split(jax.random.key(0), 2)

    def means(updates):
        trained = static_program(updates)(keys)
        return np.asarray(trained.return_sum / trained.episodes)

    # The mean over all episodes of the training, the first ones included.
    assert (means(2) < 40).all()
    assert (means(100) > 90).all()


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_reduced_measurement_writes_tables_and_picture(tmp_path, capsys, monkeypatch):
    for size in ("SEEDS", "LANES"):
        monkeypatch.setattr(on_device, size, 2)
    accelerator.main(
        [
            *("--on-device", "--device-envs", ENV, "--agents", "2", "--steps", "512"),
            *("--rounds", "1", "--study-trials", "2", "--study-lanes", "2"),
            *("--study-steps", "2048", "--output", str(tmp_path)),
        ]
    )
    assert "no accelerator here" in capsys.readouterr().out
    results = json.loads((tmp_path / "on_device.json").read_text())
    contenders = [row["contender"] for row in results["speeds"]]
    assert contenders[:3] == ["one configuration", "lanes", "static, vmapped"]
    assert all(row["steps_per_second"]["median"] > 0 for row in results["speeds"])
    assert [row["lanes"] for row in results["studies"]] == [2]
    assert all(row["measured"] > 0 for row in results["predictions"])
    assert any(row["predicted"] for row in results["predictions"])
    assert (tmp_path / "on_device.png").exists()
