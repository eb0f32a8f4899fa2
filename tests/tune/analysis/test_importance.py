"""Importances and interactions of a score whose structure is planted."""

import optuna
import pytest
from optuna.trial import create_trial

from tune.analysis.analysis import analyse
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace


def test_planted_parameters_are_the_important_ones(found, irrelevant):
    assert found.warning is None
    names = list(found.importances)
    assert set(names[:2]) == {"gamma", "clip_epsilon"}
    ped = sorted(names, key=lambda name: -found.importances[name].ped_anova)
    assert set(ped[:2]) == {"gamma", "clip_epsilon"}
    for name in ("gamma", "clip_epsilon"):
        assert found.importances[name].fanova_interval[0] > 0.05
    for name in irrelevant:
        assert found.importances[name].fanova < 0.05
    assert sum(i.ped_anova for i in found.importances.values()) == pytest.approx(1.0)


def test_planted_interaction_is_the_strongest(found):
    first, second, *_ = found.interactions
    assert set(first.pair) == {"learning_rate", "n_epochs"}
    assert first.share > 0.3
    assert first.share > 20 * second.share
    low, high = first.interval
    assert 0.2 < low < first.share < high
    named = {frozenset(i.pair) for i in found.interactions}
    assert {
        frozenset(p) for p in (("n_steps", "batch_size"), ("entropy_coef", "clip_epsilon"))
    } < named
    assert len(found.interactions) == 8


def test_ranking_is_the_one_of_optunas_fanova(found, make_trials, planted):
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            create_trial(value=t.score, params=t.params, distributions=t.distributions)
            for t in make_trials(planted, 60)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert set(list(theirs)[:2]) == set(list(found.importances)[:2])


def test_fixed_parameters_have_no_importance_and_switches_have(make_trials, irrelevant):
    space = SearchSpace.from_tables(
        {
            **{name: {"drop": True} for name in (irrelevant - {"n_steps"})},
            "gamma": {"value": 0.99},
            "anneal_learning_rate": {"choices": [True, False]},
        }
    )

    def score(params, rng):
        return 10 * params["anneal_learning_rate"] + params["n_epochs"] * 0.01

    found = analyse(make_trials(score, 30, space=space), Settings(space=space))
    assert "gamma" not in found.importances
    assert next(iter(found.importances)) == "anneal_learning_rate"
    assert found.importances["anneal_learning_rate"].fanova > 0.7
    assert found.good_ranges["anneal_learning_rate"].values == (True,)
    assert "anneal_learning_rate" not in found.bounds_hit
    pairs = {frozenset(i.pair) for i in found.interactions}
    assert frozenset(("learning_rate", "n_epochs")) in pairs
