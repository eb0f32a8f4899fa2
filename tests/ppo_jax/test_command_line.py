"""How command lines are parsed, and how they end."""

import dataclasses
import importlib
import io
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

import ppo_jax
from ppo_jax import command_line

ROOT = Path(__file__).parents[2]

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
    stopping = "stopping; a second Ctrl-C ends at once\n" if number == signal.SIGINT else ""
    assert errors == f"\n{stopping}interrupted; go on\n"


@pytest.mark.parametrize(
    "module",
    ["ppo_jax.train", "ppo_jax.evaluate", "ppo_jax.export", "tune.run", "tune.report"],
)
def test_sigint_while_a_command_imports_is_one_line(module, tmp_path):
    script = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(600)"
    (tmp_path / "tyro.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        # With little more the compiler aborts, and with less an import never ends.
        (
            resource.RLIMIT_AS,
            3 * 2**29,
            "the address space of this process is limited to 1,610,612,736 bytes, but JAX needs "
            "at least 3,221,225,472: ulimit -v unlimited",
        ),
        (
            resource.RLIMIT_NOFILE,
            20,
            "this process may open 20 files, but needs at least 64: ulimit -n 1024",
        ),
    ],
)
def test_limits_that_leave_no_room_are_one_line(kind, limit, message):
    script = (
        f"import resource, runpy; resource.setrlimit({kind}, ({limit}, {limit}))\n"
        "runpy.run_module('tune.run', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")


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
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "stopping; a second Ctrl-C ends at once\n"
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


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


@dataclasses.dataclass(frozen=True)
class Nested:
    """Options without a prefix."""

    wide_steps: int = 3
    """How many."""
    fast: bool = True
    """Whether."""


@dataclasses.dataclass(frozen=True)
class Options(command_line.Common):
    """A command line."""

    path: tyro.conf.Positional[Path]
    """A file."""
    nested: Nested = Nested()
    """What goes together."""
    name: str = ""
    """A name."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["x", "--wide-step", "1"],
            "unrecognized option '--wide-step'; did you mean '--wide-steps'?",
        ),
        (["x", "--wide_step=1"], "unrecognized option '--wide_step'; did you mean '--wide-steps'?"),
        (["x", "--no-fats"], "unrecognized option '--no-fats'; did you mean '--no-fast'?"),
        (["x", "--nme", "1"], "unrecognized option '--nme'; did you mean '--name'?"),
        (["x", "--zzzzzzzz"], "unrecognized option '--zzzzzzzz'"),
        (["x", "y"], "unrecognized argument 'y'"),
        (["x", "--wide-steps", "one"], "Error parsing --wide-steps: 'one' is not an integer, as"),
        (["x", "--wide-steps", "1.5"], "Error parsing --wide-steps: '1.5' is not an integer, as"),
        (["x", "--elsewhere", "1"], "unrecognized option '--elsewhere': it is over there"),
        (["x", "--wide-steps"], "Missing value for argument '--wide-steps'. Expected 1 values."),
        ([], "Missing from prog: PATH A file. (required)"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_are_one_line_with_the_nearest_option(
    arguments, message, encoding, capsys, monkeypatch
):
    """Tyro draws its boxes as standard output's encoding allows."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Options, "prog", arguments, {"--elsewhere": ": it is over there"}.get)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert not set(printed.err) & set("│╭╮╰╯─|+")
    assert "---" not in printed.err


def test_options_are_parsed_and_help_is_shown(capsys):
    parsed = command_line.parse(Options, "prog", ["x", "--no-fast", "--wide_steps", "5"])
    assert parsed == Options(Path("x"), Nested(5, False))
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Options, "prog", ["--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out.partition("A command line.")[2]
    assert shown.index("nested options") < shown.index("What goes") < shown.index("--wide-steps I")


@pytest.mark.parametrize(
    ("text", "value"),
    [("200k", 200_000), ("1e6", 1_000_000), ("2M", 2_000_000), ("1.5m", 1_500_000), ("0", 0)],
)
def test_integers_may_be_written_short(text, value):
    assert (
        command_line.parse(Options, "prog", ["x", "--wide-steps", text]).nested.wide_steps == value
    )


@pytest.mark.parametrize(
    "text", ["", "k", "1.5", "1e-3", "1e", "2KM", "1e999", "nan", "٣", "..", "_"]
)
def test_other_texts_are_no_integers(text):
    with pytest.raises(ValueError, match="is not an integer"):
        command_line.parse_integer(text)


def test_version_needs_no_other_argument(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Options, "prog", ["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"ppo-jax-tune {ppo_jax.__version__}\n"


@pytest.mark.parametrize("package", ["ppo_jax", "tune"])
def test_packages_list_their_commands(package, capsys, monkeypatch):
    # Another test in this process may have imported it, of which runpy would warn.
    monkeypatch.delitem(sys.modules, f"{package}.__main__", raising=False)
    runpy.run_module(package, run_name="__main__")
    shown = capsys.readouterr().out
    for module in re.findall(r"python -m (\S+)", shown):
        assert importlib.util.find_spec(module), module
    assert len(shown.splitlines()) >= 6


def test_console_scripts_are_command_lines():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    scripts = project["project"]["scripts"]
    assert list(scripts) == [f"ppo-jax-{n}" for n in ("train", "evaluate", "tune", "report")]
    for script in scripts.values():
        module, _, function = script.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    ("main", "status"),
    [
        ("print('γ × \\udcff')", 0),
        ("command_line.fail('γ × \\udcff')", 2),
        ("from rich.console import Console; Console().print('γ × │')", 0),
    ],
)
def test_characters_that_a_terminal_lacks_do_not_end_a_command(encoding, main, status):
    done = subprocess.run(
        [sys.executable, "-c", BODY.format(main=main)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == status
    shown = done.stderr if status else done.stdout
    assert b"Traceback" not in done.stderr
    assert ("γ ×".encode() if encoding == "utf-8" else b"? ") in shown


def test_help_is_shown_by_any_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "ppo_jax.train", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_help_whose_reader_has_gone_ends_without_a_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ppo_jax.evaluate", "--help"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def test_what_orbax_reports_to_a_loop_that_is_gone_is_not_shown(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("sys.__unraisablehook__", shown.append)
    gone, other = (
        SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "other")
    )
    for unraisable in (gone, other):
        command_line._handle_unraisable(unraisable)
    assert shown == [other]


@pytest.mark.parametrize(("module", "status"), [("tune", 1), ("tune.session", 1), ("theirs", 0)])
def test_warnings_of_our_modules_are_errors_in_the_commands_that_tests_run(module, status):
    script = f"exec('import warnings; warnings.warn(str())', {{'__name__': {module!r}}})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == status
