"""Studies that are killed, and what is left of them.

``python -m benchmarks.faults``: one process, killed with SIGKILL at random moments of its life
and started again each time, is compared with one that was left alone.
``python -m benchmarks.faults --workers 4 --storage postgresql``: workers on one study, one of
which is killed every few seconds and replaced.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.measuring import ROOT, Table, machine, make_console, setting
from ppo_jax import command_line
from ppo_jax.errors import UserError

SMALL = {
    "--env": "CartPole-v1",
    "--seeds": 2,
    "--eval-episodes": 8,
    "--pruner-startup-trials": 2,
    "--seed": 3,
}
"""A study small enough to be run over and over again."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Kill studies and count what is lost: nothing should be."""

    kills: int = 50
    """SIGKILLs that one process is to survive, over as many studies as that takes."""
    workers: int = 0
    """Kill one of so many workers on one study instead."""
    storage: Literal["postgresql", "journal"] = "postgresql"
    """What the workers share; PostgreSQL is started for it."""
    trials: int = 0
    """Trials of the study; 15 for one process and 40 for workers if not given."""
    every: float = 5.0
    """Mean seconds between the kills of workers; more where no trial has finished meanwhile."""
    total_steps: int = 100_000
    """Environment steps of each seed of a trial."""
    validate_steps: int = 600_000
    """Environment steps of each seed of the validation."""
    seed: int = 0
    """Of the random moments."""
    output: Path | None = None
    """Folder for the studies and the tables; a temporary one if not given."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.faults``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.faults", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    console = make_console()
    with contextlib.ExitStack() as stack:
        folder = arguments.output
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        table = workers(arguments, folder) if arguments.workers else one_process(arguments, folder)
        table.print(console)
        console.print(machine(setting()), soft_wrap=True)
        lost = [row for row in table.rows if row[0].startswith(("lost", "other")) and row[1] != "0"]
        if lost:
            raise UserError(f"something was lost: {', '.join(row[0] for row in lost)}")


# One process


def one_process(arguments: Arguments, folder: Path) -> Table:
    """Kill studies until they have survived enough, and compare each with the one left alone."""
    trials = arguments.trials or 15
    options: dict[str, Any] = {
        **SMALL,
        "--trials": trials,
        "--total-steps": arguments.total_steps,
        "--eval-every": -(-arguments.total_steps // 4),
        "--select-top": 2,
        "--select-seeds": 4,
        "--validate-steps": arguments.validate_steps,
        "--validate-seeds": 4,
    }
    reference = folder / "reference"
    for _ in range(2):  # The first fills the cache of compiled programs: its life is longer.
        shutil.rmtree(reference, ignore_errors=True)
        start = time.monotonic()
        run_study(options, reference)
        life = time.monotonic() - start
    expected = outcome(reference)

    moments, random_moment = Counter[str](), random.Random(arguments.seed)
    lost, differing, studies, left_over, kills = 0, 0, 0, 0, 0
    while kills < arguments.kills:
        output = folder / f"killed-{studies}"
        shutil.rmtree(output, ignore_errors=True)
        told: dict[int, Any] = {}
        # Half of a life that nobody ends is its start, so half of these end there.
        for moment in killed_study(options, output, lambda: random_moment.uniform(0.0, 0.8 * life)):
            kills += 1
            moments[moment] += 1
            now = told_trials(output)
            lost += sum(now.get(number) != trial for number, trial in told.items())
            told = now
            if kills == arguments.kills:
                run_study(options, output)
                break
        studies += 1
        found = outcome(output)
        lost += sum(found["trials"].get(number) != trial for number, trial in told.items())
        differing += found != expected
        left_over += len(temporary_files(output))
    table = Table("One process and SIGKILL", ("", "count"))
    table.add("kills survived", kills)
    for moment, count in sorted(moments.items()):
        table.add(f"  while {moment}", count)
    table.add("studies", studies)
    table.add("trials of each", trials)
    table.add("lost trials that had been told", lost)
    table.add("other total, value, best or validation than uninterrupted", differing)
    table.add("lost temporary files", left_over)
    return table


def killed_study(options: dict[str, Any], output: Path, delay: Any) -> Iterator[str]:
    """Start a study again and again and kill it each time after a delay, until it ends.

    Yields:
      What it was doing when it was killed.
    """
    while True:
        with start_study(options, output) as process:
            try:
                text, _ = process.communicate(timeout=delay())
                if process.returncode != 0:
                    raise UserError(f"a study has failed: {text[-1000:]}")
                return
            except subprocess.TimeoutExpired:
                process.kill()
                text, _ = process.communicate()
        yield doing(text)


def doing(text: str) -> str:
    """Return what a study was doing that had printed `text`."""
    lines = [line for line in text.splitlines() if line]
    if not lines:
        return "starting"
    last = lines[-1]
    for sign, moment in (
        ("compiling", "compiling or in the first trial"),
        ("trial", "in a trial"),
        ("selection", "selecting"),
        ("validation", "validating"),
    ):
        if last.startswith(sign):
            return moment
    return "writing results" if "No clear" in text or "mproved" in text else "continuing"


def run_study(options: dict[str, Any], output: Path) -> None:
    """Run a study to its end."""
    with start_study(options, output) as process:
        text, _ = process.communicate()
    if process.returncode != 0:
        raise UserError(f"a study has failed: {text[-1000:]}")


def start_study(
    options: dict[str, Any], output: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """Start ``python -m tune.run``."""
    words = [str(word) for option in options.items() for word in option]
    return subprocess.Popen(
        [sys.executable, "-m", "tune.run", *words, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})},
    )


def told_trials(output: Path) -> dict[int, Any]:
    """Return number -> state, values and parameters of the finished trials in the database."""
    import optuna

    if not (output / "study.db").exists():
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{output / 'study.db'}")
        (study,) = optuna.get_all_study_names(storage) or (None,)
    except Exception:  # Killed while the tables were made; the next start makes the rest.
        return {}
    if study is None:
        return {}
    trials = optuna.load_study(study_name=study, storage=storage).trials
    return {trial.number: _plain(trial) for trial in trials if trial.state.is_finished()}


def _plain(trial: Any) -> Any:
    return [trial.state.name, trial.values, trial.params, trial.intermediate_values]


def outcome(output: Path) -> dict[str, Any]:
    """Return all that must not depend on interruptions; strict JSON or an error."""
    results = read_strictly(output / "optimization_results.json")
    validation = read_strictly(output / "validation.json")
    read_strictly(output / "all_trials.json")
    return {
        "trials": told_trials(output),
        "best": [results[name] for name in ("best_trial", "best_params", "best_value")],
        "counts": results["n_trials"],
        "selection": [
            [row["trial"], row["returns"]]
            for row in read_strictly(output / "selection.json")["candidates"]
        ],
        "returns": [validation[name]["returns"] for name in ("winner", "baseline")],
        "verdict": validation["verdict"],
        "policy": (output / "policy" / "model.safetensors").read_bytes(),
        "files": sorted(path.name for path in output.iterdir()),
    }


def read_strictly(path: Path) -> Any:
    """Parse JSON as a parser does that knows no NaN."""

    def refuse(constant: str) -> None:
        raise UserError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def temporary_files(output: Path) -> list[Path]:
    """Return what should not stay in the folder of a study."""
    return [
        path
        for path in output.rglob("*")
        if path.name.startswith(".") or path.name in ("training_state", "study.db-journal")
    ]


# Workers


def workers(arguments: Arguments, folder: Path) -> Table:
    """Kill one of the workers every few seconds and start another, until the study ends."""
    with contextlib.ExitStack() as stack:
        if arguments.storage == "postgresql":
            from benchmarks.postgres import server

            address = stack.enter_context(server()).address
        else:
            address = f"journal:{(folder / 'study.journal').absolute()}"
            (folder / "study.journal").unlink(missing_ok=True)
        return _kill_workers(arguments, folder, address)


def _kill_workers(arguments: Arguments, folder: Path, address: str) -> Table:
    trials = arguments.trials or 40
    options: dict[str, Any] = {
        **SMALL,
        "--trials": trials,
        "--total-steps": arguments.total_steps,
        "--eval-every": -(-arguments.total_steps // 4),
        "--select-top": 0,
        "--validate-steps": 0,
        "--study-name": "shared",
        "--worker-timeout": 30,
        "--max-retries": 10,
    }
    output = folder / "shared"
    shutil.rmtree(output, ignore_errors=True)

    def start() -> subprocess.Popen:
        return start_study(
            options,
            output,
            {"PPO_JAX_TUNE_STORAGE": address, "JAX_NUM_CPU_DEVICES": "1"},
        )

    study = _study(address)
    choice = random.Random(arguments.seed)
    running = [start() for _ in range(arguments.workers)]
    kills = finished = 0
    next_kill = time.monotonic() + arguments.every
    started = time.monotonic()
    while running:
        time.sleep(0.5)
        for worker in list(running):
            if worker.poll() is not None:
                running.remove(worker)
                text, _ = worker.communicate()
                if worker.returncode != 0:
                    for other in running:
                        other.kill()
                    raise UserError(f"a worker has failed: {text[-1000:]}")
        # Once one has found the study finished, the others follow by themselves.
        if len(running) < arguments.workers or time.monotonic() < next_kill:
            continue
        # A machine on which workers start more slowly than they are killed gets nowhere.
        if (now := _finished(study)) > finished:
            finished = now
            victim = running.pop(choice.randrange(len(running)))
            victim.kill()
            victim.communicate()
            running.append(start())
            kills += 1
            next_kill = time.monotonic() + choice.uniform(0.5, 1.5) * arguments.every
    seconds = time.monotonic() - started
    return _count(study, trials, kills, seconds, arguments)


def _finished(study: Any) -> int:
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)


def _study(address: str) -> Any:
    import optuna

    from tune.search.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="shared",
        storage=open_storage(address),
        direction="maximize",
        load_if_exists=True,
    )


def _count(study: Any, trials: int, kills: int, seconds: float, arguments: Arguments) -> Table:
    states = Counter(trial.state.name for trial in study.trials)
    finished = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    origins = Counter(_origin(study.trials, trial) for trial in finished)
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    replaced = {trial.user_attrs.get("retry_of") for trial in study.trials}
    lost = [
        trial
        for trial in failed
        # A worker that was killed before it had drawn anything has left no configuration.
        if "lost" in trial.user_attrs and (trial.params or "fixed_params" in trial.system_attrs)
    ]
    table = Table(
        f"{arguments.workers} workers on {arguments.storage}, one killed about every "
        f"{arguments.every:g} s",
        ("", "count"),
    )
    table.add("seconds", f"{seconds:.0f}")
    table.add("workers killed and replaced", kills)
    table.add("trials asked for", trials)
    table.add("finished (complete or pruned)", len(finished))
    for name in ("COMPLETE", "PRUNED", "FAIL"):
        table.add(f"  {name}", states[name])
    table.add("interrupted by a kill, run again as another trial", len(lost))
    table.add("processes that finished a trial", len({_worker(trial) for trial in finished}))
    table.add("lost configurations", sum(trial.number not in replaced for trial in lost))
    table.add("other total than asked for", abs(len(finished) - trials))
    table.add("other state: RUNNING or WAITING", states["RUNNING"] + states["WAITING"])
    table.add("other count of a configuration than one", sum(n - 1 for n in origins.values()))
    return table


def _origin(trials: list[Any], trial: Any) -> int:
    """Return the number of the trial in which a configuration was first drawn."""
    while "retry_of" in trial.user_attrs:
        trial = trials[trial.user_attrs["retry_of"]]
    return trial.number


def _worker(trial: Any) -> tuple[str, int]:
    worker = trial.user_attrs["worker"]
    return worker["pid"], worker["started"]


if __name__ == "__main__":
    main()
