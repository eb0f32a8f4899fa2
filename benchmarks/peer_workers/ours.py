"""This project."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocol import Work, serve


def prepare(work: Work) -> Callable[[], int]:
    """Return a function that continues the training with each call."""
    from ppo_jax.devices import enable_all_cpu_cores

    enable_all_cpu_cores()
    import jax

    from ppo_jax.config import AgentConfig, TrainConfig, iterations_for
    from ppo_jax.hyperparameters import Hyperparameters
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING

    # The program of a whole study instead of one for these sizes.
    agent = AgentConfig(num_envs=work.num_envs, network="mlp")
    programs = Programs(TrainConfig(work.env, agent=agent), work.seeds)
    hyperparameters = Hyperparameters(
        n_steps=work.n_steps, batch_size=work.batch_size, n_epochs=work.n_epochs
    )
    steps = iterations_for(work.steps, work.n_steps) * work.n_steps
    state, trained = programs.init(seed_keys(0, TUNING, work.seeds)), 0

    def train() -> int:
        nonlocal state, trained
        trained += steps
        state, _ = programs.train_until(state, hyperparameters, trained, trained)
        jax.block_until_ready(state)
        return int(steps * work.seeds)

    return train


serve(prepare, "jax", "jaxlib", "gymnax")
