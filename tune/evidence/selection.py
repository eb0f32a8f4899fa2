"""The choice of a winner: the best trials and the baseline once more, on seeds of their own.

The best score of a study is the best luck as well. On seeds that tuning has not used, luck
is drawn anew, before the validation, on seeds of its own again, says what the winner is
worth.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from ppo_jax.errors import UserError, require_count
from ppo_jax.files import read_json, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.seeds import seed_keys
from tune.evidence.learning_curve import (
    LearningCurve,
    SeedsObserver,
    learning_area,
    mean_of_finite,
    run_protocol,
    stored_curves,
    train_seeds,
)
from tune.evidence.statistics import summarize
from tune.protocol.purposes import SELECTION
from tune.protocol.settings import Settings
from tune.protocol.trials import is_baseline, settings_of
from tune.search.objective import programs_for
from tune.search.study import default_output, ranked_trials

FILE = "selection.json"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial's configuration on the selection seeds.

    Attributes:
      trial: its number.
      is_baseline: whether it is the default configuration.
      tuning_score: what the study gave it.
      curve: returns on the selection seeds, over the budget of a trial.
      scores: the study's objective of each seed, ``[seeds]``; NaN for a diverged one.
    """

    trial: int
    is_baseline: bool
    tuning_score: float
    curve: LearningCurve
    scores: np.ndarray

    @property
    def rank(self) -> tuple[int, float, float, int]:
        """Larger is better: fewer diverged seeds, score, area under the curve, earlier trial."""
        means = [mean_of_finite(row) for row in self.curve.returns]
        area = learning_area(self.curve.steps, means)
        return -len(self.curve.diverged_seeds), mean_of_finite(self.scores), area, -self.trial

    def to_dict(self) -> dict[str, Any]:
        """Return the candidate as ``selection.json`` holds it."""
        return {
            "trial": self.trial,
            "is_baseline": self.is_baseline,
            "tuning_score": self.tuning_score,
            **self.curve.to_dict(),
            "scores": self.scores,
            "score": None if (s := summarize(self.scores)) is None else dataclasses.asdict(s),
        }


@dataclasses.dataclass(frozen=True)
class Selection:
    """The candidates, the winner first."""

    candidates: tuple[Candidate, ...]

    @property
    def winner(self) -> Candidate:
        """The candidate to validate."""
        return self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as ``selection.json`` holds it."""
        return {
            "winner": self.winner.trial,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def select_winner(
    study: optuna.Study,
    top: int = 3,
    seeds: int = 10,
    *,
    output: str | Path | None = None,
    observer: SeedsObserver | None = None,
) -> Selection | None:
    """Train the `top` best trials and the baseline on selection seeds and rank them.

    They are trained as far as a trial and scored by the study's objective. Writes
    ``selection.json`` into `output` after each of them; what it holds already is not trained
    again, so the same call continues a selection that was stopped, at its last checkpoint.

    Args:
      study: of :func:`tune.run_optimization`.
      top: complete trials that are candidates, the baseline apart.
      seeds: selection seeds. None of them is a tuning seed or a validation seed.
      output: a folder; ``runs/<study name>`` by default.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The candidates in order, or None where no trial is complete.

    Raises:
      UserError: when `top` or `seeds` is no positive number.
    """
    require_count("top", top)
    require_count("seeds", seeds)
    settings = settings_of(study) or Settings()
    trials = candidate_trials(study, top)
    if not trials:
        return None
    folder = Path(output) if output is not None else default_output(study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    path, steps = folder / FILE, settings.checkpoints()
    state = folder / "training_state"
    protocol = run_protocol(settings.config, "selection", settings.seed, seeds, steps)
    known = stored_curves(path, protocol, lambda found: found["candidates"])
    programs = programs_for(settings.config, settings.seeds)
    keys = seed_keys(settings.seed, SELECTION, seeds)
    for trial in trials:
        hyperparameters = LearningCurve.of_trial(trial).hyperparameters
        if hyperparameters not in known:
            name = f"selection, trial {trial.number}"
            known[hyperparameters], _ = train_seeds(
                programs, keys, hyperparameters, steps, name, observer, state
            )
        selection = _rank(trials, known, settings)
        complete = len(selection.candidates) == len(trials)
        head = protocol | {"objective": settings.objective, "complete": complete}
        write_json(path, head | selection.to_dict())
    shutil.rmtree(state, ignore_errors=True)
    return selection


def selected_params(folder: Path, best_params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the winner's hyperparameters in the ``selection.json`` of `folder`.

    None where there is none, or where the best trial, with `best_params`, came later.
    """
    try:
        found = read_json(folder / FILE)
        configurations = [candidate["hyperparameters"] for candidate in found["candidates"]]
        current = found["complete"] and best_params in configurations
        return configurations[0] if current else None
    except (UserError, KeyError, TypeError, IndexError):
        return None


def candidate_trials(study: optuna.Study, top: int) -> list[FrozenTrial]:
    """Return the `top` best complete trials, the baseline apart, and the baseline."""
    ranked = ranked_trials(study)
    best = [trial for trial in ranked if not is_baseline(trial)][:top]
    return best + [trial for trial in ranked if is_baseline(trial)]


def _rank(
    trials: Sequence[FrozenTrial],
    known: Mapping[Hyperparameters, LearningCurve],
    settings: Settings,
) -> Selection:
    """Return the trials whose curve is known, the best first."""
    candidates = []
    for trial in trials:
        curve = known.get(LearningCurve.of_trial(trial).hyperparameters)
        if curve is not None:
            scores = curve.scores(settings)
            assert scores is not None
            assert trial.value is not None
            candidates.append(
                Candidate(trial.number, is_baseline(trial), trial.value, curve, scores)
            )
    return Selection(tuple(sorted(candidates, key=lambda c: c.rank, reverse=True)))
