import html
import json
import re
import shutil

import optuna
import pytest

from ppo_jax.errors import UserError
from tune.evidence.finalists import train_finalists
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report.__main__ import main
from tune.report.files import save_optimization_results
from tune.search.storage import open_storage
from tune.search.study import run_optimization
from tune.session import train_best_config


def strict(path):
    def refuse(token):
        raise AssertionError(f"{token} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def ten_trials(make_programs, tmp_path_factory):
    """The folder of a study, to be copied."""
    programs, folder = make_programs(), tmp_path_factory.mktemp("study")
    programs.returns = lambda hp, step, seed: step / 1000 * hp.gamma**20 + seed
    run_optimization(10, Settings(sampler="random"), output=folder, programs=programs)
    return folder


@pytest.fixture
def study(ten_trials, programs, tmp_path):
    shutil.copytree(ten_trials, tmp_path, dirs_exist_ok=True)
    programs.returns = lambda hp, step, seed: step / 1000 * hp.gamma**20 + seed
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    return optuna.load_study(study_name="CartPole-v1", storage=storage)


def test_results_hold_what_was_found_and_how(study, tmp_path):
    save_optimization_results(study, tmp_path)
    results = strict(tmp_path / "optimization_results.json")
    assert results["best_value"] == study.best_value
    assert results["best_trial"] == study.best_trial.number
    assert results["best_params"]["gamma"] == study.best_params["gamma"]
    assert results["best_params"]["clip_value_loss"] is True
    assert results["baseline_value"] == study.trials[0].value
    assert results["gain"]["value"] == pytest.approx(study.best_value - study.trials[0].value)
    low, high = results["gain"]["interval"]
    assert low < results["gain"]["value"] < high
    assert results["winner"] is None
    assert results["recommended"] is None
    assert results["n_trials"]["total"] == 10
    assert sum(v for k, v in results["n_trials"].items() if k != "total") == 10
    assert results["programs_compiled"] == {"evaluation": 1, "training": 1}
    assert results["environment"]["name"] == "CartPole-v1"
    assert results["protocol"]["checkpoints"] == [50_000, 100_000, 150_000, 200_000]
    assert SearchSpace.from_tables(results["search_space"]) == SearchSpace()
    assert {"jax", "optuna", "python"} <= results["versions"].keys()
    assert {"compilation", "training", "evaluation", "trials"} == results["seconds"].keys()
    assert results["verdict"] is None


def test_all_trials_hold_every_score(study, tmp_path):
    save_optimization_results(study, tmp_path)
    trials = strict(tmp_path / "all_trials.json")
    assert [trial["number"] for trial in trials] == list(range(10))
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    assert [trial["baseline"] for trial in trials] == [True] + [False] * 9
    for trial in trials:
        assert len(trial["per_seed_returns"]) == len(trial["intermediate_values"])
        assert all(len(scores) == 4 for scores in trial["per_seed_returns"].values())
        assert trial["duration"] >= 0


def test_verdict_is_the_one_of_this_winner(programs, study, tmp_path):
    params = save_optimization_results(study, tmp_path)["best_params"]
    train_best_config(
        params, 400_000, settings=Settings(), output=tmp_path, study=study, programs=programs
    )
    path = tmp_path / "validation.json"
    validation = json.loads(path.read_text())
    assert save_optimization_results(study, tmp_path)["verdict"] == validation["verdict"]
    assert html.escape(validation["verdict"]) in (tmp_path / "report.html").read_text()
    results = strict(tmp_path / "optimization_results.json")
    assert results["winner"]["hyperparameters"] == params
    recommended = strict(tmp_path / "recommended.json")
    assert results["recommended"]["hyperparameters"] == recommended["hyperparameters"]
    assert results["recommended"]["command"] == recommended["how_to_train"]["command"]
    assert results["recommended"]["configuration"] == validation["recommended"]
    validation["winner"]["hyperparameters"]["gamma"] = 0.5
    path.write_text(json.dumps(validation))
    assert save_optimization_results(study, tmp_path)["verdict"] is None
    assert validation["verdict"] not in (tmp_path / "report.html").read_text()


def test_study_without_a_complete_trial_is_reported(programs, tmp_path):
    programs.returns = lambda hp, step, seed: float("nan")
    study = run_optimization(2, output=tmp_path, programs=programs)
    results = save_optimization_results(study, tmp_path)
    assert results["best_params"] is None
    assert results["n_trials"] == {"total": 2, "pruned": 2}
    strict(tmp_path / "all_trials.json")
    assert (tmp_path / "optimization_results.png").exists()


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_scores_of_zero_are_scores(baseline, programs, tmp_path):
    programs.returns = lambda hp, step, seed: baseline + (hp.gamma != 0.99)
    study = run_optimization(2, output=tmp_path, programs=programs)
    gain = save_optimization_results(study, tmp_path)["gain"]
    assert (gain["value"], gain["interval"]) == (1.0, (1.0, 1.0))


def test_results_hold_what_matters(programs, tmp_path):
    programs.returns = lambda hp, step, s: step / 1000 * hp.gamma**20 + s
    study = run_optimization(
        20, Settings(sampler="random", pruner="none"), output=tmp_path, programs=programs
    )
    save_optimization_results(study, tmp_path)
    analysis = strict(tmp_path / "optimization_results.json")["analysis"]
    assert next(iter(analysis["importances"])) == "gamma"
    assert analysis["good_ranges"]["gamma"]["best"] == 0.999
    assert "20 trials with a score are too few" in analysis["warning"]
    assert analysis["pruning"]["trials"] == 0


def test_study_of_an_earlier_version_is_reported(programs, tmp_path):
    study = run_optimization(1, Settings(), output=tmp_path, programs=programs)
    (name,) = [name for name in study.user_attrs if name.startswith("compilations:")]
    study.set_user_attr(name, {"programs": {"training": 7}, "seconds": 2.0})
    results = save_optimization_results(study, tmp_path)
    assert results["programs_compiled"] == {"training": 7}
    assert "jax" in results["versions"]


def test_no_temporary_file_stays(study, tmp_path):
    save_optimization_results(study, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        ".lock",
        "study.db",
        "config.json",
        "optimization_results.json",
        "optimization_results.png",
        "all_trials.json",
        "report.html",
    }


def test_command_rebuilds_everything_from_the_study_alone(study, tmp_path, capsys):
    save_optimization_results(study, tmp_path)
    kept = {"study.db", "config.json", ".lock"}
    first = {p.name: strict(p) for p in tmp_path.glob("*.json") if p.name not in kept}
    names = {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        if path.name not in kept:
            path.unlink()
    database = (tmp_path / "study.db").read_bytes()
    main([str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == names
    again = {p.name: strict(p) for p in tmp_path.glob("*.json") if p.name not in kept}
    for found in (first, again):
        del found["optimization_results.json"]["written"]
    assert again == first
    assert (tmp_path / "study.db").read_bytes() == database
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("CartPole-v1: ")
    assert sum("report.html" in line for line in printed) == 1


def test_command_reports_a_running_study_in_another_storage(study, tmp_path, capsys):
    study.ask()
    address = f"sqlite:///{tmp_path / 'study.db'}"
    output = tmp_path / "elsewhere"
    main([str(output), "--storage", address, "--study-name", "CartPole-v1"])
    assert (
        "1 trial has not finished: still in progress, or interrupted"
        in (output / "report.html").read_text()
    )
    assert strict(output / "optimization_results.json")["n_trials"]["running"] == 1
    assert "1 running" in capsys.readouterr().out
    assert study.trials[-1].state.name == "RUNNING"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "error: nothing/study.db does not exist; give the study's storage"),
        (["runs", "--study-name", "CartPol-v1"], "did you mean 'CartPole-v1'"),
        (["runs", "--storage", "sqlite:///nothing.db"], "nothing.db does not exist"),
        (["runs", "--storage", "journal:nothing"], "nothing does not exist"),
        (["runs", "--storage", "nonsense"], "write sqlite:///nonsense, or journal:nonsense"),
        (["runs", "--storage", "nosuchdb://h/d"], "cannot open the storage"),
    ],
)
def test_mistakes_are_one_line_and_create_nothing(
    programs, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    run_optimization(1, output="runs", programs=programs)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def edit(document, path, value):
    """Set the value at `path` of a document, keys and indices."""
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


EDITED = [
    ("finalists", ["finalists", 0, "returns", 0, 0], "200", "returns must be numbers"),
    ("finalists", ["finalists", 0, "returns"], "many", "returns must be a list"),
    ("finalists", ["finalists", 0, "environment_steps"], "12", "environment_steps must be a"),
    ("finalists", ["finalists", 0, "seconds"], [], "seconds must be a number"),
    ("finalists", ["finalists", 0, "trial"], [1], "trial must be a number"),
    ("finalists", ["finalists", 0], [], r"finalists\[0\] must be a table"),
    ("finalists", ["finalists"], {}, "finalists must be a list"),
    ("finalists", ["seeds"], [1], "seeds must be a table"),
    ("finalists", ["steps", 0], "50000", "steps must be an integer of at least 1"),
    ("finalists", ["config"], [], "config must be a table"),
    ("validation", ["winner", "returns", 0], "1", "returns must be"),
    ("validation", ["winner", "returns", 0], [1.0], "returns must be a list of lists of one l"),
    ("validation", ["baseline", "seconds"], "1", "seconds must be a number"),
    ("validation", ["winner"], [], "the configuration must be a table"),
    ("validation", ["steps"], "50000", "steps must be a list"),
    ("validation", ["num_steps"], "200000", "num_steps must be an integer"),
    ("validation", ["seeds"], [], "seeds must be a table"),
    *(
        (name, [], value, "it must be a table")
        for name in ("finalists", "validation")
        for value in ([], "{}", 5)
    ),
]
"""File, path to a value, what it is changed to, and what is said then."""


@pytest.mark.usefixtures("proved")
def test_file_that_was_edited_is_named_with_its_key(tmp_path, capsys):
    for name, path, value, message in EDITED:
        file = tmp_path / f"{name}.json"
        whole = file.read_text()
        document = {"": json.loads(whole)}
        edit(document, ["", *path], value)
        file.write_text(json.dumps(document[""]))
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path)])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(file) in line
        assert re.search(message, line)
        file.write_text(whole)


@pytest.fixture
def proved(programs, tmp_path, monkeypatch):
    """Return a small study in `tmp_path` with finalists and a validation."""
    monkeypatch.setattr("ppo_jax.policy.save", lambda *_, **__: None)
    monkeypatch.setattr("tune.report.files.plot_validation", lambda *_: None)
    programs.returns = lambda hp, step, seed: step / 1000 - 100 * hp.gamma + seed
    study = run_optimization(
        2, Settings(sampler="random", pruner="none"), output=tmp_path, programs=programs
    )
    record = StudyRecord.of(study)
    folder = StudyFolder(tmp_path)
    finalists = train_finalists(record, programs, folder, 300_000, 1)
    train_best_config(
        finalists.winner.hyperparameters,
        200_000,
        seeds=4,
        output=tmp_path,
        study=study,
        finalists=finalists,
        programs=programs,
    )
    # Else the winner, which is the baseline then, would be proved alone.
    assert not finalists.winner.is_baseline
    return study


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("settings", [], "settings must be a table"),
        ("settings", {}, "the setting env_kwargs is missing"),
        ("settings", {**Settings().to_dict(), "a_setting_of_tomorrow": 1}, "unknown setting"),
        ("settings", {**Settings().to_dict(), "env": 5}, "env must be a name"),
        ("settings", {**Settings().to_dict(), "agent": []}, "agent must be a table"),
        ("settings", {**Settings().to_dict(), "space": []}, "space must be a table"),
        ("settings", {**Settings().to_dict(), "defaults": []}, "defaults must be a table"),
        ("settings", {**Settings().to_dict(), "env_kwargs": []}, "env_kwargs must be a table"),
        ("compilations:1", [], "the record must be a table"),
        ("compilations:1", {"programs": {"a": "b"}, "seconds": 1}, "programs.a must be a number"),
        ("compilations:1", {"programs": {}, "seconds": "1"}, "seconds must be a number"),
    ],
)
def test_attribute_of_a_study_that_is_of_another_version_or_edited_is_one_line(
    programs, tmp_path, capsys, attribute, value, message
):
    study = run_optimization(1, output=tmp_path, programs=programs)
    study.set_user_attr(attribute, value)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "study 'CartPole-v1'" in line
    assert message in line
    if attribute == "settings":
        with pytest.raises(UserError, match=message):
            run_optimization(1, output=tmp_path, programs=programs)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("returns", [1.0], "returns must be a table"),
        ("returns", {"x": [1.0]}, "returns must have steps as keys, but got 'x'"),
        ("returns", {"50000": "200"}, "returns.50000 must be a list"),
        ("returns", {"50000": ["200"]}, "returns.50000 must be numbers"),
        ("hyperparameters", [], "hyperparameters must be a table"),
        ("diverged_seeds", "none", "diverged_seeds must be a list"),
        ("environment_steps", "many", "environment_steps must be a number"),
        ("training_seconds", "1", "training_seconds must be a number"),
    ],
)
def test_attribute_of_a_trial_that_was_edited_is_one_line(
    programs, tmp_path, capsys, attribute, value, message
):
    run_optimization(1, output=tmp_path, programs=programs)
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    edited = optuna.load_study(study_name="CartPole-v1", storage=storage)
    trial = edited.ask()
    trial.set_user_attr(attribute, value)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"study 'CartPole-v1': trial 1: {message}" in line


@pytest.mark.slow
def test_dashboard_gets_note_and_artifacts(programs, study, tmp_path, capsys):
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    from optuna.artifacts import get_all_artifact_meta
    from optuna_dashboard import get_note

    params = save_optimization_results(study, tmp_path)["best_params"]
    validation = train_best_config(
        params, 400_000, settings=Settings(), output=tmp_path, study=study, programs=programs
    )
    for _ in range(2):  # The second time replaces what the first has left.
        main([str(tmp_path), "--dashboard"])
    assert validation.sentence in get_note(study)
    stored = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    assert len(stored) == len(get_all_artifact_meta(study))
    assert {"report.html", "model.safetensors", "policy.json", "slices.png"} <= stored.keys()
    content = (tmp_path / "artifacts" / stored["model.safetensors"]).read_bytes()
    assert content == (tmp_path / "policy" / "model.safetensors").read_bytes()
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith(f"optuna-dashboard sqlite:///{tmp_path}/study.db --artifact-dir ")
    assert all("returns" in trial.user_attrs for trial in study.trials)


def test_missing_dashboard_package_is_reported(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--dashboard"])
    assert "ppo-jax-tune[dashboard]" in capsys.readouterr().err
