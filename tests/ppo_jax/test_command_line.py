"""What ends a command line, and how."""

import signal
import subprocess
import sys

import pytest

BODY = """
import gc, os, sys, threading, time
from pathlib import Path
from ppo_jax import command_line

def sleep():
    time.sleep(600)
    print("slept", flush=True)

def main():
    {main}

command_line.run(main, "; go on")
"""


def start(main):
    return subprocess.Popen(
        [sys.executable, "-c", BODY.format(main=main)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "main",
    [
        "print('ready', flush=True); sleep()",
        # In a callback of the garbage collector an exception is ignored.
        "gc.callbacks.append(lambda *_: (print('ready', flush=True), time.sleep(1)));"
        " gc.collect(); gc.callbacks.clear(); sleep()",
        # A program that cannot be stopped is not waited for.
        "threading.Thread(target=sleep).start(); print('ready', flush=True); sleep()",
    ],
)
def test_signals_end_with_one_line_and_their_status(main, number, status):
    process = start(main)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate()
    assert "slept" not in output, "the signal was not heeded"
    assert process.returncode == status
    assert errors == "\ninterrupted; go on\n"


def test_second_sigint_ends_at_once():
    process = start("""
    try:
        print('ready', flush=True)
        sleep()
    finally:
        print('cleaning', flush=True)
        sleep()
""")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("raise OSError(28, 'No space left on device', '/a/b')", "/a/b: No space left on device"),
        ("(Path('/nowhere') / 'x').write_text('')", "/nowhere/x: No such file or directory"),
    ],
)
def test_disk_that_fails_is_told_in_one_line(main, message):
    process = start(main)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == f"error: {message}; go on\n"


@pytest.mark.parametrize("kind", ["jax.errors.JaxRuntimeError", "MemoryError"])
def test_too_little_memory_is_told_in_one_line(kind):
    process = start(f"import jax; raise {kind}('RESOURCE_EXHAUSTED: 12 bytes.\\ntrace')")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("error: not enough memory (RESOURCE_EXHAUSTED: 12 bytes.); fewer")
    assert errors.count("\n") == 1
