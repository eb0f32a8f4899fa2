import jax
import numpy as np

from ppo_jax.seeds import seed_keys
from tune.evidence.learning_curve import (
    TUNING_SEEDS,
    VALIDATION_SEEDS,
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
