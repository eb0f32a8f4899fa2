"""``python -m benchmarks.recall``: networks with and without a memory on tasks that need one.

In MemoryChain the first observation says which action will be right at the end; all others say
nothing, so without a memory the return is that of chance, 0. In :class:`PositionsOnly`, CartPole
without its velocities, one observation does not say which way the pole moves.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Report, Table, mean_of
from ppo_jax import command_line
from ppo_jax.config import AgentConfig, EnvKwargs, checkpoint_steps, config_for
from ppo_jax.environments import Discrete, Spaces, Timestep, make
from ppo_jax.errors import require_choice
from ppo_jax.hyperparameters import Hyperparameters

NETWORKS = ("gru", "lstm", "mlp")


class PositionsOnly:
    """CartPole that shows the place of the cart and the angle of the pole alone."""

    name = "PositionsOnly"
    spaces = Spaces((2,), Discrete(2))
    observation_dtype = jnp.dtype(jnp.float32)
    max_episode_steps = 500
    costly_reset = False

    def __init__(self) -> None:
        self._whole = make("CartPole-v1")

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Return state and observation of a new episode."""
        state, observation = self._whole.reset(key)
        return state, observation[jnp.array([0, 2])]

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Timestep:
        """Take one step."""
        timestep = self._whole.step(key, state, action)
        return timestep._replace(observation=timestep.observation[jnp.array([0, 2])])


class Task(NamedTuple):
    """A task of memory.

    Attributes:
      env, env_kwargs: the environment.
      total_steps: environment steps of each seed.
      solved: return from which a seed counts as solved.
      hyperparameters: of all networks.
      sequence_length: of those that remember.
    """

    env: str
    env_kwargs: EnvKwargs
    total_steps: int
    solved: float
    hyperparameters: Hyperparameters
    sequence_length: int


TASKS = {
    "MemoryChain-bsuite": Task(
        "MemoryChain-bsuite",
        (("memory_length", 20),),
        250_000,
        0.9,
        Hyperparameters(learning_rate=1e-3, anneal_learning_rate=True),
        32,
    ),
    "CartPole-v1 without velocities": Task(
        "benchmarks.recall:PositionsOnly",
        (),
        500_000,
        475.0,
        Hyperparameters(learning_rate=1e-3, anneal_learning_rate=True),
        32,
    ),
}
"""Name -> task."""


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Train networks with and without a memory on tasks that need one.

    Prints a table and writes recall.json and recall.png.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks."""
    networks: tuple[str, ...] = NETWORKS
    """Networks."""
    seeds: int = 8
    """Seeds of each network on each task."""
    total_steps: int | None = None
    """Environment steps of each seed, the task's own by default."""
    eval_episodes: int = 100
    """Episodes of each seed at a checkpoint."""
    seed: int = 0
    """Root of all random numbers."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Returns of one network on one task.

    Attributes:
      steps: nominal steps of the checkpoints, ``[checkpoints]``.
      returns: float ``[checkpoints, seeds]``.
      seconds: of training, without evaluation and compiling.
    """

    task: str
    network: str
    steps: list[int]
    returns: np.ndarray
    seconds: float


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.recall``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.recall", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    from ppo_jax.files import require_writable

    counts = ("seeds", "eval_episodes", "total_steps")
    given = [name for name in counts if getattr(arguments, name) is not None]
    measuring.require_counts(arguments, *given)
    for name in arguments.tasks:
        require_choice("tasks", name, TASKS)
    for name in arguments.networks:
        require_choice("networks", name, NETWORKS)
    require_writable(arguments.output)
    command_line.start_backend()
    console = measuring.make_console()
    measured_with = measuring.setting(seeds=arguments.seeds, eval_episodes=arguments.eval_episodes)
    measuring.print_setting(measured_with, console)
    results = []
    for task in arguments.tasks:
        for network in arguments.networks:
            result = measure(task, network, arguments)
            results.append(result)
            mean = result.returns[-1].mean()
            console.print(
                f"{task}, {network}: {mean:.2f} after {result.steps[-1]:,} steps, "
                f"{result.seconds:.0f} s of training",
                markup=False,
            )
    table = recall_table(results)
    table.print(console)
    report = Report(
        "recall",
        f"`python -m benchmarks.recall`, {measuring.machine(measured_with)}: {arguments.seeds} "
        f"seeds, greedy policies, {arguments.eval_episodes} episodes each.",
        "Networks with and without a memory",
        [table.markdown()],
        {**measured_with, "results": [dataclasses.asdict(result) for result in results]},
        lambda path: plot(results, path),
    )
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def measure(name: str, network: str, arguments: Arguments) -> Result:
    """Train a network on a task and return its returns at every checkpoint."""
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import TRAINING, seed_keys

    task = TASKS[name]
    agent = AgentConfig(network=network, sequence_length=task.sequence_length)
    config = config_for(
        task.hyperparameters,
        agent,
        env=task.env,
        env_kwargs=task.env_kwargs,
        eval_episodes=arguments.eval_episodes,
    )
    total = arguments.total_steps or task.total_steps
    steps = checkpoint_steps(-(-total // 10), total)
    keys = seed_keys(arguments.seed, TRAINING, arguments.seeds)
    programs = Programs(config, arguments.seeds)
    checkpoints = list(programs.run(keys, task.hyperparameters, steps))
    return Result(
        name,
        network,
        steps,
        np.stack([checkpoint.returns for checkpoint in checkpoints]),
        sum(checkpoint.training_seconds for checkpoint in checkpoints),
    )


def recall_table(results: Sequence[Result]) -> Table:
    """Return mean returns at the end of training and how many seeds have solved the task."""
    headers = ("", "network", "steps", "return", "95% interval", "solved from", "seeds solved")
    table = Table("Return at the end of training", headers)
    for result in results:
        last = result.returns[-1]
        solved, mean = TASKS[result.task].solved, mean_of(last)
        interval = "" if mean.interval is None else "{:.2f} … {:.2f}".format(*mean.interval)
        share = f"{int((last >= solved).sum())} of {len(last)}"
        steps = f"{result.steps[-1]:,}"
        value = f"{mean.value:.2f}"
        table.add(result.task, result.network, steps, value, interval, f"{solved:g}", share)
    return table


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the learning curves of every network, a panel a task."""
    from ppo_jax.plots import BLUE, GREY, ORANGE, picture

    colors = dict(zip(NETWORKS, (BLUE, ORANGE, GREY), strict=True))
    tasks = list(dict.fromkeys(result.task for result in results))
    with picture(path, 4.0 * len(tasks), 3.0) as figure:
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for result in (r for r in results if r.task == task):
                color, curves = colors[result.network], np.ma.masked_invalid(result.returns)
                axes.plot(result.steps, curves, color=color, alpha=0.25, linewidth=0.8)
                axes.plot(result.steps, curves.mean(axis=1), color=color, label=result.network)
            axes.set(xlabel="environment steps", ylabel="return")
            axes.set_title(task, fontsize=10)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        panels[0].legend(frameon=False)


if __name__ == "__main__":
    main()
