"""The compiled programs: training and evaluation of many seeds at once.

Here the pure functions of one seed are compiled; :class:`ppo_jax.devices.SeedMesh` applies
``vmap`` over seeds and ``shard_map`` over devices. Two other kinds of ``vmap`` and ``jit`` are
elsewhere: :mod:`ppo_jax.rollout` and :mod:`ppo_jax.evaluation` vmap over the parallel environments
of a seed, and what runs outside of training is compiled where it is called, for one seed: keys
(:mod:`ppo_jax.seeds`), acting (:mod:`ppo_jax.policy`), and playing a saved policy
(:mod:`ppo_jax.evaluate`, :mod:`ppo_jax.playback.drawing`).
"""

import contextlib
import copy
import ctypes
import dataclasses
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax import decompositions, evaluation, trainer
from ppo_jax.config import TrainConfig, iterations_for
from ppo_jax.devices import SeedMesh
from ppo_jax.environments import make
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network
from ppo_jax.normalization import RunningStatistics
from ppo_jax.seeds import TRAINING, evaluation_key, seed_keys
from ppo_jax.trainer import TrainMetrics, TrainState

STATE_AXES = TrainState(params=0, optimizer_state=0, actors=0, key=0, finite=0, iteration=None)  # type: ignore[arg-type]


_PROGRAMS = ("initialisation", "training", "evaluation")


class Weights(NamedTuple):
    """All that a policy needs of a training state; NumPy arrays.

    Attributes:
      params: network parameters.
      observation_statistics: what observations are normalised by; None where they are not.
    """

    params: Any
    observation_statistics: RunningStatistics | None


def lane_weights(state: TrainState, lane: int) -> Weights:
    """Return the weights of one lane of `state`."""
    statistics = state.actors.observation_statistics
    if statistics is not None and statistics.applied is not None:
        statistics = statistics if np.asarray(statistics.applied)[lane] else None
    weights = Weights(state.params, None if statistics is None else statistics.completed())
    of_lane: Weights = jax.tree.map(lambda x: np.asarray(x)[lane], weights)
    return of_lane


def _memory(program: jax.stages.Compiled) -> int:
    memory: Any = program.memory_analysis()
    if memory is None:  # Not every backend knows.
        return 0
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return int(arguments + results + memory.temp_size_in_bytes - memory.alias_size_in_bytes)


def _return_freed_memory(_: object) -> None:
    """Give what compiling has freed back to the system.

    glibc keeps it otherwise, which is half of the memory of a process that has compiled.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Other C libraries have none.
        if trim is not None:
            trim(0)


@dataclasses.dataclass
class CompileLog:
    """How often each program was compiled, and the seconds that took, tracing included.

    Attributes:
      programs: program -> how often it was compiled.
      program_seconds: program -> seconds. Programs are compiled side by side, so these
        overlap.
      program_bytes: program -> memory on each device: arguments, results, temporaries.
      seconds: wall-clock seconds that calls have waited for compilations.
      waiting: whether a call waits for one now.
    """

    programs: dict[str, int] = dataclasses.field(default_factory=dict)
    program_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    program_bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    waiting: bool = False

    @classmethod
    def total(cls, logs: Iterable["CompileLog"]) -> "CompileLog":
        """Return the sum of `logs`; of memory, the largest."""
        total = cls()
        for log in logs:
            for name, count in log.programs.items():
                total.programs[name] = total.programs.get(name, 0) + count
            for name, seconds in log.program_seconds.items():
                total.program_seconds[name] = total.program_seconds.get(name, 0.0) + seconds
            for name, size in log.program_bytes.items():
                total.program_bytes[name] = max(total.program_bytes.get(name, 0), size)
            total.seconds += log.seconds
            total.waiting |= log.waiting
        return total

    def add(self, name: str, seconds: float) -> None:
        """Take in one more compilation of the program `name`."""
        self.programs[name] = self.programs.get(name, 0) + 1
        self.program_seconds[name] = self.program_seconds.get(name, 0.0) + seconds


class Checkpoint(NamedTuple):
    """A run at one of its checkpoints.

    Attributes:
      step: nominal environment steps of each seed; the grid that all runs share.
      environment_steps: steps each seed has really taken, `step` or just more.
      returns: mean return over the evaluation episodes of each seed, float ``[seeds]``;
        NaN for a seed that has diverged.
      metrics: of the training since the last checkpoint, one value a seed.
      state: the training state. The next checkpoint takes it over, so use it before.
      training_seconds, evaluation_seconds: since the last checkpoint, compilation apart.
    """

    step: int
    environment_steps: int
    returns: np.ndarray
    metrics: TrainMetrics
    state: TrainState
    training_seconds: float
    evaluation_seconds: float


class Programs:
    """Training and evaluation of one configuration, for a number of seeds at once.

    Each program is compiled at its first call, or side by side with the others by
    :meth:`compile`, and never again: a call with other shapes is an error rather than a
    silent recompilation.

    Args:
      config: the static half of the run.
      seeds: seeds that run at once, on lanes spread over the devices.
      devices: all local devices by default.
      switched_normalization: compile programs that run with and without normalisation of
        observations and of rewards; see :meth:`normalizing`.
    """

    def __init__(
        self,
        config: TrainConfig,
        seeds: int,
        devices: Sequence[jax.Device] | None = None,
        *,
        switched_normalization: bool = False,
    ) -> None:
        # What cannot work fails here rather than inside a trace.
        make_network(config.agent, make(config.env, config.env_kwargs).spaces)
        self.config = self._compiled_config = config
        if switched_normalization:
            agent = dataclasses.replace(
                config.agent, normalize_observations=True, normalize_rewards=True
            )
            self._compiled_config = dataclasses.replace(
                config, agent=agent, switched_normalization=True
            )
        self.mesh = SeedMesh(seeds, devices)
        self.compile_log = CompileLog()
        self._compiled: dict[str, Future[jax.stages.Compiled]] = {}
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="run")
        self._compiling = threading.Lock()

    _donating: ClassVar = frozenset({"training"})
    """Programs that take over the state they are given."""

    @property
    def seeds(self) -> int:
        """Seeds of a run, which train at once."""
        return self.mesh.seeds

    def normalizing(self, *, observations: bool, rewards: bool) -> "Programs":
        """Return these programs, nothing compiled anew, for runs that normalise or do not."""
        assert self._compiled_config.switched_normalization, "they were compiled for one of both"
        programs = copy.copy(self)
        agent = dataclasses.replace(
            self.config.agent, normalize_observations=observations, normalize_rewards=rewards
        )
        programs.config = dataclasses.replace(self.config, agent=agent)
        return programs

    def compile(self) -> None:
        """Compile all programs side by side, in threads; return when training is compiled.

        On CPU, what runs beside that waits for its cores, and would count as something else
        than compiling.
        """
        self._compile(*_PROGRAMS)
        self._wait("training")

    def prepare(self) -> None:
        """Begin to compile all programs in a thread, beside what runs."""
        if not self._compiled:
            threading.Thread(
                target=self._compile, args=_PROGRAMS, kwargs={"ahead": True}, daemon=True
            ).start()

    def init(self, keys: jax.Array) -> TrainState:
        """Return the state before the first iteration, with one lane a key.

        Args:
          keys: ``[n]``, n at most the number of seeds; lanes without one repeat the last.
        """
        state = self._switched(self._call("initialisation", self.mesh.pad(keys)))
        placed: TrainState = self.mesh.put(state, STATE_AXES)
        return placed

    def train_until(
        self, state: TrainState, hyperparameters: Hyperparameters, steps: int, total_steps: int
    ) -> tuple[TrainState, TrainMetrics]:
        """Train every lane until each has taken `steps` environment steps or just more.

        The state passed in is given up (donated). See :func:`trainer.train_until`.

        Returns:
          The new state, and metrics with one value a seed.
        """
        self.config.check(hyperparameters)
        target = iterations_for(steps, hyperparameters.n_steps)
        total = iterations_for(total_steps, hyperparameters.n_steps)
        state, metrics = self._call(
            "training", state, hyperparameters.to_arrays(), np.int32(target), np.int32(total)
        )
        return state, jax.tree.map(lambda x: np.asarray(x)[: self.seeds], metrics)

    def evaluate(self, state: TrainState, checkpoint: int) -> np.ndarray:
        """Return the returns of full greedy episodes, float32 ``[seeds, eval_episodes]``.

        A seed's initial states depend on its key and on `checkpoint`, its number in the
        run, alone. So all trials are scored on the same episodes. Returns of a seed
        that has diverged are NaN.
        """
        return np.asarray(self._call("evaluation", state, np.int32(checkpoint)))[: self.seeds]

    def run(
        self,
        keys: jax.Array,
        hyperparameters: Hyperparameters,
        checkpoints: Sequence[int],
        passed: int = 0,
        state: TrainState | None = None,
    ) -> Iterator[Checkpoint]:
        """Train and evaluate `keys`, ``[n]``, and yield at each of `checkpoints`.

        Args:
          keys: one for each seed, at most as many as seeds run at once.
          hyperparameters: of all seeds.
          checkpoints: increasing nominal steps; the last is the training budget.
          passed: number of checkpoints that an earlier call has yielded. This call yields
            what that one would have yielded next, bit for bit.
          state: what the earlier call yielded at the last of them; a fresh one if not given.
        """
        self.compile()
        state = self.init(keys) if state is None else self.mesh.put(state, STATE_AXES)
        for number, step in enumerate(checkpoints[passed:], start=passed):
            compiling, start = self.compile_log.seconds, time.perf_counter()
            state, metrics = self.train_until(state, hyperparameters, step, checkpoints[-1])
            trained, compiled = time.perf_counter(), self.compile_log.seconds
            returns = self.evaluate(state, number)[: len(keys)]
            evaluated = time.perf_counter()
            yield Checkpoint(
                step,
                environment_steps=int(state.iteration) * hyperparameters.n_steps,
                returns=returns.astype(np.float64).mean(axis=1),
                metrics=jax.tree.map(lambda x: x[: len(keys)], metrics),
                state=state,
                training_seconds=trained - start - (compiled - compiling),
                evaluation_seconds=evaluated - trained - (self.compile_log.seconds - compiled),
            )

    def _switched(self, state: TrainState) -> TrainState:
        """Say in a new state which of its running statistics are applied."""
        if not self._compiled_config.switched_normalization:
            return state
        agent, actors = self.config.agent, state.actors

        def applied(statistics: RunningStatistics | None, flag: bool) -> RunningStatistics:
            assert statistics is not None, "the programs keep both statistics"
            return statistics._replace(applied=jnp.full(self.mesh.lanes, flag))

        observations = applied(actors.observation_statistics, agent.normalize_observations)
        rewards = applied(actors.return_statistics, agent.normalize_rewards)
        actors = dataclasses.replace(
            actors, observation_statistics=observations, return_statistics=rewards
        )
        return dataclasses.replace(state, actors=actors)

    def _call(self, name: str, *args: Any) -> Any:
        self._compile(name)
        program = self._wait(name)
        # In a thread: signals reach Python's main thread only while it waits in Python.
        return self._runner.submit(lambda: jax.block_until_ready(program(*args))).result()

    def _wait(self, name: str) -> jax.stages.Compiled:
        """Return a program that is compiled, or being compiled."""
        start = time.perf_counter()
        self.compile_log.waiting = not self._compiled[name].done()
        try:
            return self._compiled[name].result()
        finally:
            self.compile_log.waiting = False
            self.compile_log.seconds += time.perf_counter() - start

    def _compile(self, *names: str, ahead: bool = False) -> None:
        with self._compiling:  # Another thread may have begun in advance.
            self._compile_missing([n for n in names if n not in self._compiled], ahead)

    def _compile_missing(self, missing: Sequence[str], ahead: bool) -> None:
        if missing:
            if not ahead:
                self.compile_log.waiting = True
            definitions = self.definitions()
            pool = ThreadPoolExecutor(len(missing), thread_name_prefix="compile")
            for name in missing:
                start = time.perf_counter()
                # Traced in this thread, where the caller's JAX settings hold.
                lowered = self.lowered(name, *definitions[name])
                traced = time.perf_counter() - start
                if not ahead:  # Somebody waits.
                    self.compile_log.seconds += traced
                compiling = pool.submit(self._compile_lowered, name, lowered, traced)
                compiling.add_done_callback(_return_freed_memory)
                self._compiled[name] = compiling
            pool.shutdown(wait=False)

    def _compile_lowered(
        self, name: str, lowered: jax.stages.Lowered, traced: float
    ) -> jax.stages.Compiled:
        start = time.perf_counter()
        compiled = lowered.compile(compiler_options=dict(self.mesh.compiler_options))
        self.compile_log.add(name, traced + time.perf_counter() - start)
        self.compile_log.program_bytes[name] = _memory(compiled)
        return compiled

    def text(self, name: str) -> str:
        """Return a program as the compiler has made it, in XLA's optimised HLO."""
        self._compile(name)
        return self._wait(name).as_text() or ""

    def lowered(self, name: str, function: Any, *arguments: Any) -> jax.stages.Lowered:
        """Return a program as it goes to the compiler.

        Args:
          name: of the program.
          function: of :meth:`definitions`.
          *arguments: their shapes.
        """
        function.__name__ = name  # What JAX's own log of compilations calls it.
        donated = (0,) if name in self._donating else ()
        precision = self._compiled_config.matmul_precision
        with (
            contextlib.nullcontext()  # The caller's setting holds.
            if precision == "default"
            else jax.default_matmul_precision(precision)
        ):
            program = jax.jit(function, donate_argnums=donated)
            return decompositions.lower(program, *arguments, platform=self.mesh.platform)

    def definitions(self) -> dict[str, tuple[Any, ...]]:
        """Return program -> its function and the shapes of its arguments."""
        config = self._compiled_config

        def init(keys: jax.Array) -> TrainState:
            # One seed after another: with jaxlib 0.10 a vmapped orthogonal initialiser
            # (a batched QR) can hang on CPU. It takes milliseconds either way.
            states: TrainState = jax.lax.map(partial(trainer.init, config), keys)
            return dataclasses.replace(states, iteration=states.iteration[0])

        def evaluate(state: TrainState, checkpoint: jax.Array) -> jax.Array:
            key = evaluation_key(state.key, checkpoint)
            statistics = state.actors.observation_statistics
            returns = evaluation.evaluate(config, state.params, key, statistics)
            return jnp.where(state.finite, returns, jnp.nan)

        train_until = partial(trainer.train_until, config, few_launches=self.mesh.few_launches)
        keys = jax.eval_shape(lambda: seed_keys(0, TRAINING, self.mesh.lanes))
        state = self.mesh.placed(jax.eval_shape(init, keys), STATE_AXES)
        hyperparameters, number = Hyperparameters().to_arrays(), np.int32(0)
        training = self.mesh.map(train_until, (STATE_AXES, None, None, None), (STATE_AXES, 0))
        evaluating = self.mesh.map(evaluate, (STATE_AXES, None), 0)
        return {
            "initialisation": (init, keys),
            "training": (training, state, hyperparameters, number, number),
            "evaluation": (evaluating, state, number),
        }
