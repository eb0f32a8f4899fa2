"""``python -m benchmarks.study``: how long a whole study takes, against the usual strategies.

Every strategy runs in a separate process, one after another, with an empty compilation
cache. Installing and importing do not count, except in the starts, where everything does.
The work of the processes is in :mod:`benchmarks.study_worker`.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measuring, peers
from benchmarks.measuring import Report, Spread, Table
from benchmarks.processes import ProcessError, module_command, module_environment, output_of
from ppo_jax import command_line
from ppo_jax.errors import UserError
from tune.protocol.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

OURS = "one program, seeds at once"
AT_ONCE = "a program a trial, seeds at once"
USUAL = "a program a trial, seed after seed"
PARTS = ("compiling", "training", "evaluating", "rest")
ZOO = "RL Zoo tuner"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure the wall clock of a whole study and of its start.

    Prints tables and writes study.json and study.png.
    """

    trials: int = 20
    """Trials of the study."""
    seeds: int = 4
    """Seeds of a trial."""
    total_steps: int = 200_000
    """Environment steps of each seed of a trial."""
    eval_every: int = 50_000
    """Environment steps between checkpoints."""
    env: str = "CartPole-v1"
    """Environment to train on."""
    rounds: int = 1
    """Measurements of each strategy."""
    starts: int = 3
    """Pairs of starts, the first with an empty compilation cache; 0 for none."""
    zoo_trials: int = 3
    """Trials that RL Zoo's tuner runs, of one seed each; 0 for none."""
    zoo_steps: int = 50_000
    """Environment steps of each of RL Zoo's trials."""
    environments: Path = peers.Arguments.environments
    """Folder for the virtual environment of RL Zoo; shared with benchmarks.peers."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""

    def settings(self) -> dict[str, Any]:
        """Return the study's settings, as keyword arguments of ``Settings``."""
        return {name: getattr(self, name) for name in ("env", "seeds", "total_steps", "eval_every")}


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One strategy for running the study, and its cost.

    Attributes:
      seconds: wall clock from the end of the imports to the end of the study.
      parts: median seconds of compiling (waiting for it), training, evaluating, rest.
      environment_steps: of all seeds together.
      compilations: number of compiled programs.
      import_seconds: median time of the imports.
      ratio: seconds of ours / seconds of this one.
    """

    name: str
    seconds: Spread
    parts: dict[str, float]
    environment_steps: int
    compilations: int
    import_seconds: float
    ratio: Spread


def ask(what: str, cache: Path | str, **request: Any) -> dict[str, Any]:
    """Run a worker process and return its answer.

    Raises:
      UserError: when the worker fails.
    """
    request = {"what": what, "started": time.monotonic(), **request}
    command = module_command("benchmarks.study_worker", json.dumps(request))
    try:
        text = output_of(command, module_environment(JAX_COMPILATION_CACHE_DIR=str(cache)))
    except ProcessError as error:
        raise UserError(f"the {what} worker failed: {error}") from None
    answer: dict[str, Any] = json.loads(text)
    return answer


def measure_strategies(arguments: Arguments, console: "Console") -> list[Strategy]:
    """Run a study, then the same configurations by the other strategies, in every round."""
    answers: dict[str, list[dict[str, Any]]] = {OURS: [], AT_ONCE: [], USUAL: []}
    settings = arguments.settings()
    for number in range(arguments.rounds):
        for name, found in answers.items():
            with (
                console.status(f"round {number + 1} of {arguments.rounds}: {name}"),
                tempfile.TemporaryDirectory() as cache,
            ):
                if name == OURS:
                    found.append(ask("study", cache, settings=settings, trials=arguments.trials))
                else:
                    trials = answers[OURS][-1]["trials"]
                    found.append(
                        ask(
                            "configurations",
                            cache,
                            settings=settings,
                            trials=trials,
                            at_once=name == AT_ONCE,
                        )
                    )
    ours = Spread.of([answer["seconds"] for answer in answers[OURS]])
    strategies = []
    for name, found in answers.items():
        for answer in found:
            accounted = sum(answer[part] for part in PARTS[:-1])
            answer["rest"] = answer["seconds"] - accounted
        seconds = Spread.of([answer["seconds"] for answer in found])
        strategies.append(
            Strategy(
                name,
                seconds,
                {part: Spread.of([answer[part] for answer in found]).median for part in PARTS},
                found[-1]["environment_steps"],
                found[-1]["compilations"],
                Spread.of([answer["import_seconds"] for answer in found]).median,
                ours / seconds,
            )
        )
    return strategies


def measure_starts(arguments: Arguments, console: "Console") -> dict[str, dict[str, Spread]]:
    """Return event -> first start, second start, and second / first, in seconds."""
    # Trial 0 ends with its first checkpoint.
    settings = arguments.settings() | {"total_steps": arguments.eval_every}
    pairs: list[list[dict[str, float]]] = []
    for number in range(arguments.starts):
        with (
            console.status(f"starting twice, {number + 1} of {arguments.starts}"),
            tempfile.TemporaryDirectory() as cache,
        ):
            pairs.append([ask("start", cache, settings=settings) for _ in range(2)])
    found = {}
    for event in ("first_step", "first_checkpoint") if pairs else ():
        first, second = (Spread.of([pair[place][event] for pair in pairs]) for place in (0, 1))
        found[event] = {"first start": first, "second start": second, "ratio": second / first}
    return found


def measure_zoo(arguments: Arguments, console: "Console") -> dict[str, Any] | None:
    """Return the speed of RL Zoo's tuner, or why there is no measurement."""
    if not arguments.zoo_trials:
        return None
    peer = peers.PEERS[ZOO]
    work = {
        "env": arguments.env,
        "seeds": arguments.zoo_trials,
        "steps": arguments.zoo_steps,
        # The tuner samples these itself, but the message to a worker has to hold them.
        **dict.fromkeys(("num_envs", "n_steps", "batch_size", "n_epochs"), 1),
    }
    try:
        with console.status(f"building the environment of {ZOO}"):
            python = peers.build(ZOO, peer, arguments.environments)
        with console.status(f"{ZOO}: {arguments.zoo_trials} trials"):
            contender = peers.Contender(ZOO, peer, python, work, peers.Arguments.timeout)
            try:
                contender.take_turn()
            finally:
                contender.close()
    except ProcessError as error:
        return {"failure": str(error)}
    (rate,) = contender.rates
    return {
        "trials": arguments.zoo_trials,
        "environment_steps": contender.steps,
        "seconds": contender.steps / rate,
        "steps_per_second": rate,
        "versions": contender.versions,
    }


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.study``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.study", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "trials", "rounds", "zoo_steps")
    measuring.require_counts(arguments, "starts", "zoo_trials", low=0)
    Settings(**arguments.settings())
    from ppo_jax.devices import enable_all_cpu_cores
    from ppo_jax.files import require_writable

    enable_all_cpu_cores()
    from ppo_jax.environments import make

    make(arguments.env)
    for folder in (arguments.output, arguments.environments):
        require_writable(folder)
    measured_with = measuring.setting(
        **arguments.settings(), trials=arguments.trials, rounds=arguments.rounds
    )
    console = measuring.make_console()
    measuring.print_setting(measured_with, console)
    strategies = measure_strategies(arguments, console)
    starts = measure_starts(arguments, console)
    zoo = measure_zoo(arguments, console)
    tables = [strategy_table(arguments, strategies)]
    if starts:
        tables.append(start_table(starts))
    if zoo is not None:
        tables.append(zoo_table(strategies[0], zoo))
    for table in tables:
        table.print(console)
    report = Report(
        "study",
        f"`python -m benchmarks.study`, {measuring.machine(measured_with)}; installing and "
        "importing do not count, compiling does.",
        "Wall clock of a study",
        [table.markdown() for table in tables],
        {
            **measured_with,
            "strategies": [dataclasses.asdict(strategy) for strategy in strategies],
            "starts": {
                event: {name: dataclasses.asdict(spread) for name, spread in spreads.items()}
                for event, spreads in starts.items()
            },
            "rl_zoo": zoo,
        },
        lambda path: plot(arguments, strategies, starts, path),
    )
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def _title(arguments: Arguments) -> str:
    return (
        f"{arguments.env}: {arguments.trials} trials of {arguments.seeds} seeds × "
        f"{arguments.total_steps:,} steps"
    )


def strategy_table(arguments: Arguments, strategies: Sequence[Strategy]) -> Table:
    """Return a row per strategy."""
    table = Table(
        f"{_title(arguments)}, seconds",
        ("", "all", "compile", "train", "evaluate", "rest", "programs", "ours / it"),
    )
    for strategy in strategies:
        parts = (f"{strategy.parts[part]:.1f}" for part in PARTS)
        seconds, ratio = f"{strategy.seconds.median:.1f}", f"{strategy.ratio.median:.2f}"
        table.add(strategy.name, seconds, *parts, strategy.compilations, ratio)
    return table


def start_table(starts: Mapping[str, Mapping[str, Spread]]) -> Table:
    """Return a row per event of a start."""
    headers = ("seconds to the end of", "first start", "second start", "second / first", "range")
    table = Table("From the command: an empty compilation cache, then a full one", headers)
    for event, spreads in starts.items():
        table.add(
            event.replace("first_step", "the first training step").replace("_", " "),
            *(f"{spreads[name].median:.1f}" for name in ("first start", "second start")),
            *spreads["ratio"].cells(".2f"),
        )
    return table


def zoo_table(ours: Strategy, zoo: Mapping[str, Any]) -> Table:
    """Return our study beside RL Zoo's tuner, at equal environment steps."""
    headers = ("tuner", "environment steps", "seconds", "steps/s", "seconds for our steps")
    table = Table("Tuners", headers)
    steps, seconds = ours.environment_steps, ours.seconds.median
    table.add("ours", f"{steps:,}", f"{seconds:.1f}", f"{steps / seconds:,.0f}", f"{seconds:.0f}")
    if "failure" in zoo:
        table.add(ZOO, "not measured", zoo["failure"][:60], "", "")
        return table
    extrapolated = steps / zoo["steps_per_second"]
    table.add(
        f"{ZOO}, {zoo['trials']} trials",
        f"{zoo['environment_steps']:,}",
        f"{zoo['seconds']:.1f}",
        f"{zoo['steps_per_second']:,.0f}",
        f"{extrapolated:,.0f} (extrapolated)",
    )
    return table


def plot(
    arguments: Arguments,
    strategies: Sequence[Strategy],
    starts: Mapping[str, Mapping[str, Spread]],
    path: Path,
) -> None:
    """Draw the parts of each strategy, and the starts."""
    from ppo_jax.plots import BLUE, GREEN, GREY, ORANGE, picture

    with picture(path, 14, 3.8) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for place, strategy in enumerate(strategies):
            begin = 0.0
            for part, color in zip(PARTS, (ORANGE, BLUE, GREEN, GREY), strict=True):
                label = part if place == 0 else None
                width = strategy.parts[part]
                left.barh(place, width, left=begin, color=color, label=label)
                begin += width
            left.text(begin, place, f"  {strategy.seconds.median:.0f} s", va="center")
        names = [strategy.name.replace(", ", ",\n") for strategy in strategies]
        left.set_yticks(range(len(strategies)), names)
        left.invert_yaxis()
        left.margins(x=0.12)
        left.set(xlabel="seconds")
        left.set_title(_title(arguments))
        left.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        for place, spreads in enumerate(starts.values()):
            for offset, name, color in (
                (-0.18, "first start", ORANGE),
                (0.18, "second start", BLUE),
            ):
                spread = spreads[name]
                label = name if place == 0 else None
                right.barh(place + offset, spread.median, height=0.34, color=color, label=label)
                right.text(spread.median, place + offset, f"  {spread.median:.1f} s", va="center")
        labels = [event.replace("_", " ").replace("step", "training step") for event in starts]
        right.set_yticks(range(len(starts)), labels)
        right.invert_yaxis()
        right.margins(x=0.15)
        right.set(xlabel="seconds from the command")
        right.set_title("Time to the first result")
        if starts:
            right.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        for axes in (left, right):
            axes.grid(visible=False, axis="y")


if __name__ == "__main__":
    main()
