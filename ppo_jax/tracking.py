"""What TensorBoard and Weights & Biases are told of a training, in the names of CleanRL.

(Huang et al., 2022, "CleanRL", JMLR 23(274); https://docs.cleanrl.dev.) Means over the seeds
that have not diverged, once a checkpoint, from metrics that the programs have reduced.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.errors import UserError, require_package

if TYPE_CHECKING:  # Options are read before a backend may start.
    from ppo_jax.programs import Checkpoint

RETURN = "eval/return"


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    """Where a training is logged besides its own files."""

    tensorboard: bool = False
    """Write event files for TensorBoard to OUTPUT/tensorboard (extra tensorboard)."""
    wandb: str | None = None
    """Project of Weights & Biases to log to (extra wandb)."""

    def require_packages(self) -> None:
        """Raise a ``UserError`` unless what is asked for is installed."""
        if self.tensorboard:
            require_package("tensorboardX", extra="tensorboard", option="--tensorboard")
        if self.wandb is not None:
            require_package("wandb", extra="wandb", option="--wandb")
            if not self.wandb.strip():
                raise UserError(f"--wandb takes the name of a project, but got {self.wandb!r}")


class Tracker:
    """One run: a training, or a trial of a study. A context manager.

    Args:
      name: of the run; a folder of OUTPUT/tensorboard, which itself is the run if it is empty.
      group: of runs that belong together.
      hyperparameters: to compare runs by.
      environment_steps: of each seed that an earlier process has logged; its event files
        stay, while those of an earlier run are removed.
    """

    def __init__(
        self,
        config: TrackingConfig,
        output: Path,
        name: str,
        group: str,
        hyperparameters: Mapping[str, Any],
        environment_steps: int = 0,
    ) -> None:
        self._steps = environment_steps
        self._events = self._run = None
        if config.tensorboard:
            folder = output / "tensorboard" / name
            self._events = _event_writer(folder, hyperparameters, environment_steps)
        if config.wandb is not None:
            self._run = _wandb_run(config.wandb, output, name or group, group, hyperparameters)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def checkpoint(self, checkpoint: "Checkpoint") -> None:
        """Log a checkpoint at the environment steps that each seed has taken."""
        values = scalars(checkpoint, checkpoint.environment_steps - self._steps)
        self._steps = checkpoint.environment_steps
        self.log(values)

    def log(self, values: Mapping[str, float]) -> None:
        """Log `values` at the last checkpoint's steps; what is not finite is left out."""
        values = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, self._steps)
            self._events.flush()
        if self._run is not None:
            self._run.log(values, step=self._steps)

    def close(self) -> None:
        """End the run."""
        if self._events is not None:
            self._events.close()
        if self._run is not None:
            self._run.finish()


def scalars(checkpoint: "Checkpoint", steps: int) -> dict[str, float]:
    """Return tag -> value.

    Args:
      checkpoint: what to log.
      steps: environment steps of each seed since the last checkpoint.
    """
    metrics, loss = checkpoint.metrics, checkpoint.metrics.loss
    finite = np.isfinite(checkpoint.returns)

    def mean(values: Any) -> float:
        values = np.asarray(values)[finite]
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else math.nan

    return {
        RETURN: mean(checkpoint.returns),
        "charts/episodic_return": mean(metrics.episodic_return),
        "charts/episodic_length": mean(metrics.episode_length),
        "charts/SPS": steps * len(finite) / max(checkpoint.training_seconds, 1e-9),
        "charts/diverged_seeds": float((~finite).sum()),
        "losses/policy_loss": mean(loss.policy_loss),
        "losses/value_loss": mean(loss.value_loss),
        "losses/entropy": mean(loss.entropy),
        "losses/approx_kl": mean(loss.approx_kl),
        "losses/clipfrac": mean(loss.clip_fraction),
        "losses/explained_variance": mean(metrics.explained_variance),
    }


def _event_writer(folder: Path, hyperparameters: Mapping[str, Any], steps: int) -> Any:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    if not steps:
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
    writer = SummaryWriter(str(folder), purge_step=steps + 1 if steps else None)
    # `add_hparams` would log them as a separate run.
    for summary in hparams(dict(hyperparameters), {RETURN: 0.0}):
        writer.file_writer.add_summary(summary)
    return writer


def _wandb_run(
    project: str, output: Path, name: str, group: str, hyperparameters: Mapping[str, Any]
) -> Any:
    import wandb

    output.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=project,
            name=name,
            group=group,
            config=dict(hyperparameters),
            dir=str(output),  # Older versions take no path.
            reinit="create_new",  # Of trials side by side, each has a run of its own.
            settings=wandb.Settings(console="off"),
        )
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases cannot log to {project!r}: {error}") from error
