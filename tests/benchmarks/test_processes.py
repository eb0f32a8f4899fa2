"""Child processes: modules of this repository are found, and a failure is one line."""

import os

import pytest

from benchmarks.measuring import ROOT
from benchmarks.processes import (
    ProcessError,
    error_line,
    module_command,
    module_environment,
    output_of,
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback\n  here\nValueError: no such environment\n\nsee above\n", "ValueError"),
        ("first\nlast\n\n", "last"),
        ("", "no error output"),
    ],
)
def test_the_line_that_says_why(text, line):
    assert error_line(text).startswith(line)


def test_modules_of_this_repository_come_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environment = module_environment(ANSWER="42")
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "elsewhere"]
    assert environment["ANSWER"] == "42"


def test_output_and_failure():
    assert output_of(module_command("json.tool", "--help")).startswith("usage")
    with pytest.raises(ProcessError, match="No module named no_such_module"):
        output_of(module_command("no_such_module"))
