"""``python -m benchmarks.exported``: what an exported configuration reaches in Stable-Baselines3.

Each configuration is trained here and, by the script that ``ppo_jax.export --to sb3`` writes, in
the virtual environment of :mod:`benchmarks.peers`, on Gymnasium's environment. Both are judged by
greedy episodes at the end.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Table, mean_of, with_interval
from benchmarks.peers import PEERS, WORKERS, build
from benchmarks.processes import output_of
from ppo_jax import command_line
from ppo_jax.config import AgentConfig
from ppo_jax.errors import require_choice
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.presets import Preset

PEER = "Stable-Baselines3"

CONFIGURATIONS = {
    "CartPole-v1": Preset(
        "CartPole-v1",
        (),
        100_000,
        Hyperparameters(anneal_learning_rate=True, learning_rate=1e-3, n_epochs=10),
        AgentConfig(),
        {},
    ),
    "Pendulum-v1": Preset(
        "Pendulum-v1",
        (),
        100_000,
        Hyperparameters(
            learning_rate=1e-3,
            gamma=0.9,
            n_epochs=10,
            batch_size=64,
            entropy_coef=0.0,
            clip_value_loss=False,
        ),
        AgentConfig(num_envs=4, normalize_observations=True, normalize_rewards=True),
        {},
    ),
}
"""Environment -> a configuration that learns it in 100,000 steps. Between them, they use all that
an export converts."""


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Train exported configurations here and in Stable-Baselines3 and compare their returns.

    Prints a table and writes exported.json.
    """

    envs: tuple[str, ...] = tuple(CONFIGURATIONS)
    """Environments."""
    seeds: int = 8
    """Seeds of each side."""
    episodes: int = 32
    """Episodes a seed is judged by."""
    total_steps: int | None = None
    """Environment steps of each seed; those of the configuration if not given."""
    environments: Path = Path("runs/benchmarks/environments")
    """Folder for the virtual environments, which are kept and reused."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.exported``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.exported", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    for env in arguments.envs:
        require_choice("--envs", env, tuple(CONFIGURATIONS))
    measuring.require_counts(arguments, "seeds", "episodes")
    from ppo_jax.files import make_folder, require_writable

    require_writable(arguments.output)
    command_line.start_backend()
    console = measuring.make_console()
    with console.status(f"building the environment of {PEER}"):
        python = build(PEER, PEERS[PEER], arguments.environments)
    make_folder(arguments.output)
    results = [compare(arguments, env, python) for env in arguments.envs]
    result_table(results).print(console)
    about = measuring.setting(seeds=arguments.seeds, episodes=arguments.episodes)
    requirements = PEERS[PEER].requirements
    path = arguments.output / "exported.json"
    measuring.write_results(path, {**about, "requirements": requirements, "results": results})
    console.print(str(path), markup=False, soft_wrap=True)


def compare(arguments: Arguments, env: str, python: Path) -> dict[str, Any]:
    """Return the returns of both sides, a number a seed."""
    from ppo_jax.environments import make
    from ppo_jax.export import writing
    from ppo_jax.training import train

    preset = CONFIGURATIONS[env]
    steps = arguments.total_steps or preset.total_steps
    preset = dataclasses.replace(preset, total_steps=steps)
    ours = train(
        env,
        hyperparameters=preset.hyperparameters,
        agent=preset.agent,
        total_steps=steps,
        eval_every=steps,
        eval_episodes=arguments.episodes,
        seeds=arguments.seeds,
    )
    script = arguments.output / f"exported_{env}.py"
    script.write_text(writing.sb3(writing.Source.of(preset, make(env).spaces)), encoding="utf-8")
    command = [python, WORKERS / "exported.py", script, arguments.seeds, arguments.episodes]
    answer = output_of(
        list(map(str, command)),
        # A peer sees only the packages of its own virtual environment.
        {key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    theirs = json.loads(answer.strip().splitlines()[-1])
    return {"env": env, "steps": steps, "ours": ours.returns[-1], "theirs": theirs}


def result_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return a row per environment; differences with Welch's 95% interval."""
    from ppo_jax.statistics import welch_interval

    headers = ("", "steps", "ppo_jax", PEER, "difference", "within it")
    table = Table("Returns of one configuration in two implementations", headers)
    for result in results:
        ours, theirs = np.asarray(result["ours"]), np.asarray(result["theirs"])
        difference, interval = float(theirs.mean() - ours.mean()), welch_interval(theirs, ours)
        low, high = interval or (np.nan, np.nan)
        table.add(
            result["env"],
            f"{result['steps']:,}",
            with_interval(mean_of(ours)),
            with_interval(mean_of(theirs)),
            f"{difference:+.1f} ({low:+.1f} … {high:+.1f})",
            "yes" if low <= 0 <= high else "no",
        )
    return table


if __name__ == "__main__":
    main()
