"""The benchmark of faults, in small: it counts losses, and there are none."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import every_call, faults, postgres, syscalls
from benchmarks.measuring import ROOT


def counts(table):
    return {name.strip(): int(value) for name, value in table.rows if value.isdecimal()}


@pytest.mark.slow
def test_one_process_survives_kills(tmp_path, in_process, monkeypatch):
    def run_study(options, output):
        words = [word for option in options.items() for word in option]
        done = in_process("tune.run", *words, "--output", output)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(faults, "run_study", run_study)  # Only what is killed needs a process.
    arguments = faults.Arguments(kills=1, trials=3, total_steps=4096, validate_steps=8192)
    found = counts(faults.one_process(arguments, tmp_path))
    assert found["kills survived"] == 1
    assert found["lost trials that had finished"] == 0
    assert found["other total than asked for"] == 0
    assert found["other results than an uninterrupted study"] == 0
    assert found["lost temporary files"] == 0


@pytest.mark.slow
@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
def test_workers_on_postgresql_survive_kills(tmp_path):
    arguments = faults.Arguments(workers=2, trials=6, total_steps=8192, every=3.0)
    found = counts(faults.workers(arguments, tmp_path))
    assert found["finished (complete or pruned)"] == 6
    assert found["workers killed and replaced"] > 0
    assert found["lost configurations"] == found["other total than asked for"] == 0
    assert found["other state: RUNNING or WAITING"] == 0
    assert found["other count of a configuration than one"] == 0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", "starting"),
        ("study 's'\ncompiling the programs, once", "compiling or in the first trial"),
        ("compiling\ntrial  0  1.0", "in a trial"),
        ("trial  0\nfinalists: the 2 best\n", "training finalists"),
        ("trial  0\nvalidation: trial 3\n", "validating"),
    ],
)
def test_what_a_study_was_doing(text, moment):
    assert faults.doing(text) == moment


def test_json_is_read_strictly(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": float("nan")}))
    with pytest.raises(ValueError, match="holds NaN"):
        faults.read_strictly(tmp_path / "a.json")


needs_seccomp = pytest.mark.skipif(not syscalls.is_available(), reason="needs Linux's seccomp")

INTERCEPTED = """
import errno, multiprocessing, os, socket, sys
from pathlib import Path
from benchmarks import syscalls

folder = Path(sys.argv[1])

def work(parent):
    syscalls.ask_before_calls(parent)
    parent.close()
    (folder / "a").write_bytes(b"12345")
    (folder / "a").replace(folder / "b")
    (folder / "b").read_bytes()
    try:
        (folder / "c").mkdir()
    except OSError as error:
        assert error.errno == errno.ENOSPC
        (folder / "b").unlink()

def decision(call, _):
    print(call.kind, call.path.name, call.data)
    return errno.ENOSPC if call.kind == "mkdir" else None

ours, theirs = socket.socketpair()
process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
process.start()
theirs.close()
syscalls.decide(ours, folder, decision)
process.join()
assert process.exitcode == 0
"""


def run_script(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_seccomp
def test_calls_that_change_a_folder_are_seen_and_can_be_refused(tmp_path):
    found = run_script(INTERCEPTED, tmp_path).splitlines()
    assert found == [
        "create a None",
        "write a b'12345'",
        "rename b None",
        "mkdir c None",
        "remove b None",
    ]


def test_folder_that_goes_while_it_is_read_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"1")
    read = Path.read_bytes

    def read_and_remove(path):
        shutil.rmtree(tmp_path / "folder")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_and_remove)
    assert every_call._read(tmp_path) == {"file": b"1", "folder": None}


STANDING = """
import faulthandler, threading

def stands_still():
    threading.Event().wait()

threading.Thread(target=threading.Event().wait, daemon=True).start()
faulthandler.dump_traceback_later(0.1, exit=True)
stands_still()
"""


def test_life_that_stands_still_says_where():
    done = subprocess.run([sys.executable, "-c", STANDING], capture_output=True, text=True)
    found = every_call._where_it_stands(done.stderr)
    assert re.search(r"in threading\.py:\d+ wait < .*<string>:5 stands_still < ", found)
    assert every_call._where_it_stands("").endswith("in no call of Python")


EVERY_CALL = """
import sys
from pathlib import Path
from benchmarks.every_call import every_call

if __name__ == "__main__":
    table, examples = every_call(Path(sys.argv[1]), at_most=3)
    for row in table.rows:
        print(*row[1:])
    print(*examples, sep="\\n", file=sys.stderr)
"""


@pytest.mark.slow
@needs_seccomp
def test_study_that_is_stopped_at_a_call_is_finished_by_the_same_command(tmp_path):
    rows = [line.split() for line in run_script(EVERY_CALL, tmp_path).splitlines()]
    assert len(rows) == 9
    for calls, lives, *losses in rows:
        assert int(calls) > 0
        assert int(lives) > 0
        assert losses == ["0"] * 5


@pytest.mark.slow
@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
def test_connection_that_dies_at_a_message_ends_no_worker(tmp_path):
    script = "from benchmarks.faults import main; main()"
    options = "--every-statement --storage postgresql --at-most 3 --away 1 --output"
    assert "in all" in run_script(script, *options.split(), tmp_path)
