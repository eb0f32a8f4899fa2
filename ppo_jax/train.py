"""``python -m ppo_jax.train``: train PPO with given hyperparameters on several seeds."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import ArrayLike

from ppo_jax import command_line
from ppo_jax.config import AgentConfig, TrainConfig, checkpoint_steps, config_for, iterations_for
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.files import folder_name, make_folder, read_json, require_writable, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.identity import first_difference
from ppo_jax.tracking import Tracker, TrackingConfig

if TYPE_CHECKING:
    from ppo_jax.programs import Checkpoint


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train PPO with given hyperparameters on several seeds at once.

    Prints the return of every seed at every checkpoint, and saves the policy of the best
    seed and a picture of the learning curve. The same command continues a training that was
    stopped, bit for bit; results of another one are never overwritten.
    """

    hyperparameters: Annotated[Hyperparameters, tyro.conf.arg(name="")] = Hyperparameters()
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = AgentConfig()
    preset: str | None = None
    """Start from the preset of this environment: its hyperparameters and its agent."""
    env: str = TrainConfig.env
    """Environment to train on."""
    env_kwargs: tuple[str, ...] = ()
    """Environment parameters to override, as name=value: max_steps_in_episode=1000."""
    total_steps: int = 500_000
    """Environment steps of each seed."""
    seeds: int = 4
    """Seeds, trained at once."""
    seed: int = 0
    """Root of all random numbers."""
    eval_every: int = 50_000
    """Environment steps between checkpoints."""
    eval_episodes: int = TrainConfig.eval_episodes
    """Episodes of each seed at a checkpoint."""
    matmul_precision: str = TrainConfig.matmul_precision
    """Precision of matrix products: default (TF32 on an NVIDIA GPU, bfloat16 on a TPU), high, or
    highest (float32 everywhere, as on CPU)."""
    output: Path | None = None
    """Folder for the results. runs/train/ENV if not given."""
    tracking: Annotated[TrackingConfig, tyro.conf.arg(name="")] = TrackingConfig()


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m ppo_jax.train``."""
    arguments = command_line.parse(Arguments, "python -m ppo_jax.train", args)
    command_line.run(lambda: _run(arguments), "; the same command goes on at the last checkpoint")


def _run(arguments: Arguments) -> None:
    require_count("--seeds", arguments.seeds)
    require_count("--total-steps", arguments.total_steps, high=LARGEST_STEPS)
    require_count("--eval-every", arguments.eval_every, high=LARGEST_STEPS)
    require_count("--seed", arguments.seed, low=0, high=2**32 - 1)
    arguments.tracking.require_packages()
    hyperparameters = arguments.hyperparameters.validated()
    iterations_for(arguments.total_steps, hyperparameters.n_steps)
    config = config_for(
        hyperparameters,
        arguments.agent,
        env=arguments.env,
        env_kwargs=command_line.parse_env_kwargs(arguments.env_kwargs),
        eval_episodes=arguments.eval_episodes,
        matmul_precision=arguments.matmul_precision,
    )
    output = arguments.output or Path("runs") / "train" / folder_name(arguments.env)

    command_line.start_backend()
    from ppo_jax import policy
    from ppo_jax.plots import plot_learning_curve
    from ppo_jax.programs import Programs, lane_weights
    from ppo_jax.seeds import TRAINING, seed_keys
    from ppo_jax.training_state import TrainingStates
    from ppo_jax.versions import device_description, versions

    programs = Programs(config, arguments.seeds)
    require_writable(output)
    keys = seed_keys(arguments.seed, TRAINING, arguments.seeds)
    steps = checkpoint_steps(arguments.eval_every, arguments.total_steps)
    run = {
        "hyperparameters": hyperparameters.to_dict(),
        "config": config.to_dict(),
        "seeds": {"root": arguments.seed, "count": arguments.seeds},
        "steps": steps,
    }
    _require_no_other_run(output / "training.json", run)
    print(f"{config.env}: {arguments.seeds} seeds × {arguments.total_steps:,} steps", flush=True)

    start = time.perf_counter()
    rows: list[np.ndarray] = []
    training_seconds = 0.0
    programs.compile()
    state = programs.init(keys)
    with TrainingStates(output / "training_state", run) as states:
        if states.exists():
            state, progress = states.restore(state)
            rows = [np.array(row, float) for row in progress["returns"]]
            training_seconds = progress["training_seconds"]
            print(f"going on after {steps[len(rows) - 1]:,} steps", flush=True)
        taken = int(state.iteration) * hyperparameters.n_steps
        with Tracker(
            arguments.tracking,
            output,
            name="",
            group=config.env,
            hyperparameters=hyperparameters.to_dict(),
            environment_steps=taken,
        ) as tracker:
            for checkpoint in programs.run(keys, hyperparameters, steps, len(rows), state):
                state = checkpoint.state
                rows.append(checkpoint.returns)
                training_seconds += checkpoint.training_seconds
                states.save(
                    state,
                    {"returns": rows, "training_seconds": training_seconds},
                    final=checkpoint.step == steps[-1],
                )
                tracker.checkpoint(checkpoint)
                print(
                    f"{checkpoint.step:>12,} steps  return {_mean(checkpoint.returns):8.1f}"
                    f"  per seed {' '.join(f'{value:.1f}' for value in checkpoint.returns)}"
                    f"  |  {_progress(checkpoint, taken)}",
                    flush=True,
                )
                taken = checkpoint.environment_steps
    returns = np.stack(rows)
    diverged = np.flatnonzero(~np.isfinite(returns[-1])).tolist()
    total = taken * arguments.seeds
    print(
        f"{total:,} steps in {time.perf_counter() - start:.1f} s, "
        f"{programs.compile_log.seconds:.1f} s of it compiling; "
        f"{total / training_seconds:,.0f} steps/s in training"
    )

    make_folder(output)
    results = run | {
        "environment_steps_per_seed": taken,
        "returns": returns,
        "diverged_seeds": diverged,
        "training_seconds": training_seconds,
        "compile_seconds": programs.compile_log.seconds,
        "versions": versions(),
        "device": device_description(),
    }
    write_json(output / "training.json", results)
    plot_learning_curve(
        f"{config.env}: {arguments.seeds} seeds", steps, returns, output / "learning_curve.png"
    )
    if len(diverged) == arguments.seeds:
        print(f"every seed has diverged, so there is no policy; the rest is in {output}")
        return
    best = int(np.nanargmax(returns[-1]))
    policy.save(
        output / "policy",
        config,
        lane_weights(state, best),
        hyperparameters=hyperparameters.to_dict(),
        training={"steps": arguments.total_steps, "seed": best, "final_return": returns[-1, best]},
    )
    if diverged:
        print(f"diverged and left out of the means: seeds {', '.join(map(str, diverged))}")
    print(f"final return {_mean(returns[-1]):.1f}; policy of seed {best} and results in {output}")


def _require_no_other_run(results: Path, run: dict[str, Any]) -> None:
    """Refuse to overwrite `results` unless they are of this run, or are torn."""
    try:
        stored = read_json(results)
        before = {name: stored[name] for name in run}
    except (UserError, KeyError, TypeError):
        return
    difference = first_difference(before, run)
    if difference is not None:
        raise UserError(
            f"{results.parent} holds the results of a run with {difference.name} = "
            f"{difference.stored}, but got {difference.asked}; choose another --output"
        )


def _progress(checkpoint: "Checkpoint", taken: int) -> str:
    """Return how the training went since the last checkpoint, at `taken` environment steps."""
    if checkpoint.environment_steps == taken:
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


if __name__ == "__main__":
    main()
