import numpy as np
import pytest
from scipy import stats

from tune.evidence.looks import (
    LEVEL_ERROR,
    SPEED_ERROR,
    error_levels,
    look_at,
    planned_looks,
    repeated,
)


@pytest.mark.parametrize("looks", [(8, 12, 20), (6, 10), (18, 26, 43)])
@pytest.mark.parametrize("error", [0.03, 0.01, 0.003])
def test_levels_agree_with_the_multivariate_normal_distribution(looks, error):
    bounds = stats.norm.isf(np.array(error_levels(looks, error)) / 2)
    for count in range(1, len(looks) + 1):
        own = np.sqrt(looks[:count])
        correlation = np.minimum.outer(own, own) / np.maximum.outer(own, own)
        none = stats.multivariate_normal(np.zeros(count), correlation).cdf(bounds[:count])
        spent = error / 2 * (looks[count - 1] / looks[-1]) ** 2
        assert 1 - none == pytest.approx(spent, rel=0.02, abs=1e-5)


def test_a_single_look_has_all_of_the_error():
    assert error_levels((5,), 0.03) == pytest.approx((0.03,))
    assert look_at(5, [5], 0.03).confidence == 0.97


def test_all_validations_of_a_folder_together_stay_below_the_promise():
    both_sides = sum(
        repeated(error, k) for error in (LEVEL_ERROR, SPEED_ERROR) for k in range(1, 200)
    )
    assert both_sides / 2 == pytest.approx(0.025)


@pytest.mark.parametrize("seeds", range(1, 60))
def test_looks_end_with_all_seeds_and_begin_with_enough(seeds):
    looks = planned_looks(seeds)
    assert looks == sorted(set(looks))
    assert looks[-1] == seeds
    assert all(look >= 6 for look in looks[:-1])
