"""What ``benchmarks.study`` runs in processes of its own: a JSON request in, an answer out."""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


def study(request: dict[str, Any]) -> dict[str, Any]:
    """Run a study as ``python -m tune.run`` does, without the validation."""
    start = time.perf_counter()
    settings, optimize = _prepare(request)
    from tune.search.objective import shared_programs

    imported = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        finished = optimize(request["trials"], settings, output=folder)
        seconds = time.perf_counter() - imported
        trials = finished.get_trials()
    log = shared_programs(settings.config, settings.seeds).compile_log
    return {
        "import_seconds": imported - start,
        "seconds": seconds,
        "compiling": log.seconds,
        "training": sum(trial.user_attrs["training_seconds"] for trial in trials),
        "evaluating": sum(trial.user_attrs["evaluation_seconds"] for trial in trials),
        "environment_steps": sum(trial.user_attrs["environment_steps"] for trial in trials),
        "compilations": sum(log.programs.values()),
        "trials": [
            {
                "hyperparameters": trial.user_attrs["hyperparameters"],
                "checkpoints": len(trial.intermediate_values),
            }
            for trial in trials
        ],
    }


def configurations(request: dict[str, Any]) -> dict[str, Any]:
    """Train the configurations of a study, each as far as there, with a program for each.

    With ``at_once`` all seeds together on all devices; without, one seed after another
    on JAX's own single CPU device, which may use all cores.
    """
    start = time.perf_counter()
    import jax

    from ppo_jax.devices import enable_all_cpu_cores

    # Constants differ from configuration to configuration, so no cache would ever hit.
    jax.config.update("jax_enable_compilation_cache", False)
    if request["at_once"]:
        enable_all_cpu_cores()
    from ppo_jax.config import config_for
    from ppo_jax.environments import make
    from ppo_jax.hyperparameters import Hyperparameters
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING

    settings = _settings(request)
    make(settings.env)
    imported = time.perf_counter()
    keys = seed_keys(settings.seed, TUNING, settings.seeds)
    groups = [keys] if request["at_once"] else [keys[i : i + 1] for i in range(len(keys))]
    compiling = training = evaluating = 0.0
    steps = compilations = 0
    for trial in request["trials"]:
        hyperparameters = Hyperparameters(**trial["hyperparameters"])
        config = config_for(hyperparameters, env=settings.env, eval_episodes=settings.eval_episodes)
        programs = Programs(config, len(groups[0]))
        for group in groups:
            checkpoints = programs.run(group, hyperparameters, settings.checkpoints())
            for checkpoint in itertools.islice(checkpoints, trial["checkpoints"]):
                training += checkpoint.training_seconds
                evaluating += checkpoint.evaluation_seconds
            steps += checkpoint.environment_steps * len(group)
        compiling += programs.compile_log.seconds
        compilations += sum(programs.compile_log.programs.values())
    return {
        "import_seconds": imported - start,
        "seconds": time.perf_counter() - imported,
        "compiling": compiling,
        "training": training,
        "evaluating": evaluating,
        "environment_steps": steps,
        "compilations": compilations,
    }


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start a study and say when its first training step and its first checkpoint are done.

    Seconds count from ``started``, the time at which the process was asked for.
    """
    settings, optimize = _prepare(request)
    import jax

    from ppo_jax.programs import Programs

    marks: dict[str, Any] = {}
    train_until = Programs.train_until

    def first_alone(self: Programs, state: Any, hyperparameters: Any, *steps: int) -> Any:
        if not marks:
            # The same program: how far it trains is an argument.
            state, _ = train_until(self, state, hyperparameters, hyperparameters.n_steps, steps[1])
            jax.block_until_ready(state)
            marks["first_step"] = time.monotonic() - request["started"]
        return train_until(self, state, hyperparameters, *steps)

    setattr(Programs, "train_until", first_alone)  # noqa: B010
    with tempfile.TemporaryDirectory() as folder:
        optimize(1, settings, output=folder, progress=_FirstCheckpoint(marks, request["started"]))
    return marks


class _FirstCheckpoint:
    """The progress of a study that notes the time of the first checkpoint."""

    def __init__(self, marks: dict[str, Any], started: float) -> None:
        self._marks, self._started = marks, started

    def checkpoint(self, checkpoint: Any) -> None:
        self._marks.setdefault("first_checkpoint", time.monotonic() - self._started)

    def study_started(self, *_: Any) -> None: ...
    def trial_started(self, *_: Any) -> None: ...
    def trial_finished(self, *_: Any) -> None: ...


def _settings(request: dict[str, Any]) -> Any:
    from tune.protocol.settings import Settings

    return Settings(**request["settings"])


def _prepare(request: dict[str, Any]) -> tuple[Any, Callable[..., Any]]:
    """Import what ``python -m tune.run`` imports before it begins."""
    from ppo_jax import command_line

    settings = _settings(request)
    command_line.start_backend()
    import optuna
    import rich.console  # noqa: F401

    from ppo_jax.environments import make
    from tune.search.study import run_optimization

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make(settings.env)
    return settings, run_optimization


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    answer = {"study": study, "configurations": configurations, "start": start}[asked["what"]]
    print(json.dumps(answer(asked)))
