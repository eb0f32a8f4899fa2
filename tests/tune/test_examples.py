"""The examples for clusters are run in pieces, where no cluster is at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import postgres, servers
from ppo_jax import command_line
from tune.options import Arguments

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "cluster"

SMALL = (
    *("--trials", "4", "--total-steps", "4096", "--eval-every", "2048", "--eval-episodes", "4"),
    *("--seeds", "2", "--validate-steps", "4096", "--validate-seeds", "2", "--finalists", "0"),
)


def environment(folder, **variables):
    """Return an environment in which `python` is this one."""
    (folder / "bin").mkdir(exist_ok=True)
    link = folder / "bin" / "python"
    link.unlink(missing_ok=True)
    link.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_correct_shell(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
def test_tasks_of_a_slurm_array_finish_one_study_on_postgresql(tmp_path):
    """Two tasks that reach the server by addresses of their own; one proves the winner."""
    with postgres.server() as server:
        tasks = []
        for number in range(2):
            address = server.address.replace("127.0.0.1", f"127.0.0.{number + 1}")
            variables = {"PPO_JAX_TUNE_STORAGE": address, "SLURM_ARRAY_TASK_ID": str(number)}
            variables |= {"OUTPUT": str(tmp_path / "out"), "JAX_NUM_CPU_DEVICES": "1"}
            tasks.append(
                subprocess.Popen(
                    ["bash", EXAMPLES / "slurm_array.sh", *SMALL],
                    env=environment(tmp_path, **variables),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    trials = json.loads((tmp_path / "out" / "all_trials.json").read_text())
    finished = [trial for trial in trials if trial["state"] in ("complete", "pruned")]
    assert len(finished) == 4
    assert any("results  " in text for text in said)
    assert (tmp_path / "out" / "validation.json").exists()
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(servers.PASSWORD.encode() in content for content in written)
    assert not any(servers.PASSWORD in text for text in said)


def test_slurm_task_without_a_storage_says_what_is_missing(tmp_path):
    variables = environment(tmp_path)
    variables.pop("PPO_JAX_TUNE_STORAGE", None)
    done = subprocess.run(
        ["bash", EXAMPLES / "slurm_array.sh"], env=variables, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "PPO_JAX_TUNE_STORAGE: must hold the address" in done.stderr


def test_several_gpus_start_a_worker_each(tmp_path):
    variables = environment(tmp_path)
    stubs = {"nvidia-smi": "echo GPU 0; echo GPU 1; echo GPU 2", "python": 'echo "$@"'}
    for name, text in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    done = subprocess.run(
        ["bash", EXAMPLES / "several_gpus.sh", "--trials", "9"],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["-m", "tune.run", "--workers", "3", "--trials", "9"]


def test_kubernetes_job_gives_every_pod_a_gpu_and_the_secret():
    job = yaml.safe_load((EXAMPLES / "kubernetes_job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completions"] == spec["parallelism"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "tune.run"]
    arguments = command_line.parse(Arguments, "python -m tune.run", container["args"])
    assert arguments.place.study_name == "job"
    (variable,) = container["env"]
    assert variable["name"] == "PPO_JAX_TUNE_STORAGE"
    assert "secretKeyRef" in variable["valueFrom"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    (mount,) = container["volumeMounts"]
    assert str(arguments.place.output).startswith(mount["mountPath"])
