"""The programs of a study: one set for each agent that needs another one.

Hyperparameters and the switches of normalisation are traced: they never need another program.
Number of environments and network do. Programs of an agent are compiled when they are first
needed, or in a thread beside a trial that runs; the compilation cache keeps them.
"""

import dataclasses
import threading

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.programs import CompileLog, Programs
from ppo_jax.schedules import (
    LanePrograms,
    OneAfterAnother,
    Run,
    RunsSeeds,
    Schedule,
    programs_for,
    schedule_for,
)
from tune.protocol.settings import Settings

_SWITCHES = ("normalize_observations", "normalize_rewards")


class _OneAfterAnother(OneAfterAnother):
    """One run at a time, each in the programs of its agent."""

    def __init__(self, pool: "ProgramPool") -> None:
        super().__init__(None)
        self._pool = pool

    def start(self, run: Run, at: int | None = None) -> None:
        """See :class:`ppo_jax.schedules.Schedule`."""
        assert run.agent is not None, "it says which programs train it"
        self._programs = self._pool.programs(run.agent)
        super().start(run, at)


class ProgramPool:
    """Programs by agent.

    Args:
      settings: of the study.
      config: what the programs run besides the agent; of the settings if not given.
      lanes: runs that train side by side, where no agent is tuned.
      given: programs of a caller, for all agents that they can run.
    """

    def __init__(
        self,
        settings: Settings,
        config: TrainConfig | None = None,
        lanes: int = 1,
        given: Programs | RunsSeeds | None = None,
    ) -> None:
        self.config = config or settings.config
        self.seeds = settings.seeds
        self._settings, self._lanes = settings, lanes
        self._switched = bool(set(settings.space.tuned_agent) & set(_SWITCHES))
        self._programs: dict[AgentConfig, Programs] = {}
        self._lock = threading.Lock()
        self._given = given
        if isinstance(given, Programs):
            self.config, self.seeds = given.config, given.seeds

    @classmethod
    def of(
        cls, programs: "ProgramPool | Programs | RunsSeeds", settings: Settings
    ) -> "ProgramPool":
        """Return `programs` as a pool."""
        if isinstance(programs, ProgramPool):
            return programs
        return cls(settings, given=programs)

    def programs(self, agent: AgentConfig) -> Programs:
        """Return the programs that run `agent`; they compile at their first call."""
        given = self._given
        if given is not None and (not isinstance(given, Programs) or given.config.agent == agent):
            return given  # type: ignore[return-value]
        if not self._switched:
            return self._of(agent)
        shared = dataclasses.replace(agent, normalize_observations=False, normalize_rewards=False)
        return self._of(shared).normalizing(
            observations=agent.normalize_observations, rewards=agent.normalize_rewards
        )

    def config_of(self, agent: AgentConfig) -> TrainConfig:
        """Return the configuration that `agent` runs with."""
        return dataclasses.replace(self.config, agent=agent)

    def prepare(self, agent: AgentConfig) -> None:
        """Begin to compile the programs of `agent`, in a thread."""
        programs = self.programs(agent)
        if isinstance(programs, Programs):
            programs.prepare()

    def schedule(self, clock: int = 0) -> Schedule:
        """Return the schedule that trains runs of any agent; see :func:`schedule_for`."""
        if self._given is not None or not self._settings.space.tuned_agent:
            return schedule_for(self.programs(self.config.agent), clock)
        return _OneAfterAnother(self)

    @property
    def has_lanes(self) -> bool:
        """Whether runs train side by side."""
        if self._settings.space.tuned_agent:
            return False
        return isinstance(self.programs(self.config.agent), LanePrograms)

    @property
    def compile_log(self) -> CompileLog:
        """What all programs have compiled so far."""
        with self._lock:
            every = [self._given, *self._programs.values()]
        logs = [getattr(programs, "compile_log", None) for programs in every]
        return CompileLog.total(log for log in logs if log is not None)

    def _of(self, agent: AgentConfig) -> Programs:
        with self._lock:
            if agent not in self._programs:
                config = self._settings.config_of(agent, self.config)
                self._programs[agent] = (
                    Programs(config, self.seeds, switched_normalization=True)
                    if self._switched
                    else programs_for(config, self.seeds, self._lanes)
                )
            return self._programs[agent]
