"""A configuration trained on any number of seeds, in the study's own compiled programs."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.identity import first_difference
from ppo_jax.programs import Checkpoint, Programs, Weights, lane_weights
from ppo_jax.schedules import Run, schedule_for
from ppo_jax.seeds import seed_keys
from ppo_jax.statistics import CONFIDENCE, t_interval
from ppo_jax.training_state import DamagedStateError, OtherRunError, TrainingStates
from tune.evidence.statistics import finite
from tune.protocol.purposes import TUNING, VALIDATION
from tune.protocol.settings import Settings
from tune.protocol.stored import number, numbers, table
from tune.protocol.trials import TrialRecord
from tune.search.pool import ProgramPool

TUNING_SEEDS, VALIDATION_SEEDS = "tuning", "validation"
PURPOSES = {TUNING_SEEDS: TUNING, VALIDATION_SEEDS: VALIDATION}

SeedsObserver = Callable[[str, int, int, int, np.ndarray], None]
"""Called with a run's name, its first seed and the one after its last, the step, and returns."""


LAST = 3
"""Checkpoints whose mean is the level of a run. A single one scatters: on Pendulum-v1 the last
alone by 78, the last three by 57."""


class Peak(NamedTuple):
    """Consecutive checkpoints, as many as a level is the mean of, with the highest mean return.

    Attributes:
      step: of the last of them.
      level: the mean.
    """

    step: int
    level: float


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """Returns of one configuration.

    Attributes:
      hyperparameters: the configuration.
      steps: nominal steps of the checkpoints, ``[checkpoints]``.
      returns: float ``[checkpoints, seeds]``; NaN where a seed has diverged.
      environment_steps: steps taken by all seeds together.
      seconds: wall clock.
    """

    hyperparameters: Hyperparameters
    steps: Sequence[int]
    returns: np.ndarray
    environment_steps: int
    seconds: float

    @property
    def final(self) -> np.ndarray:
        """Returns at the end of training, ``[seeds]``."""
        return np.asarray(self.returns[-1])

    @property
    def level(self) -> np.ndarray:
        """Mean of the last three returns of each seed, ``[seeds]``; NaN for a diverged one."""
        return np.asarray(self.returns[-LAST:].mean(axis=0))

    def earlier_peak(self, margin: float) -> Peak | None:
        """Return where training reached clearly more than at its end; None where it did not.

        By more than `margin`, with 95% confidence over all places together (Student's interval of
        the differences of the seeds, Bonferroni). A peak shares no checkpoint with the level.
        """
        known = self.returns[:, np.isfinite(self.returns).all(axis=0)]
        if len(known) < 2 * LAST or known.shape[1] < 2:
            return None
        levels = sliding_window_view(known, LAST, axis=0).mean(axis=-1)
        earlier = levels[:-LAST]
        place = int(earlier.mean(axis=1).argmax())
        confidence = 1 - (1 - CONFIDENCE) / len(earlier)
        interval = t_interval(earlier[place] - levels[-1], confidence)
        if interval is None or interval[0] <= margin:
            return None
        return Peak(self.steps[place + LAST - 1], float(earlier[place].mean()))

    @property
    def diverged_seeds(self) -> list[int]:
        """Seeds that have diverged."""
        return np.flatnonzero(~np.isfinite(self.final)).tolist()

    @property
    def over_training(self) -> np.ndarray:
        """Mean of all returns of each seed, ``[seeds]``: how fast and how steadily it learns.

        The area under the learning curve, normalised.
        """
        return np.asarray(self.returns.mean(axis=0))

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.returns.shape[1])

    @property
    def best_seed(self) -> int:
        """The seed with the best last return; of equals, the one that was good for longest."""
        return max(range(self.seeds), key=lambda seed: seed_rank(self.returns[:, seed]))

    def first(self, seeds: int) -> "LearningCurve":
        """Return the curve of the first `seeds` seeds; steps and seconds as they would be."""
        share = seeds / self.seeds
        return dataclasses.replace(
            self,
            returns=self.returns[:, :seeds],
            environment_steps=round(self.environment_steps * share),
            seconds=self.seconds * share,
        )

    def joined(self, other: "LearningCurve") -> "LearningCurve":
        """Return the curve of these and further seeds of the same configuration."""
        return dataclasses.replace(
            self,
            returns=np.concatenate([self.returns, other.returns], axis=1),
            environment_steps=self.environment_steps + other.environment_steps,
            seconds=self.seconds + other.seconds,
        )

    def scores(self, settings: Settings) -> np.ndarray | None:
        """Return the study's objective of each seed, ``[seeds]``.

        Only the study's own checkpoints count, so a longer run is scored at equal steps.
        None where the run lacks one of them.
        """
        if not set(settings.checkpoints()) <= set(self.steps):
            return None
        rows = [list(self.steps).index(step) for step in settings.checkpoints()]
        return np.array([settings.score(list(seed)) for seed in self.returns[rows].T])

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`stored` takes, but for the steps."""
        return {
            "hyperparameters": self.hyperparameters.to_dict(),
            "returns": self.returns,
            "diverged_seeds": self.diverged_seeds,
            "environment_steps": self.environment_steps,
            "seconds": self.seconds,
        }

    @classmethod
    def of_trial(cls, trial: TrialRecord) -> "LearningCurve":
        """Return the curve of a finished trial on the tuning seeds."""
        assert trial.hyperparameters is not None, "a finished trial has a configuration"
        return cls(
            trial.hyperparameters,
            list(trial.returns),
            np.array(list(trial.returns.values()), np.float64),
            trial.environment_steps,
            (trial.training_seconds or 0.0) + (trial.evaluation_seconds or 0.0),
        )


@dataclasses.dataclass(frozen=True)
class SeedGroup:
    """All that the returns of a configuration depend on besides its hyperparameters.

    Attributes:
      config: what the programs are compiled for.
      purpose: what the seeds are for: ``tuning`` or ``validation``.
      root: root seed of the study.
      seeds: how many, at most.
      steps: nominal steps of the checkpoints; the last is the budget.
      drawn_for: digest of the configuration that the seeds are drawn for; None for seeds that
        all configurations share.
    """

    config: TrainConfig
    purpose: str
    root: int
    seeds: int
    steps: Sequence[int]
    drawn_for: int | None = None

    @property
    def keys(self) -> jax.Array:
        """Keys of the seeds, ``[seeds]``."""
        purpose = PURPOSES[self.purpose]
        if self.drawn_for is None:
            return seed_keys(self.root, purpose, self.seeds)
        return seed_keys(self.root, (purpose, self.drawn_for), self.seeds)

    def to_dict(self) -> dict[str, Any]:
        """Return the group as results files hold it, and as it is told from others."""
        own = {} if self.drawn_for is None else {"drawn_for": self.drawn_for}
        return {
            "environment": self.config.env,
            "environment_kwargs": dict(self.config.env_kwargs),
            "config": self.config.to_dict(),
            "seeds": {"purpose": self.purpose, "root": self.root, "count": self.seeds, **own},
            "steps": list(self.steps),
        }

    def stored_curve(
        self,
        group: Any,
        row: Any,
        hyperparameters: Hyperparameters,
        agent: Mapping[str, Any] | None = None,
    ) -> LearningCurve | None:
        """Return the curve that a results file holds of a configuration on these seeds.

        Args:
          group: content of the file, which says under which protocol it was written.
          row: what it holds of the configuration; see :meth:`LearningCurve.to_dict`.
          hyperparameters: the configuration.
          agent: its agent where the space tunes it.

        Returns:
          The curve, of any number of seeds. None where the file is of another protocol, or the
          row of another configuration.

        Raises:
          UserError: naming a key that was edited and has a value of another type.
        """
        own = self.to_dict()
        stored = {name: group[name] for name in own if name in group}
        for name, value in stored.items():
            if isinstance(own[name], dict):
                table(value, name)
        numbers(stored.get("steps", []), "steps")
        for description in (own, stored):  # The first seeds of more are the same.
            description["seeds"] = {**description.get("seeds", {}), "count": None}
        row = table(row, "the configuration")
        same = first_difference(
            {**stored, "hyperparameters": row.get("hyperparameters"), "agent": row.get("agent")},
            {**own, "hyperparameters": hyperparameters.to_dict(), "agent": agent},
        )
        if same is not None or not {"returns", "environment_steps", "seconds"} <= row.keys():
            return None
        returns = numbers(row["returns"], "returns")
        if returns.ndim != 2 or len(returns) != len(self.steps) or not returns.size:
            return None
        return LearningCurve(
            hyperparameters,
            list(self.steps),
            returns,
            number(row["environment_steps"], "environment_steps"),
            number(row["seconds"], "seconds"),
        )


@dataclasses.dataclass(frozen=True)
class BestSeed:
    """The best seed of a run; see :attr:`LearningCurve.best_seed`.

    Attributes:
      seed: its number.
      final_return: its return at the end.
      weights: of its policy.
    """

    seed: int
    final_return: float
    weights: Weights


def seed_rank(returns: np.ndarray) -> tuple[float, float]:
    """Return what seeds are ranked by: the last of its returns, then the mean of all.

    Args:
      returns: of one seed, ``[checkpoints]``; NaN once it has diverged.
    """
    known = np.nan_to_num(returns, nan=-np.inf)
    return float(known[-1]), float(known.mean())


@dataclasses.dataclass(frozen=True)
class Training:
    """A configuration to be trained on a number of seeds.

    Attributes:
      keys: one for each seed, ``[seeds]``.
      hyperparameters: the configuration.
      steps: nominal steps of the checkpoints; the last is the budget.
      name: what the observer is told.
      first_seed: number of the seed of the first key.
      state_folder: where training states are kept. A training that was stopped is continued
        by the same one, bit for bit; the caller removes the folder.
      agent: where it is another one than that of given programs.
    """

    keys: jax.Array
    hyperparameters: Hyperparameters
    steps: Sequence[int]
    name: str = ""
    first_seed: int = 0
    state_folder: Path | None = None
    agent: AgentConfig | None = None


def train_seeds(
    programs: Programs | ProgramPool, training: Training, observer: SeedsObserver | None = None
) -> tuple[LearningCurve, BestSeed]:
    """Train one configuration; see :func:`train_all`."""
    ((_, curve, best),) = train_all(programs, [training], observer)
    return curve, best


def train_all(
    programs: Programs | ProgramPool,
    trainings: Sequence[Training],
    observer: SeedsObserver | None = None,
) -> Generator[tuple[int, LearningCurve, BestSeed], None, None]:
    """Train configurations, their seeds in groups, as many groups at once as `programs` can.

    Args:
      programs: of the study, or a pool of them; nothing else is compiled.
      trainings: in the order in which they begin.
      observer: called at each checkpoint of each group.

    Yields:
      The place in `trainings`, the curve and the best seed of each, as they end. Close the
      generator where it may be left before its end: it then waits for what is being written.
    """
    pool = programs if isinstance(programs, ProgramPool) else None
    schedule = programs.schedule() if isinstance(programs, ProgramPool) else schedule_for(programs)

    def programs_of(training: Training) -> Programs:
        if isinstance(programs, ProgramPool):
            return programs.programs(training.agent or programs.config.agent)
        return programs

    groups = [
        [
            _Group(training, first, programs_of(training))
            for first in range(0, len(training.keys), programs.seeds)
        ]
        for training in trainings
    ]
    waiting = [group for of_training in groups for group in of_training]
    under_way: dict[Run, _Group] = {}
    ended: set[int] = set()
    with contextlib.ExitStack() as stack:
        while waiting or under_way:
            while waiting and schedule.room:
                group = waiting.pop(0)
                run = group.begin(stack)
                if not group.has_ended:
                    schedule.start(run)
                    under_way[run] = group
                    if pool is not None and waiting and waiting[0].agent is not None:
                        pool.prepare(waiting[0].agent)  # Beside this group.
            if under_way:
                run, checkpoint = schedule.next()
                under_way[run].add(checkpoint, observer)
                if under_way[run].has_ended:
                    del under_way[run]
            for index, of_training in enumerate(groups):
                if index not in ended and all(group.has_ended for group in of_training):
                    ended.add(index)
                    yield index, *_joined(of_training)


@dataclasses.dataclass
class _Position:
    """How far a group of seeds has come; JSON, but for NaN.

    Attributes:
      returns: float ``[checkpoints, seeds]``; NaN also where still to come.
      passed: checkpoints passed.
      environment_steps: taken by all its seeds together.
      seconds: of training and evaluation.
    """

    returns: np.ndarray
    passed: int = 0
    environment_steps: int = 0
    seconds: float = 0.0


class _Group:
    """Seeds of a configuration that are trained at once.

    Args:
      training: the configuration.
      first: place of the first of them among the seeds of `training`.
      programs: whose lanes they fill.
    """

    def __init__(self, training: Training, first: int, programs: Programs) -> None:
        self._training, self._first, self._programs = training, first, programs
        self._keys = training.keys[first : first + programs.seeds]
        self._position = _Position(np.full((len(training.steps), len(self._keys)), np.nan))
        self._states: TrainingStates | None = None
        self._best: BestSeed | None = None

    @property
    def agent(self) -> AgentConfig | None:
        """What it trains."""
        return self._training.agent

    @property
    def has_ended(self) -> bool:
        """Whether its last checkpoint has been passed."""
        return self._position.passed == len(self._training.steps)

    def begin(self, stack: contextlib.ExitStack) -> Run:
        """Return what is left to train, after what was saved when it was stopped.

        Args:
          stack: at whose end what is still being written has been.
        """
        training, programs, state = self._training, self._programs, None
        if training.state_folder is not None:
            run = {
                "hyperparameters": training.hyperparameters.to_dict(),
                "config": programs.config.to_dict(),
                "keys": np.asarray(jax.random.key_data(self._keys)),
                "seeds at once": programs.seeds,
                "steps": training.steps,
            }
            folder = training.state_folder / f"seeds-{training.first_seed + self._first}"
            self._states = stack.enter_context(TrainingStates(folder, run))
            state = self._restored(self._states)
        if state is not None and self.has_ended:
            self._best = self._best_seed(state)
        return Run(
            self._keys,
            training.hyperparameters,
            training.steps,
            self._position.passed,
            state,
            self.agent,
        )

    def _restored(self, states: TrainingStates) -> Any:
        """Return the training state that was saved last, None where there is none."""
        if not states.exists():
            return None
        try:
            state, progress = states.restore(self._programs.init(self._keys))
        except (OtherRunError, DamagedStateError):  # Of an earlier winner, or half removed.
            states.remove()
            return None
        self._position = _Position(**progress)
        self._position.returns = np.array(self._position.returns, np.float64)
        return state

    def add(self, checkpoint: Checkpoint, observer: SeedsObserver | None) -> None:
        """Take in the next checkpoint."""
        position = self._position
        position.returns[position.passed] = checkpoint.returns
        position.passed += 1
        position.environment_steps = checkpoint.environment_steps * len(self._keys)
        position.seconds += checkpoint.training_seconds + checkpoint.evaluation_seconds
        if self.has_ended:
            self._best = self._best_seed(checkpoint.state)
        if self._states is not None:
            self._states.save(checkpoint.state, vars(position), final=self.has_ended)
        if observer is not None:
            first = self._training.first_seed + self._first
            stop = first + len(self._keys)
            observer(self._training.name, first, stop, checkpoint.step, checkpoint.returns)

    def _best_seed(self, state: Any) -> BestSeed:
        returns = self._position.returns
        lane = max(range(len(self._keys)), key=lambda lane: seed_rank(returns[:, lane]))
        seed = self._training.first_seed + self._first + lane
        return BestSeed(seed, seed_rank(returns[:, lane])[0], lane_weights(state, lane))

    @property
    def best(self) -> BestSeed:
        """The best seed of the group, which has ended."""
        assert self._best is not None, "it has ended"
        return self._best

    @property
    def curve(self) -> LearningCurve:
        """The curve of the group, which has ended."""
        position = self._position
        return LearningCurve(
            self._training.hyperparameters,
            list(self._training.steps),
            position.returns,
            position.environment_steps,
            position.seconds,
        )


def _joined(groups: Sequence[_Group]) -> tuple[LearningCurve, BestSeed]:
    """Return the curve of all seeds of a configuration, and the best of them."""
    curve = functools.reduce(LearningCurve.joined, [group.curve for group in groups])
    first = groups[0].best.seed - groups[0].curve.best_seed
    return curve, next(g.best for g in groups if g.best.seed == first + curve.best_seed)


def training_steps(settings: Settings, num_steps: int) -> list[int]:
    """Return the checkpoints of a long run: the study's own come first, to compare with."""
    own = [step for step in settings.checkpoints() if step < num_steps]
    return sorted({*own, *settings.checkpoints(num_steps)})


def mean_of_finite(values: np.ndarray) -> float:
    """Return the mean of the finite values; minus infinity where there are none."""
    values = finite(values)
    return float(values.mean()) if len(values) else -np.inf
