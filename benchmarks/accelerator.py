"""``python -m benchmarks.accelerator``: what a GPU and a TPU would do, found without either.

Both compile without a device, from packages alone, and what the compiler writes says exactly how
many launches every trip of every loop takes. Counts are exact for the versions installed. Seconds
are computed from them with the assumptions that are printed; nothing here is a measured time of a
device.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Table
from benchmarks.prediction import (
    ASSUMPTIONS,
    STEPS,
    TARGETS,
    Costs,
    compile_for,
    install,
    predict,
    predict_from_cpu,
    role,
)
from ppo_jax import command_line
from ppo_jax.errors import require_choice


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compile for an H100 and a TPU v5e without either; count launches and predict seconds.

    Prints tables and writes accelerator.json. With --on-device the first device of this host is
    measured instead, and on_device.json and on_device.png are written.
    """

    targets: tuple[str, ...] = TARGETS
    """Devices to compile for: h100, v5e."""
    chips: tuple[int, ...] = (1, 4)
    """Numbers of devices."""
    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar")
    """Environments to train on."""
    lanes: tuple[int, ...] = (1, 8, 20)
    """Trials side by side; 1 for one after another."""
    seeds: int = 4
    """Seeds of a trial."""
    install_only: bool = False
    """Install the compilers and end."""
    on_device: bool = False
    """Measure the first device of this host: training of many agents here and in other ways,
    studies, Brax's ant, and the predictions beside what was measured."""
    device_envs: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar")
    """With --on-device: environments to train many agents on."""
    agents: tuple[int, ...] = (1, 16, 256, 2048)
    """With --on-device: numbers of agents that train at once."""
    steps: int = 81_920
    """With --on-device: environment steps of each agent in a timed call."""
    rounds: int = 3
    """With --on-device: timed calls."""
    study_trials: tuple[int, ...] = (20, 512)
    """With --on-device: trials of the studies."""
    study_lanes: tuple[int, ...] = (1, 4, 8, 20, 0)
    """With --on-device: lanes of the studies; 0 for auto."""
    study_steps: int = STEPS
    """With --on-device: environment steps of each seed of a trial."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.accelerator``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.accelerator", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "chips", "lanes", "seeds", "agents", "steps", "rounds")
    measuring.require_counts(arguments, "study_trials", "study_steps")
    measuring.require_counts(arguments, "study_lanes", low=0)
    if arguments.on_device:
        from benchmarks import on_device

        on_device.measure(
            envs=arguments.device_envs,
            agents=arguments.agents,
            steps=arguments.steps,
            rounds=arguments.rounds,
            study_trials=arguments.study_trials,
            study_lanes=arguments.study_lanes,
            study_steps=arguments.study_steps,
            output=arguments.output,
        )
        return
    for target in arguments.targets:
        require_choice("target", target, TARGETS)
    console = measuring.make_console()
    console.print(f"compilers in {install()}", soft_wrap=True)
    if arguments.install_only:
        return
    command_line.start_backend()
    where = ("target", "environment", "lanes", "chips")
    loops = Table(
        "One trip of each loop", (*where, "loop", "trips", "launches", "longest chain", "cycles")
    )
    programs = Table(
        "Programs", (*where, "program", "MB a device", "s to trace", "s to compile", "traced loops")
    )
    predictions = Table(
        f"Predicted seconds, {arguments.seeds} seeds × {STEPS:,} steps",
        (*where, "default trial", "study of 20 trials"),
    )
    rows: list[dict[str, Any]] = []
    for target, env, lanes, chips in (
        (target, env, lanes, chips)
        for target in arguments.targets
        for env in arguments.envs
        for lanes in arguments.lanes
        for chips in arguments.chips
    ):
        compiled = compile_for(target, env, chips=chips, lanes=lanes, seeds=arguments.seeds)
        place = (target, env, lanes, chips)
        for name, program in compiled.items():
            loops_of = [body for body in program.body.walk() if body.name.endswith("while")]
            traced = sum(body.trips is None for body in loops_of)
            numbers = (program.trace_seconds, program.compile_seconds)
            programs.add(
                *place, name, f"{program.bytes / 1e6:.1f}", *(f"{x:.1f}" for x in numbers), traced
            )
            for body in loops_of:
                trips = "traced" if body.trips is None else body.trips
                cells = (body.launches, body.path, body.cycles or "")
                loops.add(*place, role(name, body.name), trips, *cells)
        trial, study = predict(Costs.of(compiled), lanes)
        predictions.add(*place, "" if trial is None else f"{trial:.2f}", f"{study:.1f}")
        rows.append(
            {
                **dict(zip(where, place, strict=True)),
                "default_trial_seconds": trial,
                "study_seconds": study,
                "programs": [dataclasses.asdict(program) for program in compiled.values()],
            }
        )
        console.print(f"{' '.join(map(str, place))}: compiled", soft_wrap=True)
    trial, study = predict_from_cpu(arguments.seeds)
    predictions.add("this CPU, measured", "CartPole-v1", 1, "", f"{trial:.2f}", f"{study:.1f}")
    for table in (loops, programs, predictions):
        table.print(console)
    console.print(ASSUMPTIONS, soft_wrap=True)
    path = arguments.output / "accelerator.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    cpu = {"default_trial_seconds": trial, "study_seconds": study}
    setting = measuring.setting(seeds=arguments.seeds)
    results = {**setting, "assumptions": ASSUMPTIONS, "cpu": cpu, "compiled": rows}
    measuring.write_results(path, results)
    console.print(str(path), soft_wrap=True)


if __name__ == "__main__":
    main()
