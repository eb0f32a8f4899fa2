"""Child processes of the benchmarks: their command, their environment, why one failed.

What the processes are told and answer is in the benchmark that starts them.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.measuring import ROOT


class ProcessError(Exception):
    """A process that could not do its work; the message is one line."""


def module_command(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of this repository."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def module_environment(**changes: str) -> dict[str, str]:
    """Return the environment in which modules of this repository are found."""
    folders = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), **changes}


def output_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run `command` to its end and return what it prints.

    Raises:
      ProcessError: when it fails, with the line of its error output that says why.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise ProcessError(error_line(done.stderr))
    return done.stdout


def error_line(text: str) -> str:
    """Return the last line of an error output that names an error, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no error output"])[-1]
