"""``python -m benchmarks.studies``: whole studies, and what they recommend.

Each is a command as users type it, with finalists and validation, in a process and a folder of its
own. Studies that are there already are not run again, so the same command continues.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Report, Table
from benchmarks.processes import ProcessError, module_command, module_environment, output_of
from benchmarks.returns import REFERENCES
from ppo_jax import command_line
from ppo_jax.config import AgentConfig, changed
from ppo_jax.errors import UserError, require_choice
from ppo_jax.files import folder_name, make_folder, read_json, require_writable
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.text import decimals, fixed
from tune.evidence.learning_curve import mean_of_finite

if TYPE_CHECKING:
    from rich.console import Console

_MINATAR = ("--network", "mlp", "--total-steps", "1000000", "--eval-every", "250000")
"""The network is that of the published returns; convolutions take a CPU many times as long."""

TASKS: Mapping[str, Sequence[str]] = {
    "Pendulum-v1": (),
    "Acrobot-v1": (),
    "MountainCar-v0": (),
    "MountainCarContinuous-v0": (),
    "CartPole-v1": (),
    "Breakout-MinAtar": _MINATAR,
    "Asterix-MinAtar": _MINATAR,
    "brax/inverted_pendulum": ("--eval-episodes", "8"),
}
"""Environment -> options of its studies besides those that all have."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Run whole studies over the wide space and print what they recommend.

    Prints a table and writes studies.json and studies.png.
    """

    envs: tuple[str, ...] = tuple(TASKS)
    """Environments."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A study of each environment for each of these root seeds."""
    trials: int = 30
    """Trials of a study."""
    fix: tuple[str, ...] = ()
    """What the studies do not tune, as for ``tune.run``: --fix hidden_sizes on a CPU."""
    folders: Path = Path("runs/benchmarks/studies")
    """Folder for those of the studies, which are kept: the same command continues."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Show these studies in the documentation, beside those that it shows already; these are not
    run again."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What one study has found, as its files say.

    Attributes:
      seed: root of its random numbers.
      trials: that it finished.
      seeds: of the validation.
      steps: nominal steps of its checkpoints, ``[checkpoints]``.
      recommended, default: mean return over the seeds at each, ``[checkpoints]``.
      levels: of the two, each the mean of the last three checkpoints.
      difference: of the level of the winner from that of the default, low and high end of its
        interval behind it; None where the winner is the default.
      level, speed: outcomes; None likewise.
      configuration: what is recommended and differs from the defaults.
    """

    seed: int
    trials: int
    seeds: int
    steps: list[int]
    recommended: list[float]
    default: list[float]
    levels: tuple[float, float]
    difference: tuple[float, float, float] | None
    level: str | None
    speed: str | None
    configuration: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Found":
        """Read the folder of a study.

        Raises:
          UserError: when it holds no validated study.
        """
        names = ("recommended", "validation", "optimization_results")
        recommended, validation, results = (read_json(folder / f"{name}.json") for name in names)
        try:
            sides = validation[validation["recommended"]], validation["baseline"]
            curves = [
                np.array([mean_of_finite(np.array(seeds, float)) for seeds in side["returns"]])
                for side in sides
            ]
            of_level = validation["level"]
            difference = of_level and of_level["difference"]
            agent = AgentConfig.from_dict(recommended["agent"])
            return cls(
                seed=validation["seeds"]["root"],
                trials=results["n_trials"]["total"],
                seeds=validation["seeds_trained"],
                steps=validation["steps"],
                recommended=curves[0].tolist(),
                default=curves[1].tolist(),
                levels=(float(curves[0][-3:].mean()), float(curves[1][-3:].mean())),
                difference=difference and (difference["value"], *difference["interval"]),
                level=validation["level_outcome"],
                speed=validation["speed_outcome"],
                configuration={
                    **changed(Hyperparameters.from_dict(recommended["hyperparameters"])),
                    **changed(agent),
                },
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no validated study: {error!r} is missing") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Found":
        """Return what ``dataclasses.asdict`` has stored."""
        difference = values["difference"] and tuple(values["difference"])
        return cls(**{**values, "levels": tuple(values["levels"]), "difference": difference})

    @property
    def is_improved(self) -> bool:
        """Whether the level or the speed is."""
        return "improved" in (self.level, self.speed)

    def at(self, steps: int) -> float | None:
        """Return the recommended configuration's mean return after so many steps.

        That of the first checkpoint from there on; None where the validation begins later or ends
        before.
        """
        if not self.steps[0] <= steps <= self.steps[-1]:
            return None
        return self.recommended[int(np.searchsorted(self.steps, steps))]


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.studies``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.studies", args)
    command_line.run(
        lambda: _run(arguments), "; studies that have ended are kept, the same command continues"
    )


def _run(arguments: Arguments) -> None:
    for env in arguments.envs:
        require_choice("--envs", env, TASKS)
    measuring.require_counts(arguments, "trials")
    measuring.require_counts(arguments, "seeds", low=0)
    for folder in (arguments.folders, arguments.output):
        require_writable(folder)
    make_folder(arguments.output)
    console = measuring.make_console()
    setting = measuring.setting(trials=arguments.trials, fix=arguments.fix)
    found = published(setting) if arguments.publish else {}
    for env in arguments.envs:
        there = {one.seed: one for one in found.get(env, ())}
        for seed in arguments.seeds:
            if seed not in there:
                there[seed] = run_study(arguments, env, seed, console)
        found[env] = [there[seed] for seed in sorted(there)]
    found = {env: found[env] for env in TASKS if env in found}
    report = report_of(arguments, setting, found)
    study_table(found).print(console)
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def published(setting: Mapping[str, Any]) -> dict[str, list[Found]]:
    """Return the studies that the documentation shows.

    Raises:
      UserError: when they are others than `setting` says.
    """
    path = measuring.PUBLISHED / "studies.json"
    if not path.exists():
        return {}
    results = read_json(path)
    again = f"to begin anew, remove {path}"
    measuring.require_same_setting(results, setting, ("trials", "fix"), again)
    return {
        env: [Found.from_dict(one) for one in studies]
        for env, studies in results["studies"].items()
    }


def command(env: str, arguments: Arguments, seed: int) -> list[str]:
    """Return the arguments of ``tune.run`` for a study, without its folder."""
    return ["--env", env, *options_of_all(arguments), "--seed", str(seed), *TASKS[env]]


def options_of_all(arguments: Arguments) -> list[str]:
    """Return what is the same in all studies."""
    fixed_names = ["--fix", *arguments.fix] if arguments.fix else []
    return ["--space", "wide", *fixed_names, "--trials", str(arguments.trials)]


def run_study(arguments: Arguments, env: str, seed: int, console: "Console") -> Found:
    """Run a study, or read the one that is there.

    Raises:
      UserError: when it fails.
    """
    folder = arguments.folders / f"{folder_name(env)}-{seed}"
    if not has_ended(folder, arguments.trials):
        options = command(env, arguments, seed)
        console.print(" ".join(["python -m tune.run", *options]), markup=False, soft_wrap=True)
        try:
            output_of(
                module_command("tune.run", *options, "--output", folder), module_environment()
            )
        except ProcessError as error:
            raise UserError(f"the study in {folder} failed: {error}") from error
    found = Found.read(folder)
    outcome = found.level and f"level {found.level}, speed {found.speed}"
    console.print(
        f"{env}, seed {seed}: {fixed(found.levels[0])} against {fixed(found.levels[1])} with the "
        f"defaults, {outcome or 'the defaults are the winner'}",
        markup=False,
        soft_wrap=True,
    )
    return found


def has_ended(folder: Path, trials: int) -> bool:
    """Return whether a folder holds a verdict on so many trials; all others go on."""
    results = folder / "optimization_results.json"
    if not results.exists():
        return False
    found = read_json(results)
    return found["verdict"] is not None and found["n_trials"]["total"] >= trials


def report_of(
    arguments: Arguments, setting: Mapping[str, Any], found: Mapping[str, Sequence[Found]]
) -> Report:
    """Return the report of the studies."""
    improved = sum(all(one.is_improved for one in studies) for studies in found.values())
    return Report(
        "studies",
        f"`python -m benchmarks.studies`, {measuring.machine(setting)}: studies with root seeds "
        f"from 0, `tune.run {' '.join(options_of_all(arguments))}`, with fresh seeds as the "
        f"validation needs them. *Improved* in all of an environment's studies: {improved} of "
        f"{len(found)}.",
        "What studies over the wide space recommend",
        [study_table(found).markdown()],
        {
            **setting,
            "commands": {env: command(env, arguments, 0) for env in found},
            "studies": {
                env: [dataclasses.asdict(one) for one in studies] for env, studies in found.items()
            },
        },
        lambda path: plot(found, path),
    )


def study_table(found: Mapping[str, Sequence[Found]]) -> Table:
    """Return a row a study, with the published return of its environment."""
    table = Table(
        "Levels on fresh seeds (mean of the last three checkpoints)",
        (
            *("", "defaults", "recommended", "winner − defaults", "level", "speed"),
            *("at a tenth", "published", "at its steps"),
        ),
    )
    for env, studies in found.items():
        reference = REFERENCES.get(env)
        for one in studies:
            difference = "defaults won"
            if one.difference is not None:
                digits = decimals(*one.levels)
                value, low, high = (fixed(x, digits, signed=True) for x in one.difference)
                difference = f"{value} ({low} … {high})"
            there = reference and reference.steps and one.at(reference.steps)
            tenth = one.at(one.steps[-1] // 10)
            table.add(
                f"{env}, {one.seed}",
                fixed(one.levels[1]),
                fixed(one.levels[0]),
                difference,
                one.level or "",
                one.speed or "",
                "" if tenth is None else fixed(tenth),
                reference.text if reference else "",
                "" if there is None else fixed(there),
            )
    return table


def plot(found: Mapping[str, Sequence[Found]], path: Path) -> None:
    """Draw the learning curves of what every study recommends, and of the defaults."""
    from ppo_jax.plots import BLUE, GREY, picture

    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    with picture(path, 3.4 * columns, 2.9 * rows) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in grid[len(found) :]:
            axes.set_visible(False)
        for axes, (env, studies) in zip(grid, found.items(), strict=False):
            for one in studies:
                axes.plot(one.steps, one.default, color=GREY, linewidth=1)
                axes.plot(one.steps, one.recommended, color=BLUE, linewidth=1.2)
            axes.set(xlabel="environment steps")
            axes.set_title(env, fontsize=10)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        grid[0].plot([], [], color=BLUE, label="recommended")
        grid[0].plot([], [], color=GREY, label="defaults")
        grid[0].legend()


if __name__ == "__main__":
    main()
