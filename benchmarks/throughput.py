"""``python -m benchmarks.throughput``: how fast training runs, and what limits it.

All variants run in one process and take turns, round after round, so that a slow minute
of the machine affects all of them. Ratios are taken within a round for the same reason.
The parts of an iteration and the limits are measured in :mod:`benchmarks.parts`.
"""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax

from benchmarks import measuring
from benchmarks.measuring import Report, Spread, Table
from ppo_jax import command_line
from ppo_jax.config import AgentConfig, TrainConfig, config_for
from ppo_jax.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.parts import Limits
    from ppo_jax.programs import CompileLog, Programs

COMPARED_SEEDS = 4
"""Number of seeds in all comparisons; always measured."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure training throughput, its parts and limits, and compile time, with spread.

    Prints tables and writes throughput.json and throughput.png.
    """

    seeds: tuple[int, ...] = (1, 4, 8, 16)
    """Numbers of seeds to train at once; 4 is added for the comparisons."""
    num_envs: tuple[int, ...] = (4, 16, 64)
    """Numbers of environments per seed, with 4 seeds."""
    n_steps: tuple[int, ...] = (1024, 2048, 4096)
    """Rollout sizes, with 4 seeds."""
    batch_size: tuple[int, ...] = (128, 256, 512)
    """Minibatch sizes, with 4 seeds."""
    n_epochs: tuple[int, ...] = (3, 4, 10)
    """Numbers of epochs, with 4 seeds."""
    steps: int = 102_400
    """Environment steps of each seed in a timed call, rounded up to whole iterations."""
    rounds: int = 7
    """Timed calls per variant."""
    env: str = "CartPole-v1"
    """Environment to train on."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes and devices of a training run."""

    seeds: int
    devices: int
    shapes: Literal["traced", "static"] = "traced"
    """One program for all shapes of a search space, or one for the default shapes."""
    num_envs: int = AgentConfig.num_envs
    n_steps: int = Hyperparameters.n_steps
    batch_size: int = Hyperparameters.batch_size
    n_epochs: int = Hyperparameters.n_epochs

    def hyperparameters(self) -> Hyperparameters:
        """Return the defaults with these sizes."""
        return Hyperparameters(
            n_steps=self.n_steps, batch_size=self.batch_size, n_epochs=self.n_epochs
        )

    def config(self, arguments: Arguments) -> TrainConfig:
        """Return the configuration to compile; variants with the same one share programs."""
        # An MLP for images too: only its work is counted, and the peers use it as well.
        agent = AgentConfig(num_envs=self.num_envs, network="mlp")
        if self.shapes == "static":
            return config_for(self.hyperparameters(), agent, env=arguments.env)
        return TrainConfig(
            arguments.env,
            agent=agent,
            n_steps_choices=tuple(sorted({Hyperparameters.n_steps, *arguments.n_steps})),
            batch_size_choices=tuple(sorted({Hyperparameters.batch_size, *arguments.batch_size})),
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The speed and the cost of one variant.

    Attributes:
      steps_per_second: environment steps of all seeds together.
      compile_seconds: program -> seconds to trace and compile it, without any cache.
      memory_bytes: memory of the training program on each device: its arguments,
        results and temporaries.
    """

    variant: Variant
    steps_per_second: Spread
    compile_seconds: dict[str, float]
    memory_bytes: int


class Contender:
    """A variant that is compiled, warmed up, and in the middle of its training."""

    def __init__(self, variant: Variant, programs: "Programs", arguments: Arguments) -> None:
        from ppo_jax.config import iterations_for
        from ppo_jax.seeds import seed_keys
        from tune.protocol.purposes import TUNING

        self.variant = variant
        self.hyperparameters = variant.hyperparameters()
        self.programs = programs
        self.steps = iterations_for(arguments.steps, variant.n_steps) * variant.n_steps
        self.total_steps = self.steps * (arguments.rounds + 1)
        self.trained = 0
        self.state = programs.init(seed_keys(0, TUNING, variant.seeds))
        self.train()

    def train(self) -> float:
        """Continue training for one call; return steps per second of all seeds together."""
        self.trained += self.steps
        start = time.perf_counter()
        self.state, _ = self.programs.train_until(
            self.state, self.hyperparameters, self.trained, self.total_steps
        )
        jax.block_until_ready(self.state)
        return self.variant.seeds * self.steps / (time.perf_counter() - start)


def usual(seeds: int = COMPARED_SEEDS) -> Variant:
    """Return how a study trains `seeds` seeds: traced shapes, at most a device per seed."""
    return Variant(seeds, min(seeds, jax.local_device_count()))


def device_counts() -> list[int]:
    """Return 1, 2, 4, ... and the most devices that a study would use."""
    most = usual().devices
    return sorted({most, *(2**n for n in range(most.bit_length()) if 2**n <= most)})


def sweeps(arguments: Arguments) -> dict[str, list[Variant]]:
    """Return varied size -> its variants, all other sizes at their defaults."""
    found = {"seeds": [usual(seeds) for seeds in sorted({*arguments.seeds, COMPARED_SEEDS})]}
    for name in ("num_envs", "n_steps", "batch_size", "n_epochs"):
        values = sorted({getattr(usual(), name), *getattr(arguments, name)})
        found[name] = [dataclasses.replace(usual(), **{name: value}) for value in values]
    found["devices"] = [dataclasses.replace(usual(), devices=n) for n in device_counts()]
    return found


def compared() -> dict[str, Variant]:
    """Return ratio -> the variant in its denominator; the usual one is in the numerator."""
    numerator = usual()
    found = {"traced / static shapes": dataclasses.replace(numerator, shapes="static")}
    if numerator.devices > 1:
        name = f"{numerator.devices} devices / 1 device"
        found[name] = dataclasses.replace(numerator, devices=1)
    return found


def measure(arguments: Arguments, console: "Console") -> list[Measurement]:
    """Compile and warm up all variants, then let them take turns."""
    from ppo_jax.programs import Programs

    everything = [variant for sweep in sweeps(arguments).values() for variant in sweep]
    # Sorted, so that the variants that are compared follow each other in every round.
    variants = sorted(
        dict.fromkeys([*everything, *compared().values()]),
        key=lambda variant: (variant.seeds, variant.num_envs),
    )
    programs: dict[tuple[TrainConfig, int, int], Programs] = {}
    contenders = []
    for variant in variants:
        with console.status(f"compiling {variant}"):
            key = variant.config(arguments), variant.seeds, variant.devices
            if key not in programs:
                devices = jax.local_devices()[: variant.devices]
                programs[key] = Programs(key[0], variant.seeds, devices)
            contenders.append(Contender(variant, programs[key], arguments))
    speeds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for number in range(arguments.rounds):
        with console.status(f"round {number + 1} of {arguments.rounds}"):
            # Every other round backwards, so that a steady drift cancels.
            for contender in contenders[:: -1 if number % 2 else 1]:
                speeds[contender.variant].append(contender.train())
    return [
        Measurement(
            c.variant,
            Spread.of(speeds[c.variant]),
            c.programs.compile_log.program_seconds,
            c.programs.compile_log.program_bytes["training"],
        )
        for c in contenders
    ]


def compile_twice(arguments: Arguments) -> dict[str, dict[str, float]]:
    """Return start -> program -> seconds, with an empty and then with a full cache."""
    from jax.experimental.compilation_cache import compilation_cache

    from ppo_jax.compilation_cache import enable_compilation_cache
    from ppo_jax.programs import Programs

    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        enable_compilation_cache()
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_enable_compilation_cache", True)
        for start in ("empty cache", "full cache"):
            jax.clear_caches()
            compilation_cache.reset_cache()
            log = compile_all(Programs(usual().config(arguments), COMPARED_SEEDS))
            seconds[start] = {**log.program_seconds, "side by side": log.seconds}
        jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    return seconds


def compile_all(programs: "Programs") -> "CompileLog":
    """Compile all programs in parallel, as a study does, and return how long that took."""
    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING

    for _ in programs.run(
        seed_keys(0, TUNING, COMPARED_SEEDS), Hyperparameters(), [Hyperparameters.n_steps]
    ):
        pass
    return programs.compile_log


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.throughput``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.throughput", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    sizes = ("seeds", "num_envs", "n_steps", "batch_size", "n_epochs")
    measuring.require_counts(arguments, *sizes, "steps", "rounds")

    # Loading a program from the cache is not compiling. This overrides the environment variable.
    jax.config.update("jax_enable_compilation_cache", False)
    from ppo_jax.devices import enable_all_cpu_cores

    enable_all_cpu_cores()
    from benchmarks.parts import Parts, limits, spreads
    from ppo_jax.environments import make
    from ppo_jax.files import require_writable

    make(arguments.env)  # Rejects an unknown name, and keeps the import out of the timings.
    for sweep in sweeps(arguments).values():
        for variant in sweep:  # Rejects sizes that do not fit together.
            variant.config(arguments).check(variant.hyperparameters())
    require_writable(arguments.output)
    measured_with = measuring.setting(
        env=arguments.env,
        num_envs=AgentConfig.num_envs,
        n_steps=Hyperparameters.n_steps,
        batch_size=Hyperparameters.batch_size,
        n_epochs=Hyperparameters.n_epochs,
        steps=arguments.steps,
        rounds=arguments.rounds,
    )
    console = measuring.make_console()
    measuring.print_setting(measured_with, console)
    measurements = measure(arguments, console)
    with console.status("timing the parts"):
        parts = Parts(usual().config(arguments), COMPARED_SEEDS, Hyperparameters())
        seconds = spreads(parts, arguments.rounds)
    near = limits(parts, seconds)
    with console.status("compiling with a cache"):
        compiled = compile_twice(arguments)

    speeds = {m.variant: m.steps_per_second for m in measurements}
    ratios = {name: speeds[usual()] / speeds[variant] for name, variant in compared().items()}
    summary = [
        ratio_table(ratios),
        part_table(seconds),
        limit_table(near),
        compile_table(compiled),
    ]
    for table in (speed_table(measurements), program_table(measurements), *summary):
        table.print(console)
    peak = measuring.peak_memory()
    console.print(f"peak memory of this process, all variants: {peak / 2**20:,.0f} MiB")

    results = {
        **measured_with,
        "measurements": [dataclasses.asdict(measurement) for measurement in measurements],
        "ratios": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
        "parts_seconds": {name: dataclasses.asdict(spread) for name, spread in seconds.items()},
        "limits": dataclasses.asdict(near),
        "compile_seconds": compiled,
        "peak_process_bytes": peak,
    }
    report = Report(
        "throughput",
        f"`python -m benchmarks.throughput`, {arguments.env}, "
        f"{measuring.machine(measured_with)}, median of {arguments.rounds}; sizes not named are "
        "the defaults.",
        "Training throughput",
        [table.markdown() for table in summary],
        results,
        lambda path: plot(arguments, speeds, seconds, near, path),
    )
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def speed_table(measurements: Sequence[Measurement]) -> Table:
    """Return a row per variant."""
    names = ("seeds", "devices", "shapes", "envs", "n_steps", "batch", "epochs")
    table = Table("Training", (*names, "steps/s", "min … max"))
    for m in measurements:
        table.add(*dataclasses.astuple(m.variant), *m.steps_per_second.cells(",.0f"))
    return table


def program_table(measurements: Sequence[Measurement]) -> Table:
    """Return a row per program; variants that share a program share a row."""
    programs = tuple(f"{name}, s" for name in measurements[0].compile_seconds)
    table = Table(
        "Compiling, without a cache", ("seeds", "devices", "shapes", "envs", *programs, "MiB")
    )
    for m in measurements:
        seconds = (f"{value:.1f}" for value in m.compile_seconds.values())
        variant = dataclasses.astuple(m.variant)[:4]
        row = tuple(map(str, (*variant, *seconds, f"{m.memory_bytes / 2**20:,.1f}")))
        if row not in table.rows:
            table.add(*row)
    return table


def ratio_table(ratios: Mapping[str, Spread]) -> Table:
    """Return a row per ratio."""
    table = Table(f"Ratios with {COMPARED_SEEDS} seeds", ("steps/s", "median", "min … max"))
    for name, ratio in ratios.items():
        table.add(name, *ratio.cells(".2f"))
    return table


PARTS = ("rollout", "advantages", "updates")
"""Parts of an iteration."""


def part_table(seconds: Mapping[str, Spread]) -> Table:
    """Return the time of each part of an iteration, timed alone."""
    title = f"An iteration of {COMPARED_SEEDS} seeds, each part timed alone"
    table = Table(title, ("part", "ms", "min … max", "share"))
    whole = seconds["iteration"]
    for name in (*PARTS, "iteration"):
        spread = seconds[name]
        milliseconds = Spread.of([1e3 * second for second in spread.rounds])
        share = (spread / whole).median
        label = "whole iteration" if name == "iteration" else name
        table.add(label, *milliseconds.cells(".2f"), f"{share:.0%}")
    for name, label in (
        ("call", "host, for a call without an iteration"),
        ("evaluation", "evaluation of an untrained policy"),
    ):
        milliseconds = Spread.of([1e3 * second for second in seconds[name].rounds])
        table.add(label, *milliseconds.cells(".2f"), "")
    return table


def limit_table(near: "Limits") -> Table:
    """Return the updates beside the speed that the machine reached in the same rounds."""
    table = Table(f"Limits with {COMPARED_SEEDS} seeds", ("", "median", "min … max"))
    for label, spread, unit in (
        ("updates, GFLOP/s", near.update_flops, 1e9),
        ("matrix products of the same shapes, GFLOP/s", near.product_flops, 1e9),
        ("product of large matrices, GFLOP/s", near.large_product_flops, 1e9),
        ("updates / products of the same shapes", near.product_share, 1),
        ("updates / large product", near.large_product_share, 1),
        ("least memory traffic, GB/s", near.bytes_per_second, 1e9),
        ("copy of memory, GB/s", near.copy_bytes_per_second, 1e9),
        ("least traffic / copy", near.copy_share, 1),
    ):
        scaled = Spread.of([value / unit for value in spread.rounds])
        table.add(label, *scaled.cells(".2f" if unit == 1 else ".1f"))
    return table


def compile_table(compiled: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the seconds to compile with an empty and with a full compilation cache."""
    programs = next(iter(compiled.values()))
    table = Table(f"Seconds to compile with {COMPARED_SEEDS} seeds", ("start", *programs))
    for start, seconds in compiled.items():
        table.add(start, *(f"{value:.1f}" for value in seconds.values()))
    return table


def plot(
    arguments: Arguments,
    speeds: Mapping[Variant, Spread],
    seconds: Mapping[str, Spread],
    near: "Limits",
    path: Path,
) -> None:
    """Draw throughput against each varied size, the parts, and the limits."""
    from matplotlib.ticker import FuncFormatter

    from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, picture

    labels = {
        "seeds": "seeds at once",
        "num_envs": "environments of a seed",
        "n_steps": "n_steps",
        "batch_size": "batch_size",
        "n_epochs": "n_epochs",
        "devices": "devices",
    }
    with picture(path, 14, 10) as figure:
        rows = figure.subplots(3, 1, height_ratios=(1, 1, 0.55), gridspec_kw={"hspace": 0.05})
        for row in rows:
            row.axis("off")
        grid = rows[0].get_gridspec()
        panels = [
            *(figure.add_subplot(cell) for cell in grid[0].subgridspec(1, 3)),
            *(figure.add_subplot(cell) for cell in grid[1].subgridspec(1, 3)),
        ]
        highest = max(max(spread.rounds) for spread in speeds.values())
        for axes, (name, variants) in zip(panels, sweeps(arguments).items(), strict=True):
            values = [getattr(variant, name) for variant in variants]
            medians = [speeds[variant].median for variant in variants]
            axes.plot(range(len(values)), medians, color=BLUE, marker="_", markersize=16)
            for place, variant in enumerate(variants):
                rounds = speeds[variant].rounds
                axes.scatter(
                    [place] * len(rounds), rounds, color=BLUE, alpha=0.35, linewidth=0, s=40
                )
            axes.set_xticks(range(len(values)), [f"{value:,}" for value in values])
            axes.set_xlim(-0.5, len(values) - 0.5)
            axes.set(xlabel=labels[name], ylim=(0, 1.05 * highest))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e3:,.0f}k"))
        panels[0].set_title(f"{arguments.env}: environment steps / s, all seeds together")
        panels[3].set_title("One size varied, the others as usual; a dot a round")
        bottom = grid[2].subgridspec(1, 2)
        axes, left = figure.add_subplot(bottom[0]), 0.0
        for name, color in zip(PARTS, (ORANGE, GREEN, BLUE), strict=True):
            width = 1e3 * seconds[name].median
            axes.barh("parts", width, left=left, color=color, label=name)
            left += width
        axes.barh("iteration", 1e3 * seconds["iteration"].median, color=GREY)
        axes.set(xlabel="ms")
        axes.set_title(f"An iteration of {COMPARED_SEEDS} seeds")
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.35))
        axes = figure.add_subplot(bottom[1])
        bars = {
            "updates": near.update_flops,
            "products of\nthe same shapes": near.product_flops,
            "large product": near.large_product_flops,
        }
        heights = [spread.median / 1e9 for spread in bars.values()]
        axes.barh(list(bars), heights, color=[BLUE, GREY, GREY])
        axes.invert_yaxis()
        axes.axvline(heights[0], color=DARK, linestyle="--", linewidth=1)
        axes.set(xlabel="GFLOP/s")
        axes.set_title(f"Updates reach {near.product_share.median:.0%} of their products alone")


if __name__ == "__main__":
    main()
