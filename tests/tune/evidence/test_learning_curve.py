import jax
import numpy as np
import pytest

from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.seeds import seed_keys
from tune.evidence.learning_curve import (
    TUNING_SEEDS,
    VALIDATION_SEEDS,
    LearningCurve,
    SeedGroup,
    training_steps,
)
from tune.protocol.settings import Settings


def test_steps_hold_the_checkpoints_of_the_study():
    settings = Settings(total_steps=120_000)
    assert training_steps(settings, 200_000) == [50_000, 100_000, 120_000, 150_000, 200_000]
    assert training_steps(settings, 30_000) == [30_000]


def test_keys_of_a_group_are_of_its_purpose_and_of_what_it_is_drawn_for():
    def same(group, purpose):
        asked = jax.random.key_data(seed_keys(7, purpose, 3))
        return np.array_equal(jax.random.key_data(group.keys), asked)

    # The numbers themselves: with others, a study would not be continued but mixed.
    config, tuning, validation = Settings().config, 0, 1
    assert same(SeedGroup(config, TUNING_SEEDS, 7, 3, [1]), tuning)
    assert same(SeedGroup(config, VALIDATION_SEEDS, 7, 3, [1]), validation)
    assert same(SeedGroup(config, VALIDATION_SEEDS, 7, 3, [1], 42), (validation, 42))


def curve(means, noise=1.0, seeds=8):
    """Return a curve around `means`, every checkpoint of a seed with noise of its own."""
    means = np.asarray(means, float)[:, None]
    returns = means + noise * np.random.default_rng(0).normal(size=(len(means), seeds))
    steps = [1_000 * (place + 1) for place in range(len(means))]
    return LearningCurve(Hyperparameters(), steps, returns, 0, 0.0)


def test_a_curve_that_falls_has_an_earlier_peak():
    fallen = curve([0, 4, 8, 10, 10, 10, 8, 6, 4, 3, 2, 2])
    peak = fallen.earlier_peak(0.0)
    assert peak.step == 6_000
    assert peak.level == pytest.approx(fallen.returns[3:6].mean())
    assert fallen.earlier_peak(9.0) is None  # No difference that matters.
    assert curve([0, 4, 8, 10, 10, 10, 10]).earlier_peak(0.0) is None
    assert curve([0, 0, 0, 9, 9, 9, 0]).earlier_peak(0.0) is None  # It is part of the end.
    assert curve([10, 10, 10, 2, 2, 2], seeds=1).earlier_peak(0.0) is None


def test_diverged_seeds_have_no_part_in_a_peak():
    fallen = curve([0, 4, 8, 10, 10, 10, 8, 6, 4, 3, 2, 2], seeds=9)
    fallen.returns[7:, 4] = np.nan
    assert fallen.earlier_peak(0.0).step == 6_000


def test_noise_is_hardly_ever_a_peak():
    """The highest of 15 places is compared, so a plain interval would often lie above zero."""
    rng = np.random.default_rng(1)
    steps = list(range(1, 21))
    found = 0
    for _ in range(400):
        level = LearningCurve(Hyperparameters(), steps, rng.normal(size=(20, 8)), 0, 0.0)
        found += level.earlier_peak(0.0) is not None
    assert found / 400 < 0.05
