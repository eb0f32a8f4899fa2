"""Programs that train nothing: what they return is a formula, at once.

For benchmarks of everything around training: files, storages, processes.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax import trainer
from ppo_jax.config import TrainConfig, iterations_for
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import LossMetrics
from ppo_jax.programs import Programs
from ppo_jax.seeds import TRAINING, seed_keys
from ppo_jax.trainer import TrainMetrics, TrainState

_NO_METRICS = TrainMetrics(LossMetrics(*[0.0] * len(LossMetrics._fields)), *[0.0] * 4)  # type: ignore[arg-type]


class StandIn(Programs):
    """Stands in for :class:`ppo_jax.programs.Programs`; its states have the same form.

    Each parameter of a lane is one number, which begins with the lane's key and moves at every
    checkpoint by what the configuration is worth. The return is that number. So a run that
    continues from a wrong state, or with a wrong configuration, returns something else.
    """

    def compile(self) -> None:
        """Do nothing."""

    def prepare(self) -> None:
        """Do nothing."""

    def init(self, keys: jax.Array) -> TrainState:
        """Return the state before the first iteration; see :class:`Programs`."""
        lanes = self.mesh.pad(keys)
        shapes = _shapes(self.config, self.mesh.lanes)
        first = np.asarray(jax.random.key_data(lanes)).astype(np.float64).sum(axis=1) % 10
        state: TrainState = jax.tree.map(
            lambda leaf: (
                lanes
                if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
                else np.zeros(leaf.shape, leaf.dtype)
            ),
            shapes,
        )
        return dataclasses.replace(
            state,
            params=_filled(state.params, first),
            finite=jnp.ones(self.mesh.lanes, bool),
            iteration=jnp.int32(0),
        )

    def train_until(
        self, state: TrainState, hyperparameters: Hyperparameters, steps: int, total_steps: int
    ) -> tuple[TrainState, TrainMetrics]:
        """Move the parameters; see :class:`Programs`."""
        del total_steps
        value = 0.5 * _value(state) + _worth(hyperparameters)
        trained = dataclasses.replace(
            state,
            params=_filled(state.params, value),
            iteration=jnp.int32(iterations_for(steps, hyperparameters.n_steps)),
        )
        return trained, jax.tree.map(lambda _: np.zeros(self.seeds), _NO_METRICS)

    def evaluate(self, state: TrainState, checkpoint: int) -> np.ndarray:
        """Return the parameters as returns, float32 ``[seeds, eval_episodes]``."""
        returns = _value(state)[: self.seeds, None] + checkpoint
        return np.repeat(returns, self.config.eval_episodes, axis=1).astype(np.float32)


@functools.cache
def _shapes(config: TrainConfig, lanes: int) -> Any:
    """Return shapes and types of the states of `lanes`."""
    return jax.eval_shape(
        lambda keys: jax.lax.map(lambda key: trainer.init(config, key), keys),
        jax.eval_shape(lambda: seed_keys(0, TRAINING, lanes)),
    )


def _worth(hyperparameters: Hyperparameters) -> float:
    return 1000 * (1 - hyperparameters.gamma) + 1000 * hyperparameters.learning_rate


def _filled(params: Any, values: np.ndarray) -> Any:
    """Return `params` with each lane's leaves full of its value, ``[lanes]``."""

    def fill(leaf: np.ndarray) -> np.ndarray:
        lanes = np.asarray(values, leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))
        return np.broadcast_to(lanes, leaf.shape).copy()

    return jax.tree.map(fill, params)


def _value(state: TrainState) -> np.ndarray:
    """Return what the parameters of each lane hold, ``[lanes]``."""
    leaf = np.asarray(jax.tree.leaves(state.params)[0])
    return leaf.reshape(len(leaf), -1)[:, 0]


class SlowStandIn(StandIn):
    """Takes long enough for a heartbeat or two."""

    def train_until(
        self, state: TrainState, hyperparameters: Hyperparameters, steps: int, total_steps: int
    ) -> tuple[TrainState, TrainMetrics]:
        """Move the parameters, a moment later; see :class:`StandIn`."""
        time.sleep(0.25)
        return super().train_until(state, hyperparameters, steps, total_steps)
