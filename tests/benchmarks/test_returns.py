"""The benchmark of returns: the rows of its table, and the curves in its picture."""

import dataclasses

import numpy as np
import pytest

from benchmarks.returns import REFERENCES, Reference, Result, plot, returns_table, standing
from tune.evidence.statistics import Estimate


def result(env="CartPole-v1", reduced=False):
    returns = np.linspace(10.0, 495.0, 4)[:, None] + np.arange(5.0)
    return Result(env, [1, 2, 3, 4], returns, np.full(5, 9.0), np.full(8, 20.0), reduced, 1.0)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((91.0, 95.0), "above"), ((80.0, 89.0), "below"), ((89.0, 91.0), "equal"), (None, "")],
)
def test_the_interval_says_how_a_mean_stands(interval, expected):
    assert standing(Estimate(90.0, interval), Reference(90.0, "", "")) == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((1.16, 1.2), "above"), ((1.0, 1.04), "below"), ((1.06, 1.07), "equal")],
)
def test_a_rounded_figure_is_met_within_its_rounding(interval, expected):
    assert standing(Estimate(1.1, interval), Reference(1.1, "", "", tolerance=0.05)) == expected


def test_a_row_holds_both_means_and_a_reduced_budget_is_not_compared():
    full, reduced = returns_table([result(), result(reduced=True)]).rows
    assert full[0] == "CartPole-v1"
    assert full[3] == "497.0"
    assert full[5] == REFERENCES["CartPole-v1"].text
    assert full[7:] == ("above", "9.0", "20.0")
    assert reduced[1].endswith("(reduced)")
    assert reduced[7] == ""


def test_results_are_stored_with_three_decimals():
    stored = dataclasses.replace(result(), untrained=np.float32([1 / 3, np.nan])).to_dict()
    assert str(stored["untrained"].tolist()) == "[0.333, nan]"
    assert (stored["env"], stored["steps"]) == ("CartPole-v1", [1, 2, 3, 4])


def test_the_picture_has_a_curve_for_each_environment(tmp_path):
    from matplotlib.image import imread

    plot([result(), result("an environment without a reference")], tmp_path / "returns.png")
    pixels = imread(tmp_path / "returns.png")[..., :3]
    for half in np.array_split(pixels, 2, axis=1):
        assert (half.min(axis=(0, 1)) < 0.5).any()
