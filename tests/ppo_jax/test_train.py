"""``python -m ppo_jax.train``, as a user runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_many_devices_give_what_one_gives(command, tmp_path, monkeypatch):
    """As on a host with eight GPUs: ten seeds on sixteen lanes."""
    returns = {}
    for devices in (1, 8):
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(devices))
        done = command(
            *("ppo_jax.train", "--total-steps", 2048, "--eval-every", 1024, "--seeds", 10),
            *("--n-steps", 512, "--batch-size", 128, "--hidden-sizes", 8, "--eval-episodes", 4),
            *("--output", tmp_path / str(devices)),
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / str(devices) / "training.json").read_text())
        assert results["device"]["count"] == devices
        returns[devices] = results["returns"]
    assert np.shape(returns[8]) == (2, 10)
    np.testing.assert_allclose(returns[8], returns[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Acrobot"], "did you mean 'Acrobot-v1'"),
        (["--learning-rate", "-1"], "learning_rate must be a number above 0"),
        (["--batch-size", "4096"], "batch_size=4096 with n_steps=2048"),
        (["--num-envs", "3"], "num_envs=3"),
        (["--total-steps", "0"], "total_steps must be an integer of at least 1, but got 0"),
        (["--activation", "tnah"], "did you mean 'tanh'"),
    ],
)
def test_mistakes_give_one_line_and_status_2(refusal, tmp_path, arguments, message):
    assert message in refusal("ppo_jax.train", *arguments, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def returns(folder):
    return json.loads((folder / "training.json").read_text())["returns"]


def policy_bytes(folder):
    return (folder / "policy" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(tmp_path, in_process, wait_until):
    """SIGKILL in the middle, after a checkpoint; then the same command."""
    arguments = (
        *("ppo_jax.train", "--total-steps", 20_480, "--eval-every", 4096, "--seeds", 3),
        *("--n-steps", 512, "--batch-size", 128, "--eval-episodes", 4, "--hidden-sizes", 16),
        "--anneal-learning-rate",
    )
    whole = in_process(*arguments, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    halves = tmp_path / "halves"
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments), "--output", halves],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        wait_until(
            lambda: any(path.name.isdecimal() for path in halves.glob("training_state/*")), process
        )
        process.kill()
        process.wait()
        if not (halves / "policy").exists():
            break
        shutil.rmtree(halves)  # On a busy machine it can end before it is killed.
    done = in_process(*arguments, "--output", halves)
    assert done.returncode == 0, done.stderr
    passed = int(re.search("going on after ([0-9,]+) steps", done.stdout)[1].replace(",", ""))
    rest = sum("steps  return" in line for line in done.stdout.splitlines())
    assert 0 < rest == (20_480 - passed) // 4096
    assert policy_bytes(halves) == policy_bytes(tmp_path / "whole")
    results = [
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("halves", "whole")
    ]
    assert results[0]["returns"] == results[1]["returns"]

    # Nothing is left to do.
    again = in_process(*arguments, "--output", halves)
    assert again.returncode == 0, again.stderr
    assert policy_bytes(halves) == policy_bytes(tmp_path / "whole")
    # Another run is refused, whether it has ended or was stopped.
    for ended in (True, False):
        if not ended:
            (halves / "training.json").unlink()
        other = in_process(*arguments, "--gamma", 0.9, "--output", halves)
        assert other.returncode == 2
        assert "a run with hyperparameters.gamma = 0.99, but got 0.9" in other.stderr
        assert policy_bytes(halves) == policy_bytes(tmp_path / "whole")
        assert any((halves / "training_state").iterdir())


def test_a_platform_that_is_not_there_is_one_line(command, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "quantum")
    done = command("ppo_jax.train", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=quantum cannot be used: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_settings_of_jax_in_the_environment_change_nothing(command, monkeypatch, tmp_path):
    def trained(name):
        done = command(
            *("ppo_jax.train", "--total-steps", 4096, "--eval-every", 2048, "--seeds", 2),
            *("--eval-episodes", 4, "--output", tmp_path / name),
        )
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / name / "training.json").read_text())["returns"]

    plain = trained("plain")
    with monkeypatch.context() as changed:
        for name, value in {
            "JAX_ENABLE_X64": "1",
            "JAX_NUMPY_DTYPE_PROMOTION": "strict",
            "JAX_NUMPY_RANK_PROMOTION": "raise",
            "JAX_DEFAULT_PRNG_IMPL": "rbg",
            "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
            "JAX_TRANSFER_GUARD": "disallow",
        }.items():
            changed.setenv(name, value)
        assert trained("changed") == plain
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")  # Alone: it would keep others from being read.
    assert trained("without compilation") == plain
