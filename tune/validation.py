"""The proof: winner and baseline trained in full on seeds that tuning has never used."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax import policy
from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import read_json, require_writable, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import VALIDATION, Programs, lane_params, seed_keys
from ppo_jax.versions import device_description, versions
from tune.plots import plot_validation
from tune.settings import Settings
from tune.statistics import Comparison, Summary, compare, summarize
from tune.study import default_output
from tune.trial import programs_for

ValidationObserver = Callable[[str, int, int, int, np.ndarray], None]
"""Called with the configuration's name, its first and last seed, the step, and returns."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Returns of one configuration on the validation seeds.

    Attributes:
      hyperparameters: the configuration.
      returns: float ``[checkpoints, seeds]``; NaN where a seed has diverged.
      environment_steps: steps taken by all seeds together.
    """

    hyperparameters: Hyperparameters
    returns: np.ndarray
    environment_steps: int

    @property
    def final(self) -> np.ndarray:
        """Returns at the end of training, ``[seeds]``."""
        return self.returns[-1]


@dataclasses.dataclass(frozen=True)
class Validation:
    """Winner against baseline.

    Attributes:
      steps: nominal steps of the checkpoints, ``[checkpoints]``.
      winner, baseline: their curves.
      winner_summary, baseline_summary: of the final returns; None if every seed diverged.
      comparison: of the final returns; None if every seed of one of them diverged. The
        verdict rests on it.
      over_training: of the mean over all checkpoints, which tells how fast and how
        steadily they learn; None likewise.
      tuning_score: what the study gave the winner, where it is known.
      validation_score: the same score on validation seeds, at equal steps.
      seconds: wall clock.
    """

    steps: list[int]
    winner: Curve
    baseline: Curve
    winner_summary: Summary | None
    baseline_summary: Summary | None
    comparison: Comparison | None
    over_training: Comparison | None
    tuning_score: float | None
    validation_score: float | None
    seconds: float

    @property
    def optimism(self) -> float | None:
        """How much better the winner looked in tuning than on fresh seeds at equal steps."""
        if self.tuning_score is None or self.validation_score is None:
            return None
        return self.tuning_score - self.validation_score

    @property
    def is_baseline(self) -> bool:
        """Whether the winner is the baseline itself."""
        return self.winner.hyperparameters == self.baseline.hyperparameters

    @property
    def sentence(self) -> str:
        """The verdict with its figures, as one sentence."""
        return verdict_sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``."""

        def configuration(curve: Curve, summary: Summary | None) -> dict[str, Any]:
            return {
                "hyperparameters": curve.hyperparameters.to_dict(),
                "returns": curve.returns,
                "summary": _asdict(summary),
                "diverged_seeds": np.flatnonzero(~np.isfinite(curve.final)).tolist(),
                "environment_steps": curve.environment_steps,
            }

        return {
            "verdict": self.sentence,
            "comparison": None if self.is_baseline else _asdict(self.comparison),
            "over_training": None if self.is_baseline else _asdict(self.over_training),
            "steps": self.steps,
            "winner": configuration(self.winner, self.winner_summary),
            "baseline": configuration(self.baseline, self.baseline_summary),
            "winner_is_baseline": self.is_baseline,
            "tuning_score": self.tuning_score,
            "validation_score": self.validation_score,
            "optimism": self.optimism,
            "seconds": self.seconds,
        }


def train_best_config(
    params: Mapping[str, Any] | Hyperparameters,
    num_steps: int = 1_000_000,
    *,
    settings: Settings | None = None,
    seeds: int = 10,
    output: str | Path | None = None,
    tuning_score: float | None = None,
    observer: ValidationObserver | None = None,
) -> Validation:
    """Train a configuration and the baseline on fresh seeds and say which is better.

    Writes ``validation.json``, ``validation.png`` and ``policy/``, the network of the
    configuration's best seed, into `output`.

    Args:
      params: hyperparameters; the ``best_params`` of an ``optimization_results.json``,
        for example. What is missing keeps its default.
      num_steps: environment steps of each seed.
      settings: of the study; the defaults (CartPole-v1) when not given.
      seeds: validation seeds. None of them is a tuning seed.
      output: a folder; ``runs/<environment>`` by default.
      tuning_score: score of `params` in the study, for the optimism.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The validation, with per-seed returns of both at every checkpoint.

    Raises:
      UserError: before anything is trained, when the request cannot work.
    """
    settings = settings or Settings()
    require_count("num_steps", num_steps)
    require_count("seeds", seeds)
    winner = _complete(params, settings)
    baseline = settings.space.complete(settings.space.baseline())
    make(settings.env, settings.env_kwargs)
    folder = Path(output) if output is not None else default_output(settings.env)
    require_writable(folder)
    config = _config_with(settings.config, winner)
    folder.mkdir(parents=True, exist_ok=True)

    programs = programs_for(config, settings.seeds)
    steps = validation_steps(settings, num_steps)

    start = time.perf_counter()
    keys = seed_keys(settings.seed, VALIDATION, seeds)
    curve, best_params, best_seed = _train(programs, keys, "winner", winner, steps, observer)
    if winner == baseline:
        baseline_curve = curve
    else:
        baseline_curve, _, _ = _train(programs, keys, "baseline", baseline, steps, observer)
    validation = Validation(
        steps=steps,
        winner=curve,
        baseline=baseline_curve,
        winner_summary=summarize(curve.final),
        baseline_summary=summarize(baseline_curve.final),
        comparison=compare(curve.final, baseline_curve.final),
        over_training=compare(curve.returns.mean(axis=0), baseline_curve.returns.mean(axis=0)),
        tuning_score=tuning_score,
        validation_score=_score_at_equal_steps(settings, steps, curve),
        seconds=time.perf_counter() - start,
    )
    write_json(
        folder / "validation.json",
        validation.to_dict()
        | {
            "environment": settings.env,
            "environment_kwargs": dict(settings.env_kwargs),
            "num_steps": num_steps,
            "seeds": {"purpose": "validation", "root": settings.seed, "count": seeds},
            "versions": versions(),
            "device": device_description(),
        },
    )
    plot_validation(
        f"{settings.env}: training on {seeds} fresh seeds",
        steps,
        None if validation.is_baseline else curve.returns,
        baseline_curve.returns,
        settings.reference_score,
        folder / "validation.png",
    )
    if validation.winner_summary is not None:
        policy.save(
            folder / "policy",
            config,
            best_params,
            hyperparameters=winner.to_dict(),
            training={
                "steps": num_steps,
                "seed": best_seed,
                "final_return": curve.final[best_seed],
            },
        )
    return validation


def validation_steps(settings: Settings, num_steps: int) -> list[int]:
    """Return the checkpoints of a validation: the study's own come first, to compare with."""
    own = [step for step in settings.checkpoints() if step < num_steps]
    return sorted({*own, *settings.checkpoints(num_steps)})


def find_validation(
    folder: Path, params: Mapping[str, Any], settings: Settings, num_steps: int, seeds: int
) -> dict[str, Any] | None:
    """Return the ``validation.json`` in `folder` if it answers the same question."""
    try:
        found = read_json(folder / "validation.json")
        same = (
            found["winner"]["hyperparameters"] == _complete(params, settings).to_dict()
            and found["environment"] == settings.env
            and found["environment_kwargs"] == dict(settings.env_kwargs)
            and found["num_steps"] == num_steps
            and found["seeds"]["root"] == settings.seed
            and found["seeds"]["count"] == seeds
            and found["steps"] == validation_steps(settings, num_steps)
        )
    except (UserError, KeyError, TypeError):
        return None
    return found if same else None


def verdict_sentence(validation: Validation) -> str:
    """Return one of three sentences: improved, no clear difference, worse; with the figures."""
    winner, baseline, comparison = (
        validation.winner_summary,
        validation.baseline_summary,
        validation.comparison,
    )
    steps = f"{validation.steps[-1]:,} steps"
    if winner is None or baseline is None or comparison is None:
        name = "winner" if winner is None else "baseline"
        return f"No clear difference: every seed of the {name} diverged within {steps}."
    if validation.is_baseline:
        return (
            f"No clear difference: no trial beat the default hyperparameters, which reach "
            f"{baseline.mean:.1f} on {baseline.seeds} fresh seeds after {steps}; keep them."
        )
    interval = comparison.difference_interval
    spread = (
        "no interval from a single seed"
        if interval is None
        else f"95% interval {interval[0]:+.1f} to {interval[1]:+.1f}"
    )
    figures = (
        f"{winner.mean:.1f} against {baseline.mean:.1f} with the defaults "
        f"({comparison.difference:+.1f}, {spread}; {winner.seeds} fresh seeds, {steps})"
    )
    match comparison.verdict:
        case "improved":
            return f"Improved: the best configuration reaches {figures}."
        case "worse":
            return f"Worse: the best configuration reaches {figures}; keep the defaults."
    return f"No clear difference: the best configuration reaches {figures}; keep the defaults."


def _asdict(record: Summary | Comparison | None) -> dict[str, Any] | None:
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


def _train(
    programs: Programs,
    keys: jax.Array,
    name: str,
    hyperparameters: Hyperparameters,
    steps: list[int],
    observer: ValidationObserver | None,
) -> tuple[Curve, Any, int]:
    """Train `keys` in groups that fill the lanes of the study's own programs.

    Returns:
      The curve; the parameters of the best seed, and its number.
    """
    groups, best = [], (-np.inf, -np.inf, 0, None)
    environment_steps = 0
    for first in range(0, len(keys), programs.seeds):
        group = keys[first : first + programs.seeds]
        returns = []
        for checkpoint in programs.run(group, hyperparameters, steps):
            returns.append(checkpoint.returns)
            if observer is not None:
                observer(name, first, first + len(group), checkpoint.step, checkpoint.returns)
        groups.append(np.stack(returns))
        environment_steps += checkpoint.environment_steps * len(group)
        # The best at the end; of equals, the one that was good for longest.
        for lane, values in enumerate(np.nan_to_num(groups[-1].T, nan=-np.inf)):
            if best[3] is None or (values[-1], values.mean()) > best[:2]:
                params = lane_params(checkpoint.state, lane)
                best = (values[-1], values.mean(), first + lane, params)
    curve = Curve(hyperparameters, np.concatenate(groups, axis=1), environment_steps)
    return curve, best[3], best[2]


def _score_at_equal_steps(settings: Settings, steps: list[int], curve: Curve) -> float | None:
    """Return the study's score of a curve over the study's own checkpoints."""
    rows = [steps.index(step) for step in settings.checkpoints() if step in steps]
    returns = curve.returns[rows]
    if len(rows) < len(settings.checkpoints()) or not np.isfinite(returns).any(axis=1).all():
        return None
    return settings.score([float(row[np.isfinite(row)].mean()) for row in returns])
