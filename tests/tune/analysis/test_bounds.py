"""Bounds of the search space that the best trials hit, and those they do not."""

import functools

import numpy as np
import pytest

from tune.analysis import analysis
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace

# Bounds are hit by trials, whatever the intervals of importances say.
analyse = functools.partial(analysis.analyse, resamples=3)


def test_only_the_planted_bound_is_hit(found):
    assert found.bounds_hit.keys() == {"clip_epsilon"}
    hit = found.bounds_hit["clip_epsilon"]
    assert (hit.side, hit.bound, hit.widen_to) == ("high", 0.3, 0.4)
    assert hit.best == 15
    assert hit.count >= 5


@pytest.mark.parametrize(("rate", "is_hit"), [(1e-3, True), (8e-4, False)])
def test_bound_where_the_sampler_has_settled_is_hit(rate, is_hit, make_trials):
    def score(params, rng):
        return 100 * np.log10(params["learning_rate"]) + rng.standard_normal()

    found = analyse(make_trials(score, 24, settled={"learning_rate": rate}), Settings())
    assert ("learning_rate" in found.bounds_hit) == is_hit
    if is_hit:
        assert found.bounds_hit["learning_rate"].widen_to == 0.003


def test_largest_choice_is_a_bound(make_trials):
    def score(params, rng):
        return params["batch_size"] + rng.standard_normal()

    found = analyse(make_trials(score, 40), Settings())
    assert found.good_ranges["batch_size"].values == (512,)
    assert found.bounds_hit["batch_size"].widen_to == 1024


def test_bound_of_a_complement_is_told_of_the_hyperparameter(make_trials):
    table = {"gamma": {"low": 0.8, "high": 0.999, "log_complement": True}}
    space = SearchSpace.from_tables(table)
    settings = Settings(space=space)

    def told(sign):
        def score(params, rng):
            return sign * np.log10(params["one_minus_gamma"]) + rng.standard_normal() / 100

        found = analyse(make_trials(score, 40, space=space), settings)
        ((name, hit),) = found.bounds_hit.items()
        return name, hit.side, hit.bound, hit.widen_to

    assert told(1) == ("gamma", "low", 0.8, 0.4)
    assert told(-1) == ("gamma", "high", 0.999, 0.999667)


def test_no_bound_is_widened_beyond_what_the_hyperparameter_can_be(make_trials):
    space = SearchSpace.from_tables({"gamma": {"low": 0.3, "high": 0.9, "log_complement": True}})
    trials = make_trials(lambda p, rng: p["one_minus_gamma"], 40, space=space)
    hit = analyse(trials, Settings(space=space)).bounds_hit["gamma"]
    assert (hit.side, hit.bound, hit.widen_to) == ("low", 0.3, 0.0)


def test_nothing_lies_below_zero(make_trials):
    table = {"entropy_coef": {"low": 1e-5, "high": 0.1, "log": True, "zero": True}}
    space = SearchSpace.from_tables(table)
    trials = make_trials(lambda p, rng: -np.log(p["entropy_coef"]), 40, space=space)
    assert "entropy_coef" not in analyse(trials, Settings(space=space)).bounds_hit


def test_bound_of_the_domain_is_not_hit(make_trials):
    space = SearchSpace.from_tables({"gae_lambda": {"low": 0.5, "high": 1.0}})
    found = analyse(make_trials(lambda p, rng: p["gae_lambda"], 40, space=space), Settings())
    assert found.good_ranges["gae_lambda"].values[1] == 1.0
    assert not found.bounds_hit
