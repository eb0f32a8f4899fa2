"""What to do next: hints before a study and at its end."""

import dataclasses
import math
import shlex

import numpy as np

from ppo_jax import presets
from ppo_jax.command_words import agent_words, environment_words
from ppo_jax.errors import UserError
from ppo_jax.files import folder_name
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.presets import Preset
from ppo_jax.statistics import Interval
from ppo_jax.text import fixed
from tune.evidence.candidate import Candidate
from tune.evidence.statistics import Summary, finite, summarize
from tune.evidence.verdict import Outcome, Verdict
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, SearchSpace
from tune.protocol.study_folder import StudyFolder
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

    Options are for the command of the study, whatever else it says, and take the place of the same
    ones there; what cannot go on in its folder names another.
    """
    if results.validation is None:
        return []
    verdict, settings = results.validation.verdict, results.settings
    steps, preset = [], _other_preset(settings)
    learned = not _nothing_learned(verdict)
    if not learned:
        steps.append(f"{_unlearned(verdict)}. Such scores say little about hyperparameters")
        if not _is_wide(results):
            steps.append(_wider(results))
        elif preset is None:
            longer = _same_command(
                results, "--total-steps", 5 * settings.total_steps, name="longer"
            )
            steps.append(f"To train longer, {longer}")
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
            "To settle the comparison, "
            + _same_command(results, "--validate-seeds", verdict.seeds_to_settle)
        )
    more = _same_command(results, "--trials", 2 * len(results.trials))
    steps.append(f"To continue the search, {more}")
    return steps


def _same_command(results: StudyResults, *words: str | int, name: str | None = None) -> str:
    """Return what to change in the command of the study.

    Args:
      results: of the study.
      words: options.
      name: what another study is called besides; None to go on with this one.
    """
    options = list(map(str, words))
    if name is not None:
        study = f"{results.name}-{name}"
        options += ["--study-name", study, "--output", f"runs/{folder_name(study)}"]
    return f"run the same command with {shlex.join(options)}"


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
        f"{preset.total_steps:,} steps: python -m tune.run --preset {preset.env} "
        f"--study-name {preset.env}-preset starts another study from it"
    )


def _is_wide(results: StudyResults) -> bool:
    """Return whether the wide space would add nothing to that of a study."""
    try:
        results.settings.space.widening(_wide_space(results))
    except UserError:
        return False
    return True


def _wide_space(results: StudyResults) -> SearchSpace:
    """Return the space that the command of the study has with ``--space wide``."""
    settings = results.settings
    start = Configuration(settings.space.defaults, settings.agent)
    return SearchSpace.named("wide").holding(start).without(_too_slow(results))


def _too_slow(results: StudyResults) -> tuple[str, ...]:
    """Return what a study better not begins to tune: larger networks take a CPU far longer."""
    on_cpu = results.made_with["device"]["platform"] == "cpu"
    begun = "hidden_sizes" in results.settings.space.tuned_agent
    return ("hidden_sizes",) if on_cpu and not begun else ()


def _wider(results: StudyResults) -> str:
    """Return how to go on in the wide space, where that holds the present one."""
    settings, space = results.settings, _wide_space(results)
    try:
        space.widening(settings.space)
        name, what = None, "go on in the wide space"
    except UserError:
        name, what = "wide", "search the wide space"
    fixed_names = _too_slow(results)
    words = ["--space", "wide", *(["--fix", *fixed_names] if fixed_names else [])]
    words += ["--trials", str(2 * max(len(results.trials), 15))]
    present, wide = dict(settings.space.tuned), dict(space.tuned)
    added = [text for key, text in _WIDE_ADDS.items() if present.get(key) != wide.get(key)]
    brings = f", which adds {', '.join(added)}" if added else ""
    command = None if name else _command(results)
    if command is not None:
        return f"To {what}{brings}: {shlex.join([*command, *words])}"
    return f"To {what}{brings}, {_same_command(results, *words, name=name)}"


def _command(results: StudyResults) -> list[str] | None:
    """Return the command of a study but for its space; None where it may have said more.

    A preset, a file and the address of a storage are not among the results.
    """
    settings, folder, validation = results.settings, results.folder, results.validation
    plain = settings.warm_start is None and settings.space.defaults == Hyperparameters()
    if folder is None or validation is None or not plain or not folder.database.exists():
        return None
    words = ["python", "-m", "tune.run"]
    words += environment_words(settings.env, dict(settings.env_kwargs))
    words += agent_words(settings.agent)
    others = {
        **{f.name: (getattr(settings, f.name), f.default) for f in dataclasses.fields(Settings)},
        "study_name": (results.name, settings.env),
        "output": (str(folder.path), str(StudyFolder.of(None, results.name).path)),
        "validate_steps": (validation.verdict.steps[-1], Plan.validate_steps),
    }
    for name, (value, default) in others.items():
        if isinstance(default, int | float | str) and name != "env" and value != default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _nothing_learned(verdict: Verdict) -> bool:
    """Return whether nothing is clearly better than an untrained policy.

    Neither configuration, nor both of them together: the interval of two seeds is wide.
    """
    summaries = verdict.winner.summary, verdict.baseline.summary, _together(verdict)
    return all(_ends(summary)[0] <= verdict.untrained for summary in summaries)


def _unlearned(verdict: Verdict) -> str:
    """Return how little was learned, as far as the seeds show it."""
    together, untrained = _together(verdict), fixed(verdict.untrained)
    if together is None:
        return "Nothing was learned: every seed diverged"
    if together.mean.value <= verdict.untrained:
        return (
            f"Nothing was learned: trained policies return no more than untrained ones "
            f"({untrained})"
        )
    return (
        f"It is not clear that anything was learned: trained policies return {together.mean}, "
        f"untrained ones {untrained}"
    )


def _together(verdict: Verdict) -> Summary | None:
    """Return the levels of both configurations as one sample; None if every seed diverged."""
    curves = verdict.curves[:1] if verdict.is_baseline else verdict.curves
    return summarize(np.concatenate([curve.level for curve in curves]))


def _reaches(candidate: Candidate, score: float) -> bool:
    """Return whether a configuration may be as good as `score`."""
    return _ends(candidate.summary)[1] >= score


def _ends(summary: Summary | None) -> Interval:
    """Return the interval of the mean level; minus infinity where every seed has diverged."""
    if summary is None:
        return -math.inf, -math.inf
    return summary.mean.interval or (summary.mean.value, summary.mean.value)
