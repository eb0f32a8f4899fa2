"""The choice of a winner: promising trials and the baseline, trained for as long as it counts.

What learns fastest in the steps of a trial need not be what is best in the end. So some trials are
trained again, on the tuning seeds, for the steps of a validation: those that the model of the study
expects most of, and that are not all alike. The validation, on seeds that nothing has used, then
shows what the winner is worth.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from ppo_jax.errors import UserError, require_count
from ppo_jax.files import make_folder, read_json, write_json
from ppo_jax.programs import Programs
from tune.evidence.candidate import Candidate
from tune.evidence.learning_curve import (
    TUNING_SEEDS,
    SeedGroup,
    SeedsObserver,
    Training,
    mean_of_finite,
    train_all,
    training_steps,
)
from tune.evidence.statistics import summarize
from tune.protocol.settings import Settings
from tune.protocol.stored import count, items, named, number, table
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, TrialRecord, learning_area
from tune.search.model import promising_by_model
from tune.search.pool import ProgramPool


@dataclasses.dataclass(frozen=True)
class Finalists:
    """The finalists, ranked by the level that they reach.

    Attributes:
      candidates: the best first.
      seeds: the tuning seeds.
      complete: whether every finalist has been trained.
    """

    candidates: Sequence[Candidate]
    seeds: SeedGroup
    complete: bool

    @property
    def winner(self) -> Candidate:
        """The best finalist."""
        return self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``finalists.json``."""
        return {
            **self.seeds.to_dict(),
            "complete": self.complete,
            "winner": self.winner.number,
            "finalists": [_to_dict(candidate) for candidate in self.candidates],
        }

    @classmethod
    def load(cls, folder: StudyFolder, study: StudyRecord) -> "Finalists | None":
        """Return the finalists that `folder` holds of `study`.

        None where there are none, their training was stopped, or the trials say by now that
        others are the best.

        Raises:
          UserError: naming file and key where the file was edited and cannot be read.
        """
        found, rows = _stored(folder)
        if found.get("complete") is not True:
            return None
        with named(folder.finalists):
            steps = [count(step, "steps") for step in items(found.get("steps"), "steps")]
            seeds = _seed_group(study.settings, steps)
        top = len([number for number in rows if number != _baseline_number(study)])
        chosen = choose_finalists(study, top)
        if {candidate.number for candidate in chosen} != set(rows):
            return None
        restored = [
            known
            for candidate in chosen
            if (known := _restored(candidate, seeds, folder, found, rows[candidate.number]))
        ]
        return rank_finalists(restored, seeds) if len(restored) == len(rows) else None


def train_finalists(
    study: StudyRecord,
    programs: Programs | ProgramPool,
    folder: StudyFolder,
    num_steps: int = 1_000_000,
    top: int = 3,
    observer: SeedsObserver | None = None,
    chosen: Sequence[Candidate] | None = None,
) -> Finalists | None:
    """Train `top` promising trials and the baseline on the tuning seeds and rank them.

    Writes ``finalists.json`` after each of them; what it holds already is not trained again,
    so the same call continues one that was stopped, at its last checkpoint.

    Args:
      study: whose complete trials they are chosen among.
      programs: of its configuration, or a pool of them.
      folder: of the study.
      num_steps: environment steps of each seed.
      top: complete trials that are finalists, the baseline apart.
      observer: called at each checkpoint of each group of seeds.
      chosen: what :func:`choose_finalists` returns for `top`, if that is known.

    Returns:
      The finalists in order, or None where no trial is complete.

    Raises:
      UserError: when `top` is not a positive integer.
    """
    require_count("top", top)
    chosen = choose_finalists(study, top) if chosen is None else chosen
    if not chosen:
        return None
    group = _seed_group(study.settings, training_steps(study.settings, num_steps))
    make_folder(folder.path)
    found, rows = _stored(folder)
    known = [_restored(c, group, folder, found, rows.get(c.number)) for c in chosen]
    trained = [candidate for candidate in known if candidate is not None]
    missing = [c for c, stored in zip(chosen, known, strict=True) if stored is None]
    if not missing:
        finalists = rank_finalists(trained, group)
        write_json(folder.finalists, finalists.to_dict())
    trainings = [_training(candidate, group, folder) for candidate in missing]
    pool = ProgramPool.of(programs, study.settings)
    with contextlib.closing(train_all(pool, trainings, observer)) as training:
        for place, curve, _ in training:
            trained.append(dataclasses.replace(missing[place], finalist=curve))
            finalists = rank_finalists(trained, group, complete=len(trained) == len(chosen))
            write_json(folder.finalists, finalists.to_dict())
    folder.remove_training_state()
    return finalists


def choose_finalists(study: StudyRecord, top: int) -> list[Candidate]:
    """Return `top` trials whose best is expected to be best in the end, and the baseline.

    See :meth:`tune.search.model.ScoreModel.most_promising`. Of trials that have trained exactly
    alike one will do: the others come last.
    """
    baselines = [trial for trial in study.ranked if trial.is_baseline]
    others = [trial for trial in study.ranked if not trial.is_baseline]
    copies = _copies([*baselines, *others])
    distinct = [trial for trial in others if trial.number not in copies]
    repeated = [trial for trial in others if trial.number in copies]
    best = promising_by_model(study.trials, study.settings, distinct, top)
    chosen = [*best, *repeated][:top]
    return [Candidate.of_trial(trial, study.settings) for trial in chosen + baselines]


def _copies(trials: Sequence[TrialRecord]) -> set[int]:
    """Return the numbers of the trials with the very returns of an earlier one in the sequence.

    What they differ in has had no effect: a norm of gradients, say, that none ever reaches.
    Returns that never vary are no evidence of that.
    """
    seen: set[tuple[float, ...]] = set()
    copies = set()
    for trial in trials:
        returns = tuple(float(value) for row in trial.returns.values() for value in row)
        if len(set(returns)) > 1 and returns in seen:
            copies.add(trial.number)
        seen.add(returns)
    return copies


def finalist_name(candidate: Candidate) -> str:
    """Return what observers know the training of a finalist as."""
    return f"finalist, trial {candidate.number}"


def rank_finalists(
    candidates: Sequence[Candidate], seeds: SeedGroup, *, complete: bool = True
) -> Finalists:
    """Return candidates that have been trained as finalists, the best first."""
    return Finalists(sorted(candidates, key=_rank, reverse=True), seeds, complete)


def _rank(candidate: Candidate) -> tuple[int, float, float, int]:
    """Larger is better: fewer diverged seeds, level, area under the curve, earlier trial."""
    curve, trial = candidate.finals, candidate.trial
    assert trial is not None, "a study has found it"
    area = learning_area(curve.steps, [mean_of_finite(row) for row in curve.returns])
    return -len(curve.diverged_seeds), mean_of_finite(curve.level), area, -trial.number


def _baseline_number(study: StudyRecord) -> int | None:
    return None if study.baseline is None else study.baseline.number


def _seed_group(settings: Settings, steps: Sequence[int]) -> SeedGroup:
    return SeedGroup(settings.config, TUNING_SEEDS, settings.seed, settings.seeds, steps)


def _training(candidate: Candidate, group: SeedGroup, folder: StudyFolder) -> Training:
    return Training(
        group.keys,
        candidate.hyperparameters,
        group.steps,
        finalist_name(candidate),
        state_folder=folder.training_state / f"trial-{candidate.number}",
        agent=candidate.agent,
    )


def _stored(folder: StudyFolder) -> tuple[Any, dict[int | None, Any]]:
    """Return the content of ``finalists.json``, and trial number -> its row.

    Nothing where there is no such file, or a torn one.

    Raises:
      UserError: naming file and key where it was edited and a value has another type.
    """
    try:
        found = read_json(folder.finalists)
    except UserError:
        return {}, {}
    with named(folder.finalists):
        rows = {}
        for place, row in enumerate(items(table(found, "it").get("finalists", []), "finalists")):
            rows[number(table(row, f"finalists[{place}]").get("trial"), "trial")] = row
        return found, rows


def _restored(
    candidate: Candidate, group: SeedGroup, folder: StudyFolder, found: Any, row: Any
) -> Candidate | None:
    """Return `candidate` with the curve of its `row`; None where that is of another protocol."""
    if row is None:
        return None
    with named(f"{folder.finalists}, trial {candidate.number}"):
        curve = group.stored_curve(found, row, candidate.hyperparameters, candidate.own_agent)
    if curve is None or curve.seeds != group.seeds:
        return None
    return dataclasses.replace(candidate, finalist=curve)


def _to_dict(candidate: Candidate) -> dict[str, Any]:
    """Return a finalist as ``finalists.json`` holds it."""
    trial, curve, agent = candidate.trial, candidate.finals, candidate.own_agent
    assert trial is not None, "a study has found it"
    summary = summarize(curve.level)
    return {
        "trial": trial.number,
        "is_baseline": trial.is_baseline,
        "tuning_score": trial.score,
        **curve.to_dict(),
        **({} if agent is None else {"agent": agent}),
        "level": None if summary is None else dataclasses.asdict(summary),
    }
