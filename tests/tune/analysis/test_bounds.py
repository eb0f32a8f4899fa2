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


def test_bound_of_the_domain_is_not_hit(make_trials):
    space = SearchSpace.from_tables({"gae_lambda": {"low": 0.5, "high": 1.0}})
    found = analyse(make_trials(lambda p, rng: p["gae_lambda"], 40, space=space), Settings())
    assert found.good_ranges["gae_lambda"].values[1] == 1.0
    assert not found.bounds_hit
