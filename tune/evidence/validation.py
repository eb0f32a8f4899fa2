"""The proof: winner and baseline trained in full on seeds that nothing before has used."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppo_jax import policy
from ppo_jax.config import TrainConfig
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.files import read_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.identity import first_difference
from ppo_jax.programs import Programs
from ppo_jax.seeds import seed_keys
from ppo_jax.versions import device_description, versions
from tune.evidence.candidate import VALIDATION_SEEDS, Candidate
from tune.evidence.finalists import Finalists
from tune.evidence.learning_curve import (
    BestSeed,
    SeedGroup,
    SeedsObserver,
    train_seeds,
    training_steps,
)
from tune.evidence.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    Summary,
    summarize,
)
from tune.evidence.verdict import Verdict
from tune.protocol.purposes import VALIDATION
from tune.protocol.settings import Settings
from tune.protocol.stored import named, table
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.search.model import ranked_by_model


@dataclasses.dataclass(frozen=True)
class Validation:
    """Winner and baseline, proved on fresh seeds.

    Attributes:
      verdict: what the two say about each other.
      seeds: the validation seeds.
    """

    verdict: Verdict
    seeds: SeedGroup

    @property
    def winner(self) -> Candidate:
        """The winner, with returns on the validation seeds."""
        return self.verdict.winner

    @property
    def baseline(self) -> Candidate:
        """The baseline, with returns on the validation seeds."""
        return self.verdict.baseline

    @property
    def settings(self) -> Settings:
        """Settings of the study."""
        return self.winner.settings

    @property
    def steps(self) -> Sequence[int]:
        """Nominal steps of the checkpoints, ``[checkpoints]``."""
        return self.seeds.steps

    @property
    def sentence(self) -> str:
        """The verdict with its figures, in a sentence or two."""
        return self.verdict.sentence

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``."""
        return {
            **self.verdict.to_dict(),
            "trial": self.winner.number,
            "winner": _to_dict(self.winner),
            "baseline": _to_dict(self.baseline),
            "statistics": {
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "rng": "numpy.random.default_rng(0)",
            },
            **self.seeds.to_dict(),
            "num_steps": self.steps[-1],
            "objective": self.settings.objective,
            "tuning_checkpoints": self.settings.checkpoints(),
            "versions": versions(),
            "device": device_description(),
        }

    @classmethod
    def load(
        cls, folder: StudyFolder, study: StudyRecord, finalists: Finalists | None
    ) -> "Validation | None":
        """Return the validation that `folder` holds of the winner of `study`.

        None where there is none, or it is of another winner.

        Raises:
          UserError: naming file and key where the file was edited and cannot be read.
        """
        candidates = rank(study, finalists)
        if not candidates:
            return None
        winner, baseline = candidates[0], baseline_of(candidates, study.settings)
        found = _stored(folder)
        if not {"num_steps", "seeds", "trial"} <= found.keys():
            return None
        with named(folder.validation):
            require_count("num_steps", found["num_steps"], high=LARGEST_STEPS)
            require_count("seeds.count", table(found["seeds"], "seeds").get("count"))
        try:
            config = config_for(study.settings, winner.hyperparameters)
            seeds = seed_group(config, study.settings, found["num_steps"], found["seeds"]["count"])
            current = found["trial"] == winner.number
        except UserError:
            return None
        winner = _with_stored(winner, seeds, folder, found, "winner")
        if winner.is_baseline:
            baseline = winner
        else:
            baseline = _with_stored(baseline, seeds, folder, found, "baseline")
        if not current or winner.validation is None or baseline.validation is None:
            return None
        return cls(Verdict(winner, baseline), seeds)


def rank(study: StudyRecord, finalists: Finalists | None) -> Sequence[Candidate]:
    """Return the configurations of `study`, the winner first.

    By the level that the finalists reach, where there are any, else by what the trials are
    expected to score.
    """
    if finalists is not None:
        return finalists.candidates
    order = ranked_by_model(study.trials, study.settings)
    return [Candidate.of_trial(trial, study.settings) for trial in order]


def baseline_of(candidates: Sequence[Candidate], settings: Settings) -> Candidate:
    """Return the baseline: one of `candidates`, or not known of any trial."""
    default = settings.space.complete(settings.space.baseline())
    return next(
        (candidate for candidate in candidates if candidate.is_baseline),
        Candidate(settings, default, is_baseline=True),
    )


def validate(
    winner: Candidate,
    baseline: Candidate,
    programs: Programs,
    folder: StudyFolder,
    num_steps: int = 1_000_000,
    seeds: int = 10,
    observer: SeedsObserver | None = None,
) -> Validation:
    """Train winner and baseline on fresh seeds.

    The network of the winner's best seed is saved as the policy of `folder`. What an earlier
    call with the same request has trained into the same folder is not trained again; one that
    was stopped is continued at its last checkpoint, bit for bit.

    Args:
      winner: a configuration.
      baseline: the default configuration; the same object where it is the winner.
      programs: of a configuration that can run both.
      folder: of the study.
      num_steps: environment steps of each seed.
      seeds: validation seeds. None of them is a tuning seed.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The validation, with per-seed returns of both at every checkpoint.
    """
    settings = winner.settings
    group = seed_group(programs.config, settings, num_steps, seeds)
    keys = seed_keys(settings.seed, VALIDATION, seeds)
    found = _stored(folder)

    def trained(candidate: Candidate, name: str) -> tuple[Candidate, BestSeed]:
        curve, best = train_seeds(
            programs,
            keys,
            candidate.hyperparameters,
            group.steps,
            f"validation, {name}",
            observer,
            folder.training_state / name,
        )
        return dataclasses.replace(candidate, validation=curve), best

    proved = _with_stored(winner, group, folder, found, "winner")
    if proved.validation is None or not _has_policy(folder, winner.hyperparameters, num_steps):
        proved, best = trained(winner, "winner")
        if np.isfinite(best.final_return):
            training = {"steps": num_steps, "seed": best.seed, "final_return": best.final_return}
            policy.save(
                folder.policy,
                programs.config,
                best.weights,
                hyperparameters=winner.hyperparameters.to_dict(),
                training=training,
            )
    if winner is baseline:
        return Validation(Verdict(proved, proved), group)
    default = _with_stored(baseline, group, folder, found, "baseline")
    if default.validation is None:
        default, _ = trained(baseline, "default")
    return Validation(Verdict(proved, default), group)


def seed_group(config: TrainConfig, settings: Settings, num_steps: int, seeds: int) -> SeedGroup:
    """Return the seeds of a validation, with what their returns depend on."""
    require_count("num_steps", num_steps, high=LARGEST_STEPS)
    require_count("seeds", seeds)
    steps = training_steps(settings, num_steps)
    return SeedGroup(config, VALIDATION_SEEDS, settings.seed, seeds, steps)


def config_for(settings: Settings, hyperparameters: Hyperparameters) -> TrainConfig:
    """Return the configuration of the study, able to run `hyperparameters` of any shape."""
    config = settings.config

    def choices(name: str) -> tuple[int, ...]:
        present, value = getattr(config, f"{name}_choices"), getattr(hyperparameters, name)
        return present if value in present else (*present, value)

    return dataclasses.replace(
        config, n_steps_choices=choices("n_steps"), batch_size_choices=choices("batch_size")
    )


def _stored(folder: StudyFolder) -> Mapping[str, Any]:
    """Return the content of ``validation.json``; nothing where it is missing or torn."""
    try:
        found = read_json(folder.validation)
    except UserError:
        return {}
    with named(folder.validation):
        return table(found, "it")


def _with_stored(
    candidate: Candidate, group: SeedGroup, folder: StudyFolder, found: Any, role: str
) -> Candidate:
    """Return `candidate` with the curve that ``validation.json`` holds of it, if any."""
    curve = None
    if role in found:
        with named(f"{folder.validation}, {role}"):
            curve = group.stored_curve(found, found[role], candidate.hyperparameters)
    return dataclasses.replace(candidate, validation=curve)


def _has_policy(folder: StudyFolder, hyperparameters: Hyperparameters, num_steps: int) -> bool:
    """Return whether `folder` holds the policy of this configuration at this budget, undamaged."""
    try:
        found = policy.load(folder.policy).description
        stored = {"hyperparameters": found["hyperparameters"], "steps": found["training"]["steps"]}
    except (UserError, KeyError, TypeError):
        return False
    asked = {"hyperparameters": hyperparameters.to_dict(), "steps": num_steps}
    return first_difference(stored, asked) is None


def _to_dict(candidate: Candidate) -> dict[str, Any]:
    """Return a configuration as ``validation.json`` holds it."""
    return {
        **candidate.validated.to_dict(),
        "summary": _asdict(candidate.summary),
        "scores": {
            group: {"seeds": scores, "summary": _asdict(summarize(scores))}
            for group, scores in candidate.scores.items()
        },
        "optimism": _asdict(candidate.optimism),
    }


def _asdict(record: Summary | Estimate | None) -> dict[str, Any] | None:
    return None if record is None else dataclasses.asdict(record)
