import json
import re

import pytest

from tune.report import save_optimization_results
from tune.search_space import SearchSpace
from tune.settings import Settings
from tune.study import run_optimization


def strict(path):
    def refuse(token):
        raise AssertionError(f"{token} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def study(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 * hp.gamma**20 + seed
    return run_optimization(10, Settings(sampler="random"), output=tmp_path)


def test_results_tell_what_was_found_and_how(study, tmp_path):
    save_optimization_results(study, tmp_path)
    results = strict(tmp_path / "optimization_results.json")
    assert results["best_value"] == study.best_value
    assert results["best_trial"] == study.best_trial.number
    assert results["best_params"]["gamma"] == study.best_params["gamma"]
    assert results["best_params"]["clip_value_loss"] is True
    assert results["baseline_value"] == study.trials[0].value
    assert results["improvement_percent"] == pytest.approx(
        100 * (study.best_value - study.trials[0].value) / study.trials[0].value
    )
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
        assert len(trial["per_seed_scores"]) == len(trial["intermediate_values"])
        assert all(len(scores) == 4 for scores in trial["per_seed_scores"].values())
        assert trial["duration"] >= 0


def test_page_stands_alone_and_escapes(programs, tmp_path):
    name = "<script>alert(1)</script>"
    study = run_optimization(2, output=tmp_path, study_name=name)
    save_optimization_results(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 1


def test_verdict_is_the_one_of_this_winner(study, tmp_path):
    params = save_optimization_results(study, tmp_path)["best_params"]
    validation = {"verdict": "Improved: by a lot.", "winner": {"hyperparameters": params}}
    (tmp_path / "validation.json").write_text(json.dumps(validation))
    assert save_optimization_results(study, tmp_path)["verdict"] == "Improved: by a lot."
    assert "Improved: by a lot." in (tmp_path / "report.html").read_text()
    validation["winner"]["hyperparameters"] = params | {"gamma": 0.5}
    (tmp_path / "validation.json").write_text(json.dumps(validation))
    assert save_optimization_results(study, tmp_path)["verdict"] is None


def test_study_without_a_complete_trial_is_reported(programs, tmp_path):
    programs.returns = lambda hp, step, seed: float("nan")
    study = run_optimization(2, output=tmp_path)
    results = save_optimization_results(study, tmp_path)
    assert results["best_params"] is None
    assert results["n_trials"] == {"total": 2, "pruned": 2}
    strict(tmp_path / "all_trials.json")
    assert (tmp_path / "optimization_results.png").stat().st_size > 10_000


def test_baseline_of_zero_gives_no_percentage(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 0.0
    study = run_optimization(2, output=tmp_path)
    assert save_optimization_results(study, tmp_path)["improvement_percent"] is None


def test_results_hold_what_matters(programs, tmp_path):
    programs.returns = lambda hp, step, s: step / 1000 * hp.gamma**20 + s
    study = run_optimization(20, Settings(sampler="random", pruner="none"), output=tmp_path)
    save_optimization_results(study, tmp_path)
    analysis = strict(tmp_path / "optimization_results.json")["analysis"]
    assert next(iter(analysis["importances"])) == "gamma"
    assert analysis["good_ranges"]["gamma"]["best"] == 0.999
    assert "20 complete trials are too few" in analysis["warning"]
    assert analysis["pruning"]["trials"] == 0


def test_no_temporary_file_stays(study, tmp_path):
    save_optimization_results(study, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "study.db",
        "config.json",
        "optimization_results.json",
        "optimization_results.png",
        "all_trials.json",
        "report.html",
    }
