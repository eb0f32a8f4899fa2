"""When which run trains: one after another, or side by side as lanes of one program.

A run is a configuration with its seeds and checkpoints. A schedule has room for a number of
runs, trains those that have been started, and returns them one by one as they reach their
checkpoints. Which schedule is the faster one depends on the device: see :func:`choose_lanes`.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax import evaluation, lanes, trainer
from ppo_jax.config import AgentConfig, TrainConfig, iterations_for
from ppo_jax.devices import SeedMesh
from ppo_jax.errors import require_count
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.lanes import Lanes
from ppo_jax.programs import Checkpoint, Programs
from ppo_jax.seeds import TRAINING, evaluation_key, seed_keys
from ppo_jax.trainer import TrainMetrics, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A configuration that is trained on a number of seeds; see :meth:`Programs.run`.

    Attributes:
      keys: one for each seed, ``[n]``, at most as many as the seeds of the programs.
      hyperparameters: of all seeds.
      checkpoints: increasing nominal steps; the last is the training budget.
      passed: number of checkpoints that it has passed before.
      state: the training state at the last of them; a fresh one if not given.
      agent: where a schedule trains runs of several, as one of several programs does.
    """

    keys: jax.Array
    hyperparameters: Hyperparameters
    checkpoints: Sequence[int]
    passed: int = 0
    state: TrainState | None = None
    agent: AgentConfig | None = None


class Schedule(Protocol):
    """Trains the runs that it is given.

    Attributes:
      clock: blocks of transitions that every run under way has been given time for; 0 where
        the schedule has no clock.
    """

    clock: int

    @property
    def room(self) -> int:
        """How many more runs can be started now.

        None while others that have reached a checkpoint at the same moment are still to be
        returned: what starts next may depend on all of them.
        """
        ...

    def start(self, run: Run, at: int | None = None) -> None:
        """Start a run, when the clock says `at`, at once by default."""
        ...

    def next(self) -> tuple[Run, Checkpoint]:
        """Train until a run under way reaches a checkpoint, and return both.

        A run leaves the schedule with its last checkpoint.
        """
        ...

    def wait(self, until: int) -> bool:
        """Train until the clock says `until`, or a run under way reaches a checkpoint.

        Returns:
          Whether there is a checkpoint to be returned.
        """
        ...

    def stop(self, run: Run) -> None:
        """End a run at the checkpoint that it was returned with last."""
        ...


class RunsSeeds(Protocol):
    """What it takes to train one run after another."""

    def run(
        self, keys: jax.Array, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator[Checkpoint]:
        """Train a seed a key and yield it at each checkpoint; see :meth:`Programs.run`."""
        ...


class OneAfterAnother:
    """One run at a time: the schedule for CPUs, which the seeds of one run keep busy.

    Args:
      programs: of the runs' configuration.
    """

    clock = 0

    def __init__(self, programs: Any) -> None:
        self._programs = programs
        self._run: Run | None = None
        self._left = 0
        self._checkpoints: Iterator[Checkpoint] = iter(())

    @property
    def room(self) -> int:
        """See :class:`Schedule`."""
        return 1 if self._run is None else 0

    def start(self, run: Run, at: int | None = None) -> None:
        """See :class:`Schedule`; a run begins at once."""
        del at
        assert self._run is None, "there is no room"
        further = () if run.state is None else (run.passed, run.state)
        self._checkpoints = iter(
            self._programs.run(run.keys, run.hyperparameters, run.checkpoints, *further)
        )
        self._run, self._left = run, len(run.checkpoints) - run.passed

    def next(self) -> tuple[Run, Checkpoint]:
        """See :class:`Schedule`."""
        run = self._run
        assert run is not None, "there is no run under way"
        checkpoint = next(self._checkpoints)
        self._left -= 1
        if not self._left:
            self._run = None
        return run, checkpoint

    def wait(self, until: int) -> bool:
        """See :class:`Schedule`; there is no clock to wait for."""
        del until
        return True

    def stop(self, run: Run) -> None:
        """See :class:`Schedule`."""
        if self._run is run:
            self._run = None


class LanePrograms(Programs):
    """Programs that train a number of runs at once, each on as many lanes as it has seeds.

    Args:
      config: the static half of all runs.
      seeds: of a run.
      runs: that train side by side.
      devices: all local devices by default; lanes are spread over them.
    """

    _donating: ClassVar = frozenset({"training", "placement", "lanes"})

    def __init__(
        self,
        config: TrainConfig,
        seeds: int,
        runs: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        require_count("lanes", runs)
        super().__init__(config, seeds, devices)
        self.runs = runs
        self.lane_mesh = SeedMesh(runs * seeds, devices)

    def compile(self) -> None:
        """See :meth:`Programs.compile`."""
        self._compile("initialisation", "placement", "lanes", "lane_evaluation", "extraction")
        self._wait("lanes")

    def empty(self) -> Lanes:
        """Return lanes in which nothing has been placed yet; all zeros."""

        def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array | np.ndarray:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return seed_keys(0, TRAINING, leaf.shape[0])
            return np.zeros(leaf.shape, leaf.dtype)

        made: Lanes = self.lane_mesh.put(
            jax.tree.map(zeros, lanes_shape(self.config, self.lane_mesh.lanes))
        )
        return made

    def place(
        self,
        all_lanes: Lanes,
        state: TrainState,
        hyperparameters: Hyperparameters,
        total_steps: int,
        here: np.ndarray,
    ) -> Lanes:
        """Put the seeds of a run into lanes. The lanes passed in are given up (donated).

        Args:
          all_lanes: of all runs.
          state: of the run's seeds, as :meth:`init` makes it.
          hyperparameters: of the run.
          total_steps: its training budget.
          here: bool ``[lanes]``; each of these gets the seed that :meth:`lanes_of` counts.
        """
        self.config.check(hyperparameters)
        replicated = self.lane_mesh.put(state, None)
        total = np.int32(iterations_for(total_steps, hyperparameters.n_steps))
        seed = np.arange(self.lane_mesh.lanes, dtype=np.int32) % self.seeds
        placed: Lanes = self._call(
            "placement", all_lanes, replicated, hyperparameters.to_arrays(), total, seed, here
        )
        return placed

    def advance(
        self, all_lanes: Lanes, active: np.ndarray, passed: np.ndarray, blocks: int
    ) -> Lanes:
        """Train the active lanes for a number of blocks; see :func:`ppo_jax.lanes.advance`.

        The lanes passed in are given up (donated).
        """
        advanced: Lanes = self._call("lanes", all_lanes, active, passed, np.int32(blocks))
        return advanced

    def evaluate_lanes(
        self, all_lanes: Lanes, checkpoint: np.ndarray, iterations: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, TrainMetrics]:
        """Evaluate the wanted lanes.

        Args:
          all_lanes: of all runs.
          checkpoint: number of a lane's checkpoint in its run, int32 ``[lanes]``.
          iterations: since the one before, int32 ``[lanes]``.
          wanted: bool ``[lanes]``; what is returned of the others means nothing.

        Returns:
          Returns of full episodes, float32 ``[lanes, eval_episodes]``, and metrics.
        """
        returns, metrics = self._call("lane_evaluation", all_lanes, checkpoint, iterations, wanted)
        return np.asarray(returns), jax.tree.map(np.asarray, metrics)

    def extract(self, all_lanes: Lanes, place: int) -> TrainState:
        """Return the training state of a run between two iterations, as :meth:`init` makes it."""
        count = self.mesh.lanes
        index = place * self.seeds + np.minimum(np.arange(count), self.seeds - 1)
        state: TrainState = self._call("extraction", all_lanes, index.astype(np.int32))
        return state

    def lanes_of(self, place: int) -> np.ndarray:
        """Return which lanes belong to the run at `place`, bool ``[lanes]``."""
        owner = np.arange(self.lane_mesh.lanes) // self.seeds
        return np.asarray(owner == place)

    def definitions(self) -> dict[str, tuple[Any, ...]]:
        """See :meth:`Programs.definitions`."""
        mesh = self.lane_mesh

        def place(
            lane: Lanes,
            state: TrainState,
            hyperparameters: Hyperparameters,
            total: jax.Array,
            seed: jax.Array,
            here: jax.Array,
        ) -> Lanes:
            own = jax.tree.map(lambda x: x[seed] if x.ndim else x, state)
            fresh = lanes.begin(self.config, own, hyperparameters, total)
            placed: Lanes = jax.tree.map(functools.partial(jnp.where, here), fresh, lane)
            return placed

        def evaluate(
            lane: Lanes, checkpoint: jax.Array, iterations: jax.Array, wanted: jax.Array
        ) -> tuple[jax.Array, TrainMetrics]:
            state = lane.train
            returns = evaluation.evaluate(
                self.config,
                state.params,
                evaluation_key(state.key, checkpoint),
                state.actors.observation_statistics,
                wanted,
            )
            returns = jnp.where(state.finite, returns, jnp.nan)
            # At a checkpoint that a rollout has passed with the one before it, nothing is new.
            none = jax.tree.map(jnp.zeros_like, lane.sums)
            sums = jax.tree.map(functools.partial(jnp.where, iterations > 0), lane.sums, none)
            return returns, trainer.means(sums, iterations.astype(jnp.float32))

        def extract(all_lanes: Lanes, index: jax.Array) -> TrainState:
            state: TrainState = jax.tree.map(lambda x: x[index], all_lanes.train)
            return dataclasses.replace(state, iteration=state.iteration[0])

        advance = jax.shard_map(
            functools.partial(lanes.advance, self.config, few_launches=mesh.few_launches),
            mesh=mesh.mesh,
            in_specs=tuple(map(mesh.spec, (0, 0, 0, None))),
            out_specs=mesh.spec(0),
            check_vma=False,
        )
        definitions = super().definitions()
        _, keys = definitions["initialisation"]
        state = jax.eval_shape(definitions["initialisation"][0], keys)
        hyperparameters, number = Hyperparameters().to_arrays(), np.int32(0)
        all_lanes = mesh.placed(lanes_shape(self.config, self.lane_mesh.lanes))
        numbers, flags = (np.zeros(mesh.lanes, dtype) for dtype in (np.int32, np.bool_))
        placing = mesh.map(place, (0, None, None, None, 0, 0), 0)
        evaluating = mesh.map(evaluate, (0, 0, 0, 0), 0)
        index = np.zeros(self.mesh.lanes, np.int32)
        return {
            **definitions,
            "placement": (
                placing,
                all_lanes,
                mesh.placed(state, None),
                hyperparameters,
                number,
                numbers,
                flags,
            ),
            "lanes": (advance, all_lanes, flags, flags, number),
            "lane_evaluation": (evaluating, all_lanes, numbers, numbers, flags),
            "extraction": (extract, all_lanes, index),
        }


@functools.lru_cache(maxsize=4)
def lanes_shape(config: TrainConfig, count: int) -> Lanes:
    """Return shapes and types of `count` lanes."""
    hyperparameters, number = Hyperparameters().to_arrays(), np.int32(0)

    def begin(key: jax.Array) -> Lanes:
        state = trainer.init(config, key)
        return lanes.begin(config, state, hyperparameters, jnp.asarray(number))

    keys = jax.eval_shape(lambda: seed_keys(0, TRAINING, count))
    shape: Lanes = jax.eval_shape(jax.vmap(begin), keys)
    return shape


@dataclasses.dataclass
class _Place:
    """A run under way side by side with others.

    Attributes:
      run: the run.
      number: how many have started before it; it decides who arrives first of two that arrive
        at once.
      begins: what the clock says, or said, when it begins.
      passed: checkpoints it has passed.
      blocks: it has collected.
      placed: whether its state is in its lanes.
      training_seconds: its share since its last checkpoint.
    """

    run: Run
    number: int
    begins: int
    passed: int
    blocks: int
    placed: bool = False
    training_seconds: float = 0.0


class SideBySide:
    """Runs in lockstep, as lanes of one program: the schedule for accelerators.

    Every run is given time for one block of transitions after the other. So when a run reaches
    a checkpoint follows from its sizes and from the moment it has begun at alone, and not from
    how fast anything is.

    Args:
      programs: of the runs' configuration.
      clock: what the clock begins with.
    """

    def __init__(self, programs: LanePrograms, clock: int = 0) -> None:
        self.clock = clock
        self._programs = programs
        self._places: list[_Place | None] = [None] * programs.runs
        self._arrived: list[tuple[Run, Checkpoint]] = []
        self._started = 0
        self._lanes: Lanes | None = None
        self._passed = np.zeros(programs.lane_mesh.lanes, np.bool_)

    @property
    def room(self) -> int:
        """See :class:`Schedule`."""
        if self._arrived or any(p and p.placed and not self._left(p) for p in self._places):
            return 0  # A long rollout passes several checkpoints at once.
        return self._places.count(None)

    def start(self, run: Run, at: int | None = None) -> None:
        """See :class:`Schedule`."""
        self._programs.config.check(run.hyperparameters)
        before = run.checkpoints[run.passed - 1] if run.passed else 0
        self._places[self._places.index(None)] = _Place(
            run,
            number=self._started,
            begins=self.clock if at is None else max(at, self.clock),
            passed=run.passed,
            blocks=self._blocks(run, before),
        )
        self._started += 1

    def stop(self, run: Run) -> None:
        """See :class:`Schedule`."""
        for index, place in enumerate(self._places):
            if place is not None and place.run is run:
                self._places[index] = None

    def next(self) -> tuple[Run, Checkpoint]:
        """See :class:`Schedule`."""
        while not self._arrived:
            self._advance()
        run, checkpoint = self._arrived.pop(0)
        if checkpoint.step == run.checkpoints[-1]:
            self.stop(run)
        return run, checkpoint

    def wait(self, until: int) -> bool:
        """See :class:`Schedule`."""
        while not self._arrived and self.clock < until:
            self._advance(until)
        return bool(self._arrived)

    def _blocks(self, run: Run, step: int) -> int:
        return blocks_for(self._programs.config, run.hyperparameters, step)

    def _left(self, place: _Place) -> int:
        """Return how many blocks are left until the next checkpoint of a run."""
        return self._blocks(place.run, place.run.checkpoints[place.passed]) - place.blocks

    def _advance(self, until: int | None = None) -> None:
        """Train until a run arrives at a checkpoint, another one begins, or it is `until`."""
        self._programs.compile()
        places = {i: place for i, place in enumerate(self._places) if place is not None}
        assert places, "there is no run under way"
        if all(place.begins > self.clock for place in places.values()):
            self.clock = min(place.begins for place in places.values())
        for index, place in places.items():
            if place.begins <= self.clock and not place.placed:
                self._put(index, place)
        active = {i: place for i, place in places.items() if place.placed}
        pauses = [place.begins for place in places.values() if not place.placed]
        pauses += [] if until is None else [until]
        blocks = min([*map(self._left, active.values()), *(at - self.clock for at in pauses)])
        if blocks:
            self._train(active, blocks)
        arrived = {i: place for i, place in active.items() if not self._left(place)}
        if arrived:
            self._evaluate(arrived)

    def _put(self, index: int, place: _Place) -> None:
        run, programs = place.run, self._programs
        state = programs.init(run.keys) if run.state is None else run.state
        here = programs.lanes_of(index)
        if self._lanes is None:
            # Until others come, every lane holds a copy: no environment is in a state that it
            # could not reach.
            self._lanes, here = programs.empty(), np.ones_like(here)
        self._lanes = programs.place(
            self._lanes, state, run.hyperparameters, run.checkpoints[-1], here
        )
        place.placed = True

    def _train(self, active: dict[int, _Place], blocks: int) -> None:
        compiling, start = self._programs.compile_log.seconds, time.perf_counter()
        self._lanes = self._programs.advance(
            self._known_lanes, self._mask(active), self._passed, blocks
        )
        compiled = self._programs.compile_log.seconds - compiling
        self._passed = np.zeros_like(self._passed)
        self.clock += blocks
        share = (time.perf_counter() - start - compiled) / len(active)
        for place in active.values():
            place.blocks += blocks
            place.training_seconds += share

    def _evaluate(self, arrived: dict[int, _Place]) -> None:
        programs, wanted = self._programs, self._mask(arrived)
        number, iterations = (np.zeros(programs.lane_mesh.lanes, np.int32) for _ in range(2))
        for index, place in arrived.items():
            run, here = place.run, programs.lanes_of(index)
            steps = (0, *run.checkpoints)[place.passed : place.passed + 2]
            before, after = (iterations_for(s, run.hyperparameters.n_steps) for s in steps)
            number[here], iterations[here] = place.passed, after - before
        compiling, start = programs.compile_log.seconds, time.perf_counter()
        returns, metrics = programs.evaluate_lanes(self._known_lanes, number, iterations, wanted)
        compiled = programs.compile_log.seconds - compiling
        seconds = (time.perf_counter() - start - compiled) / len(arrived)
        self._passed |= wanted
        for index, place in sorted(arrived.items(), key=lambda item: item[1].number):
            run, first = place.run, index * programs.seeds
            own = slice(first, first + len(run.keys))
            n_steps, step = run.hyperparameters.n_steps, run.checkpoints[place.passed]
            checkpoint = Checkpoint(
                step,
                environment_steps=iterations_for(step, n_steps) * n_steps,
                returns=returns[own].astype(np.float64).mean(axis=1),
                metrics=jax.tree.map(lambda x, own=own: x[own], metrics),
                state=programs.extract(self._known_lanes, index),
                training_seconds=place.training_seconds,
                evaluation_seconds=seconds,
            )
            place.passed += 1
            place.training_seconds = 0.0
            self._arrived.append((run, checkpoint))

    @property
    def _known_lanes(self) -> Lanes:
        assert self._lanes is not None, "a run has been placed"
        return self._lanes

    def _mask(self, places: dict[int, _Place]) -> np.ndarray:
        """Return which lanes belong to `places`, bool ``[lanes]``."""
        masks = [self._programs.lanes_of(index) for index in places]
        return np.asarray(np.any(masks, axis=0))


def programs_for(
    config: TrainConfig, seeds: int, runs: int = 1, devices: Sequence[jax.Device] | None = None
) -> Programs:
    """Return the programs that train so many runs of a configuration at once."""
    return (
        Programs(config, seeds, devices)
        if runs == 1
        else LanePrograms(config, seeds, runs, devices)
    )


MOST_LANES = 8
"""Runs side by side that :func:`choose_lanes` never exceeds: with these an accelerator is busy."""

MEMORY_SHARE = 0.25
"""Of a device's memory for the lanes themselves; temporaries take a few times as much."""


def choose_lanes(
    config: TrainConfig, seeds: int, most: int, devices: Sequence[jax.Device] | None = None
) -> int:
    """Return how many runs are to train side by side.

    One on CPU, whose cores the seeds of one run keep busy. An accelerator, which one run leaves
    idle, trains several: as many as its memory holds, and at most :data:`MOST_LANES`.

    Args:
      config: of all runs.
      seeds: of a run.
      most: runs that can be of use at once.
      devices: all local devices by default.
    """
    available = list(devices or jax.local_devices())
    if available[0].platform == "cpu":
        return 1
    of_run = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(lanes_shape(config, seeds))
    )
    memory = available[0].memory_stats() or {}
    room = MEMORY_SHARE * memory.get("bytes_limit", math.inf) * len(available) / of_run
    return int(max(1, min(MOST_LANES, most, room)))


def schedule_for(programs: RunsSeeds, clock: int = 0) -> Schedule:
    """Return the schedule of `programs`: side by side where they have lanes for several runs.

    Args:
      programs: of the runs' configuration.
      clock: what the clock begins with, where there is one.
    """
    if isinstance(programs, LanePrograms):
        return SideBySide(programs, clock)
    return OneAfterAnother(programs)


def blocks_for(config: TrainConfig, hyperparameters: Hyperparameters, steps: int) -> int:
    """Return after how many blocks a run reaches `steps`: with the end of an iteration."""
    n_steps = hyperparameters.n_steps
    return iterations_for(steps, n_steps) * n_steps // config.block_size
