"""What a study says to do next can be done."""

import re
import shlex

import numpy as np
import pytest

from ppo_jax import command_line, policy, presets
from ppo_jax.versions import device_description, versions
from tune.options import Arguments
from tune.report import advice
from tune.report.results import StudyResults
from tune.search.study import open_study
from tune.session import run


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy, "save", lambda *_, **__: None)
    device = {**device_description(), "platform": "cpu"}
    monkeypatch.setattr(StudyResults, "made_with", {"versions": versions(), "device": device})


def plan_of(words):
    return command_line.parse(Arguments, "tune.run", words).plan()


def results_of(words, programs, progress):
    return run(plan_of(words), programs, progress)


def commands(words, hints):
    """Return the words of every command that `hints` name, for a study that `words` began."""
    found = []
    for hint in hints:
        if match := re.search(r"run the same command with (--.*)", hint):
            found.append([*words, *shlex.split(match[1])])
        if match := re.search(r"python -m tune\.run (--.*?)( starts|$)", hint):
            found.append(shlex.split(match[1]))
    return found


LEVELS = {
    "untrained": lambda hp, step, seed: -200.0,
    "noisy": lambda hp, step, seed: 400.0 + 20 * seed - 3 * (hp.gamma == 0.99) * seed,
}


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("noisy", "--quick"),
        ("untrained", "--trials 3"),
        ("untrained", "--trials 3 --objective tail --num-envs 8 --validate-steps 400000"),
        ("untrained", "--trials 3 --output elsewhere --study-name mine"),
        ("untrained", "--trials 3 --output elsewhere --storage journal:a.journal"),
        ("untrained", "--trials 3 --preset MountainCarContinuous-v0"),
        ("untrained", "--trials 3 --preset CartPole-v1 --space wide"),
        ("untrained", "--trials 3 --baseline preset.toml"),
        ("untrained", "--trials 3 --space space.toml"),
        ("untrained", "--trials 3 --space wide --fix hidden_sizes"),
    ],
)
def test_every_command_works_as_it_is_printed(level, words, programs, progress, tmp_path):
    (tmp_path / "space.toml").write_text("[gamma]\nvalue = 0.5\n")
    (tmp_path / "preset.toml").write_text('env = "CartPole-v1"\nhyperparameters.gamma = 0.5\n')
    programs.returns, programs.untrained = LEVELS[level], -200.0
    words = [*words.split(), "--sampler", "random", "--validate-seeds", "4"]
    results = results_of(words, programs, progress)
    hints = [*advice.before(results.settings), *advice.next_steps(results)]
    found = commands(words, hints)
    assert found
    assert sum("command" in hint or "tune.run" in hint for hint in hints) == len(found)
    for command in found:
        plan = plan_of(command)
        with open_study(
            plan.settings, plan.folder, storage=plan.storage, study_name=plan.study_name
        ) as study:
            done = len(study.get_trials())
        if "--trials" in command[len(words) :]:
            assert plan.n_trials > done


def test_a_study_of_few_trials_goes_on_with_as_many_as_are_asked_for():
    assert plan_of(["--quick"]).n_trials == 5
    assert plan_of(["--quick", "--trials", "10"]).n_trials == 10


def test_few_seeds_far_above_an_untrained_policy_have_learned(programs, progress):
    programs.untrained = 20.0
    programs.returns = lambda hp, step, seed: (
        (425.0 if hp.gamma != 0.99 else 375.0) + 90 * (seed % 2)
    )
    words = ["--seeds", "2", "--trials", "3", "--sampler", "random", "--validate-seeds", "2"]
    programs.seeds = 2
    results = results_of(words, programs, progress)
    summary = results.validation.baseline.summary
    assert summary.mean.interval[0] < 20 < 375 < summary.mean.value, "two seeds say little"
    assert not any("learned" in hint for hint in advice.next_steps(results))


@pytest.mark.parametrize(
    ("in_the_end", "said"),
    [
        ([-200.0, -200.0], "Nothing was learned: trained policies return no more than untrained "),
        ([-210.0, 900.0], "It is not clear that anything was learned: trained policies return 345"),
        ([np.nan, np.nan], "Nothing was learned: every seed diverged. Such scores"),
    ],
)
def test_what_was_learned_is_said_as_far_as_the_seeds_show_it(in_the_end, said, programs, progress):
    programs.untrained, programs.seeds = -200.0, 2
    programs.returns = lambda hp, step, seed: in_the_end[seed] if step > 200_000 else -200.0
    words = [
        "--seeds",
        "2",
        "--trials",
        "3",
        "--sampler",
        "random",
        "--pruner",
        "none",
        "--validate-seeds",
        "2",
    ]
    results = results_of(words, programs, progress)
    assert any(hint.startswith(said) for hint in advice.next_steps(results))


def test_the_preset_is_no_hint_where_the_study_starts_from_it():
    preset = presets.load("CartPole-v1")
    assert advice.before(plan_of(["--preset", preset.env]).settings) == []
    assert len(advice.before(plan_of(["--env", preset.env]).settings)) == 1
