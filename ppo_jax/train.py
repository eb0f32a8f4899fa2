"""Train PPO with given hyperparameters on several seeds.

``ppo_jax.train`` has two callers. ``python -m ppo_jax.train`` is a command, whose options and
lines are here. ``ppo_jax.train("CartPole-v1", ...)`` is a function: this module can be called, and
is :func:`ppo_jax.training.train` then. Both run :class:`ppo_jax.training.Training`.
"""

if __name__ == "__main__":  # Before what takes long to import.
    from ppo_jax.scripts import start

    start("ppo_jax.train")


import dataclasses
import inspect
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

from ppo_jax import command_line, training
from ppo_jax.config import AgentConfig
from ppo_jax.files import folder_name
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.progress import PrintedProgress
from ppo_jax.text import fixed
from ppo_jax.tracking import TrackingConfig
from ppo_jax.training import Training


class _Callable(types.ModuleType):
    """The class of this module."""

    __call__ = staticmethod(training.train)


sys.modules[__name__].__class__ = _Callable
__doc__ = f"{inspect.getdoc(training.train)}\n\n{__doc__}"  # What ``help`` shows.
__signature__ = inspect.signature(training.train)


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Train PPO with given hyperparameters on several seeds at once.

    Prints the return of every seed at every checkpoint, and saves the policy of the best
    seed and a picture of the learning curve. The same command continues a training that was
    stopped, bit for bit; results of another one are never overwritten.
    """

    env: str = Training.env
    """Environment to train on."""
    env_kwargs: tuple[str, ...] = ()
    """Environment parameters to override, as name=value: max_steps_in_episode=1000."""
    preset: str | None = None
    """Start from the preset of this environment, or in a file NAME.toml: its hyperparameters and
    its agent."""
    total_steps: int = Training.total_steps
    """Environment steps of each seed."""
    seeds: int = Training.seeds
    """Seeds, trained at once."""
    seed: int = Training.seed
    """Root of all random numbers."""
    eval_every: int = Training.eval_every
    """Environment steps between checkpoints."""
    eval_episodes: int = Training.eval_episodes
    """Episodes of each seed at a checkpoint."""
    matmul_precision: str = Training.matmul_precision
    """Precision of matrix products: default (TF32 on an NVIDIA GPU, bfloat16 on a TPU), high, or
    highest (float32 everywhere, as on CPU)."""
    output: Path | None = None
    """Folder for the results. runs/train/ENV if not given."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """How it learns."""
    agent: AgentConfig = AgentConfig()
    """What learns."""
    tracking: TrackingConfig = TrackingConfig()
    """Where else the training is shown."""

    def training(self) -> Training:
        """Return the training that they ask for.

        Raises:
          UserError: for what can be seen to be wrong before anything starts.
        """
        own = {field.name for field in dataclasses.fields(Training)} - {"env_kwargs"}
        return Training(
            env_kwargs=command_line.parse_env_kwargs(self.env_kwargs),
            **{name: getattr(self, name) for name in own},
        )


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m ppo_jax.train``."""
    arguments = command_line.parse(Arguments, "python -m ppo_jax.train", args)
    command_line.run(lambda: _run(arguments), "; the same command goes on at the last checkpoint")


def _run(arguments: Arguments) -> None:
    arguments.tracking.require_packages()
    run = arguments.training()
    output = arguments.output or Path("runs") / "train" / folder_name(run.env)
    command_line.start_backend()

    programs = run.prepare(output)
    start = time.perf_counter()
    progress = PrintedProgress(run.env, run.seeds, run.steps)
    result = run.run(programs, output, progress=progress, tracking=arguments.tracking)
    total = result.environment_steps * run.seeds
    print(
        f"{total:,} steps in {time.perf_counter() - start:.1f} s, "
        f"{result.compile_seconds:.1f} s of it compiling; "
        f"{total / result.training_seconds:,.0f} steps/s in training"
    )
    diverged = result.diverged_seeds
    if len(diverged) == run.seeds:
        print(f"every seed has diverged, so there is no policy; the rest is in {output}")
        return
    if diverged:
        print(f"diverged and left out of the means: seeds {', '.join(map(str, diverged))}")
    print(
        f"final return {fixed(result.mean_returns[-1])}; policy of seed {result.best_seed} and "
        f"results in {output}"
    )
