"""What a study loses when its processes are killed.

``python -m benchmarks.faults``: a process is killed with SIGKILL at random moments and restarted
each time; its results are compared with those of an uninterrupted process.
``python -m benchmarks.faults --workers 4 --storage postgresql``: several workers share a study;
every few seconds one of them is killed and replaced.
``python -m benchmarks.faults --every-call``: a study is stopped at every call that changes its
folder, by a kill and by a failing disk, and every file of a study is damaged; see
:mod:`benchmarks.every_call`.
``python -m benchmarks.faults --every-statement --storage postgresql``: the connection to the
database dies at every message of a worker; see :mod:`benchmarks.every_statement`.
"""

import contextlib
import dataclasses
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.measuring import Table, machine, make_console, setting
from benchmarks.processes import module_command, module_environment
from ppo_jax import command_line
from ppo_jax.errors import UserError
from tune.protocol.study_folder import StudyFolder

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage, RDBStorage

TRIALS_OF_ONE_PROCESS, TRIALS_OF_WORKERS = 15, 40
"""Trials of a study by default."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Kill studies and count what they lose, which should be nothing."""

    kills: int = 50
    """SIGKILLs that one process has to survive, over as many studies as needed."""
    workers: int = 0
    """Number of workers that share a study, one of which is killed; 0 for a single process."""
    every_call: bool = False
    """Stop a study at every call that changes its folder."""
    every_statement: bool = False
    """Break the connection to the database at every message of a worker."""
    at_most: int = 0
    """Calls or messages of each kind of fault, evenly spread; 0 for every single one."""
    away: float = 2.0
    """Seconds for which the database server is away."""
    storage: Literal["sqlite", "journal", "postgresql", "mariadb"] | None = None
    """Storage of the study: SQLite by default, PostgreSQL for workers. A temporary server is
    started."""
    trials: int = 0
    """Trials of the study; by default 15 for a single process and 40 for workers."""
    every: float = 5.0
    """Mean seconds between kills of workers; longer while no trial finishes."""
    total_steps: int = 100_000
    """Environment steps of each seed of a trial."""
    validate_steps: int = 600_000
    """Environment steps of each seed of the validation."""
    seed: int = 0
    """Seed of the random moments."""
    output: Path | None = None
    """Folder of the studies; a temporary one by default."""

    def study_options(self, default_trials: int) -> dict[str, object]:
        """Return options of ``tune.run`` for a study that is small enough to be repeated."""
        return {
            "--env": "CartPole-v1",
            "--seeds": 2,
            "--eval-episodes": 8,
            "--pruner-startup-trials": 2,
            "--seed": 3,
            "--trials": self.trials or default_trials,
            "--total-steps": self.total_steps,
            "--eval-every": -(-self.total_steps // 4),
        }


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
        if arguments.every_call or arguments.every_statement:
            enumerate_faults = _calls if arguments.every_call else _statements
            table, examples = enumerate_faults(arguments, folder)
            lost = [row for row in table.rows if any(cell != "0" for cell in row[3:])]
        else:
            shared = arguments.workers > 0
            table = workers(arguments, folder) if shared else one_process(arguments, folder)
            examples = []
            lost = [
                row for row in table.rows if row[0].startswith(("lost", "other")) and row[1] != "0"
            ]
        table.print(console)
        console.print(machine(setting()), soft_wrap=True)
        for example in examples:
            console.print(example, markup=False, soft_wrap=True)
        if lost:
            raise UserError(f"the study has lost: {', '.join(row[0] for row in lost)}")


def _calls(arguments: Arguments, folder: Path) -> tuple[Table, list[str]]:
    from benchmarks.every_call import every_call

    storage = arguments.storage or "sqlite"
    if storage not in ("sqlite", "journal"):
        raise UserError(f"--every-call takes --storage sqlite or journal, but got {storage}")
    return every_call(folder, storage, arguments.at_most)


def _statements(arguments: Arguments, folder: Path) -> tuple[Table, list[str]]:
    from benchmarks import mariadb, postgres
    from benchmarks.every_statement import Server, every_statement

    product: Any = {"postgresql": postgres, "mariadb": mariadb}.get(
        arguments.storage or "postgresql"
    )
    if product is None:
        raise UserError(
            f"--every-statement takes --storage postgresql or mariadb, but got {arguments.storage}"
        )
    with product.server() as running:
        server = Server(product.NAME, running.address, product.database)
        return every_statement(server, arguments.away, arguments.at_most, folder)


# One process


def one_process(arguments: Arguments, folder: Path) -> Table:
    """Kill and restart studies, and compare each with an uninterrupted one."""
    options = arguments.study_options(TRIALS_OF_ONE_PROCESS) | {
        "--finalists": 2,
        "--validate-steps": arguments.validate_steps,
        "--validate-seeds": 4,
    }
    reference = folder / "reference"
    # The first takes longer: it fills the compilation cache.
    run_study(
        options | {"--trials": 1, "--finalists": 0, "--validate-steps": 0}, folder / "compiled"
    )
    start = time.monotonic()
    run_study(options, reference)
    duration = time.monotonic() - start
    expected = outcome(reference)

    moments, random_moment = Counter[str](), random.Random(arguments.seed)
    lost, other_total, differing, studies, left_over, kills = 0, 0, 0, 0, 0, 0
    while kills < arguments.kills:
        output = folder / f"killed-{studies}"
        shutil.rmtree(output, ignore_errors=True)
        before: dict[int, Any] = {}
        # Starting takes half of an uninterrupted run, so half of the kills happen there.
        delay = partial(random_moment.uniform, 0.0, 0.8 * duration)
        for moment in killed_study(options, output, delay):
            kills += 1
            moments[moment] += 1
            now = finished_trials(output)
            lost += sum(now.get(number) != trial for number, trial in before.items())
            before = now
            if kills == arguments.kills:
                run_study(options, output)
                break
        studies += 1
        found = outcome(output)
        lost += sum(found["trials"].get(number) != trial for number, trial in before.items())
        other_total += len(found["trials"]) != options["--trials"]
        differing += found != expected
        left_over += len(temporary_files(output))
    table = Table("One process and SIGKILL", ("", "count"))
    table.add("kills survived", kills)
    for moment, count in sorted(moments.items()):
        table.add(f"  while {moment}", count)
    table.add("studies", studies)
    table.add("trials of each", options["--trials"])
    table.add("lost trials that had finished", lost)
    table.add("other total than asked for", other_total)
    table.add("other results than an uninterrupted study", differing)
    table.add("lost temporary files", left_over)
    return table


def killed_study(
    options: dict[str, object], output: Path, delay: Callable[[], float]
) -> Iterator[str]:
    """Start a study repeatedly and kill it after `delay` seconds, until it ends by itself.

    Yields:
      What the study was doing when it was killed; see :func:`doing`.
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
    """Return what a study was doing, given the `text` that it has printed."""
    lines = [line for line in text.splitlines() if line]
    if not lines:
        return "starting"
    last = lines[-1]
    for sign, moment in (
        ("compiling", "compiling or in the first trial"),
        ("trial", "in a trial"),
        ("finalists", "training finalists"),
        ("validation", "validating"),
    ):
        if last.startswith(sign):
            return moment
    return "writing results" if "No clear" in text or "mproved" in text else "continuing"


def run_study(options: dict[str, object], output: Path) -> None:
    """Run a study to its end.

    Raises:
      UserError: when it fails.
    """
    with start_study(options, output) as process:
        text, _ = process.communicate()
    if process.returncode != 0:
        raise UserError(f"a study has failed: {text[-1000:]}")


def start_study(
    options: dict[str, object], output: Path, **environment: str
) -> subprocess.Popen[str]:
    """Start ``python -m tune.run`` with changes to the environment variables."""
    words = [word for option in options.items() for word in option]
    return subprocess.Popen(
        module_command("tune.run", *words, "--output", output),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=module_environment(PYTHONUNBUFFERED="1", **environment),
    )


def finished_trials(output: Path) -> dict[int, Any]:
    """Return number -> state, values and parameters of the finished trials in the database."""
    import optuna

    if not (output / "study.db").exists():
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with database(f"sqlite:///{output / 'study.db'}") as storage:
            (name,) = optuna.get_all_study_names(storage) or (None,)
            if name is None:
                return {}
            trials = optuna.load_study(study_name=name, storage=storage).trials
    except Exception:  # Killed while the tables were created; the next start creates the rest.
        return {}
    return {trial.number: _plain(trial) for trial in trials if trial.state.is_finished()}


@contextlib.contextmanager
def database(address: str) -> "Iterator[RDBStorage]":
    """Open a database for Optuna, and close its connections after the block."""
    from optuna.storages import RDBStorage

    storage = RDBStorage(address)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _plain(trial: Any) -> Any:
    return [trial.state.name, trial.values, trial.params, trial.intermediate_values]


def outcome(output: Path) -> dict[str, Any]:
    """Return all results that must not depend on interruptions."""
    results = read_strictly(output / "optimization_results.json")
    validation = read_strictly(output / "validation.json")
    read_strictly(output / "all_trials.json")
    return {
        "trials": finished_trials(output),
        "best": [results[name] for name in ("best_trial", "best_params", "best_value")],
        "counts": results["n_trials"],
        "finalists": [
            [row["trial"], row["returns"]]
            for row in read_strictly(output / "finalists.json")["finalists"]
        ],
        "returns": [validation[name]["returns"] for name in ("winner", "baseline")],
        "verdict": validation["verdict"],
        "policy": (output / "policy" / "model.safetensors").read_bytes(),
        "files": sorted(path.name for path in output.iterdir()),
    }


def read_strictly(path: Path) -> Any:
    """Parse strict JSON.

    Raises:
      UserError: when the file holds NaN or an infinity, which JSON does not know.
    """

    def refuse(constant: str) -> None:
        raise UserError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def temporary_files(output: Path) -> list[Path]:
    """Return files that a finished study should have removed; its lock is not one of them."""
    lock = StudyFolder(output).lock
    return [
        path
        for path in output.rglob("*")
        if path.name in ("training_state", "study.db-journal")
        or (path.name.startswith(".") and path != lock)
    ]


# Workers


def workers(arguments: Arguments, folder: Path) -> Table:
    """Kill a worker every few seconds and start another, until the study ends."""
    with contextlib.ExitStack() as stack:
        if arguments.storage not in (None, "postgresql", "journal"):
            raise UserError(
                f"--workers takes --storage postgresql or journal, but got {arguments.storage}"
            )
        if arguments.storage != "journal":
            from benchmarks.postgres import server

            address = stack.enter_context(server()).address
            driver = address.replace("postgresql", "postgresql+psycopg", 1)
            storage: BaseStorage = stack.enter_context(database(driver))
        else:
            from tune.search.storage import open_storage

            address = f"journal:{(folder / 'study.journal').absolute()}"
            (folder / "study.journal").unlink(missing_ok=True)
            storage = open_storage(address)
        return _kill_workers(arguments, folder, address, storage)


def _kill_workers(
    arguments: Arguments, folder: Path, address: str, storage: "BaseStorage"
) -> Table:
    options = arguments.study_options(TRIALS_OF_WORKERS) | {
        "--validate-steps": 0,
        "--study-name": "shared",
        "--worker-timeout": 30,
        "--max-retries": 10,
    }
    output = folder / "shared"
    shutil.rmtree(output, ignore_errors=True)

    def start() -> subprocess.Popen[str]:
        return start_study(options, output, PPO_JAX_TUNE_STORAGE=address, JAX_NUM_CPU_DEVICES="1")

    study = _study(storage)
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
                        other.communicate()
                    raise UserError(f"a worker has failed: {text[-1000:]}")
        # When one worker has found the study finished, the others are about to stop.
        if len(running) < arguments.workers or time.monotonic() < next_kill:
            continue
        # On a slow machine, killing workers faster than they start would never end.
        if (now := _finished(study)) > finished:
            finished = now
            victim = running.pop(choice.randrange(len(running)))
            victim.kill()
            victim.communicate()
            running.append(start())
            kills += 1
            next_kill = time.monotonic() + choice.uniform(0.5, 1.5) * arguments.every
    seconds = time.monotonic() - started
    return _count(study, kills, seconds, arguments)


def _finished(study: Any) -> int:
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)


def _study(storage: "BaseStorage") -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="shared", storage=storage, direction="maximize", load_if_exists=True
    )


def _count(study: Any, kills: int, seconds: float, arguments: Arguments) -> Table:
    trials = arguments.trials or TRIALS_OF_WORKERS
    states = Counter(trial.state.name for trial in study.trials)
    finished = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    origins = Counter(_origin(study.trials, trial) for trial in finished)
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    replaced = {trial.user_attrs.get("retry_of") for trial in study.trials}
    lost = [
        trial
        for trial in failed
        # A worker that was killed before it sampled a configuration has lost none.
        if "lost" in trial.user_attrs and (trial.params or "fixed_params" in trial.system_attrs)
    ]
    table = Table(
        f"{arguments.workers} workers on {arguments.storage or 'postgresql'}, one killed about "
        f"every {arguments.every:g} s",
        ("", "count"),
    )
    table.add("seconds", f"{seconds:.0f}")
    table.add("workers killed and replaced", kills)
    table.add("trials asked for", trials)
    table.add("finished (complete or pruned)", len(finished))
    for name in ("COMPLETE", "PRUNED", "FAIL"):
        table.add(f"  {name}", states[name])
    table.add("interrupted by a kill and retried", len(lost))
    table.add("processes that finished a trial", len({_worker(trial) for trial in finished}))
    table.add("lost configurations", sum(trial.number not in replaced for trial in lost))
    table.add("other total than asked for", abs(len(finished) - trials))
    table.add("other state: RUNNING or WAITING", states["RUNNING"] + states["WAITING"])
    table.add("other count of a configuration than one", sum(n - 1 for n in origins.values()))
    return table


def _origin(trials: list[Any], trial: Any) -> int:
    """Return the number of the trial that first sampled a trial's configuration."""
    number: int = trial.number
    while "retry_of" in trials[number].user_attrs:
        number = trials[number].user_attrs["retry_of"]
    return number


def _worker(trial: Any) -> tuple[str, int]:
    worker = trial.user_attrs["worker"]
    return worker["pid"], worker["started"]


if __name__ == "__main__":
    main()
