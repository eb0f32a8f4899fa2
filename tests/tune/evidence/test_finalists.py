import dataclasses
import json

import jax
import numpy as np
import pytest

from ppo_jax.errors import UserError
from ppo_jax.seeds import seed_keys
from ppo_jax.training_state import TrainingStates
from tune.evidence.finalists import Finalists, choose_finalists, train_finalists
from tune.protocol.purposes import TUNING
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.search.model import promising_by_model
from tune.search.study import run_optimization


def returns(hyperparameters, step, seed):
    return step / 1000 + 1000 * hyperparameters.gamma + seed


@pytest.fixture(scope="module")
def study(make_programs, tmp_path_factory):
    programs = make_programs()
    programs.returns = returns
    settings, folder = Settings(sampler="random", pruner="none"), tmp_path_factory.mktemp("study")
    return StudyRecord.of(run_optimization(8, settings, output=folder, programs=programs))


@pytest.fixture
def train(programs, study, tmp_path):
    """Return a function that trains the finalists of the study."""
    programs.returns = returns
    return lambda top, num_steps=300_000: train_finalists(
        study, programs, StudyFolder(tmp_path), num_steps, top
    )


def saved(folder):
    return json.loads((folder / "finalists.json").read_text())


def test_the_most_promising_trials_and_the_baseline_are_finalists(study):
    baseline, *others = study.trials
    for top in (1, 3, 7):
        trials = [candidate.trial for candidate in choose_finalists(study, top)]
        among = sorted(others, key=lambda trial: trial.score, reverse=True)
        best = promising_by_model(study.trials, study.settings, among, top)
        assert trials == [*best, baseline]
        assert len(trials) == top + 1


@pytest.mark.parametrize("constant", [False, True])
def test_of_trials_that_trained_alike_one_is_a_finalist(study, constant, monkeypatch):
    def first(trials, settings, among, count):
        return sorted(among, key=lambda trial: trial.number)[:count]

    def numbers(changed, top=3):
        """Return the finalists where some trials, by number, have other returns."""
        trials = [
            dataclasses.replace(trial, returns=changed.get(trial.number, trial.returns))
            for trial in study.trials
        ]
        chosen = choose_finalists(dataclasses.replace(study, trials=trials), top)
        return [candidate.number for candidate in chosen]

    monkeypatch.setattr("tune.evidence.finalists.promising_by_model", first)
    default, first, *_ = (trial.returns for trial in study.trials)
    if constant:  # 500 in CartPole, for one, is what different policies reach.
        default, first = (
            {step: np.full_like(row, 500.0) for step, row in rows.items()}
            for rows in (default, first)
        )
    assert numbers({1: first, 2: first}) == ([1, 2, 3, 0] if constant else [1, 3, 4, 0])
    assert numbers({0: default, 1: default}) == ([1, 2, 3, 0] if constant else [2, 3, 4, 0])
    # They are finalists where there is nobody else.
    assert set(numbers({1: first, 2: first}, 7)) == set(range(8))


def test_who_is_best_in_the_end_wins_and_not_who_was_quickest(programs, study, train, tmp_path):
    second = choose_finalists(study, 3)[1]
    gamma = second.hyperparameters.gamma
    programs.returns = lambda hp, step, seed: (
        (step > 200_000) * 50.0 * (hp.gamma == gamma) + 10 * hp.gamma + seed
    )
    finalists = train(3)
    assert finalists.winner.number == second.number
    data = saved(tmp_path)
    assert data["winner"] == second.number
    assert data["complete"] is True
    assert data["seeds"] == {"purpose": "tuning", "root": 0, "count": 4}
    assert data["steps"] == [50_000, 100_000, 150_000, 200_000, 250_000, 300_000]
    assert [c["is_baseline"] for c in data["finalists"]].count(True) == 1
    first = data["finalists"][0]
    assert np.shape(first["returns"]) == (6, 4)
    level = np.mean(first["returns"][-3:])
    assert first["level"]["mean"]["value"] == pytest.approx(level)
    low, high = first["level"]["mean"]["interval"]
    assert low < level < high


def test_they_run_on_the_tuning_seeds_for_the_steps_of_a_validation(programs, train):
    train(2, 400_000)
    tuning = jax.random.key_data(seed_keys(0, TUNING, 4)).tolist()
    assert [keys for keys, _, _ in programs.runs] == [tuning] * 3
    assert all(steps[-1] == 400_000 for _, _, steps in programs.runs)


def test_nothing_is_trained_twice(programs, train):
    first = train(3)
    assert len(programs.runs) == 4
    again = train(3)
    assert len(programs.runs) == 4
    assert again.winner.number == first.winner.number
    train(5)
    assert len(programs.runs) == 6
    train(5, 400_000)
    assert len(programs.runs) == 6 + 6, "more steps are another question"


def test_training_that_was_stopped_goes_on(programs, train, tmp_path):
    run, count = programs.run, 0

    def stop_at_the_third(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return run(*args)

    programs.run = stop_at_the_third
    with pytest.raises(KeyboardInterrupt):
        train(3)
    assert saved(tmp_path)["complete"] is False
    assert len(saved(tmp_path)["finalists"]) == 2
    train(3)
    assert len(programs.runs) == 4
    assert saved(tmp_path)["complete"] is True


def test_of_equals_the_larger_area_wins_then_the_earlier_trial(programs, study, train):
    quick = choose_finalists(study, 3)[2]
    gamma = quick.hyperparameters.gamma
    programs.returns = lambda hp, step, seed: 9.0 if step > 150_000 else float(hp.gamma == gamma)
    assert train(3).winner.number == quick.number
    programs.returns = lambda hp, step, seed: 5.0
    assert train(3, 400_000).winner.number == 0


def test_a_finalist_that_diverges_comes_last(programs, study, train, tmp_path):
    best = choose_finalists(study, 1)[0]
    gamma = best.hyperparameters.gamma
    programs.returns = lambda hp, step, seed: (
        np.nan if hp.gamma == gamma and seed == 1 else 1000 * hp.gamma
    )
    assert train(3).candidates[-1].number == best.number
    last = saved(tmp_path)["finalists"][-1]
    assert last["diverged_seeds"] == [1]
    assert last["level"]["mean"]["value"] == pytest.approx(1000 * gamma)


def test_they_are_found_again_until_better_trials_come(study, train, tmp_path):
    folder = StudyFolder(tmp_path)
    assert Finalists.load(folder, study) is None
    finalists = train(3)
    found = Finalists.load(folder, study)
    assert found.to_dict().keys() == finalists.to_dict().keys()
    assert [c.number for c in found.candidates] == [c.number for c in finalists.candidates]
    for one, other in zip(found.candidates, finalists.candidates, strict=True):
        np.testing.assert_array_equal(one.finals.returns, other.finals.returns)
    best = choose_finalists(study, 1)[0].trial
    better = dataclasses.replace(
        best,
        number=8,
        hyperparameters=dataclasses.replace(best.hyperparameters, gamma=0.95),
        score=1e6,
        returns={s: r + 1e6 for s, r in best.returns.items()},
    )
    later = dataclasses.replace(study, trials=[*study.trials, better])
    assert Finalists.load(folder, later) is None
    other = dataclasses.replace(best.hyperparameters, gamma=0.96)
    trials = [
        dataclasses.replace(t, hyperparameters=other) if t.number == best.number else t
        for t in study.trials
    ]
    assert Finalists.load(folder, dataclasses.replace(study, trials=trials)) is None


@pytest.mark.parametrize("steps", [[None], [0.5], ["1000"], 1000, [-1]])
def test_edited_steps_are_named(study, train, tmp_path, steps):
    train(3)
    (tmp_path / "finalists.json").write_text(json.dumps({**saved(tmp_path), "steps": steps}))
    with pytest.raises(UserError, match=r"finalists\.json: steps must be"):
        Finalists.load(StudyFolder(tmp_path), study)


def test_a_study_without_a_complete_trial_has_no_winner(programs, tmp_path):
    programs.returns = lambda hp, step, seed: np.nan
    study = StudyRecord.of(run_optimization(2, output=tmp_path, programs=programs))
    assert train_finalists(study, programs, StudyFolder(tmp_path)) is None
    assert not (tmp_path / "finalists.json").exists()


@pytest.mark.parametrize("top", [0, -1])
def test_mistakes_are_named(programs, study, tmp_path, top):
    with pytest.raises(UserError, match="top"):
        train_finalists(study, programs, StudyFolder(tmp_path / "out"), top=top)
    assert not (tmp_path / "out").exists()


def test_disk_that_is_full_for_results_and_training_states_is_reported_once(train, monkeypatch):
    unraisable = []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    monkeypatch.setattr(TrainingStates, "__exit__", full)
    monkeypatch.setattr("tune.evidence.finalists.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        train(1)
    assert not unraisable
