"""What to do next: hints before a study and at its end."""

import dataclasses
import math
import shlex

from ppo_jax import presets
from ppo_jax.command_words import agent_words, environment_words
from ppo_jax.errors import UserError
from ppo_jax.presets import Preset
from ppo_jax.statistics import Interval
from ppo_jax.text import fixed
from tune.evidence.candidate import Candidate
from tune.evidence.statistics import finite
from tune.evidence.verdict import Outcome, Verdict
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, SearchSpace
from tune.report.results import StudyResults

_WIDE_ADDS = {
    "learning_rate": "faster learning",
    "normalize_observations": "normalisation",
    "num_envs": "number of environments",
    "hidden_sizes": "network",
}
"""Parameter of the wide space -> what it brings to a study that lacks it."""


def before(settings: Settings) -> list[str]:
    """Return what a user may want to know before the first trial."""
    preset = _other_preset(settings)
    return [] if preset is None else [_hint(preset)]


def next_steps(results: StudyResults) -> list[str]:
    """Return what to do next, the most promising first; nothing before a validation.

    Options are to be added to the command of the study.
    """
    if results.validation is None:
        return []
    verdict, settings = results.validation.verdict, results.settings
    steps, preset = [], _other_preset(settings)
    learned = not _nothing_learned(verdict)
    if not learned:
        steps.append(
            f"Nothing was learned: trained policies return no more than untrained ones "
            f"({fixed(verdict.untrained)}). Scores of such trials say little about hyperparameters"
        )
        if not _is_wide(results):
            steps.append(_wider(results))
        elif preset is None:
            steps.append(
                f"Train longer, --total-steps {5 * settings.total_steps}, or normalise, "
                f"--normalize-observations --normalize-rewards"
            )
    if preset is not None and not _reaches(verdict.recommended, preset.evidence["score"]):
        steps.append(_hint(preset))
    peak = verdict.recommended.validated.earlier_peak(verdict.margin)
    if peak is not None:
        level = finite(verdict.recommended.validated.level).mean()
        steps.append(
            f"The recommended configuration returned most after {peak.step:,} steps, "
            f"{fixed(peak.level)} against {fixed(float(level))} at the end: train it no longer "
            f"than that, or have a winner chosen for that length, --validate-steps {peak.step}"
        )
    if learned and results.analysis.bounds_hit and not _is_wide(results):
        steps.append(_wider(results))
    if verdict.outcome == Outcome.IMPROVED or not learned:
        return steps
    if verdict.seeds_to_settle is not None and verdict.seeds_to_settle <= 10 * verdict.seeds:
        steps.append(
            f"To settle the comparison, run the same command with "
            f"--validate-seeds {verdict.seeds_to_settle}"
        )
    more = 2 * len(results.trials)
    steps.append(f"To continue the search, run the same command with --trials {more}")
    return steps


def _other_preset(settings: Settings) -> Preset | None:
    """Return the preset of the study's environment; None if the study starts from it."""
    try:
        preset = presets.load(settings.env)
    except UserError:
        return None
    if settings.env_kwargs != preset.env_kwargs:
        return None
    own = settings.baseline == Configuration(preset.hyperparameters, preset.agent)
    return None if own else preset


def _hint(preset: Preset) -> str:
    return (
        f"The preset of {preset.env} reaches {fixed(preset.evidence['score'])} after "
        f"{preset.total_steps:,} steps: python -m tune.run --preset {preset.env} starts from it"
    )


def _is_wide(results: StudyResults) -> bool:
    """Return whether the wide space would add nothing to that of a study."""
    try:
        results.settings.space.widening(_wide_space(results))
    except UserError:
        return False
    return True


def _wide_space(results: StudyResults) -> SearchSpace:
    return SearchSpace.named("wide").holding(results.settings.baseline).without(_too_slow(results))


def _too_slow(results: StudyResults) -> tuple[str, ...]:
    """Return what a study better not begins to tune: larger networks take a CPU far longer."""
    on_cpu = results.made_with["device"]["platform"] == "cpu"
    begun = "hidden_sizes" in results.settings.space.tuned_agent
    return ("hidden_sizes",) if on_cpu and not begun else ()


def _wider(results: StudyResults) -> str:
    """Return the command that goes on in the wide space, where that holds the present one."""
    settings, space = results.settings, _wide_space(results)
    try:
        space.widening(settings.space)
        name, why = results.name, "goes on in the wide space"
    except UserError:
        name, why = f"{results.name}-wide", "searches the wide space"
    words = [
        "python",
        "-m",
        "tune.run",
        *environment_words(settings.env, dict(settings.env_kwargs)),
        "--space",
        "wide",
    ]
    if fixed_names := _too_slow(results):
        words += ["--fix", *fixed_names]
    words += agent_words(settings.agent)
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        plain = isinstance(field.default, (int, float, str)) and field.name != "env"
        if plain and value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    if name != settings.env:
        words += ["--study-name", name]
    words += ["--trials", str(2 * max(len(results.trials), 15))]
    present, wide = dict(settings.space.tuned), dict(space.tuned)
    added = [text for name, text in _WIDE_ADDS.items() if present.get(name) != wide.get(name)]
    return f"{shlex.join(words)} {why}" + (f": {', '.join(added)}" if added else "")


def _nothing_learned(verdict: Verdict) -> bool:
    """Return whether neither configuration is clearly better than an untrained policy."""
    candidates = verdict.winner, verdict.baseline
    return all(_ends(candidate)[0] <= verdict.untrained for candidate in candidates)


def _reaches(candidate: Candidate, score: float) -> bool:
    """Return whether a configuration may be as good as `score`."""
    return _ends(candidate)[1] >= score


def _ends(candidate: Candidate) -> Interval:
    """Return the interval of the mean level; minus infinity where every seed has diverged."""
    if candidate.summary is None:
        return -math.inf, -math.inf
    mean = candidate.summary.mean
    return mean.interval or (mean.value, mean.value)
