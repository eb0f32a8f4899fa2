import dataclasses
import io
import itertools
import re

import pytest
from rich.console import Console

from ppo_jax.config import AgentConfig
from tune.analysis.bounds import BoundHit
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report.console import ConsoleProgress, print_summary
from tune.report.files import load_results
from tune.report.results import StudyResults
from tune.report.trial_table import TrialTable
from tune.search.study import run_optimization
from tune.session import run as run_session
from tune.session import train_best_config


def run(programs, tmp_path, terminal, n_trials=6, settings=None, width=250):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width)
    with ConsoleProgress(console) as progress:
        run_optimization(n_trials, settings, output=tmp_path, progress=progress, programs=programs)
    return text.getvalue()


def test_plain_lines_where_the_output_is_no_terminal(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 * min(1, hp.gamma / 0.99)
    text = run(
        programs,
        tmp_path,
        terminal=False,
        settings=Settings(sampler="random", pruner_startup_trials=1),
    )
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.startswith("trial")]
    assert len(lines) == 6
    assert "defaults" in lines[0]
    assert "50k 50.0  100k 100.0  150k 150.0  200k 200.0" in lines[0]
    assert any("pruned" in line for line in lines)
    assert all("best 125.0" in line and "left" in line for line in lines)


def test_trials_are_rows_that_fit_a_terminal_of_80_columns(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 * min(1, hp.gamma / 0.99)
    settings = Settings(sampler="random", pruner_startup_trials=1)
    text = run(programs, tmp_path, terminal=True, settings=settings, width=80)
    rows = [re.sub(r"\x1b\[.*?[A-Za-z]", "", line).rstrip() for line in text.splitlines()]
    (start,) = (i for i, row in enumerate(rows) if row.lstrip().startswith("trial    score"))
    header = rows[start].split()
    (first,) = (row.split() for row in rows[start:] if row.startswith("    0 "))
    assert header[2:] == ["lr", "γ", "λ", "ε", "vf", "ent", "norm", "steps", "batch", "ep", "time"]
    assert first[:-2] == [
        "0",
        "125.0",
        "0.0003",
        "0.99",
        "0.95",
        "0.2",
        "0.5",
        "0.01",
        "0.5",
        "2048",
        "256",
        "4",
    ]
    assert max(map(len, rows)) <= 80
    assert any("pruned" in row for row in rows[start:])


def test_wider_terminal_shows_returns_and_a_narrow_one_says_what_is_missing():
    wide, narrow = (TrialTable(SearchSpace(), width) for width in (140, 60))
    values = Configuration().to_dict()
    means = [f"{mean}.5" for mean in range(100, 130)]
    assert wide.header[-1].endswith("time  returns at checkpoints")
    row = wide.row(3, "446.7", values, 900.0, means)
    assert len(row) <= 140
    assert row.endswith("15 min  " + "  ".join(means[-8:]))
    plain = TrialTable(SearchSpace(), 80, in_ascii=True)
    (header,) = plain.header
    assert "lr gamma   lam clip" in header
    assert len(header) == len(plain.row(3, "446.7", values, 9.0, means)) <= 80
    assert "4 further columns in the report" in narrow.header[0]
    assert len(narrow.row(3, "446.7", values, 9.0, means)) <= 60


def test_status_line_names_phase_steps_and_time_left(programs, tmp_path, monkeypatch):
    """The same at any width, as far as it fits; with the encoding of the terminal."""
    monkeypatch.setattr("tune.report.console.time.monotonic", iter(range(0, 10**6, 7)).__next__)
    settings, folder = Settings(sampler="random"), StudyFolder(tmp_path)
    plan = Plan(settings, 5, "a", folder, finalists=2)
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    console = Console(file=file, force_terminal=True, width=100)
    compiling, seen = [True], []

    class Looking(ConsoleProgress):
        def look(self):
            return str(self._status().text)

        def checkpoint(self, trial, checkpoint):
            super().checkpoint(trial, checkpoint)
            seen.append(self.look())
            compiling[0] = False

        def seeds_checkpoint(self, *arguments):
            super().seeds_checkpoint(*arguments)
            seen.append(self.look())

    progress = Looking(console, plan=plan, is_compiling=lambda: compiling[0])
    assert progress.look() == "starting"
    run_session(plan, programs, progress)
    assert seen[0].startswith(
        "phase 1 of 3, trials 0 of 5 | 200k of 55.7M steps | compiling | trial"
    )
    assert re.fullmatch(r"phase 1 of 3, trials 4 of 5 \| .* left \| trial  4: .*", seen[17])
    for phase in (
        r"phase 2 of 3, finalists \| .* left \| trial 0 at 50k.*",
        r"phase 3 of 3, validation \| .* left \| baseline at 1M.*",
    ):
        assert any(re.fullmatch(phase, line) for line in seen), phase
    assert all(line.isascii() and len(line) <= 98 for line in seen)
    file.flush()
    shown = file.buffer.getvalue().decode("ascii")
    assert "4 seeds x 200,000 steps" in shown
    assert "finalist, trial 0, seeds 0-3: 1M steps, return" in shown


def test_says_what_has_finished_and_which_defaults_moved(programs, tmp_path):
    settings = Settings(space=SearchSpace.from_tables({"gamma": {"value": 0.9}}))
    moved = "uses gamma = 0.9: the search space does not hold the default 0.99"
    assert moved in run(programs, tmp_path, False, 2, settings)
    assert "continuing after 2 finished trials" in run(programs, tmp_path, False, 3, settings)


def test_diverged_seeds_are_counted(programs, tmp_path):
    programs.returns = lambda hp, step, seed: float("nan") if seed == 0 else 1.0
    assert "diverged seeds: 1" in run(programs, tmp_path, False, 1)


def summary_of(results, tmp_path):
    console = Console(record=True, file=io.StringIO(), width=200)
    print_summary(console, results, StudyFolder(tmp_path), 4.0)
    return console.export_text()


def test_summary_without_a_validation(programs, tmp_path):
    programs.returns = lambda hp, step, seed: -0.001 if hp.gamma == 0.99 else 8.0
    settings = Settings(sampler="random", pruner="none", reference_score=9.0)
    study = run_optimization(3, settings, output=tmp_path, programs=programs)
    results = load_results(study, StudyFolder(tmp_path))
    hit = BoundHit("high", 1e-3, 3e-3, 4, 5)
    analysis = dataclasses.replace(results.analysis, bounds_hit={"learning_rate": hit})
    text = summary_of(dataclasses.replace(results, analysis=analysis), tmp_path)
    rows = dict(line.split("  ", 1) for line in text.splitlines() if "  " in line)
    # As many decimals as the larger score needs, and no minus sign at a zero.
    assert rows["best on tuning seeds"].strip() == "8.00 (trial 1)"
    assert rows["baseline on tuning seeds"].strip() == "0.00"
    assert rows["reference"].strip() == "9 (best − reference -1.00)"
    assert rows["best at a bound of the space"].strip() == "learning_rate 0.001, try 0.003"
    assert rows["trials"].strip() == "3 complete, 0 pruned"
    assert "\nNot validated on fresh seeds.\n" in text
    assert text.rstrip().endswith("run the same command with --validate-steps 1M.")


def test_summary_ends_with_the_verdict(programs, tmp_path):
    programs.untrained = 5290.0
    programs.returns = lambda hp, step, seed: step / 1000 + 5000 * hp.gamma + seed / 10
    study = run_optimization(5, Settings(sampler="random"), output=tmp_path, programs=programs)
    winner = StudyRecord.of(study).best
    validation = train_best_config(
        winner.hyperparameters, 400_000, output=tmp_path, study=study, programs=programs
    )
    text = summary_of(load_results(study, StudyFolder(tmp_path)), tmp_path)
    assert f"trial {winner.number}\n" in text
    assert "optimism of the winner           +0.0, 95% interval" in text
    assert "P(winner beats baseline)         1.00, 95% interval 0.76 to 1.00" in text
    _, _, conclusion = text.rstrip().partition(validation.sentence)
    found = conclusion.splitlines()
    assert found[2] == f"Recommended: the winner, trial {winner.number}"
    shown = {row.split()[0]: row.split()[1:] for row in found[3 : found.index("", 3)]}
    assert float(shown["gamma"][0]) == pytest.approx(winner.hyperparameters.gamma, rel=1e-3)
    assert shown["gamma"][1:] == ["baseline", "0.99"]
    assert "clip_value_loss" not in shown, "it is the baseline's"
    commands = dict(itertools.pairwise(found))
    trained = commands["Train the winner:"]
    assert trained.startswith("  python -m ppo_jax.train --env CartPole-v1")
    played = commands["Play with its policy:"]
    assert played == f"  python -m ppo_jax.evaluate {tmp_path / 'policy'}"
    report = commands["Read the report, one file for any browser:"].strip()
    assert report == (tmp_path / "report.html").resolve().as_uri()


def test_the_command_that_plays_names_what_is_ones_own(programs, tmp_path):
    env, name = "examples.line_world:Line", "examples.own_network:SharedNetwork"
    settings = Settings(env=env, sampler="random", agent=AgentConfig(network=name))
    study = run_optimization(2, settings, output=tmp_path, programs=programs)
    best = StudyRecord.of(study).best.configuration(settings)
    train_best_config(
        best, 400_000, output=tmp_path, study=study, settings=settings, programs=programs
    )
    text = summary_of(load_results(study, StudyFolder(tmp_path)), tmp_path)
    assert f"ppo_jax.evaluate {tmp_path / 'policy'} --env {env} --network {name}\n" in text


def test_summary_fits_a_narrow_terminal(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 * hp.gamma + seed / 10
    study = run_optimization(2, Settings(sampler="random"), output=tmp_path, programs=programs)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=60)
    results = load_results(study, StudyFolder(tmp_path))
    print_summary(console, results, StudyFolder(tmp_path), 4.0)
    lines = shown.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines if not line.startswith("  file:")) <= 60
    assert any(line.startswith(" " * 20) for line in lines), "wrapped beside the name"


def test_recommended_baseline_has_nothing_to_list(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 + (hp.gamma == 0.99) + seed / 10
    settings = Settings(sampler="random")
    study = run_optimization(2, settings, output=tmp_path, programs=programs)
    train_best_config(
        settings.baseline, 200_000, output=tmp_path, study=study, programs=programs, seeds=4
    )
    text = summary_of(load_results(study, StudyFolder(tmp_path)), tmp_path)
    assert "Recommended: the baseline, trial 0, which the study started from\n\nTrain the" in text


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (1, "26 s in all; 80 s compiling"),
        (2, "26 s this time; 2 processes together: 160 s compiling"),
    ],
)
def test_times_of_several_processes_are_not_said_to_be_part_of_one(processes, words, tmp_path):
    log = {"programs": {"training": 1}, "seconds": 80.0}
    record = StudyRecord("mine", Settings(), [], [log] * processes)
    text = io.StringIO()
    print_summary(Console(file=text, width=250), StudyResults.of(record), StudyFolder(tmp_path), 26)
    assert words in text.getvalue()
