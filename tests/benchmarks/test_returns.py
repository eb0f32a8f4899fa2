"""The benchmark of returns: the rows of its table, and the curves in its picture."""

import dataclasses

import numpy as np
import pytest

from benchmarks import measuring
from benchmarks.returns import (
    REFERENCES,
    Reference,
    Result,
    others_published,
    plot,
    returns_table,
    standing,
)
from ppo_jax.errors import UserError
from ppo_jax.files import plain


def result(env="CartPole-v1", reduced=False):
    returns = np.linspace(10.0, 495.0, 4)[:, None] + np.arange(5.0)
    return Result(env, [1000, 2000, 3000, 4000], returns, 8, 9.0, 20.0, reduced, 1.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(490.0, "above"), (500.0, "below"), (497.0, "equal"), (None, "")],
)
def test_the_interval_says_how_a_mean_stands(value, expected):
    assert standing(result(), Reference(value, "", "")) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(493.0, "above"), (501.0, "below"), (494.5, "equal"), (499.5, "equal")]
)
def test_a_rounded_figure_is_met_within_its_rounding(value, expected):
    assert standing(result(), Reference(value, "", "", tolerance=1.5)) == expected


@pytest.mark.parametrize(
    ("steps", "mean", "expected"),
    [
        (4000, 497.0, "equal"),
        (1500, 173.7, "below"),  # That of the checkpoint after 2,000 steps.
        (500, None, "equal, more steps"),
        (9000, None, "equal, fewer steps"),
    ],
)
def test_presets_are_compared_after_as_many_steps(steps, mean, expected):
    reference = Reference(497.0, "497", "somebody", steps)
    there = result().at(steps)
    assert mean == (there and round(there.value, 1))
    assert standing(result(), reference) == expected


def test_a_row_holds_both_means_and_a_reduced_budget_is_not_compared():
    full, reduced = returns_table([result(), result(reduced=True)]).rows
    assert full[0] == "CartPole-v1"
    assert full[3] == "497.0"
    assert full[5] == REFERENCES["CartPole-v1"].text
    assert full[8:] == ("above, fewer steps", "9.0", "20.0")
    assert reduced[1].endswith("(reduced)")
    assert reduced[8] == ""


def test_results_are_stored_with_three_decimals_and_read_again():
    measured = dataclasses.replace(result(), returns=np.float32([[1 / 3, np.nan]]))
    stored = plain(measured.to_dict())
    assert stored["returns"] == [[0.333, None]]
    again = Result.from_dict(stored)
    np.testing.assert_array_equal(again.returns, [[0.333, np.nan]])
    assert dataclasses.replace(again, returns=None) == dataclasses.replace(measured, returns=None)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """What the documentation shows: two presets."""
    monkeypatch.setattr(measuring, "PUBLISHED", tmp_path)
    results = [result(env).to_dict() for env in ("CartPole-v1", "Acrobot-v1")]
    measuring.write_results(tmp_path / "returns.json", {**setting("1"), "results": results})


def setting(jax):
    return {"versions": {"python": "3.11", "jax": jax}, "sizes": {}}


@pytest.mark.usefixtures("published")
def test_the_published_results_of_other_presets_stay():
    (other,) = others_published(["CartPole-v1", "Pendulum-v1"], setting("1"))
    assert other.env == "Acrobot-v1"
    np.testing.assert_array_equal(other.returns, result().returns.round(3))


@pytest.mark.usefixtures("published")
def test_results_of_other_versions_are_not_mixed():
    with pytest.raises(
        UserError, match=r"with jax 1, and .* with jax 2; .* --envs CartPole-v1 Acrobot-v1$"
    ):
        others_published(["CartPole-v1"], setting("2"))
    assert not others_published(["CartPole-v1", "Acrobot-v1"], setting("2"))


def test_the_picture_has_a_curve_for_each_environment(tmp_path):
    from matplotlib.image import imread

    plot([result(), result("an environment without a reference")], tmp_path / "returns.png")
    pixels = imread(tmp_path / "returns.png")[..., :3]
    for half in np.array_split(pixels, 2, axis=1):
        assert (half.min(axis=(0, 1)) < 0.5).any()
