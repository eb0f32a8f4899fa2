import dataclasses
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optuna
import pytest

from ppo_jax import command_line, policy
from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.files import read_json, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.train import Arguments
from ppo_jax.versions import device_description, versions
from tune import session
from tune.evidence.finalists import choose_finalists, train_finalists
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report import advice
from tune.report.files import save_optimization_results
from tune.report.results import StudyResults
from tune.search.objective import objective
from tune.search.study import run_optimization
from tune.session import run_study, train_best_config


@pytest.fixture(autouse=True)
def saved_policies(monkeypatch):
    """Policies are networks; these programs have none, so keep what would be saved."""
    saved = []
    monkeypatch.setattr(
        policy, "save", lambda folder, config, params, **extra: saved.append((params, extra))
    )
    return saved


@pytest.fixture
def plan(tmp_path):
    """A session of six trials, whose scores grow with gamma alone."""
    settings = Settings(sampler="random", pruner="none")
    return Plan(settings, 6, "CartPole-v1", StudyFolder(tmp_path), validate_steps=300_000)


def test_a_validation_has_seeds_of_its_own(programs, plan, progress):
    """What the winner is proved on, neither trials nor finalists have seen."""
    seen = {"tuning": set(), "finalists": set(), "validation": set()}
    run = programs.run

    def record(keys, *rest):
        lines = [arguments[0] for name, arguments in progress.events if name == "line"]
        purpose = lines[-1].partition(":")[0] if lines else "tuning"
        seen[purpose] |= {tuple(key) for key in jax.random.key_data(keys).tolist()}
        return run(keys, *rest)

    programs.run = record
    session.run(plan, programs, progress)
    assert seen["finalists"] == seen["tuning"]
    assert [len(keys) for keys in seen.values()] == [4, 4, 8], "the first look settles it"
    assert not seen["validation"] & seen["tuning"]


def test_the_best_finalist_is_validated_and_recommended(programs, plan, progress):
    """After the steps of a trial the order turns round: the validated one did best at the end."""
    phase = []
    programs.untrained = -1000.0
    programs.returns = lambda hp, step, seed: 1000 * hp.gamma * (-1 if phase else 1) + seed
    line = progress.line

    def turn(text):
        phase.append(text)
        line(text)

    progress.line = turn
    session.run(plan, programs, progress)
    study = StudyRecord.of(
        optuna.load_study(study_name="CartPole-v1", storage=plan.folder.default_storage())
    )
    candidates = choose_finalists(study, 3)
    winner = min(candidates, key=lambda candidate: candidate.hyperparameters.gamma)
    assert winner.number != study.best.number
    found = {
        path.name: json.loads(path.read_text())
        for path in (plan.folder.finalists, plan.folder.validation, plan.folder.recommended)
    }
    assert found["finalists.json"]["winner"] == winner.number
    assert found["validation.json"]["trial"] == winner.number
    better = winner.hyperparameters.gamma < study.trials[0].hyperparameters.gamma
    assert found["validation.json"]["recommended"] == ("winner" if better else "baseline")
    assert better, "the seed of this study draws a gamma below the default's"
    assert found["recommended.json"]["hyperparameters"] == winner.hyperparameters.to_dict()
    assert found["recommended.json"]["trial"] == winner.number


def test_an_interruption_keeps_the_verdict_of_an_earlier_session(programs, plan, progress):
    session.run(plan, programs, progress)
    before = json.loads(plan.folder.results.read_text())
    assert before["verdict"] is not None
    run = programs.run

    def stop(*_):
        raise KeyboardInterrupt

    programs.run = stop
    with pytest.raises(KeyboardInterrupt):
        session.run(dataclasses.replace(plan, n_trials=7), programs, progress)
    programs.run = run
    after = json.loads(plan.folder.results.read_text())
    assert after["n_trials"]["running"] == 1
    assert after["verdict"] == before["verdict"]
    assert after["analysis"]["importances"] == {}


def test_improved(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: 400.0 + 50 * (hp.gamma == 0.98) + seed
    result = train_best_config({"gamma": 0.98}, 300_000, output=tmp_path, programs=programs)
    assert result.sentence.startswith("Improved: the winner reaches 45")
    assert result.verdict.level.difference.value == result.verdict.speed.difference.value == 50.0
    assert result.winner.validated.returns.shape == (6, 8)
    data = json.loads((tmp_path / "validation.json").read_text())
    assert data["verdict"] == result.sentence
    assert data["recommended"] == "winner"
    assert data["short_training_misled"] is False
    assert np.shape(data["winner"]["returns"]) == np.shape(data["baseline"]["returns"]) == (6, 8)
    assert data["steps"] == [50_000 * i for i in range(1, 7)]
    assert (tmp_path / "validation.png").exists()
    (weights, extra), (_, other) = saved_policies
    assert extra["hyperparameters"]["gamma"] == 0.98
    assert other["hyperparameters"]["gamma"] == 0.99
    assert weights.params["params"]["kernel"] == extra["training"]["seed"] % programs.seeds


def test_worse_and_equivalent(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 400.0 - 50 * (hp.gamma == 0.98) + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path / "a", programs=programs)
    assert result.sentence.startswith("Worse: ")
    assert result.sentence.endswith(". Keep the baseline.")
    assert result.verdict.recommended is result.baseline
    programs.returns = lambda hp, step, seed: 400.0 + seed
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path / "b", programs=programs)
    assert result.sentence.startswith("Equivalent: ")
    assert result.verdict.recommended is result.baseline


def test_as_many_seeds_are_trained_as_the_answer_needs(programs, tmp_path):
    spread = np.random.default_rng(0).normal(0, 30, (3, 4))

    def returns(hp, step, seed):
        group = len(programs.runs) % 5 % 3  # Further groups of seeds differ from the first.
        return 400.0 + spread[group, seed] + 10 * (hp.gamma == 0.98)

    programs.returns = returns
    result = train_best_config({"gamma": 0.98}, 100_000, output=tmp_path, programs=programs)
    assert result.verdict.outcome == "inconclusive"
    assert [len(keys) for keys, _, _ in programs.runs] == [4] * 10
    order = [hyperparameters.gamma for _, hyperparameters, _ in programs.runs]
    assert order == [0.98, 0.98, 0.99, 0.99, 0.98, 0.99, 0.98, 0.98, 0.99, 0.99]
    keys = {tuple(key) for keys, _, _ in programs.runs for key in keys}
    assert len(keys) == 20, "both configurations share their seeds"
    data = json.loads((tmp_path / "validation.json").read_text())
    assert (data["looks"], data["seeds_trained"]) == ([8, 12, 20], 20)


def test_further_validations_in_a_folder_are_counted(programs, tmp_path):
    def repetition(gamma, **kwargs):
        train_best_config({"gamma": gamma}, 100_000, output=tmp_path, programs=programs, **kwargs)
        return json.loads((tmp_path / "validation.json").read_text())["repetition"]

    assert [repetition(gamma) for gamma in (0.98, 0.98, 0.97, 0.97, 0.98)] == [1, 1, 2, 2, 3]
    assert repetition(0.98, seeds=40) == 4


def test_another_winner_has_other_seeds(programs, tmp_path):
    seen = []
    for gamma in (0.98, 0.97, 0.98):
        programs.runs.clear()
        train_best_config({"gamma": gamma}, 100_000, output=tmp_path, programs=programs)
        seen.append({tuple(key) for keys, _, _ in programs.runs for key in keys})
    assert not seen[0] & seen[1]
    assert seen[0] == seen[2]


def test_more_seeds_go_on_from_those_that_are_known(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 400 + (50 * seed + 10 * (hp.gamma == 0.98)) % 70
    first = train_best_config(
        {"gamma": 0.98}, 100_000, seeds=20, output=tmp_path, programs=programs
    )
    known = first.winner.validated
    assert known.seeds == 20
    programs.runs.clear()
    more = train_best_config({"gamma": 0.98}, 100_000, seeds=45, output=tmp_path, programs=programs)
    trained = [len(keys) for keys, _, _ in programs.runs]
    assert sum(trained[:-1]) == 2 * (more.verdict.seeds - 20)
    assert trained[-1] == 4, "for the policy: its seed was trained by the first call"
    np.testing.assert_array_equal(more.winner.validated.returns[:, :20], known.returns)


def test_optimism_compares_the_same_configuration_at_equal_steps(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 + 1000 * hp.gamma + seed
    settings = Settings(sampler="random", pruner="none")
    study = run_optimization(6, settings, output=tmp_path, programs=programs)
    programs.returns = lambda hp, step, seed: step / 1000 + 1000 * hp.gamma + seed - 20
    record = StudyRecord.of(study)
    finalists = train_finalists(record, programs, StudyFolder(tmp_path), 400_000, 2)
    programs.returns = lambda hp, step, seed: step / 1000 + 1000 * hp.gamma + seed - 50
    params = finalists.winner.hyperparameters
    result = train_best_config(
        params,
        400_000,
        seeds=4,
        output=tmp_path,
        study=study,
        finalists=finalists,
        programs=programs,
    )
    assert result.winner.number == finalists.winner.number == record.best.number
    for known in (result.winner, result.baseline):
        gamma = known.hyperparameters.gamma
        score = np.mean([50, 100, 150, 200]) + 1000 * gamma + np.arange(4)
        np.testing.assert_allclose(known.scores["tuning"], score)
        np.testing.assert_allclose(known.scores["validation"], score - 50)
        assert known.optimism.value == pytest.approx(50.0)
        assert known.optimism.interval[0] < 50.0 < known.optimism.interval[1]
    assert result.winner.scores["tuning"].mean() == pytest.approx(record.best.score)


def test_recommended_configuration_trains_as_it_says(programs, tmp_path):
    space = SearchSpace.from_tables(
        {"gae_lambda": {"value": 0.9}, "clip_value_loss": {"choices": [True, False]}}
    )
    agent = AgentConfig(num_envs=8, hidden_sizes=(32, 16), normalize_observations=True)
    settings = Settings(
        env="Acrobot-v1", env_kwargs=(("max_steps_in_episode", 400),), agent=agent, space=space
    )
    for better, source in ((50, "winner"), (-50, "baseline")):
        programs.returns = lambda hp, step, seed: (
            better * (not hp.clip_value_loss) + seed  # noqa: B023
        )
        params = {"learning_rate": 7.5e-4, "clip_value_loss": False, "n_steps": 1024}
        train_best_config(
            params, 200_000, settings=settings, output=tmp_path / source, programs=programs
        )
        path = tmp_path / source / "recommended.json"
        data = json.loads(path.read_text())
        assert data["configuration"] == source
        assert data["environment"] == {
            "name": "Acrobot-v1",
            "kwargs": {"max_steps_in_episode": 400},
        }
        assert data["hyperparameters"]["gae_lambda"] == 0.9

        programs.runs.clear()
        train_best_config(path, 200_000, output=tmp_path / f"{source} again", programs=programs)
        trained = programs.runs[0][1].to_dict()
        assert trained == data["hyperparameters"]
        assert (trained["learning_rate"] == 7.5e-4) == (source != "baseline")

        python, _, module, *words = shlex.split(data["how_to_train"]["command"])
        assert (python, module) == ("python", "ppo_jax.train")
        arguments = command_line.parse(Arguments, module, words)
        assert arguments.hyperparameters.to_dict() == trained
        assert arguments.agent == agent == AgentConfig.from_dict(data["agent"])
        assert (arguments.env, arguments.total_steps) == ("Acrobot-v1", 200_000)
        assert command_line.parse_env_kwargs(arguments.env_kwargs) == settings.env_kwargs


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"hyperparameters": {}, "settings": {}}'])
def test_other_files_are_no_recommendation(programs, tmp_path, text):
    (tmp_path / "recommended.json").write_text(text)
    with pytest.raises(UserError, match=r"recommended\.json"):
        train_best_config(tmp_path / "recommended.json", output=tmp_path / "out", programs=programs)
    assert not (tmp_path / "out").exists()


def test_code_that_a_recommendation_names_is_not_run_unless_asked_for(programs, tmp_path):
    settings = Settings(env="theirs:make")
    path = tmp_path / "recommended.json"
    hyperparameters = Hyperparameters().to_dict()
    path.write_text(
        json.dumps({"hyperparameters": hyperparameters, "settings": settings.to_dict()})
    )
    with pytest.raises(UserError, match=r"'theirs:make', whose code .* pass settings="):
        train_best_config(path, output=tmp_path / "out", programs=programs)
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("settings", settings.to_dict())
    for call in (
        lambda: train_best_config({}, output=tmp_path / "out", study=study, programs=programs),
        lambda: objective(study.ask(), programs=programs),
    ):
        with pytest.raises(UserError, match="whose code would be imported"):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("objective", "case"),
    [
        *(("mean", case) for case in ("noisy", "diverged", "equal", "one seed")),
        ("final", "noisy"),
        ("tail", "noisy"),
    ],
)
def test_an_outside_script_reproduces_every_statistic(
    programs, tmp_path, monkeypatch, capsys, objective, case
):
    rng = np.random.default_rng(0)
    programs.returns = {
        "noisy": lambda hp, step, seed: min(500.0, step / 600 + rng.normal(0, 30)),
        "diverged": lambda hp, step, seed: np.nan if rng.random() < 0.1 else rng.normal(),
        "equal": lambda hp, step, seed: 500.0,
        "one seed": lambda hp, step, seed: rng.normal(),
    }[case]
    settings = Settings(objective=objective, sampler="random", pruner="none")
    study = run_optimization(4, settings, output=tmp_path, programs=programs)
    seeds = 1 if case == "one seed" else 7
    record = StudyRecord.of(study)
    finalists = train_finalists(record, programs, StudyFolder(tmp_path), 300_000, 2)
    params = study.trials[1].user_attrs["hyperparameters"]
    train_best_config(
        params,
        300_000,
        seeds=seeds,
        output=tmp_path,
        study=study,
        finalists=finalists,
        programs=programs,
    )
    script, path = (
        Path(__file__).parent / "evidence" / "reproduce_statistics.py",
        tmp_path / "validation.json",
    )

    def reproduce():
        monkeypatch.setattr(sys, "argv", [str(script), str(path)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(script))
        return int(stop.value.code), capsys.readouterr().out

    status, printed = reproduce()
    assert status == 0, printed
    assert printed.splitlines()[-1] == "every figure is reproduced"
    assert printed.count("\n") > (10 if case == "one seed" else 30)
    if case == "noisy" and objective == "mean":
        done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
        data = json.loads(path.read_text())
        data["winner"]["returns"][-1][0] += 1.0
        path.write_text(json.dumps(data))
        assert reproduce()[0] == 1


def test_winner_that_is_the_baseline_is_trained_once(programs, tmp_path):
    result = train_best_config({}, 100_000, output=tmp_path, seeds=4, programs=programs)
    assert result.verdict.is_baseline
    assert len(programs.runs) == 1
    assert result.sentence.startswith("No trial beat the baseline, which reaches")


def test_diverged_seeds_are_reported_and_left_out(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: np.nan if seed == 1 else 100.0 + seed
    result = train_best_config(
        {"gamma": 0.98}, 100_000, output=tmp_path, seeds=4, programs=programs
    )
    data = json.loads((tmp_path / "validation.json").read_text())
    assert data["winner"]["diverged_seeds"] == [1]
    assert data["winner"]["returns"][0] == [100.0, None, 102.0, 103.0]
    assert result.winner.summary.seeds == 3
    assert saved_policies[0][1]["training"]["seed"] == 3


def test_all_seeds_diverged_gives_a_verdict_and_no_policy(programs, tmp_path, saved_policies):
    programs.returns = lambda hp, step, seed: np.nan if hp.gamma == 0.98 else 1.0 + seed
    result = train_best_config(
        {"gamma": 0.98}, 100_000, output=tmp_path, seeds=4, programs=programs
    )
    assert result.sentence.startswith("Worse: every seed of the winner diverged")
    ((_, extra),) = saved_policies
    assert extra["hyperparameters"]["gamma"] == 0.99, "the policy is the recommended one's"


def test_groups_of_seeds_fill_the_lanes_of_the_study(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 400.0 + 50 * (hp.gamma == 0.98) + seed
    train_best_config({"gamma": 0.98}, 100_000, output=tmp_path, seeds=14, programs=programs)
    assert [len(keys) for keys, _, _ in programs.runs] == [4, 2] * 2
    keys = [tuple(key) for keys, _, _ in programs.runs[:2] for key in keys]
    assert len(set(keys)) == 6


def test_takes_the_best_params_of_saved_results(programs, tmp_path):
    study = run_optimization(5, output=tmp_path, programs=programs)
    save_optimization_results(study, tmp_path)
    params = json.loads((tmp_path / "optimization_results.json").read_text())["best_params"]
    result = train_best_config(params, 100_000, output=tmp_path / "again", programs=programs)
    assert result.winner.hyperparameters.to_dict() == params


def test_results_of_a_study_are_not_overwritten(programs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(sampler="random")
    results = run_study(3, settings, validate_seeds=4, programs=programs)
    folder = tmp_path / "runs" / "CartPole-v1"
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    path = folder / "recommended.json"
    again = train_best_config(path, 100_000, seeds=4, programs=programs)
    assert (tmp_path / "runs/CartPole-v1-validation/validation.json").exists()
    assert again.winner.configuration == results.recommendation.candidate.configuration
    with pytest.raises(UserError, match="holds the study 'CartPole-v1', whose results a valida"):
        train_best_config(path, 100_000, seeds=4, output=folder, programs=programs)
    other = optuna.create_study(study_name="other", direction="maximize")
    with pytest.raises(UserError, match="holds the study 'CartPole-v1', but got 'other'"):
        train_best_config({}, 100_000, output=folder, study=other, programs=programs)
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before
    study = optuna.load_study(
        study_name="CartPole-v1", storage=StudyFolder(folder).default_storage()
    )
    with StudyFolder(folder).held(shared=False), pytest.raises(UserError, match="another process"):
        train_best_config(path, 100_000, seeds=4, study=study, programs=programs)
    train_best_config(path, 100_000, seeds=4, study=study, programs=programs)
    assert read_json(folder / "validation.json")["steps"] == [50_000, 100_000]


def test_what_is_known_is_not_trained_again(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        policy,
        "save",
        lambda folder, config, params, **extra: (
            folder.mkdir(exist_ok=True),
            write_json(folder / "policy.json", extra | {"agent": config.agent.to_dict()}),
        ),
    )
    monkeypatch.setattr(
        policy,
        "load",
        lambda folder, network: SimpleNamespace(
            description=read_json(folder / "policy.json"), write_card=lambda folder: None
        ),
    )

    def trained(gamma, steps=100_000, **kwargs):
        programs.runs.clear()
        found = train_best_config(
            {"gamma": gamma}, steps, output=tmp_path, **kwargs, programs=programs
        )
        return [hyperparameters.gamma for _, hyperparameters, _ in programs.runs], found

    runs, first = trained(0.98, seeds=4)
    assert runs == [0.98, 0.99]
    runs, again = trained(0.98, seeds=4)
    assert runs == []
    assert again.sentence == first.sentence
    assert trained(0.97, seeds=4)[0] == [0.97, 0.99], "another winner has seeds of its own"
    assert trained(0.97, seeds=5)[0] == [0.97, 0.99, 0.99], (
        "four of five are known; the policy is now the best of five"
    )
    assert trained(0.97, 200_000, seeds=4)[0] == [0.97, 0.99]
    assert trained(0.97, 200_000, seeds=4, settings=Settings(seed=1))[0] == [0.97, 0.99]
    (tmp_path / "policy" / "policy.json").unlink()
    runs, found = trained(0.97, 200_000, seeds=4, settings=Settings(seed=1))
    assert runs == [found.verdict.recommended.hyperparameters.gamma]
    (tmp_path / "validation.json").write_text("{")
    assert trained(0.97, 200_000, seeds=4, settings=Settings(seed=1))[0] == [0.97, 0.99]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"gama": 0.9}}, "did you mean 'gamma'"),
        ({"params": {"gamma": 2.0}}, "gamma must be"),
        ({"params": 3}, "params must be a mapping or a path, but got 3"),
        ({"params": {}, "settings": {}}, "settings must be tune.Settings, but got {}"),
        ({"params": {}, "num_steps": 0}, "num_steps"),
        ({"params": {}, "num_steps": "1M"}, "num_steps must be an integer .* but got '1M'"),
        ({"params": {}, "seeds": 0}, "seeds"),
        ({"params": {"batch_size": 300}}, "batch_size"),
    ],
)
def test_mistakes_are_named_before_anything_is_created(programs, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        train_best_config(**arguments, output=tmp_path / "out", programs=programs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop_at", [1, 2, 3, 6, 7, 8])
def test_interrupted_validation_is_the_uninterrupted_one(
    programs, tmp_path, monkeypatch, saved_policies, stop_at
):
    """Two groups of seeds with three checkpoints each, for the winner and for the default."""
    monkeypatch.setattr("ppo_jax.training_state.SECONDS_BETWEEN_SAVES", 0.0)
    programs.returns = lambda hp, step, seed: 100 * hp.gamma + seed + step / 1e6
    request = ({"gamma": 0.98}, 150_000)
    whole = train_best_config(*request, seeds=6, output=tmp_path / "whole", programs=programs)
    told = []

    def stop(name, first, after, step, returns):
        told.append((name, first, step))
        if len(told) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_best_config(
            *request, seeds=6, output=tmp_path / "o", observer=stop, programs=programs
        )
    assert (tmp_path / "o" / "training_state").exists()
    again = train_best_config(
        *request, seeds=6, output=tmp_path / "o", observer=stop, programs=programs
    )
    assert len(set(told)) == len(told) == 12
    for one, other in ((again.winner, whole.winner), (again.baseline, whole.baseline)):
        np.testing.assert_array_equal(one.validated.returns, other.validated.returns)
        assert one.validated.environment_steps == other.validated.environment_steps
    assert saved_policies[0] == saved_policies[-1]
    assert not (tmp_path / "o" / "training_state").exists()


def test_training_state_of_another_question_is_not_used(programs, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_best_config(
            {"gamma": 0.98}, 100_000, seeds=2, output=tmp_path, observer=stop, programs=programs
        )
    train_best_config({"gamma": 0.97}, 100_000, seeds=2, output=tmp_path, programs=programs)
    assert [len(steps) for _, _, steps in programs.runs] == [2, 2, 2]
    assert not (tmp_path / "training_state").exists()


def test_run_study_goes_the_way_of_the_command_line(programs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(policy, "save", lambda *_, **__: None)
    monkeypatch.setenv("FORCE_COLOR", "1")  # As the kernel of a notebook does.
    results = run_study(6, output=tmp_path, validate_seeds=4, programs=programs, progress=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0].startswith("study 'CartPole-v1': CartPole-v1, 6 trials of 4 seeds")
    assert any(line.startswith("validation: ") for line in lines)
    chosen = [str(found.number) for found in choose_finalists(results.study, 3)[:-1]]
    finalists = f"finalists: trials {', '.join(chosen)} and the baseline on 4 tuning seeds ×"
    assert any(line.startswith(finalists) for line in lines)
    stored = read_json(tmp_path / "recommended.json")
    recommended = results.recommendation
    assert stored["how_to_train"]["command"] == recommended.command
    assert stored["hyperparameters"] == recommended.candidate.hyperparameters.to_dict()
    assert results.finalists is not None
    with pytest.raises(UserError, match="finalists must be an integer of at least 0, but got -1"):
        run_study(2, output=tmp_path / "b", finalists=-1, programs=programs)
    for wrong in ("settings", "output", "study_name"):
        with pytest.raises(UserError, match="but got 3"):
            run_study(2, programs=programs, **{wrong: 3})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("sampler", ["gp", "tpe", "qmc", "grid"])
@pytest.mark.parametrize(
    ("tuned", "configurations"),
    [
        ({"batch_size": {"choices": [128, 256, 512]}}, 3),
        ({"batch_size": {"choices": [256]}}, 1),
        ({"hidden_sizes": {"choices": [[64, 64]]}}, 1),
        # A minibatch of 512 does not go together with a rollout of 256.
        ({"n_steps": {"choices": [256, 1024]}, "batch_size": {"choices": [256, 512]}}, 3),
    ],
)
def test_a_search_ends_where_everything_has_been_tried(
    programs, tmp_path, monkeypatch, capsys, sampler, tuned, configurations
):
    monkeypatch.setattr(policy, "save", lambda *_, **__: None)
    space = {name: {"drop": True} for name, _ in SearchSpace().tuned} | tuned
    settings = Settings(space=space, sampler=sampler, pruner="none", sampler_startup_trials=2)
    results = run_study(
        8, settings, output=tmp_path, validate_seeds=4, programs=programs, progress=True
    )
    assert {t.state.name for t in results.study.trials} == {"COMPLETE"}
    trained = [t.configuration(settings) for t in results.study.trials]
    assert len(set(trained)) == configurations
    if sampler == "gp":
        assert len(trained) == configurations
    assert len(trained) < 8
    line = f"{len(trained)} trial{'s' * (len(trained) > 1)} in all: there is no other"
    assert line in capsys.readouterr().out
    assert results.validation is not None


_SMALL_WIDE = {"base": "wide", "hidden_sizes": {"drop": True}}


@pytest.mark.parametrize(
    ("space", "platform", "fixed", "added"),
    [
        ("standard", "gpu", "", "faster learning, normalisation, number of environments, network"),
        (
            "standard",
            "cpu",
            " --fix hidden_sizes",
            "faster learning, normalisation, number of environments",
        ),
        (_SMALL_WIDE, "gpu", "", "network"),
        ({"base": "wide", "gamma": {"value": 0.99}}, "cpu", "", ""),
    ],
)
def test_the_wide_space_is_named_as_a_command_where_nothing_was_learned(
    space, platform, fixed, added, programs, tmp_path, monkeypatch
):
    results = _nothing_learned(space, platform, programs, tmp_path, monkeypatch)
    hints = advice.next_steps(results)
    assert any("Nothing was learned" in hint for hint in hints)
    adds = f", which adds {added}" if added else ""
    (hint,) = [hint for hint in hints if "wide space" in hint]
    command = "python -m tune.run --env MountainCar-v0 --matmul-precision high"
    options = f"--output {tmp_path} --space wide{fixed} --trials 30"
    assert hint == f"To go on in the wide space{adds}: {command} {options}"
    assert "--matmul-precision high" in results.recommendation.command


def test_a_study_of_small_networks_is_wide_enough_for_a_cpu(programs, tmp_path, monkeypatch):
    results = _nothing_learned(_SMALL_WIDE, "cpu", programs, tmp_path, monkeypatch)
    assert not any("--space wide" in hint for hint in advice.next_steps(results))


@pytest.mark.parametrize("falls", [True, False])
def test_training_that_is_worth_less_in_the_end_is_named(falls, programs, tmp_path):
    def returns(hyperparameters, step, seed):
        lost = max(0, step - 400_000) / 10_000 if falls else 0
        return 1000 * hyperparameters.gamma + seed / 10 + step / 100_000 - lost

    programs.returns, programs.untrained = returns, 0.0
    results = run_study(6, output=tmp_path, validate_seeds=4, programs=programs)
    curve = results.validation.verdict.recommended.validated
    peak = curve.returns[5:8].mean()  # Up to 400,000 steps.
    hints = [hint for hint in advice.next_steps(results) if "returned most after" in hint]
    assert len(hints) == falls
    if falls:
        said = re.search(r"most after 400,000 steps, (\S+) against (\S+) at the end", hints[0])
        expected = peak, curve.level.mean()
        assert [float(value) for value in said.groups()] == pytest.approx(expected, abs=0.06)
        assert hints[0].endswith("--validate-steps 400000")


def _nothing_learned(space, platform, programs, folder, monkeypatch):
    """Return the results of a study on a device of `platform` in which nothing was learned."""
    monkeypatch.setattr(policy, "save", lambda *_, **__: None)
    device = {**device_description(), "platform": platform}
    monkeypatch.setattr(StudyResults, "made_with", {"versions": versions(), "device": device})
    programs.returns = lambda hyperparameters, step, seed: -200.0
    programs.untrained = -200.0
    settings = Settings(env="MountainCar-v0", matmul_precision="high", space=space)
    return run_study(3, settings, output=folder, validate_seeds=4, programs=programs)
