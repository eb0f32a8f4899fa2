"""The promise of the verdict, on few studies: a benchmark prints it for 10,000."""

import pytest

from benchmarks.verdicts import measure


@pytest.mark.parametrize(
    "distribution", [pytest.param("normal", marks=pytest.mark.slow), "500, in other time"]
)
def test_equal_configurations_are_rarely_called_improved(distribution):
    found = measure(distribution, 100, [8, 12, 20])
    # 2.5% are meant; three standard errors of 100 studies are 4.7%.
    assert found.by_validation[-1] <= 0.072
    assert found.by_look[-1] <= found.by_validation[0]
    assert 8 <= found.mean_seeds <= 20
