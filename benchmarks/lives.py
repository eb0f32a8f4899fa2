"""Lives of a small study: processes, each of which runs its command to the end, or to a fault.

What trains is a stand-in; everything else is the study's own code. A life is forked from a process
that has imported what a study needs, and has run one, so that it starts at once.
"""

import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from unittest import mock

from ppo_jax.files import plain

OPTIONS: Mapping[str, Any] = {
    "--seeds": 2,
    "--total-steps": 8192,
    "--eval-every": 4096,
    "--eval-episodes": 2,
    "--sampler": "random",
    "--pruner": "none",
}
"""Option -> value, but for trials, proof and where the study is kept."""

PROOF: Mapping[str, Any] = {"--finalists": 1, "--validate-steps": 16384, "--validate-seeds": 2}
"""Options of a study that goes on to its report."""


def prepare(folder: Path, options: Mapping[str, Any]) -> None:
    """Import what a study needs and run one, in this process, which lives are then forked from.

    Nothing of it touches TensorStore, whose threads refuse a fork. JAX only warns of one, but its
    threads are missing afterwards, and who waits for them waits for ever. So it has compiled by now
    whatever a stand-in, and a training state that is restored, need; and it has one device, which
    computes in the thread that asks. Pictures stay blank and intervals are computed once
    from now on: they take longer than all else.

    Args:
      folder: for the study, which is removed.
      options: of the study.
    """
    for module in (
        "orbax.checkpoint", "safetensors.numpy", "sqlalchemy.dialects.sqlite",
        "optuna.storages.journal",
    ):  # fmt: skip
        importlib.import_module(module)
    import alembic.util
    import jax

    from tune.evidence import statistics

    for name, stand_in in {
        "tune.report.files.plot_optimization": _draw_nothing,
        "tune.report.files.plot_validation": _draw_nothing,
        "ppo_jax.playback.drawing.in_short": _film_nothing,
        "tune.report.html.inline_svg": lambda *_: "<svg></svg>",
        "tune.evidence.statistics.estimate": _remembering(statistics.estimate),
        "alembic.util.load_python_file": functools.cache(alembic.util.load_python_file),
    }.items():
        mock.patch(name, stand_in).start()
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
    jax.config.update("jax_num_cpu_devices", 1)  # The variable has been read.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with _states_in_memory():
        for _ in range(2):  # The second continues what the first has saved.
            with tempfile.TemporaryDirectory(dir=folder) as place, _printing_to(Path(place)):
                run({**options, "--output": Path(place) / "study"})
    gc.collect()
    gc.freeze()  # A life's collections do not go through all of this once more.


@contextlib.contextmanager
def _states_in_memory() -> Iterator[None]:
    """Have training states keep what a run saves first, for a run of the same name to continue."""
    from ppo_jax import training_state
    from ppo_jax.training_state import TrainingStates

    saved: dict[tuple[str, ...], Any] = {}

    def key(states: TrainingStates) -> tuple[str, ...]:
        return states._folder.parts[-2:]  # noqa: SLF001

    def save(states: TrainingStates, tree: Any, progress: Any, final: bool = False) -> None:
        if not final and key(states) not in saved:
            progress = json.loads(json.dumps(plain(progress)))
            saved[key(states)] = training_state._flatten(tree), progress  # noqa: SLF001

    def restore(states: TrainingStates, like: Any) -> Any:
        arrays, progress = saved[key(states)]
        return training_state._unflatten(arrays, like, Path()), progress  # noqa: SLF001

    with mock.patch.multiple(
        TrainingStates, save=save, restore=restore, exists=lambda states: key(states) in saved
    ):
        yield


def _draw_nothing(_: object, path: Path) -> None:
    """Stand in for a function that draws a picture of results."""
    from ppo_jax.plots import picture

    with picture(path, 1, 1):
        pass


def _film_nothing(*_: object) -> Any:
    """Stand in for a film, whose environment would have to be compiled."""
    import numpy as np

    from ppo_jax.playback.film import Film

    return Film(10.0, iter([np.zeros((2, 2, 3), np.uint8)]))


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays that returns what `function` does, and computes it once."""
    known: dict[Any, Any] = {}

    def remembered(arrays: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        key = (*((array.shape, array.tobytes()) for array in arrays), arguments, *options.items())
        if key not in known:
            known[key] = function(arrays, *arguments, **options)
        return known[key]

    return remembered


def fork(target: Callable[..., None], *arguments: Any) -> ForkProcess:
    """Start a life.

    Args:
      target: what it does.
      *arguments: of `target`.
    """
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        process.start()
    return process


def run(options: Mapping[str, Any], slow: bool = False) -> None:
    """Run ``python -m tune.run`` with `options`.

    Args:
      options: option -> value.
      slow: whether training takes long enough for a heartbeat or two.
    """
    from benchmarks.stand_in import SlowStandIn, StandIn
    from ppo_jax import command_line
    from tune import run as tune_run
    from tune.options import Arguments

    words = [str(word) for option in options.items() for word in option]
    arguments = command_line.parse(Arguments, "python -m tune.run", words)
    programs = SlowStandIn if slow else StandIn
    tune_run.run(arguments, lambda settings: programs(settings.config, settings.seeds))


def print_to(folder: Path) -> None:
    """Print to the files ``out`` and ``err`` in `folder` from now on."""
    sys.stdout = (folder / "out").open("w", buffering=1)
    sys.stderr = (folder / "err").open("w", buffering=1)


@contextlib.contextmanager
def _printing_to(folder: Path) -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    print_to(folder)
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout, sys.stderr = streams
