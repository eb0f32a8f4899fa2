"""Studies whose trials train side by side, with something that answers in place of training.

The tuner's own loop runs them. Only the schedule is another one: it knows when each trial would
reach its checkpoints as lanes (:class:`ppo_jax.schedules.SideBySide`), and not what it costs.
"""

import dataclasses
from collections.abc import Iterator

from ppo_jax.programs import Checkpoint
from ppo_jax.schedules import Run, Schedule, blocks_for
from tune.protocol.settings import Settings
from tune.search.pool import ProgramPool


class LanePool(ProgramPool):
    """Programs of another pool, side by side.

    Args:
      settings: of the study.
      answering: answers in place of training.
      lanes: trials at once.
    """

    def __init__(self, settings: Settings, answering: ProgramPool, lanes: int) -> None:
        super().__init__(settings)
        self.answering, self.lanes = answering, lanes

    def schedule(self, clock: int = 0) -> Schedule:
        """See :class:`ProgramPool`."""
        return Lockstep(self, clock)

    @property
    def has_lanes(self) -> bool:
        """Whether trials run side by side."""
        return self.lanes > 1


@dataclasses.dataclass
class _UnderWay:
    """A run under way: its checkpoints that are left, and the moments it reaches them at."""

    run: Run
    arrivals: list[int]
    checkpoints: Iterator[Checkpoint]


class Lockstep:
    """Runs in lockstep; see :class:`ppo_jax.schedules.Schedule`.

    Args:
      pool: whose lanes they fill.
      clock: what the clock begins with.
    """

    def __init__(self, pool: LanePool, clock: int = 0) -> None:
        self.clock = clock
        self._pool = pool
        self._under_way: list[_UnderWay] = []

    @property
    def room(self) -> int:
        """See :class:`ppo_jax.schedules.Schedule`."""
        if any(each.arrivals[0] == self.clock for each in self._under_way):
            return 0
        return self._pool.lanes - len(self._under_way)

    def start(self, run: Run, at: int | None = None) -> None:
        """See :class:`ppo_jax.schedules.Schedule`."""
        agent = run.agent or self._pool.config.agent
        programs, config = self._pool.answering.programs(agent), self._pool.config
        begins = self.clock if at is None else max(at, self.clock)
        self._under_way.append(
            _UnderWay(
                run,
                [begins + blocks_for(config, run.hyperparameters, s) for s in run.checkpoints],
                iter(programs.run(run.keys, run.hyperparameters, run.checkpoints)),
            )
        )

    def next(self) -> tuple[Run, Checkpoint]:
        """See :class:`ppo_jax.schedules.Schedule`; the one that began first is the first."""
        first = min(self._under_way, key=lambda each: each.arrivals[0])
        self.clock = first.arrivals.pop(0)
        if not first.arrivals:
            self.stop(first.run)
        return first.run, next(first.checkpoints)

    def wait(self, until: int) -> bool:
        """See :class:`ppo_jax.schedules.Schedule`; no study is continued here."""
        raise NotImplementedError

    def stop(self, run: Run) -> None:
        """See :class:`ppo_jax.schedules.Schedule`."""
        self._under_way = [each for each in self._under_way if each.run is not run]
