"""The proof: winner and baseline trained in full on seeds that nothing before has used."""

import dataclasses
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.files import read_json, require_writable, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network
from ppo_jax.seeds import seed_keys
from ppo_jax.versions import device_description, versions
from tune.evidence.learning_curve import (
    LearningCurve,
    SeedsObserver,
    run_protocol,
    stored_curves,
    train_seeds,
)
from tune.evidence.selection import Selection
from tune.evidence.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Comparison,
    Estimate,
    Summary,
    compare,
    finite,
    performance_profile,
    summarize,
)
from tune.protocol.purposes import VALIDATION
from tune.protocol.settings import Settings
from tune.protocol.trials import settings_of
from tune.report.figures import plot_validation
from tune.search.objective import programs_for
from tune.search.study import default_output, ranked_trials

TUNING_SEEDS, SELECTION_SEEDS, VALIDATION_SEEDS = "tuning", "selection", "validation"


@dataclasses.dataclass(frozen=True)
class ValidatedConfig:
    """One of the two configurations of a validation.

    Attributes:
      curve: returns on the validation seeds.
      scores: group of seeds -> the study's objective of each of them, at equal steps, float
        ``[seeds]``: ``tuning``, ``selection`` and ``validation``, those that are known.
    """

    curve: LearningCurve
    scores: Mapping[str, np.ndarray]

    @property
    def summary(self) -> Summary | None:
        """Of the final returns; None if every seed diverged."""
        return summarize(self.curve.final)

    @property
    def optimism(self) -> Estimate | None:
        """How much better it looked in tuning than on validation seeds, at equal steps."""
        if not {TUNING_SEEDS, VALIDATION_SEEDS} <= set(self.scores):
            return None
        return compare(self.scores[TUNING_SEEDS], self.scores[VALIDATION_SEEDS]).difference

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as ``validation.json`` holds it."""
        return {
            **self.curve.to_dict(),
            "summary": _asdict(self.summary),
            "scores": {
                group: {"seeds": scores, "summary": _asdict(summarize(scores))}
                for group, scores in self.scores.items()
            },
            "optimism": _asdict(self.optimism),
        }


@dataclasses.dataclass(frozen=True)
class Validation:
    """Winner against baseline.

    Attributes:
      winner, baseline: what is known of them.
      trial: number of the winner's trial, where the study is known.
      comparison: of the final returns; the verdict rests on it.
      over_training: of the mean over all checkpoints, which tells how fast and how
        steadily they learn.
      at_tuning_steps: of the study's objective over the steps of a trial, on the validation
        seeds; None if the full budget is no longer than a trial's.
    """

    winner: ValidatedConfig
    baseline: ValidatedConfig
    trial: int | None
    comparison: Comparison
    over_training: Comparison
    at_tuning_steps: Comparison | None

    @property
    def steps(self) -> list[int]:
        """Nominal steps of the checkpoints, ``[checkpoints]``."""
        return list(self.winner.curve.steps)

    @property
    def is_baseline(self) -> bool:
        """Whether the winner is the baseline itself."""
        return self.winner.curve.hyperparameters == self.baseline.curve.hyperparameters

    @property
    def misled(self) -> bool:
        """Whether the winner leads clearly after the steps of a trial, but not at the end."""
        return (
            self.at_tuning_steps is not None
            and self.at_tuning_steps.verdict == "improved"
            and self.comparison.verdict != "improved"
        )

    @property
    def recommended(self) -> ValidatedConfig:
        """The winner if it has improved on the baseline, else the baseline."""
        return self.winner if self.comparison.verdict == "improved" else self.baseline

    @property
    def sentence(self) -> str:
        """The verdict with its figures, in a sentence or two."""
        return verdict_sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``, without the protocol."""
        finals = [self.winner.curve.final, self.baseline.curve.final]
        values = finite(np.concatenate(finals))
        thresholds = np.linspace(values.min(), values.max(), 101) if len(values) else np.zeros(0)
        return {
            "verdict": self.sentence,
            "recommended": "winner" if self.recommended is self.winner else "baseline",
            "short_training_misled": self.misled,
            "winner_is_baseline": self.is_baseline,
            "trial": self.trial,
            "comparison": None if self.is_baseline else _asdict(self.comparison),
            "over_training": None if self.is_baseline else _asdict(self.over_training),
            "at_tuning_steps": None if self.is_baseline else _asdict(self.at_tuning_steps),
            "winner": self.winner.to_dict(),
            "baseline": self.baseline.to_dict(),
            "performance_profile": {
                "thresholds": thresholds,
                "winner": performance_profile(finals[0], thresholds),
                "baseline": performance_profile(finals[1], thresholds),
            },
            "statistics": {
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "rng": "numpy.random.default_rng(0)",
            },
        }


def train_best_config(
    params: Mapping[str, Any] | Hyperparameters | str | Path,
    num_steps: int = 1_000_000,
    *,
    settings: Settings | None = None,
    seeds: int = 10,
    output: str | Path | None = None,
    study: optuna.Study | None = None,
    selection: Selection | None = None,
    observer: SeedsObserver | None = None,
) -> Validation:
    """Train a configuration and the baseline on fresh seeds and say which is better.

    Writes into `output`: ``validation.json``, ``validation.png``, ``recommended.json``, the
    configuration to use, and ``policy/``, the network of the winner's best seed. What an
    earlier call with the same request has trained into the same folder is not trained again;
    one that was stopped is continued at its last checkpoint, bit for bit.

    Args:
      params: hyperparameters; the ``best_params`` of an ``optimization_results.json``, for
        example. What is missing keeps its default. Or the path of a ``recommended.json``,
        which brings the settings of its study.
      num_steps: environment steps of each seed.
      settings: of the study; by default those of `study`, of the file, or the defaults
        (CartPole-v1).
      seeds: validation seeds. None of them is a tuning or a selection seed.
      output: a folder; ``runs/<environment>`` by default.
      study: where `params` come from, to tell how much tuning flattered them.
      selection: likewise.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The validation, with per-seed returns of both at every checkpoint.

    Raises:
      UserError: before anything is trained, when the request cannot work.
    """
    if isinstance(params, (str, Path)):
        params, stored = read_recommended(params)
        settings = settings or stored
    settings = settings or (study and settings_of(study)) or Settings()
    require_count("num_steps", num_steps, high=LARGEST_STEPS)
    require_count("seeds", seeds)
    winner = _complete(params, settings)
    baseline = settings.space.complete(settings.space.baseline())
    make_network(settings.config.agent, make(settings.env, settings.env_kwargs).spaces)
    folder = Path(output) if output is not None else default_output(settings.env)
    require_writable(folder)
    config = _config_with(settings.config, winner)
    folder.mkdir(parents=True, exist_ok=True)

    programs = programs_for(config, settings.seeds)
    steps = validation_steps(settings, num_steps)
    protocol = run_protocol(config, "validation", settings.seed, seeds, steps)
    curves = stored_curves(
        folder / "validation.json", protocol, lambda found: [found["winner"], found["baseline"]]
    )
    keys = seed_keys(settings.seed, VALIDATION, seeds)
    state = folder / "training_state"
    if winner not in curves or not _policy_is_of(folder / "policy", winner, num_steps):
        curves[winner], best = train_seeds(
            programs, keys, winner, steps, "validation, winner", observer, state / "winner"
        )
        if np.isfinite(best.final_return):
            policy.save(
                folder / "policy",
                config,
                best.weights,
                hyperparameters=winner.to_dict(),
                training={
                    "steps": num_steps,
                    "seed": best.seed,
                    "final_return": best.final_return,
                },
            )
    if baseline not in curves:
        curves[baseline], _ = train_seeds(
            programs, keys, baseline, steps, "validation, default", observer, state / "default"
        )
    validation = _validate(curves[winner], curves[baseline], settings, study, selection)
    write_json(
        folder / "validation.json",
        validation.to_dict()
        | protocol
        | {
            "num_steps": num_steps,
            "objective": settings.objective,
            "tuning_checkpoints": settings.checkpoints(),
            "versions": versions(),
            "device": device_description(),
        },
    )
    write_json(folder / "recommended.json", _recommendation(validation, settings, config))
    shown = {"best of the study": validation.winner, "default": validation.baseline}
    if validation.is_baseline:
        del shown["best of the study"]
    plot_validation(
        f"{settings.env}: {seeds} fresh seeds",
        steps,
        {name: validated.curve.returns for name, validated in shown.items()},
        {name: validated.scores for name, validated in shown.items()},
        settings,
        folder / "validation.png",
    )
    shutil.rmtree(state, ignore_errors=True)
    return validation


def validation_steps(settings: Settings, num_steps: int) -> list[int]:
    """Return the checkpoints of a validation: the study's own come first, to compare with."""
    own = [step for step in settings.checkpoints() if step < num_steps]
    return sorted({*own, *settings.checkpoints(num_steps)})


def verdict_sentence(validation: Validation) -> str:
    """Return improved, no clear difference or worse, with the figures.

    A second sentence follows where short training misled the search.
    """
    winner, baseline = validation.winner.summary, validation.baseline.summary
    comparison = validation.comparison
    seeds = validation.winner.curve.returns.shape[1]
    under = f"{seeds} fresh seed{'s' if seeds > 1 else ''}, {validation.steps[-1]:,} steps"
    if validation.is_baseline:
        reached = (
            "diverge on every seed" if baseline is None else f"reach {baseline.mean.value:.1f}"
        )
        return (
            f"No clear difference: no trial beat the default hyperparameters, which {reached} "
            f"({under}); keep them."
        )
    what = {"improved": "Improved", "worse": "Worse"}.get(comparison.verdict, "No clear difference")
    if winner is None or baseline is None or comparison.difference is None:
        names = [
            name
            for name, known in (("best configuration", winner), ("defaults", baseline))
            if known is None
        ]
        figures = f"every seed of the {' and of the '.join(names)} diverged ({under})"
    else:
        by = _text(comparison.difference, "+.1f")
        figures = (
            f"the best configuration reaches {winner.mean.value:.1f} against "
            f"{baseline.mean.value:.1f} with the defaults ({by}; {under}{_diverged(validation)})"
        )
    advice = "" if comparison.verdict == "improved" else "; keep the defaults"
    sentence = f"{what}: {figures}{advice}."
    if validation.misled and validation.at_tuning_steps is not None:
        lead = validation.at_tuning_steps.difference
        assert lead is not None, "a clear lead is a difference"
        sentence += (
            f" Short training misled the search: the lead on the same seeds at the budget of a "
            f"trial ({_text(lead, '+.1f')}) did not last to {validation.steps[-1]:,} steps."
        )
    return sentence


def read_recommended(path: str | Path) -> tuple[dict[str, Any], Settings]:
    """Return the hyperparameters and the settings of the study in a ``recommended.json``.

    Raises:
      UserError: when the file is missing or no such file.
    """
    found = read_json(Path(path))
    try:
        hyperparameters = Hyperparameters.from_dict(found["hyperparameters"]).to_dict()
        return hyperparameters, Settings.from_dict(found["settings"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no recommended configuration: {error!r}") from error


def train_command(settings: Settings, hyperparameters: Hyperparameters, num_steps: int) -> str:
    """Return the command that trains a configuration without a study."""
    words = ["python", "-m", "ppo_jax.train", "--env", settings.env]
    if settings.env_kwargs:
        words += ["--env-kwargs", *(f"{name}={value}" for name, value in settings.env_kwargs)]
    words += ["--total-steps", str(num_steps)]
    defaults = AgentConfig().to_dict() | Hyperparameters().to_dict()
    chosen = settings.config.agent.to_dict() | hyperparameters.to_dict()
    for name, value in chosen.items():
        option = name.replace("_", "-")
        if value == defaults[name]:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _validate(
    winner: LearningCurve,
    baseline: LearningCurve,
    settings: Settings,
    study: optuna.Study | None,
    selection: Selection | None,
) -> Validation:
    """Put together what is known of both configurations."""
    trials = ranked_trials(study) if study is not None else []
    tuned = [(trial.number, LearningCurve.of_trial(trial)) for trial in trials]

    def known(curve: LearningCurve) -> ValidatedConfig:
        same = [t for _, t in tuned if t.hyperparameters == curve.hyperparameters]
        chosen = [
            candidate.curve
            for candidate in (selection.candidates if selection is not None else ())
            if candidate.curve.hyperparameters == curve.hyperparameters
        ]
        groups = {TUNING_SEEDS: same, SELECTION_SEEDS: chosen, VALIDATION_SEEDS: [curve]}
        scores = {name: curves[0].scores(settings) for name, curves in groups.items() if curves}
        return ValidatedConfig(curve, {name: s for name, s in scores.items() if s is not None})

    ours, theirs = known(winner), known(baseline)
    short = None
    if settings.total_steps < winner.steps[-1]:
        short = compare(ours.scores[VALIDATION_SEEDS], theirs.scores[VALIDATION_SEEDS])
    return Validation(
        winner=ours,
        baseline=theirs,
        trial=next((n for n, t in tuned if t.hyperparameters == winner.hyperparameters), None),
        comparison=compare(winner.final, baseline.final),
        over_training=compare(winner.returns.mean(axis=0), baseline.returns.mean(axis=0)),
        at_tuning_steps=short,
    )


def _recommendation(
    validation: Validation, settings: Settings, config: TrainConfig
) -> dict[str, Any]:
    """Return the content of ``recommended.json``."""
    chosen = validation.recommended.curve.hyperparameters
    steps = validation.steps[-1]
    is_winner = chosen == validation.winner.curve.hyperparameters and not validation.is_baseline
    return {
        "configuration": "best of the study" if is_winner else "default",
        "trial": validation.trial if is_winner else None,
        "why": validation.sentence,
        "hyperparameters": chosen.to_dict(),
        "environment": {"name": settings.env, "kwargs": dict(settings.env_kwargs)},
        "agent": config.agent.to_dict(),
        "how_to_train": {
            "command": train_command(settings, chosen, steps),
            "python": f"tune.train_best_config('recommended.json', num_steps={steps})",
        },
        "settings": settings.to_dict(),
    }


def _text(estimate: Estimate, form: str = ".1f") -> str:
    # Rounded first, so that nothing reads -0.0.
    value, *interval = (round(x, 1) + 0.0 for x in (estimate.value, *(estimate.interval or ())))
    if not interval:
        return f"{value:{form}}, no interval from a single seed"
    low, high = interval
    return f"{value:{form}}, 95% interval {low:{form}} to {high:{form}}"


def _diverged(validation: Validation) -> str:
    counts = [len(c.curve.diverged_seeds) for c in (validation.winner, validation.baseline)]
    return f"; diverged: {counts[0]} against {counts[1]}" if any(counts) else ""


def _policy_is_of(folder: Path, hyperparameters: Hyperparameters, num_steps: int) -> bool:
    try:
        found = read_json(folder / "policy.json")
        return (
            found["hyperparameters"] == hyperparameters.to_dict()
            and found["training"]["steps"] == num_steps
        )
    except (UserError, KeyError, TypeError):
        return False


def _asdict(record: Summary | Comparison | Estimate | None) -> dict[str, Any] | None:
    return None if record is None else dataclasses.asdict(record)


def _complete(params: Mapping[str, Any] | Hyperparameters, settings: Settings) -> Hyperparameters:
    if isinstance(params, Hyperparameters):
        return params.validated()
    return settings.space.complete(params)


def _config_with(config: TrainConfig, hyperparameters: Hyperparameters) -> TrainConfig:
    """Return `config`, with the shapes of `hyperparameters` added where it lacks them."""

    def choices(name: str) -> tuple[int, ...]:
        present, value = getattr(config, f"{name}_choices"), getattr(hyperparameters, name)
        return present if value in present else (*present, value)

    return dataclasses.replace(
        config, n_steps_choices=choices("n_steps"), batch_size_choices=choices("batch_size")
    )
