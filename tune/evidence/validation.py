"""The proof: winner and baseline trained in full on seeds that nothing before has used."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax import policy
from ppo_jax.config import TrainConfig
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.files import read_json, remove_folder
from ppo_jax.identity import digest, first_difference
from ppo_jax.model_card import returns_of_seeds
from ppo_jax.notebook import card
from ppo_jax.programs import Programs
from ppo_jax.statistics import CONFIDENCE
from ppo_jax.versions import device_description, versions
from tune.evidence.candidate import Candidate
from tune.evidence.finalists import Finalists
from tune.evidence.learning_curve import (
    VALIDATION_SEEDS,
    BestSeed,
    LearningCurve,
    SeedGroup,
    SeedsObserver,
    Training,
    train_all,
    train_seeds,
    training_steps,
)
from tune.evidence.looks import planned_looks
from tune.evidence.statistics import RESAMPLES, Estimate, Summary, summarize
from tune.evidence.verdict import Verdict
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.stored import named, numbers, table
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.search.model import ranked_by_model
from tune.search.pool import ProgramPool


@dataclasses.dataclass(frozen=True)
class Validation:
    """Winner and baseline, proved on fresh seeds.

    Attributes:
      verdict: what the two say about each other.
      seeds: the validation seeds, as many as were allowed.
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

    def _repr_html_(self) -> str:
        both = {"winner": self.winner, "baseline": self.baseline}
        rows = {
            f"level of the {name}": "every seed diverged" if c.summary is None else c.summary.mean
            for name, c in both.items()
        }
        title = f"{self.settings.env}: winner and baseline on {self.verdict.seeds} fresh seeds"
        return card(title, rows, text=self.sentence)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``."""
        return {
            **self.verdict.to_dict(),
            "trial": self.winner.number,
            "seeds_trained": self.verdict.seeds,
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
        if not {"num_steps", "seeds", "trial"} <= found.keys() or found["trial"] != winner.number:
            return None
        with named(folder.validation):
            require_count("num_steps", found["num_steps"], high=LARGEST_STEPS)
            require_count("seeds.count", table(found["seeds"], "seeds").get("count"))
        try:
            config = config_for(study.settings, winner.configuration)
            seeds = seed_group(config, winner, found["num_steps"], found["seeds"]["count"])
        except UserError:
            return None
        curves = {
            role: _stored_curve(candidate, seeds, folder, found, role)
            for role, candidate in {"winner": winner, "baseline": baseline}.items()
        }
        winner, baseline = _proved(winner, baseline, curves)
        if winner.validation is None or baseline.validation is None:
            return None
        if winner.validation.seeds != baseline.validation.seeds:
            return None
        looks = planned_looks(seeds.seeds)
        if winner.validation.seeds not in looks:
            return None
        with named(folder.validation):
            untrained = float(numbers([found.get("untrained")], "untrained")[0])
            repetition = _repetition(found, seeds)
        return cls(Verdict(winner, baseline, untrained, looks, repetition), seeds)


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
    return next(
        (candidate for candidate in candidates if candidate.is_baseline),
        Candidate(settings, settings.baseline, is_baseline=True),
    )


def validate(
    winner: Candidate,
    baseline: Candidate,
    programs: Programs | ProgramPool,
    folder: StudyFolder,
    num_steps: int = 1_000_000,
    seeds: int = 20,
    observer: SeedsObserver | None = None,
    allows: Callable[[float], bool] | None = None,
) -> Validation:
    """Train winner and baseline on fresh seeds, as many as it takes to tell them apart.

    The two are compared at each of :func:`tune.evidence.looks.planned_looks`; training ends
    with the look that settles which of them to recommend. The network of the recommended one's
    best seed is saved as the policy of `folder`, and that of the baseline beside it.

    What an earlier call for the same winner and steps has trained into the same folder is not
    trained again; one that was stopped is continued at its last checkpoint, bit for bit.

    Args:
      winner: a configuration.
      baseline: the default configuration; the same object where it is the winner.
      programs: of a configuration that can run both, or a pool of them.
      folder: of the study.
      num_steps: environment steps of each seed.
      seeds: validation seeds, at most. They are drawn for the winner, so no trial and no
        earlier winner has used them.
      observer: called at each checkpoint of each group of seeds.
      allows: says whether a further look, expected to take so many seconds, is allowed.

    Returns:
      The validation, with per-seed returns of both at every checkpoint.
    """
    pool = ProgramPool.of(programs, winner.settings)
    group = seed_group(pool.config, winner, num_steps, seeds)
    found = _stored(folder)
    runs = {
        role: _Run(
            role,
            candidate.configuration,
            group,
            folder,
            _stored_curve(candidate, group, folder, found, role),
        )
        for role, candidate in {"winner": winner, "baseline": baseline}.items()
        if role == "winner" or candidate is not winner
    }
    with named(folder.validation):
        looks, repetition = planned_looks(seeds), _repetition(found, group)
    untrained = _untrained(pool.programs(baseline.agent), group, found)
    for count in looks:
        _train_up_to(count, list(runs.values()), pool, observer)
        curves = {role: run.trained.first(count) for role, run in runs.items()}
        verdict = Verdict(*_proved(winner, baseline, curves), untrained, looks, repetition)
        if verdict.is_settled or count == looks[-1]:
            break
        further = looks[looks.index(count) + 1] - count
        seconds = sum(run.trained.seconds / run.trained.seeds for run in runs.values())
        if allows is not None and not allows(further * seconds):
            break
    recommended = verdict.recommended
    role = "winner" if recommended is verdict.winner else "baseline"
    _save_policy(recommended, runs[role], pool, num_steps, folder.policy, observer)
    if recommended is verdict.baseline:
        remove_folder(folder.baseline_policy)
    else:
        _save_policy(
            verdict.baseline, runs["baseline"], pool, num_steps, folder.baseline_policy, observer
        )
    return Validation(verdict, group)


def _proved(
    winner: Candidate, baseline: Candidate, curves: Mapping[str, LearningCurve | None]
) -> tuple[Candidate, Candidate]:
    """Return both with their curves; one and the same where the baseline is the winner."""
    proved = dataclasses.replace(winner, validation=curves["winner"])
    if winner is baseline:
        return proved, proved
    return proved, dataclasses.replace(baseline, validation=curves["baseline"])


@dataclasses.dataclass
class _Run:
    """A configuration that is trained on more and more of the validation seeds.

    Attributes:
      role: ``winner`` or ``baseline``.
      configuration: what is trained.
      group: all seeds that are allowed.
      folder: of the study.
      curve: of the seeds that have been trained; None before the first.
      best: the best seed of each part that this process has trained.
    """

    role: str
    configuration: Configuration
    group: SeedGroup
    folder: StudyFolder
    curve: LearningCurve | None
    best: list[BestSeed] = dataclasses.field(default_factory=list)

    @property
    def trained(self) -> LearningCurve:
        """The curve of the seeds that have been trained."""
        assert self.curve is not None, "it has been trained"
        return self.curve

    def add(self, curve: LearningCurve, best: BestSeed) -> None:
        """Take in the next seeds."""
        self.curve = curve if self.curve is None else self.curve.joined(curve)
        self.best.append(best)

    def training(self, first: int, stop: int) -> Training:
        """Return how the seeds from `first` up to, without, `stop` are trained."""
        return Training(
            self.group.keys[first:stop],
            self.configuration.hyperparameters,
            self.group.steps,
            validation_name(self.role),
            first,
            self.folder.training_state / self.role,
            self.configuration.agent,
        )


def _train_up_to(
    seeds: int, runs: Sequence[_Run], programs: ProgramPool, observer: SeedsObserver | None
) -> None:
    """Train all of `runs` on the first `seeds` seeds, those apart that they know already."""
    known = [0 if run.curve is None else run.curve.seeds for run in runs]
    missing = [(run, first) for run, first in zip(runs, known, strict=True) if first < seeds]
    trainings = [run.training(first, seeds) for run, first in missing]
    with contextlib.closing(train_all(programs, trainings, observer)) as training:
        for place, curve, best in training:
            missing[place][0].add(curve, best)


def _save_policy(
    candidate: Candidate,
    run: _Run,
    programs: ProgramPool,
    num_steps: int,
    folder: Path,
    observer: SeedsObserver | None,
) -> None:
    """Save the network of a configuration's best seed, unless `folder` holds it already."""
    curve = candidate.validated
    seed = curve.best_seed
    if not np.isfinite(curve.final[seed]):
        remove_folder(folder)
        return
    training = {
        "steps": num_steps,
        "seed": seed,
        "final_return": curve.final[seed],
        "best_of": curve.seeds,
    }
    saved = _saved_policy(folder, candidate, training)
    if saved is not None:
        saved.write_card(folder)
        return
    best = next((best for best in run.best if best.seed == seed), None)
    if best is None:  # The seed was trained by an earlier process.
        first = seed - seed % programs.seeds
        again = run.training(first, min(first + programs.seeds, curve.seeds))
        _, best = train_seeds(programs, again, observer)
    policy.save(
        folder,
        programs.config_of(candidate.agent),
        best.weights,
        hyperparameters=candidate.hyperparameters.to_dict(),
        training=training,
        returns=returns_of_seeds(curve.final, candidate.settings.eval_episodes),
    )


def validation_name(role: str) -> str:
    """Return what observers know the training of ``winner`` or ``baseline`` as."""
    return f"validation, {role}"


def _untrained(programs: Programs, group: SeedGroup, found: Mapping[str, Any]) -> float:
    """Return the mean return of policies before any training."""
    stored = found.get("untrained")
    if isinstance(stored, float) and not _differs(found, group):
        return stored
    returns = programs.evaluate(programs.init(group.keys[: programs.seeds]), 0)
    return float(np.mean(returns, dtype=np.float64))


def _repetition(found: Mapping[str, Any], group: SeedGroup) -> int:
    """Return the number of the validation of `group` in its folder: the stored one's, or the next.

    Each further one is one more chance to be misled.
    """
    stored = found.get("repetition", 1 if found else 0)
    if isinstance(stored, bool) or not isinstance(stored, int) or stored < 0:
        raise UserError(f"repetition must be an integer of at least 1, but got {stored!r}")
    return max(1, stored + _differs(found, group))


def _differs(found: Mapping[str, Any], group: SeedGroup) -> bool:
    """Return whether a stored validation is another than that of `group`."""
    own = group.to_dict()
    return first_difference({name: found.get(name) for name in own}, own) is not None


def seed_group(config: TrainConfig, winner: Candidate, num_steps: int, seeds: int) -> SeedGroup:
    """Return the seeds of a validation, with what their returns depend on."""
    require_count("num_steps", num_steps, high=LARGEST_STEPS)
    require_count("seeds", seeds)
    settings = winner.settings
    steps = training_steps(settings, num_steps)
    drawn_for = digest(winner.hyperparameters.to_dict() | (winner.own_agent or {}))
    return SeedGroup(config, VALIDATION_SEEDS, settings.seed, seeds, steps, drawn_for)


def config_for(settings: Settings, configuration: Configuration) -> TrainConfig:
    """Return the configuration of the study, able to run one of any shape."""
    config = settings.config

    def choices(name: str) -> tuple[int, ...]:
        present = getattr(config, f"{name}_choices")
        value = getattr(configuration.hyperparameters, name)
        return present if value in present else (*present, value)

    config = dataclasses.replace(
        config, n_steps_choices=choices("n_steps"), batch_size_choices=choices("batch_size")
    )
    settings.config_of(configuration.agent, config).check(configuration.hyperparameters)
    return config


def _stored(folder: StudyFolder) -> Mapping[str, Any]:
    """Return the content of ``validation.json``; nothing where it is missing or torn."""
    try:
        found = read_json(folder.validation)
    except UserError:
        return {}
    with named(folder.validation):
        return table(found, "it")


def _stored_curve(
    candidate: Candidate, group: SeedGroup, folder: StudyFolder, found: Any, role: str
) -> LearningCurve | None:
    """Return the curve that ``validation.json`` holds of a configuration, if any."""
    if role not in found:
        return None
    with named(f"{folder.validation}, {role}"):
        return group.stored_curve(
            found, found[role], candidate.hyperparameters, candidate.own_agent
        )


def _saved_policy(
    folder: Path, candidate: Candidate, training: Mapping[str, Any]
) -> policy.Policy | None:
    """Return this configuration's policy if `folder` holds it, undamaged."""
    try:
        saved = policy.load(folder, candidate.agent.network)
        names = ("hyperparameters", "agent")
        found = {name: saved.description[name] for name in names}
        found |= saved.description["training"]
    except (UserError, KeyError, TypeError):
        return None
    asked = {
        "hyperparameters": candidate.hyperparameters.to_dict(),
        "agent": candidate.agent.to_dict(),
        **training,
    }
    return saved if first_difference(found, asked) is None else None


def _to_dict(candidate: Candidate) -> dict[str, Any]:
    """Return a configuration as ``validation.json`` holds it."""
    agent = candidate.own_agent
    return {
        **candidate.validated.to_dict(),
        **({} if agent is None else {"agent": agent}),
        "summary": _asdict(candidate.summary),
        "scores": {
            group: {"seeds": scores, "summary": _asdict(summarize(scores))}
            for group, scores in candidate.scores.items()
        },
        "optimism": _asdict(candidate.optimism),
    }


def _asdict(record: Summary | Estimate | None) -> dict[str, Any] | None:
    return None if record is None else dataclasses.asdict(record)
