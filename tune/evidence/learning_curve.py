"""A configuration trained on any number of seeds, in the study's own compiled programs."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.config import TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.identity import first_difference
from ppo_jax.programs import Programs, Weights, lane_weights
from ppo_jax.seeds import seed_keys
from ppo_jax.training_state import DamagedStateError, OtherRunError, TrainingStates
from tune.evidence.statistics import finite
from tune.protocol.purposes import TUNING, VALIDATION
from tune.protocol.settings import Settings
from tune.protocol.stored import number, numbers, table
from tune.protocol.trials import TrialRecord

TUNING_SEEDS, VALIDATION_SEEDS = "tuning", "validation"
PURPOSES = {TUNING_SEEDS: TUNING, VALIDATION_SEEDS: VALIDATION}

SeedsObserver = Callable[[str, int, int, int, np.ndarray], None]
"""Called with a run's name, its first seed and the one after its last, the step, and returns."""


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
        """Mean of the last three returns of each seed, ``[seeds]``; NaN for a diverged one.

        A single checkpoint scatters: of Pendulum-v1 the last alone by 78, the last three by 57.
        """
        return np.asarray(self.returns[-3:].mean(axis=0))

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
        self, group: Any, row: Any, hyperparameters: Hyperparameters
    ) -> LearningCurve | None:
        """Return the curve that a results file holds of a configuration on these seeds.

        Args:
          group: content of the file, which says under which protocol it was written.
          row: what it holds of the configuration; see :meth:`LearningCurve.to_dict`.
          hyperparameters: the configuration.

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
            {**stored, "hyperparameters": row.get("hyperparameters")},
            {**own, "hyperparameters": hyperparameters.to_dict()},
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


def train_seeds(
    programs: Programs,
    keys: jax.Array,
    hyperparameters: Hyperparameters,
    steps: Sequence[int],
    name: str = "",
    observer: SeedsObserver | None = None,
    state_folder: Path | None = None,
    first_seed: int = 0,
) -> tuple[LearningCurve, BestSeed]:
    """Train a seed a key, in groups that fill the lanes of `programs`.

    Args:
      programs: of the study; nothing else is compiled.
      keys: ``[seeds]``.
      hyperparameters: the configuration.
      steps: nominal steps of the checkpoints; the last is the budget.
      name: passed to `observer`.
      observer: called at each checkpoint of each group.
      state_folder: where the training state is kept. A call that was stopped is continued
        by the same call, bit for bit; the caller removes the folder.
      first_seed: number of the seed of the first key.
    """

    def numbered(name: str, first: int, stop: int, step: int, returns: np.ndarray) -> None:
        if observer is not None:
            observer(name, first_seed + first, first_seed + stop, step, returns)

    def train(states: TrainingStates | None) -> tuple[LearningCurve, BestSeed]:
        curve, best = _train_groups(programs, keys, hyperparameters, steps, name, numbered, states)
        return curve, dataclasses.replace(best, seed=first_seed + best.seed)

    if state_folder is None:
        return train(None)
    run = {
        "hyperparameters": hyperparameters.to_dict(),
        "config": programs.config.to_dict(),
        "keys": np.asarray(jax.random.key_data(keys)),
        "seeds at once": programs.seeds,
        "steps": steps,
    }
    with TrainingStates(state_folder, run) as states:
        return train(states)


@dataclasses.dataclass
class _Position:
    """How far :func:`train_seeds` has come; JSON, but for NaN.

    Attributes:
      returns: float ``[checkpoints, seeds]``; NaN also where still to come.
      first, passed: of the group under way, the first seed and the checkpoints passed.
      environment_steps: steps taken by all seeds of finished groups together.
      best_seed: so far, -1 for none.
      rank: of the best seed: its return at the end and its mean return.
      seconds: wall clock.
    """

    returns: np.ndarray
    first: int = 0
    passed: int = 0
    environment_steps: int = 0
    best_seed: int = -1
    rank: tuple[float, float] = (-np.inf, -np.inf)
    seconds: float = 0.0


def _train_groups(
    programs: Programs,
    keys: jax.Array,
    hyperparameters: Hyperparameters,
    steps: Sequence[int],
    name: str,
    observer: SeedsObserver,
    states: TrainingStates | None,
) -> tuple[LearningCurve, BestSeed]:
    position, state, best_weights = _begin_or_restore(programs, keys, steps, states)
    start = time.perf_counter() - position.seconds
    for first in range(position.first, len(keys), programs.seeds):
        group = keys[first : first + programs.seeds]
        if first != position.first:
            position.first, position.passed, state = first, 0, None
        for checkpoint in programs.run(group, hyperparameters, steps, position.passed, state):
            returns = position.returns[:, first : first + len(group)]
            returns[position.passed] = checkpoint.returns
            position.passed += 1
            end = position.passed == len(steps)
            if end:
                position.environment_steps += checkpoint.environment_steps * len(group)
                for lane, values in enumerate(returns.T):
                    rank = seed_rank(values)
                    if position.best_seed < 0 or rank > position.rank:
                        position.best_seed, position.rank = first + lane, rank
                        best_weights = lane_weights(checkpoint.state, lane)
            position.seconds = time.perf_counter() - start
            if states is not None:
                tree = {"state": checkpoint.state, "best_weights": best_weights}
                states.save(tree, vars(position), final=end)
            observer(name, first, first + len(group), checkpoint.step, checkpoint.returns)
    curve = LearningCurve(
        hyperparameters,
        list(steps),
        position.returns,
        position.environment_steps,
        position.seconds,
    )
    return curve, BestSeed(position.best_seed, position.rank[0], best_weights)


def _begin_or_restore(
    programs: Programs, keys: jax.Array, steps: Sequence[int], states: TrainingStates | None
) -> tuple[_Position, Any, Any]:
    """Return position, training state and weights of the best seed."""
    state = programs.init(keys[: programs.seeds])
    best_weights = lane_weights(state, 0)
    if states is not None and states.exists():
        try:
            tree, progress = states.restore({"state": state, "best_weights": best_weights})
        except (OtherRunError, DamagedStateError):  # Of an earlier winner, or half removed.
            states.remove()
        else:
            position = _Position(**progress)
            position.returns = np.array(position.returns, np.float64)
            final, mean = (-np.inf if x is None else x for x in progress["rank"])
            position.rank = final, mean
            return position, tree["state"], tree["best_weights"]
    return _Position(np.full((len(steps), len(keys)), np.nan)), state, best_weights


def training_steps(settings: Settings, num_steps: int) -> list[int]:
    """Return the checkpoints of a long run: the study's own come first, to compare with."""
    own = [step for step in settings.checkpoints() if step < num_steps]
    return sorted({*own, *settings.checkpoints(num_steps)})


def mean_of_finite(values: np.ndarray) -> float:
    """Return the mean of the finite values; minus infinity where there are none."""
    values = finite(values)
    return float(values.mean()) if len(values) else -np.inf
