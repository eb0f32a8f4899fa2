"""What to do next: hints before a study and at its end."""

import numpy as np

from ppo_jax import presets
from ppo_jax.errors import UserError
from ppo_jax.statistics import t_interval
from ppo_jax.text import fixed
from tune.evidence.statistics import finite
from tune.evidence.verdict import Outcome, Verdict
from tune.protocol.settings import Settings
from tune.report.results import StudyResults


def before(settings: Settings) -> list[str]:
    """Return what a user may want to know before the first trial."""
    preset = preset_hint(settings)
    return [] if preset is None else [f"{preset} starts from it"]


def next_steps(results: StudyResults) -> list[str]:
    """Return what to do next, the most promising first; nothing before a validation.

    Options are to be added to the command of the study.
    """
    if results.validation is None:
        return []
    verdict, settings = results.validation.verdict, results.settings
    steps = []
    preset = preset_hint(settings)
    if nothing_learned(verdict):
        steps.append(
            f"Nothing was learned: trained policies return no more than untrained ones "
            f"({fixed(verdict.untrained)}). Scores of such trials say little about hyperparameters"
        )
        if preset is None:
            steps.append(
                f"Train longer, --total-steps {5 * settings.total_steps}, or normalise, "
                f"--normalize-observations --normalize-rewards"
            )
    if preset is not None and not _reaches_preset(verdict, settings):
        steps.append(f"{preset} starts from it")
    if verdict.outcome == Outcome.IMPROVED or nothing_learned(verdict):
        return steps
    if verdict.seeds_to_settle is not None and verdict.seeds_to_settle <= 10 * verdict.seeds:
        steps.append(
            f"To settle the comparison, run the same command with "
            f"--validate-seeds {verdict.seeds_to_settle}"
        )
    steps.append(f"To search on, run the same command with --trials {2 * len(results.trials)}")
    return steps


def preset_hint(settings: Settings) -> str | None:
    """Return which preset of the study's environment is better than its baseline is meant to be.

    None where there is none, or the study starts from it.
    """
    try:
        preset = presets.load(settings.env)
    except UserError:
        return None
    baseline = settings.space.complete(settings.space.baseline())
    if settings.env_kwargs != preset.env_kwargs:
        return None
    if (baseline, settings.config.agent) == (preset.hyperparameters, preset.agent):
        return None
    return (
        f"The preset of {settings.env} reaches {fixed(preset.evidence['score'])} after "
        f"{preset.total_steps:,} steps: python -m tune.run --preset {settings.env}"
    )


def nothing_learned(verdict: Verdict) -> bool:
    """Return whether neither configuration is clearly better than an untrained policy."""
    return all(_within(finite(curve.level), verdict.untrained) for curve in verdict.curves)


def _within(levels: np.ndarray, untrained: float) -> bool:
    """Return whether the interval of the mean of `levels` begins no higher than `untrained`."""
    if not len(levels):
        return True
    interval = t_interval(levels)
    low = float(levels.mean()) if interval is None else interval[0]
    return low <= untrained


def _reaches_preset(verdict: Verdict, settings: Settings) -> bool:
    """Return whether the recommended configuration is as good as the preset is said to be."""
    score = presets.load(settings.env).evidence["score"]
    levels = finite(verdict.recommended.validated.level)
    interval = t_interval(levels) if len(levels) else None
    high = -np.inf if not len(levels) else levels.mean() if interval is None else interval[1]
    return bool(high >= score)
