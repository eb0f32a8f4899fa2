"""How a training run goes, as lines: for the command, and for functions that are asked for it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ppo_jax.text import decimals, fixed

if TYPE_CHECKING:
    from ppo_jax.programs import Checkpoint


class PrintedProgress:
    """Prints a line a checkpoint of a training run.

    Args:
      env: name of the environment.
      seeds: trained at once.
      steps: nominal environment steps of the checkpoints.
    """

    def __init__(self, env: str, seeds: int, steps: Sequence[int]) -> None:
        self._env, self._seeds, self._steps = env, seeds, steps
        self._taken = 0

    def started(self) -> None:
        """Say what is trained."""
        print(f"{self._env}: {self._seeds} seeds × {self._steps[-1]:,} steps", flush=True)

    def resumed(self, passed: int, taken: int) -> None:
        """Say where an earlier process has stopped.

        Args:
          passed: checkpoints so far, at least one.
          taken: environment steps of each seed so far.
        """
        self._taken = taken
        print(f"going on after {self._steps[passed - 1]:,} steps", flush=True)

    def checkpoint(self, checkpoint: "Checkpoint") -> None:
        """Report a checkpoint."""
        digits = decimals(*checkpoint.returns)
        per_seed = " ".join(fixed(value, digits) for value in checkpoint.returns)
        print(
            f"{checkpoint.step:>12,} steps  return {fixed(_mean(checkpoint.returns), digits):>8}"
            f"  per seed {per_seed}"
            f"  |  {self._training(checkpoint)}",
            flush=True,
        )
        self._taken = checkpoint.environment_steps

    def _training(self, checkpoint: "Checkpoint") -> str:
        """Return how the training went since the last checkpoint."""
        if checkpoint.environment_steps == self._taken:
            return "no update since the last checkpoint"
        metrics, loss = checkpoint.metrics, checkpoint.metrics.loss
        return (
            f"kl {_mean(loss.approx_kl):.4f}  clipped {_mean(loss.clip_fraction):.2f}"
            f"  entropy {_mean(loss.entropy):.2f}"
            f"  explained variance {_mean(metrics.explained_variance):.2f}"
        )


def _mean(values: ArrayLike) -> float:
    values = np.asarray(values)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
