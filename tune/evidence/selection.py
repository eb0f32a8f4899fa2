"""The choice of a winner: the best trials and the baseline once more, on selection seeds.

The best score of a study is the best luck as well. Seeds that tuning has not used draw the
luck anew; the validation, on seeds that nothing has used, then shows what the winner is worth.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ppo_jax.errors import UserError, require_count
from ppo_jax.files import make_folder, read_json, write_json
from ppo_jax.programs import Programs
from ppo_jax.seeds import seed_keys
from tune.evidence.candidate import SELECTION_SEEDS, Candidate
from tune.evidence.learning_curve import SeedGroup, SeedsObserver, mean_of_finite, train_seeds
from tune.evidence.statistics import summarize
from tune.protocol.purposes import SELECTION
from tune.protocol.settings import Settings
from tune.protocol.stored import items, named, number, table
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, learning_area


@dataclasses.dataclass(frozen=True)
class Selection:
    """The candidates, ranked on the selection seeds.

    Attributes:
      candidates: the best first.
      seeds: the selection seeds.
      complete: whether every candidate has been trained.
    """

    candidates: Sequence[Candidate]
    seeds: SeedGroup
    complete: bool

    @property
    def winner(self) -> Candidate:
        """The best candidate."""
        return self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``selection.json``."""
        return {
            **self.seeds.to_dict(),
            "objective": self.winner.settings.objective,
            "complete": self.complete,
            "winner": self.winner.number,
            "candidates": [_to_dict(candidate) for candidate in self.candidates],
        }

    @classmethod
    def load(cls, folder: StudyFolder, study: StudyRecord) -> "Selection | None":
        """Return the selection that `folder` holds of `study`.

        None where there is none, it was stopped, or the study's best trial came later.

        Raises:
          UserError: naming file and key where the file was edited and cannot be read.
        """
        found, rows = _stored(folder)
        best = study.best
        if best is None or best.number not in rows or found.get("complete") is not True:
            return None
        with named(folder.selection):
            count: Any = table(found.get("seeds"), "seeds").get("count")
            require_count("seeds.count", count)
        seeds = _seed_group(study.settings, count)
        trials = {trial.number: trial for trial in study.ranked}
        candidates = [
            _restored(Candidate.of_trial(trials[number], study.settings), seeds, folder, found, row)
            for number, row in rows.items()
            if number in trials
        ]
        restored = [candidate for candidate in candidates if candidate is not None]
        return cls(restored, seeds, complete=True) if len(restored) == len(rows) else None


def select_winner(
    study: StudyRecord,
    programs: Programs,
    folder: StudyFolder,
    top: int = 3,
    seeds: int = 10,
    observer: SeedsObserver | None = None,
) -> Selection | None:
    """Train the `top` best trials and the baseline on selection seeds and rank them.

    They are trained as far as a trial and scored by the study's objective. Writes
    ``selection.json`` after each of them; what it holds already is not trained again, so the
    same call continues a selection that was stopped, at its last checkpoint.

    Args:
      study: whose complete trials are ranked.
      programs: of its configuration.
      folder: of the study.
      top: complete trials that are candidates, the baseline apart.
      seeds: selection seeds. None of them is a tuning seed or a validation seed.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The candidates in order, or None where no trial is complete.

    Raises:
      UserError: when `top` or `seeds` is not a positive integer.
    """
    require_count("top", top)
    require_count("seeds", seeds)
    candidates = choose_candidates(study, top)
    if not candidates:
        return None
    group = _seed_group(study.settings, seeds)
    keys = seed_keys(study.settings.seed, SELECTION, seeds)
    make_folder(folder.path)
    found, rows = _stored(folder)
    trained: list[Candidate] = []
    for candidate in candidates:
        stored = _restored(candidate, group, folder, found, rows.get(candidate.number))
        trained.append(stored or _trained(candidate, programs, keys, group, folder, observer))
        selection = rank_candidates(trained, group, complete=len(trained) == len(candidates))
        write_json(folder.selection, selection.to_dict())
    folder.remove_training_state()
    return selection


def choose_candidates(study: StudyRecord, top: int) -> list[Candidate]:
    """Return the `top` best complete trials, the baseline apart, and the baseline."""
    best = [trial for trial in study.ranked if not trial.is_baseline][:top]
    baselines = [trial for trial in study.ranked if trial.is_baseline]
    return [Candidate.of_trial(trial, study.settings) for trial in best + baselines]


def rank_candidates(
    candidates: Sequence[Candidate], seeds: SeedGroup, *, complete: bool = True
) -> Selection:
    """Return candidates with a curve on the selection seeds, the best first."""
    return Selection(sorted(candidates, key=_rank, reverse=True), seeds, complete)


def _rank(candidate: Candidate) -> tuple[int, float, float, int]:
    """Larger is better: fewer diverged seeds, score, area under the curve, earlier trial."""
    curve, trial = candidate.selected, candidate.trial
    assert trial is not None, "a study has found it"
    area = learning_area(curve.steps, [mean_of_finite(row) for row in curve.returns])
    score = mean_of_finite(candidate.scores[SELECTION_SEEDS])
    return -len(curve.diverged_seeds), score, area, -trial.number


def _seed_group(settings: Settings, seeds: int) -> SeedGroup:
    return SeedGroup(settings.config, SELECTION_SEEDS, settings.seed, seeds, settings.checkpoints())


def _trained(
    candidate: Candidate,
    programs: Programs,
    keys: Any,
    group: SeedGroup,
    folder: StudyFolder,
    observer: SeedsObserver | None,
) -> Candidate:
    name = f"selection, trial {candidate.number}"
    curve, _ = train_seeds(
        programs,
        keys,
        candidate.hyperparameters,
        group.steps,
        name,
        observer,
        folder.training_state,
    )
    return dataclasses.replace(candidate, selection=curve)


def _stored(folder: StudyFolder) -> tuple[Any, dict[int | None, Any]]:
    """Return the content of ``selection.json``, and trial number -> its row.

    Nothing where there is no such file, or a torn one.

    Raises:
      UserError: naming file and key where it was edited and a value has another type.
    """
    try:
        found = read_json(folder.selection)
    except UserError:
        return {}, {}
    with named(folder.selection):
        rows = {}
        for place, row in enumerate(items(table(found, "it").get("candidates", []), "candidates")):
            rows[number(table(row, f"candidates[{place}]").get("trial"), "trial")] = row
        return found, rows


def _restored(
    candidate: Candidate, group: SeedGroup, folder: StudyFolder, found: Any, row: Any
) -> Candidate | None:
    """Return `candidate` with the curve of its `row`; None where that is of another protocol."""
    if row is None:
        return None
    with named(f"{folder.selection}, trial {candidate.number}"):
        curve = group.stored_curve(found, row, candidate.hyperparameters)
    return None if curve is None else dataclasses.replace(candidate, selection=curve)


def _to_dict(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as ``selection.json`` holds it."""
    trial = candidate.trial
    assert trial is not None, "a study has found it"
    scores = candidate.scores[SELECTION_SEEDS]
    summary = summarize(scores)
    return {
        "trial": trial.number,
        "is_baseline": trial.is_baseline,
        "tuning_score": trial.score,
        **candidate.selected.to_dict(),
        "scores": scores,
        "score": None if summary is None else dataclasses.asdict(summary),
    }
