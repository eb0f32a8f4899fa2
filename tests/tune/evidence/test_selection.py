import json

import numpy as np
import pytest

from ppo_jax.errors import UserError
from tune.evidence.selection import candidate_trials, select_winner, selected_params
from tune.protocol.settings import Settings
from tune.search.study import best_trial, run_optimization


@pytest.fixture
def study(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 + 1000 * hp.gamma + seed
    study = run_optimization(8, Settings(sampler="random", pruner="none"), output=tmp_path)
    programs.runs.clear()
    return study


def saved(folder):
    return json.loads((folder / "selection.json").read_text())


def test_the_best_trials_and_the_baseline_are_candidates(study):
    ranked = sorted(study.trials[1:], key=lambda trial: -trial.value)
    for top in (1, 3, 7):
        assert candidate_trials(study, top) == [*ranked[:top], study.trials[0]]


def test_luck_in_tuning_does_not_win(programs, study, tmp_path):
    second = candidate_trials(study, 3)[1]
    gamma = second.params["gamma"]
    programs.returns = lambda hp, step, seed: 100.0 + 50 * (hp.gamma == gamma) + seed
    selection = select_winner(study, 3, seeds=10, output=tmp_path)
    assert selection.winner.trial == second.number != best_trial(study).number
    data = saved(tmp_path)
    assert data["winner"] == second.number
    assert data["complete"] is True
    assert data["seeds"] == {"purpose": "selection", "root": 0, "count": 10}
    assert len(data["candidates"]) == 4
    assert [c["is_baseline"] for c in data["candidates"]].count(True) == 1
    first = data["candidates"][0]
    assert np.shape(first["returns"]) == (4, 10)
    assert first["scores"] == [150.0 + seed % 4 for seed in range(10)]
    assert first["score"]["mean"]["value"] == np.mean(first["scores"])
    low, high = first["score"]["mean"]["interval"]
    assert low < np.mean(first["scores"]) < high


def test_it_runs_on_seeds_of_its_own_for_the_budget_of_a_trial(programs, study, tmp_path):
    select_winner(study, 2, seeds=6, output=tmp_path)
    assert [len(keys) for keys, _, _ in programs.runs] == [4, 2] * 3
    assert all(steps == Settings().checkpoints() for _, _, steps in programs.runs)
    candidates = [keys for keys, _, _ in programs.runs]
    assert candidates[:2] == candidates[2:4] == candidates[4:]


def test_nothing_is_trained_twice(programs, study, tmp_path):
    first = select_winner(study, 3, seeds=4, output=tmp_path)
    assert len(programs.runs) == 4
    again = select_winner(study, 3, seeds=4, output=tmp_path)
    assert len(programs.runs) == 4
    assert again.to_dict()["winner"] == first.to_dict()["winner"]
    select_winner(study, 5, seeds=4, output=tmp_path)
    assert len(programs.runs) == 6
    select_winner(study, 5, seeds=5, output=tmp_path)
    assert len(programs.runs) == 6 + 2 * 6, "other seeds are another question"


def test_a_selection_that_was_stopped_goes_on(programs, study, tmp_path):
    run, count = programs.run, 0

    def stop_at_the_third(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return run(*args)

    programs.run = stop_at_the_third
    with pytest.raises(KeyboardInterrupt):
        select_winner(study, 3, seeds=4, output=tmp_path)
    assert saved(tmp_path)["complete"] is False
    assert len(saved(tmp_path)["candidates"]) == 2
    select_winner(study, 3, seeds=4, output=tmp_path)
    assert len(programs.runs) == 4
    assert saved(tmp_path)["complete"] is True


def test_of_equals_the_larger_area_wins_then_the_earlier_trial(programs, study, tmp_path):
    quick = candidate_trials(study, 3)[2]
    gamma = quick.params["gamma"]
    # Equal means over the checkpoints, unequal areas: the ends count half.
    programs.returns = lambda hp, step, seed: (
        [10, 40, 40, 10] if hp.gamma == gamma else [40, 10, 10, 40]
    )[step // 50_000 - 1]
    selection = select_winner(study, 3, seeds=4, output=tmp_path)
    assert selection.winner.trial == quick.number
    programs.returns = lambda hp, step, seed: 5.0
    selection = select_winner(study, 3, seeds=5, output=tmp_path)
    assert selection.winner.trial == 0


def test_a_candidate_that_diverges_comes_last(programs, study, tmp_path):
    gamma = best_trial(study).params["gamma"]
    programs.returns = lambda hp, step, seed: (
        np.nan if hp.gamma == gamma and seed == 1 else 1000 * hp.gamma
    )
    selection = select_winner(study, 3, seeds=4, output=tmp_path)
    assert selection.candidates[-1].trial == best_trial(study).number
    last = saved(tmp_path)["candidates"][-1]
    assert last["diverged_seeds"] == [1]
    assert last["scores"][1] is None


def test_the_winner_is_known_until_a_better_trial_comes(study, tmp_path):
    best = best_trial(study).user_attrs["hyperparameters"]
    assert selected_params(tmp_path, best) is None
    selection = select_winner(study, 3, seeds=4, output=tmp_path)
    winner = selection.winner.curve.hyperparameters.to_dict()
    assert selected_params(tmp_path, best) == winner
    assert selected_params(tmp_path, best | {"gamma": 0.5}) is None


def test_a_study_without_a_complete_trial_has_no_winner(programs, tmp_path):
    programs.returns = lambda hp, step, seed: np.nan
    study = run_optimization(2, output=tmp_path)
    assert select_winner(study, output=tmp_path) is None
    assert not (tmp_path / "selection.json").exists()


@pytest.mark.parametrize("values", [{"top": 0}, {"top": -1}, {"seeds": 0}])
def test_mistakes_are_named(study, tmp_path, values):
    with pytest.raises(UserError, match=next(iter(values))):
        select_winner(study, **values, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
