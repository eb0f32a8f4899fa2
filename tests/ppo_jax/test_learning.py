"""The defaults learn."""

import pytest

from ppo_jax.config import TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Programs
from ppo_jax.seeds import TRAINING, seed_keys


@pytest.mark.slow
@pytest.mark.optimized
def test_the_defaults_solve_cartpole():
    programs = Programs(TrainConfig(), seeds=2)
    (checkpoint,) = programs.run(seed_keys(0, TRAINING, 2), Hyperparameters(), [500_000])
    assert checkpoint.returns.mean() >= 475, checkpoint.returns
    assert checkpoint.state.finite.all()
