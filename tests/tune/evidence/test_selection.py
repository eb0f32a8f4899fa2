import dataclasses
import json

import numpy as np
import pytest

from ppo_jax.errors import UserError
from tune.evidence.selection import Selection, choose_candidates, select_winner
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.search.study import run_optimization


@pytest.fixture
def study(programs, tmp_path):
    programs.returns = lambda hp, step, seed: step / 1000 + 1000 * hp.gamma + seed
    study = run_optimization(
        8, Settings(sampler="random", pruner="none"), output=tmp_path, programs=programs
    )
    programs.runs.clear()
    return StudyRecord.of(study)


@pytest.fixture
def select(programs, study, tmp_path):
    """Return a function that selects a winner of the study."""
    return lambda top, seeds: select_winner(study, programs, StudyFolder(tmp_path), top, seeds)


def saved(folder):
    return json.loads((folder / "selection.json").read_text())


def test_the_best_trials_and_the_baseline_are_candidates(study):
    ranked = sorted(study.trials[1:], key=lambda trial: -trial.score)
    for top in (1, 3, 7):
        trials = [candidate.trial for candidate in choose_candidates(study, top)]
        assert trials == [*ranked[:top], study.trials[0]]


def test_luck_in_tuning_does_not_win(programs, study, select, tmp_path):
    second = choose_candidates(study, 3)[1]
    gamma = second.hyperparameters.gamma
    programs.returns = lambda hp, step, seed: 100.0 + 50 * (hp.gamma == gamma) + seed
    selection = select(3, 10)
    assert selection.winner.number == second.number != study.best.number
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


def test_it_runs_on_seeds_of_its_own_for_the_budget_of_a_trial(programs, study, select, tmp_path):
    select(2, 6)
    assert [len(keys) for keys, _, _ in programs.runs] == [4, 2] * 3
    assert all(steps == Settings().checkpoints() for _, _, steps in programs.runs)
    candidates = [keys for keys, _, _ in programs.runs]
    assert candidates[:2] == candidates[2:4] == candidates[4:]


def test_nothing_is_trained_twice(programs, study, select, tmp_path):
    first = select(3, 4)
    assert len(programs.runs) == 4
    again = select(3, 4)
    assert len(programs.runs) == 4
    assert again.to_dict()["winner"] == first.to_dict()["winner"]
    select(5, 4)
    assert len(programs.runs) == 6
    select(5, 5)
    assert len(programs.runs) == 6 + 2 * 6, "other seeds are another question"


def test_a_selection_that_was_stopped_goes_on(programs, study, select, tmp_path):
    run, count = programs.run, 0

    def stop_at_the_third(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return run(*args)

    programs.run = stop_at_the_third
    with pytest.raises(KeyboardInterrupt):
        select(3, 4)
    assert saved(tmp_path)["complete"] is False
    assert len(saved(tmp_path)["candidates"]) == 2
    select(3, 4)
    assert len(programs.runs) == 4
    assert saved(tmp_path)["complete"] is True


def test_of_equals_the_larger_area_wins_then_the_earlier_trial(programs, study, select, tmp_path):
    quick = choose_candidates(study, 3)[2]
    gamma = quick.hyperparameters.gamma
    # Equal means over the checkpoints, unequal areas: the ends count half.
    programs.returns = lambda hp, step, seed: (
        [10, 40, 40, 10] if hp.gamma == gamma else [40, 10, 10, 40]
    )[step // 50_000 - 1]
    selection = select(3, 4)
    assert selection.winner.number == quick.number
    programs.returns = lambda hp, step, seed: 5.0
    selection = select(3, 5)
    assert selection.winner.number == 0


def test_a_candidate_that_diverges_comes_last(programs, study, select, tmp_path):
    gamma = study.best.hyperparameters.gamma
    programs.returns = lambda hp, step, seed: (
        np.nan if hp.gamma == gamma and seed == 1 else 1000 * hp.gamma
    )
    selection = select(3, 4)
    assert selection.candidates[-1].number == study.best.number
    last = saved(tmp_path)["candidates"][-1]
    assert last["diverged_seeds"] == [1]
    assert last["scores"][1] is None


def test_the_selection_is_found_again_until_a_better_trial_comes(study, select, tmp_path):
    folder = StudyFolder(tmp_path)
    assert Selection.load(folder, study) is None
    selection = select(3, 4)
    found = Selection.load(folder, study)
    assert found.to_dict().keys() == selection.to_dict().keys()
    assert [c.number for c in found.candidates] == [c.number for c in selection.candidates]
    for one, other in zip(found.candidates, selection.candidates, strict=True):
        np.testing.assert_array_equal(one.selected.returns, other.selected.returns)
    better = dataclasses.replace(study.best, number=8, score=1e6)
    later = dataclasses.replace(study, trials=[*study.trials, better])
    assert Selection.load(folder, later) is None
    other = dataclasses.replace(study.best.hyperparameters, gamma=0.5)
    trials = [
        dataclasses.replace(t, hyperparameters=other) if t.number == study.best.number else t
        for t in study.trials
    ]
    assert Selection.load(folder, dataclasses.replace(study, trials=trials)) is None


def test_a_study_without_a_complete_trial_has_no_winner(programs, tmp_path):
    programs.returns = lambda hp, step, seed: np.nan
    study = StudyRecord.of(run_optimization(2, output=tmp_path, programs=programs))
    assert select_winner(study, programs, StudyFolder(tmp_path)) is None
    assert not (tmp_path / "selection.json").exists()


@pytest.mark.parametrize("values", [{"top": 0}, {"top": -1}, {"seeds": 0}])
def test_mistakes_are_named(programs, study, tmp_path, values):
    with pytest.raises(UserError, match=next(iter(values))):
        select_winner(study, programs, StudyFolder(tmp_path / "out"), **values)
    assert not (tmp_path / "out").exists()
