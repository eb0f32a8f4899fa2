"""``python -m benchmarks.throughput``: how fast training runs, and what that rests on.

All variants live in one process and take turns, round after round, so that a slow minute
of the machine meets all of them. Ratios are taken within a round for the same reason.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from benchmarks.measuring import Spread, Table, print_setting, setting
from ppo_jax import command_line
from ppo_jax.config import TrainConfig, config_for
from ppo_jax.errors import require_count
from ppo_jax.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from rich.console import Console

COMPARED_SEEDS = 4
"""Seeds of the two comparisons; always measured."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure training throughput and compile time, with spread.

    Prints a table and writes throughput.json and throughput.png.
    """

    seeds: tuple[int, ...] = (1, 4, 8, 16)
    """Numbers of seeds to train at once; 4 is added for the comparisons."""
    steps: int = 102_400
    """Environment steps of each seed in a timed call, rounded up to whole iterations."""
    rounds: int = 7
    """Timed calls of each variant."""
    env: str = "CartPole-v1"
    """Environment to train on."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the same training."""

    seeds: int
    devices: int
    shapes: Literal["traced", "static"] = "traced"
    """Whether one program serves all shapes of a search space, or the defaults alone."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one variant has shown.

    Attributes:
      compile_seconds: program -> seconds to trace and compile it, without any cache.
      steps_per_second: environment steps of all seeds together.
    """

    variant: Variant
    compile_seconds: dict[str, float]
    steps_per_second: Spread


class Contender:
    """A variant that is compiled, warm, and in the middle of its training."""

    def __init__(self, variant: Variant, env: str, iterations: int, rounds: int) -> None:
        from ppo_jax.programs import TUNING, Programs, seed_keys

        self.variant = variant
        self.hyperparameters = Hyperparameters()
        static = variant.shapes == "static"
        config = config_for(self.hyperparameters, env=env) if static else TrainConfig(env)
        devices = jax.local_devices()[: variant.devices]
        self.programs = Programs(config, variant.seeds, devices)
        self.steps = iterations * self.hyperparameters.n_steps
        self.total_steps = self.steps * (rounds + 1)
        self.trained = 0

        self.state = self.programs.init(seed_keys(0, TUNING, variant.seeds))
        self.train()
        self.programs.evaluate(self.state, 0)
        self.compile_seconds = self.programs.compile_log.program_seconds

    def train(self) -> float:
        """Train one call further and return environment steps of all seeds per second."""
        self.trained += self.steps
        start = time.perf_counter()
        self.state, _ = self.programs.train_until(
            self.state, self.hyperparameters, self.trained, self.total_steps
        )
        jax.block_until_ready(self.state)
        return self.variant.seeds * self.steps / (time.perf_counter() - start)


def usual(seeds: int) -> Variant:
    """Return how a study trains so many seeds: traced shapes, all devices there is work for."""
    return Variant(seeds, min(seeds, jax.local_device_count()))


def compared() -> dict[str, Variant]:
    """Return ratio -> the variant that stands below its line; above is the usual one."""
    above = usual(COMPARED_SEEDS)
    below = {"traced / static shapes": dataclasses.replace(above, shapes="static")}
    if above.devices > 1:
        below[f"{above.devices} devices / 1 device"] = dataclasses.replace(above, devices=1)
    return below


def measure(arguments: Arguments, iterations: int, console: "Console") -> list[Measurement]:
    """Compile and warm up all variants, then let them take turns."""
    # Sorted, so that the variants that are compared follow each other in every round.
    chosen = [*map(usual, arguments.seeds), usual(COMPARED_SEEDS), *compared().values()]
    variants = sorted(dict.fromkeys(chosen), key=lambda variant: variant.seeds)
    contenders = []
    for variant in variants:
        with console.status(f"compiling {variant}"):
            contenders.append(Contender(variant, arguments.env, iterations, arguments.rounds))
    speeds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for number in range(arguments.rounds):
        with console.status(f"round {number + 1} of {arguments.rounds}"):
            # Every other round backwards, so that a steady drift cancels.
            for contender in contenders[:: -1 if number % 2 else 1]:
                speeds[contender.variant].append(contender.train())
    return [
        Measurement(c.variant, c.compile_seconds, Spread.of(speeds[c.variant])) for c in contenders
    ]


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.throughput``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.throughput", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    for seeds in arguments.seeds:
        require_count("--seeds", seeds)
    require_count("--steps", arguments.steps)
    require_count("--rounds", arguments.rounds)

    # A program out of the cache would cost no compile time. Overrides the environment.
    jax.config.update("jax_enable_compilation_cache", False)
    from ppo_jax.devices import enable_all_cpu_cores

    enable_all_cpu_cores()
    from rich.console import Console

    from ppo_jax.environments import make
    from ppo_jax.files import require_writable, write_json
    from ppo_jax.trainer import iterations_for

    make(arguments.env)  # A wrong name stops here, and no timing includes the import.
    require_writable(arguments.output)
    n_steps = Hyperparameters.n_steps
    iterations = iterations_for(arguments.steps, n_steps)
    measured_with = setting(
        env=arguments.env,
        num_envs=TrainConfig.num_envs,
        n_steps=n_steps,
        batch_size=Hyperparameters.batch_size,
        n_epochs=Hyperparameters.n_epochs,
        steps=iterations * n_steps,
        rounds=arguments.rounds,
    )
    console = Console(highlight=False)
    print_setting(measured_with, console)
    measurements = measure(arguments, iterations, console)
    speeds = {m.variant: m.steps_per_second for m in measurements}
    above = speeds[usual(COMPARED_SEEDS)]
    ratios = {name: above / speeds[variant] for name, variant in compared().items()}
    print_tables(measurements, ratios, console)

    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {
        **measured_with,
        "measurements": [dataclasses.asdict(measurement) for measurement in measurements],
        "ratios": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
    }
    write_json(arguments.output / "throughput.json", results)
    plot(arguments.env, measurements, ratios, arguments.output / "throughput.png")
    paths = [str(arguments.output / f"throughput.{suffix}") for suffix in ("json", "png")]
    console.print(*paths, sep="\n", markup=False, soft_wrap=True)


def print_tables(
    measurements: Sequence[Measurement], ratios: Mapping[str, Spread], console: "Console"
) -> None:
    """Print one row a variant and one a ratio."""
    names = (field.name for field in dataclasses.fields(Variant))
    programs = " + ".join(measurements[0].compile_seconds)
    title = f"Training; seconds to compile {programs}"
    rows = Table(title, (*names, "steps/s", "min … max", "compile, s"))
    for m in measurements:
        seconds = " + ".join(f"{value:.1f}" for value in m.compile_seconds.values())
        rows.add(*dataclasses.astuple(m.variant), *m.steps_per_second.cells(",.0f"), seconds)
    comparisons = Table(f"Ratios with {COMPARED_SEEDS} seeds", ("steps/s", "median", "min … max"))
    for name, ratio in ratios.items():
        comparisons.add(name, *ratio.cells(".2f"))
    for table in (rows, comparisons):
        table.print(console)


def plot(
    env: str, measurements: Sequence[Measurement], ratios: Mapping[str, Spread], path: Path
) -> None:
    """Draw throughput over seeds, and the ratios: a dot a round, and the medians."""
    from matplotlib.ticker import FuncFormatter

    from ppo_jax.plots import BLUE, DARK, picture

    dots: dict[str, Any] = {"color": BLUE, "alpha": 0.35, "linewidth": 0, "s": 45}
    shown = [m for m in measurements if m.variant == usual(m.variant.seeds)]
    points = {m.variant.seeds: m.steps_per_second for m in shown}
    with picture(path, 12, 4.8) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        medians = [spread.median for spread in points.values()]
        line: dict[str, Any] = {"color": BLUE, "marker": "_", "markersize": 16}
        left.plot(list(points), medians, label="median", **line)
        for seeds, spread in points.items():
            label = None if left.collections else "one round"
            left.scatter([seeds] * len(spread.rounds), spread.rounds, label=label, **dots)
        left.set_title(f"{env}: training throughput")
        left.set(xlabel="seeds at once", ylabel="environment steps / s, all seeds together")
        left.set_xticks(list(points))
        left.set_ylim(bottom=0)
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        left.legend(loc="lower right")

        for row, ratio in enumerate(ratios.values()):
            right.scatter(ratio.rounds, [row] * len(ratio.rounds), **dots)
            right.scatter(ratio.median, row, color=BLUE, marker="|", s=600, linewidth=2.5)
            text = right.text(ratio.median, row - 0.12, f"{ratio.median:.2f}", ha="center")
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        right.axvline(1, color=DARK, linestyle="--", linewidth=1.2, zorder=0)
        right.set_title(f"Ratios of throughput, {COMPARED_SEEDS} seeds")
        right.set(xlabel="above 1: the first of the two is faster", ylim=(len(ratios) - 0.5, -0.5))
        right.set_yticks(range(len(ratios)), [name.replace(" / ", " /\n") for name in ratios])
        right.set_xlim(left=0)
        right.grid(visible=False, axis="y")


if __name__ == "__main__":
    main()
