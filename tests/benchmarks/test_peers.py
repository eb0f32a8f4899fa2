"""The comparison with peers: turns, ratios, and peers that cannot be measured."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import peers
from benchmarks.peers import OURS, Arguments, Contender, Peer, build, measure
from benchmarks.processes import ProcessError

WORKER = """
import json, sys, time
work, how = json.loads(sys.argv[1]), sys.argv[2]
print("a warning", file=sys.stderr)
if how == "refuses":
    sys.exit("ValueError: no such environment")
if how == "sleeps":
    time.sleep(60)
print(json.dumps({"warmup_seconds": 2.5, "versions": {"it": "1.0"}}), flush=True)
for number, _ in enumerate(sys.stdin):
    if how == "dies" and number == 1:
        raise MemoryError("too much")
    with open(__file__ + ".log", "a") as log:
        print(how, file=log)
    seconds = 1.0 if how == "fast" else 4.0
    print(json.dumps({"seconds": seconds, "steps": work["steps"] * work["seeds"]}), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(peers, "WORKERS", tmp_path)
    return path


def contenders(monkeypatch: pytest.MonkeyPatch, **hows: str) -> tuple[str, ...]:
    """Make contenders of the fake worker, each doing as it is told."""
    slow = {"slow": True}
    found = {
        name: Peer(("worker.py", how), **(slow if how == "slow" else {}))
        for name, how in hows.items()
    }
    monkeypatch.setattr(peers, "PEERS", found)
    return tuple(found)


def run(names: tuple[str, ...], **options) -> list[peers.Result]:
    options = {"envs": ("CartPole-v1",), "seeds": (4,), "timeout": 3600.0} | options
    return measure(Arguments(peers=names, **options), Console(quiet=True))


def test_contenders_take_turns_and_ratios_are_ours_to_theirs(worker, monkeypatch):
    names = contenders(monkeypatch, **{OURS: "fast", "other": "slow"})
    ours, other = run(names, steps=1000, slow_steps=100, rounds=3)
    assert (ours.peer, ours.seeds, ours.timed_steps) == (OURS, 4, 4000)
    assert ours.steps_per_second.rounds == (4000.0,) * 3
    assert other.timed_steps == 400
    assert other.steps_per_second.rounds == (100.0,) * 3
    assert other.ratio.rounds == (40.0,) * 3
    assert ours.ratio.median == 1
    assert other.warmup_seconds == 2.5
    assert other.versions == {"it": "1.0"}
    turns = Path(f"{worker}.log").read_text().split()
    assert turns == ["fast", "slow", "slow", "fast", "fast", "slow"]


@pytest.mark.usefixtures("worker")
def test_a_contender_that_fails_is_reported_and_the_others_go_on(monkeypatch):
    names = contenders(monkeypatch, **{OURS: "fast", "one": "dies", "two": "refuses"})
    ours, one, two = run(names, rounds=3)
    assert len(ours.steps_per_second.rounds) == 3
    assert one.steps_per_second is None
    assert one.failure == "stopped: MemoryError: too much"
    assert two.failure == "stopped: ValueError: no such environment"


@pytest.mark.usefixtures("worker")
def test_a_contender_that_never_answers_is_given_up():
    with pytest.raises(ProcessError, match=r"no answer within 0\.2 s"):
        Contender("it", Peer(("worker.py", "sleeps")), Path(sys.executable), {}, timeout=0.2)


@pytest.mark.usefixtures("worker")
def test_an_environment_that_a_peer_cannot_train_is_reported(monkeypatch):
    monkeypatch.setattr(
        peers, "PEERS", {"it": Peer(("worker.py", "fast"), envs=("other",), why_not="too hard")}
    )
    (result,) = run(("it",))
    assert result.failure == "too hard"
    assert result.steps_per_second is None


def test_an_environment_is_built_once_and_again_when_its_requirements_change(tmp_path, monkeypatch):
    commands = []

    def fake(command):
        commands.append(command)
        (tmp_path / "it").mkdir(exist_ok=True)

    monkeypatch.setattr(peers, "output_of", fake)
    first = Peer(("worker.py",), (("a==1",), ("b==2", "c==3")))
    python = build("it", first, tmp_path)
    assert python == tmp_path / "it" / "bin" / "python"
    assert [command[-1] for command in commands] == [str(tmp_path / "it"), "a==1", "c==3"]
    build("it", first, tmp_path)
    assert len(commands) == 3
    build("it", Peer(("worker.py",), (("a==2",),)), tmp_path)
    assert len(commands) == 5


@pytest.mark.usefixtures("worker")
def test_a_failed_installation_is_reported_and_tried_again(tmp_path, monkeypatch):
    def fake(command):
        (tmp_path / "it").mkdir(exist_ok=True)
        if "pip" in command:
            raise ProcessError("ERROR: no matching distribution")

    monkeypatch.setattr(peers, "output_of", fake)
    monkeypatch.setattr(peers, "PEERS", {"it": Peer(("worker.py", "fast"), (("a==1",),))})
    for _ in range(2):
        (result,) = run(("it",), environments=tmp_path)
        assert result.failure == "cannot be installed: ERROR: no matching distribution"


@pytest.mark.slow
def test_ours_alone_from_the_command_line(in_process, tmp_path):
    done = in_process(
        *("benchmarks.peers", "--peers", OURS, "--envs", "CartPole-v1", "--seeds", 1),
        *("--steps", 2048, "--rounds", 1, "--output", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "peers.json").read_text())["results"]
    assert result["timed_steps"] == 2048
    assert f"{result['steps_per_second']['median']:,.0f}" in done.stdout
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "rejacks"), "did you mean 'rejax'?"),
        (("--seeds", 0), "--seeds must be an integer of at least 1, but got 0"),
        (("--slow-steps", 0), "--slow-steps must be an integer of at least 1, but got 0"),
        (("--envs", "CartPol-v1"), "did you mean 'CartPole-v1'?"),
    ],
)
def test_mistakes_are_one_line(refusal, tmp_path, arguments, message):
    assert message in refusal("benchmarks.peers", *arguments, "--output", tmp_path / "results")
    assert not (tmp_path / "results").exists()
