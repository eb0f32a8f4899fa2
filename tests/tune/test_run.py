"""The command line, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_jax import command_line, policy, presets
from ppo_jax.hyperparameters import Hyperparameters
from tune.options import Arguments
from tune.protocol.settings import OBJECTIVES
from tune.search.pruners import PRUNERS
from tune.search.samplers import SAMPLERS

ROOT = Path(__file__).parents[2]

TINY = (
    *("--num-envs", "4", "--hidden-sizes", "4", "--total-steps", "1024", "--eval-every", "512"),
    *("--eval-episodes", "2", "--seeds", "2", "--finalists", "2"),
    *("--validate-steps", "2048", "--validate-seeds", "4"),
)


def states(folder):
    return [trial["state"] for trial in json.loads((folder / "all_trials.json").read_text())]


def verdict(output):
    """Return the line of the terminal that holds the verdict."""
    outcomes = ("Improved:", "Equivalent:", "Inconclusive:", "Worse:", "No trial beat")
    (line,) = (line for line in output.splitlines() if line.startswith(outcomes))
    return line


def test_small_study_from_start_to_end(command, tmp_path):
    output = tmp_path / "a study with späces"
    done = command("tune.run", "--trials", 3, "--output", output, *TINY)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("trial ") for line in done.stdout.splitlines()) == 3
    last = verdict(done.stdout)
    assert "97% interval" in last or last.startswith("No trial beat the baseline")
    results = json.loads((output / "optimization_results.json").read_text())
    assert results["programs_compiled"] == {"evaluation": 1, "initialisation": 1, "training": 1}
    assert results["verdict"] == last
    assert len(states(output)) == 3
    observation = [0.0, 0.0, 0.1, 0.0]
    assert policy.load(output / "policy").act(observation) in (0, 1)
    names = {path.name for path in output.iterdir()}
    recommended = json.loads((output / "recommended.json").read_text())
    assert recommended["why"] == last
    films = {"baseline.gif"}
    if recommended["configuration"] == "winner":
        names.remove("policy_baseline")
        films.add("winner.gif")
    assert {path.name for path in (output / "films").iterdir()} == films
    assert names == {
        ".lock",
        "all_trials.json",
        "config.json",
        "films",
        "optimization_results.json",
        "optimization_results.png",
        "policy",
        "recommended.json",
        "report.html",
        "finalists.json",
        "study.db",
        "validation.json",
        "validation.png",
    }


@pytest.mark.slow
def test_the_same_command_says_the_same_and_gives_the_same_scores_elsewhere(
    command, in_process, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    done = in_process("tune.run", "--trials", 4, "--output", output, *TINY)
    assert done.returncode == 0, done.stderr
    last = verdict(done.stdout)
    results = json.loads((output / "optimization_results.json").read_text())
    validation = (output / "validation.json").read_text()

    # Nothing is left to do.
    again = in_process("tune.run", "--trials", 4, "--output", output, *TINY)
    assert again.returncode == 0, again.stderr
    assert verdict(again.stdout) == last
    assert (output / "validation.json").read_text() == validation
    after = json.loads((output / "optimization_results.json").read_text())
    assert after["programs_compiled"] == results["programs_compiled"]

    # On a terminal whose encoding has no γ and no ×.
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    twin = ("--output", tmp_path / "twin", *TINY)
    plain = command("tune.run", "--trials", 4, *twin, encoding="ascii")
    assert plain.returncode == 0, plain.stderr
    assert "?" not in plain.stdout
    assert "| lr" in plain.stdout
    assert " gamma 0.9" in plain.stdout, "its encoding has no γ"
    assert (tmp_path / "twin" / "report.html").exists()
    scores = [
        [trial["per_seed_returns"] for trial in json.loads((o / "all_trials.json").read_text())]
        for o in (output, tmp_path / "twin")
    ]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_study_side_by_side_from_start_to_end_and_once_more_after_a_kill(in_process, tmp_path):
    """Finalists and validation too, and the same numbers with and without the kill."""
    tiny = (*TINY, "--pruner-startup-trials", 1)
    arguments = ("tune.run", "--trials", 12, "--lanes", 4, *tiny)
    whole = in_process(*arguments, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments), "--output", str(killed)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    finished = 0
    for line in process.stdout:
        finished += line.startswith("trial ")
        if finished == 6:
            break
    process.kill()
    process.communicate()
    done = in_process(*arguments, "--output", killed)
    assert done.returncode == 0, done.stderr
    assert verdict(done.stdout) == verdict(whole.stdout)
    results = json.loads((tmp_path / "whole" / "optimization_results.json").read_text())
    assert results["programs_compiled"]["lanes"] == 1

    def outcome(folder):
        trials = json.loads((folder / "all_trials.json").read_text())
        validation = json.loads((folder / "validation.json").read_text())
        return (
            [(t["state"], t["params"], t["value"], t["per_seed_returns"]) for t in trials],
            [validation[role]["returns"] for role in ("winner", "baseline")],
        )

    assert outcome(killed) == outcome(tmp_path / "whole")
    assert len(states(killed)) == 12


def cpu_seconds(pid):
    """Return what a process has computed, which no other process changes."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_signal_ends_cleanly_in_the_middle_of_a_program(tmp_path, wait_until, number, status):
    """Of one that would run for an hour, which is longer than a test may."""
    cache, output = tmp_path / "cache", tmp_path / "out"
    arguments = [sys.executable, "-m", "tune.run", "--output", str(output), *TINY]
    arguments += ["--total-steps", "2000000000", "--eval-every", "2000000000"]
    process = subprocess.Popen(
        arguments,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # It compiles faster.
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    programs = ("*training*", "*evaluation*", "*initialisation*")
    wait_until(lambda: all(any(cache.glob(name)) for name in programs), process)
    compiled = cpu_seconds(process.pid)
    wait_until(lambda: cpu_seconds(process.pid) > compiled + 1, process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == status
    *before, last = errors.strip().splitlines()
    assert last == "interrupted; finished trials are kept, the same command continues"
    assert len(before) == (number == signal.SIGINT), "it is acknowledged at once"
    assert states(output) == ["running"]
    assert (output / "report.html").exists()
    hidden = [path.name for path in output.iterdir() if path.name.startswith(".")]
    assert hidden == [".lock"], "no temporary file is left"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "CartPol-v1"], "unknown environment 'CartPol-v1'; did you mean 'CartPole-v1'"),
        (["--env", "MNISTBandit-bsuite"], "it downloads"),
        (["--trials", "0"], "--trials must be an integer of at least 1, but got 0"),
        (["--trials", "-3"], "--trials must be an integer of at least 1, but got -3"),
        (["--trials", "many"], "'many'"),
        (["--trails", "3"], "did you mean '--trials'?"),
        (
            ["--learning-rate", "1e-3"],
            "'--learning-rate': learning_rate is tuned; a file of",
        ),
        (["--no-clip-value-loss"], "of --space FILE.toml fixes or tunes clip_value_loss"),
        (["--fix", "gama"], "but got 'gama'; did you mean 'gamma'?"),
        (["--sampler", "tpee"], "but got 'tpee'; did you mean 'tpe'?"),
        (["--pruner", "medain"], "but got 'medain'; did you mean 'median'?"),
        (["--seeds", "0"], "seeds"),
        (["--env-kwargs", "max_steps"], "name=value"),
        (["--env-kwargs", "max_step_in_episode=5"], "did you mean 'max_steps_in_episode'"),
        (["--storage", "nosuchdb://x"], "cannot open the storage nosuchdb"),
        (["--validate-steps", "-1"], "--validate-steps"),
        (["--validate-seeds", "0"], "--validate-seeds must be an integer of at least 1"),
        (["--finalists", "-1"], "--finalists must be an integer of at least 0, but got -1"),
        (["--finalists", "9", "--trials", "8"], "--finalists must be at most the number of trials"),
    ],
)
def test_mistakes_give_one_line_and_status_2(refusal, tmp_path, arguments, message):
    assert message in refusal("tune.run", *arguments, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fixed_parameter_keeps_what_the_study_starts_from():
    options = "--preset Breakout-MinAtar --space wide --fix hidden_sizes gamma --hidden-sizes 32 32"
    settings = command_line.parse(Arguments, "tune.run", options.split()).settings()
    assert not {"hidden_sizes", "gamma"} & set(dict(settings.space.tuned))
    assert {agent.hidden_sizes for agent in settings.space.agents()} == {(32, 32)}
    preset = presets.load("Breakout-MinAtar").hyperparameters
    assert settings.baseline.hyperparameters.gamma == preset.gamma != Hyperparameters().gamma


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("[learning_rat]\nvalue = 1e-3", "did you mean 'learning_rate'"),
        ("[gamma]\nlow = 0.99\nhigh = 0.9", "low must be below high"),
        ("[batch_size]\nchoices = [8192]", "batch_size=8192"),
        ("not toml", "space.toml: Expected '=' after a key"),
    ],
)
def test_mistakes_in_a_space_give_one_line_and_status_2(refusal, tmp_path, space, message):
    (tmp_path / "space.toml").write_text(space)
    output = tmp_path / "out"
    assert message in refusal("tune.run", "--space", tmp_path / "space.toml", "--output", output)
    assert not output.exists()


def test_output_that_cannot_be_written_is_refused(refusal, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "output folder" in refusal("tune.run", "--output", tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_signals_are_heeded_before_anything_slow_is_imported():
    """Ctrl-C in the first second ends with a line, not a traceback."""
    command = "import sys, tune.run; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert not {"jax", "optuna", "scipy"} & set(done.stdout.split())


def test_help_names_every_option_without_starting_a_backend(command):
    done = command("tune.run", "--help")
    assert done.returncode == 0
    for option in ("--env", "--reference-score", "--pruner-warmup-checkpoints", "--quick"):
        assert option in done.stdout
    for choices in (OBJECTIVES, SAMPLERS, PRUNERS):
        assert "{" + ",".join(choices) + "}" in done.stdout


AS_ON_MACOS = """
import builtins, io, os

for name in ("sched_getaffinity", "sched_setaffinity"):
    delattr(os, name)

# Packages that know Linux by its name look their libraries up in it.
ALLOWED = "/proc/self/maps"

def without_proc(call):
    def missing(path, *args, **kwargs):
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if str(name).startswith("/proc") and name != ALLOWED:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return call(path, *args, **kwargs)
    return missing

builtins.open = io.open = without_proc(io.open)
os.readlink = without_proc(os.readlink)
"""
"""Run at the start of every process: what macOS does not have is taken away."""


@pytest.mark.slow
def test_study_with_workers_and_its_report_need_nothing_that_macos_lacks(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(AS_ON_MACOS)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    output = str(tmp_path / "study")
    for arguments in (
        ["tune.run", "--trials", "3", "--workers", "2", "--tensorboard", "--output", output, *TINY],
        ["tune.report", output],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert states(tmp_path / "study").count("complete") >= 1
    runs = {path.name for path in (tmp_path / "study" / "tensorboard").iterdir()}
    assert {"trial_000", "trial_001", "trial_002"} <= runs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 513, "at most 512 characters"),
        ("\udcff", "must be valid Unicode"),
    ],
)
def test_study_names_that_no_storage_takes_are_refused(
    refusal, tmp_path, monkeypatch, name, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refusal("tune.run", "--study-name", name)
    assert not any(tmp_path.iterdir())
