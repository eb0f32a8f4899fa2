"""``--workers``: a study of several processes, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ppo_jax.errors import UserError
from tune.workers import __main__ as worker
from tune.workers import launcher

ROOT = Path(__file__).parents[3]

SMALL = (
    *("--workers", "2", "--total-steps", "4096", "--eval-every", "2048", "--eval-episodes", "4"),
    *("--seeds", "2", "--validate-steps", "0", "--finalists", "0"),
)


def children(pid):
    """Return process -> command line of the children of `pid`."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_two_workers_finish_exactly_the_total_and_stop_when_interrupted(tmp_path):
    """A killed worker is replaced, SIGINT stops the study, the same command continues it."""
    output = tmp_path / "a study with späces"
    command = [sys.executable, "-m", "tune.run", *SMALL, "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--trials", "1000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = iter(process.stdout.readline, "")
    next(line for line in lines if line.startswith("trial"))
    first = children(process.pid)
    assert len(first) == 2
    assert not any("journal" in arguments for arguments in first.values())
    killed = min(first)
    os.kill(killed, signal.SIGKILL)
    replaced = next(line for line in lines if "takes its place" in line)
    assert "was killed by SIGKILL" in replaced
    next(line for line in lines if line.startswith("trial"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted; finished trials are kept, the same command continues" in errors
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in first)

    trials = json.loads((output / "all_trials.json").read_text())
    finished = sum(trial["state"] in ("complete", "pruned") for trial in trials)
    assert finished >= 1
    assert not [trial for trial in trials if trial["state"] == "running"]
    done = subprocess.run(
        [*command, "--trials", str(finished + 3)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads((output / "all_trials.json").read_text())
    states = [trial["state"] for trial in trials]
    assert sum(state in ("complete", "pruned") for state in states) == finished + 3
    assert sum(trial["baseline"] for trial in trials if trial["state"] == "complete") == 1
    assert "running" not in states
    results = json.loads((output / "optimization_results.json").read_text())
    assert results["baseline_value"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "0"), "--workers must be an integer of at least 1, but got 0"),
        (("--workers", "2", "--storage", "sqlite:///x.db"), "SQLite"),
        (("--workers", "2", "--worker-timeout", "0"), "--worker-timeout"),
        (("--workers", "2", "--max-retries", "-1"), "--max-retries"),
        (("--workers", "2", "--storage", "journal:/nowhere/x"), "cannot open the storage journal:"),
    ],
)
def test_mistakes_give_one_line_and_status_2(refusal, tmp_path, arguments, message):
    assert message in refusal("tune.run", *arguments, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class FakeHost:
    """Workers that end as `ends(index, number)` says: seconds that they live, and a status."""

    def __init__(self, monkeypatch, ends):
        self.now, self.starts, self.lines, self.ends, self.trials = 0.0, [], [], ends, 0
        monkeypatch.setattr(launcher, "time", self)
        monkeypatch.setattr(launcher, "_start", self.start)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def start(self, index, count, request):
        self.starts.append((index, self.now))
        lived, status = self.ends(index, [i for i, _ in self.starts].count(index))
        end = self.now + lived
        return SimpleNamespace(stdin=None, poll=lambda: status if self.now >= end else None)

    def run(self, count):
        launcher.run_workers(count, None, self.lines.append, lambda: self.trials)


def test_workers_that_die_at_once_are_replaced_after_growing_pauses_and_then_no_more(monkeypatch):
    host = FakeHost(monkeypatch, lambda index, number: (0, -9))
    with pytest.raises(UserError, match="every worker has failed"):
        host.run(1)
    pauses = np.diff([moment for _, moment in host.starts])
    assert pauses == pytest.approx([1, 2, 4, 8, 16], abs=0.5)
    assert host.lines[0] == "worker 0 was killed by SIGKILL; another takes its place"
    assert host.lines[-1] == (
        "worker 0 was killed by SIGKILL, as were the 5 before it; no other takes its place"
    )


def test_one_worker_that_dies_at_once_does_not_stop_the_others(monkeypatch):
    host = FakeHost(monkeypatch, lambda index, number: (0, -9) if index else (500, 0))
    host.run(2)
    assert [index for index, _ in host.starts] == [0] + [1] * 6


@pytest.mark.parametrize(("progress", "starts"), [(0, 6), (1, 20)])
def test_worker_that_is_killed_late_is_replaced_as_long_as_trials_finish(
    monkeypatch, progress, starts
):
    def ends(index, number):
        host.trials += progress
        return (100, -9) if number < 20 else (100, 0)

    host = FakeHost(monkeypatch, ends)
    if progress:
        host.run(1)
    else:
        with pytest.raises(UserError, match="every worker has failed"):
            host.run(1)
    assert len(host.starts) == starts


def test_signal_without_a_name_is_reported_by_its_number(monkeypatch):
    host = FakeHost(monkeypatch, lambda index, number: (0, -35 if number == 1 else 0))
    host.run(1)
    assert host.lines == ["worker 0 was killed by signal 35; another takes its place"]


def test_worker_that_is_started_by_hand_says_who_starts_it(command):
    done = command("tune.workers", stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "python -m tune.run --workers N" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_worker_uses_as_many_cores_where_none_can_be_chosen(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "0")  # So that it is as before at the end.
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    worker._run_on([1, 3, 5])
    assert os.environ["JAX_NUM_CPU_DEVICES"] == "3"


@pytest.mark.parametrize("cores", ["a,b", "99999", "-1", str(2**70), "0,,1", ""])
def test_cores_that_there_are_not_are_one_line(cores, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tune.workers", f"--cores={cores}"])
    with pytest.raises(SystemExit) as stop:
        worker.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --cores must name CPU cores of this machine, which has ")
    assert line.endswith(f"as 0,2,4, but got {cores!r}")
