"""Worker process of ``benchmarks.study``: takes a JSON request and prints a JSON answer."""

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
    from ppo_jax.programs import Programs

    imported = time.perf_counter()
    programs = Programs(settings.config, settings.seeds)
    with tempfile.TemporaryDirectory() as folder:
        finished = optimize(request["trials"], settings, output=folder, programs=programs)
        seconds = time.perf_counter() - imported
        trials = finished.get_trials()
    log = programs.compile_log
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
    """Train the configurations of a study as far as the study did, compiling for each of them.

    With ``at_once``, all seeds are trained together on all devices. Without, they are trained
    one after another on JAX's default single CPU device, which may use all cores.
    """
    start = time.perf_counter()
    import jax

    from ppo_jax.devices import enable_all_cpu_cores

    # Each configuration has different constants, so the cache would never hit.
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
    """Start a study and return the seconds to its first training step and first checkpoint.

    They are counted from ``started``, the time at which the process was started.
    """
    settings, optimize = _prepare(request)
    import jax

    from ppo_jax.programs import Programs

    marks: dict[str, Any] = {}

    class FirstStepAlone(Programs):
        """Programs that train the first iteration in a call of its own and record its end."""

        def train_until(self, state: Any, hyperparameters: Any, *steps: Any) -> Any:
            if not marks:
                # The same compiled program: how far it trains is an argument.
                first = (hyperparameters.n_steps, *steps[1:])
                state, _ = super().train_until(state, hyperparameters, *first)
                jax.block_until_ready(state)
                marks["first_step"] = time.monotonic() - request["started"]
            return super().train_until(state, hyperparameters, *steps)

    programs = FirstStepAlone(settings.config, settings.seeds)
    progress = _FirstCheckpoint(marks, request["started"])
    with tempfile.TemporaryDirectory() as folder:
        optimize(1, settings, output=folder, programs=programs, progress=progress)
    return marks


class _FirstCheckpoint:
    """Progress of a study that records the time of the first checkpoint."""

    def __init__(self, marks: dict[str, Any], started: float) -> None:
        self._marks, self._started = marks, started

    def checkpoint(self, *_: Any) -> None:
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
