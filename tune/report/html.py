"""``report.html``: one self-contained page, light and dark.

This module decides what is shown, the template how it looks. The template escapes every text;
only the pictures, which are drawn here, are inserted as they are.
"""

import base64
import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from ppo_jax.plots import COLOR_NAMES, inline_svg
from ppo_jax.text import confidence_text, interval_text
from tune.evidence.candidate import Candidate
from tune.evidence.finalists import Finalists
from tune.evidence.learning_curve import TUNING_SEEDS
from tune.evidence.statistics import Comparison, Estimate, Summary, summarize
from tune.evidence.validation import Validation
from tune.protocol.space import AGENT, Configuration, Range
from tune.protocol.trials import TrialRecord
from tune.report import advice, text
from tune.report.figures import (
    draw_contour,
    draw_history,
    draw_importances,
    draw_learning_curves,
    draw_optimism,
    draw_profiles,
    draw_seeds,
    draw_slice,
    draw_validation_curves,
)
from tune.report.marks import MARKS, Mark, Roles
from tune.report.results import StudyResults
from tune.report.summary import describe_protocol


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture and what it shows."""

    svg: Markup
    caption: str


@dataclasses.dataclass(frozen=True)
class Tile:
    """One of the figures at the top of the page."""

    name: str
    value: str
    remark: str


@dataclasses.dataclass(frozen=True)
class HyperparameterRow:
    """A hyperparameter in the table of configurations."""

    name: str
    chosen: Any
    baseline: Any
    is_tuned: bool
    good_range: str
    bound: str

    @property
    def is_changed(self) -> bool:
        """Whether the chosen value is not the baseline's."""
        return self.chosen is not None and self.chosen != self.baseline


@dataclasses.dataclass(frozen=True)
class ValidatedRow:
    """A configuration in the table of the validation."""

    name: str
    summary: Summary | None
    diverged_seeds: int
    optimism: Estimate | None


@dataclasses.dataclass(frozen=True)
class FinalistRow:
    """A finalist in their table."""

    trial: int | None
    is_baseline: bool
    tuning_score: float | None
    level: Estimate | None
    diverged_seeds: int


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """A trial in the table of trials.

    ``roles`` is what it is besides, ``glyphs`` the marks of that with their colours.
    """

    number: int
    state: str
    roles: Sequence[str]
    glyphs: Sequence[tuple[str, str]]
    score: float | None
    last_return: float | None
    worst_seed: float | None
    params: Sequence[Any]
    environment_steps: int
    seconds: float | None


@functools.cache
def _templates() -> jinja2.Environment:
    """Return the templates; what has been compiled of them serves later pages of this process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for convert in (
        text.number,
        text.score,
        text.percent,
        text.parameter,
        text.estimate,
        text.steps,
        text.duration,
        text.plural,
    ):
        environment.filters[convert.__name__] = convert
    return environment


def render_html(results: StudyResults) -> str:
    """Return the page that shows `results`."""
    settings, validation, finalists = results.settings, results.validation, results.finalists
    chosen_name, chosen = _chosen(results)
    return (
        _templates()
        .get_template("report.html")
        .render(
            results=results,
            digits=results.decimals,
            settings=settings,
            analysis=results.analysis,
            outcome=_outcome(validation),
            next_steps=advice.next_steps(results),
            tiles=_tiles(results),
            chosen_name=chosen_name,
            configuration=_configuration(results, chosen),
            validation=validation,
            validated=[] if validation is None else _validated_rows(validation),
            comparisons=[] if validation is None else _comparisons(validation),
            validation_figures=[] if validation is None else _validation_figures(validation),
            finalist_rows=[] if finalists is None else _finalist_rows(finalists),
            finalists=finalists,
            study_figures=_study_figures(results),
            legend=_legend(results),
            glyphs={name: _glyph(mark) for name, mark in MARKS.items()},
            films={name: _data_uri(gif) for name, gif in results.films.items()},
            recommended=None if results.recommendation is None else results.recommendation.name,
            interaction_figures=_interaction_figures(results),
            slice_figures=_slice_figures(results),
            trials=_trial_rows(results),
            tuned=[name for name, _ in settings.space.tuned],
            protocol=describe_protocol(settings),
            agent=settings.config.agent.to_dict(),
            search_space=settings.space.to_tables(),
            seed_groups=_seed_groups(results),
            made_with=results.made_with,
            median_seconds=_median_seconds(results.finished),
            proof_steps=_proof_steps(results),
        )
    )


def _outcome(validation: Validation | None) -> str:
    """Return the style of the verdict: its outcome, or ``open``."""
    return "open" if validation is None else validation.verdict.outcome


def _tiles(results: StudyResults) -> list[Tile]:
    best, digits = results.best, results.decimals
    tiles = [
        Tile(
            "best on tuning seeds",
            text.score(results.best_score, digits),
            "no trial is complete" if best is None else f"trial {best.number}",
        )
    ]
    baseline = results.baseline
    if baseline is not None and baseline.score is not None:
        tiles.append(
            Tile(
                "baseline on tuning seeds",
                text.score(baseline.score, digits),
                f"trial {baseline.number}",
            )
        )
    if results.validation is not None and not results.validation.verdict.is_baseline:
        comparison = results.validation.verdict.level
        if comparison.difference is not None:
            tiles.append(
                _tile("winner − baseline, fresh seeds", comparison.difference, digits, signed=True)
            )
            chance = comparison.probability_of_improvement
            tiles.append(_tile("P(winner beats baseline)", chance, 2))
    states = ", ".join(f"{count} {state}" for state, count in results.counts.items())
    tiles.append(Tile("trials", str(len(results.trials)), states))
    saved = results.analysis.pruning
    if saved.trials:
        remark = f"{text.steps(saved.environment_steps)} steps, {text.duration(saved.seconds)}"
        tiles.append(Tile("saved by pruning", text.percent(saved.share_of_steps), remark))
    return tiles


def _tile(name: str, found: Estimate, digits: int, *, signed: bool = False) -> Tile:
    """Return an estimate with its interval."""
    value = text.estimate(Estimate(found.value), digits, signed=signed)
    if found.interval is None:
        return Tile(name, value, "no interval from a single seed")
    ends = interval_text(found.interval, digits, signed=signed)
    return Tile(name, value, f"{confidence_text(found.confidence)}: {ends}")


def _chosen(results: StudyResults) -> tuple[str | None, Configuration | None]:
    """Return what to show beside the baseline, its name and itself; nothing if it is that."""
    for proof in (results.validation, results.finalists):
        if proof is not None:
            winner = proof.winner
            return (None, None) if winner.is_baseline else ("winner", winner.configuration)
    best = results.best
    if best is None or best.is_baseline:
        return None, None
    return "best on tuning seeds", best.configuration(results.settings)


def _configuration(
    results: StudyResults, configuration: Configuration | None
) -> list[HyperparameterRow]:
    """Return a row for each hyperparameter, the tuned ones first.

    Args:
      results: of the study.
      configuration: to show beside the baseline, if any.
    """
    space, analysis = results.settings.space, results.analysis
    chosen = {} if configuration is None else configuration.to_dict()
    keys, rows = space.keys, []
    for name, baseline in results.settings.baseline.to_dict().items():
        if name in AGENT and name not in keys:
            continue  # The page shows the agent that all trials share.
        key = keys.get(name, name)
        hit = analysis.bounds_hit.get(name)
        rows.append(
            HyperparameterRow(
                name=name,
                chosen=chosen.get(name),
                baseline=baseline,
                is_tuned=name in keys,
                good_range=_good_range(results, name, key),
                bound="" if hit is None else text.bound_sentence(name, hit),
            )
        )
    return sorted(rows, key=lambda row: not row.is_tuned)


def _good_range(results: StudyResults, name: str, key: str) -> str:
    """Return the good values of a hyperparameter, which the space draws as `key`."""
    good = results.analysis.clear_ranges.get(key)
    if good is None:
        return text.MISSING
    drawn_from = dict(results.settings.space.tuned).get(name)
    if not isinstance(drawn_from, Range):
        return ", ".join(map(text.number, good.values))
    ends = [drawn_from.decode(value) for value in good.values]
    if drawn_from.log_complement:
        ends.reverse()
    return " … ".join(map(text.number, ends))


def _validated_rows(validation: Validation) -> list[ValidatedRow]:
    rows = {"winner": validation.winner, "baseline": validation.baseline}
    if validation.verdict.is_baseline:
        del rows["winner"]
    return [
        ValidatedRow(name, c.summary, len(c.validated.diverged_seeds), c.optimism)
        for name, c in rows.items()
    ]


def _comparisons(validation: Validation) -> list[tuple[str, Comparison, str]]:
    verdict = validation.verdict
    if verdict.is_baseline:
        return []
    compared = {
        "level reached": (verdict.level, verdict.level_outcome),
        "speed: mean over training": (verdict.speed, verdict.speed_outcome),
        "score at the steps of a trial": (verdict.at_tuning_steps, ""),
    }
    return [(name, found, says) for name, (found, says) in compared.items() if found is not None]


def _validation_figures(validation: Validation) -> list[Figure]:
    objective = validation.settings.objective

    def optimism(axes: Axes) -> None:
        draw_optimism(axes, validation)
        axes.set(ylabel=f"{objective} of checkpoints")

    def on(draw: Callable[..., None]) -> Callable[[Axes], None]:
        return functools.partial(draw, validation=validation)

    return [
        _figure(
            on(draw_validation_curves),
            "Mean over the validation seeds at each checkpoint, with 95% intervals.",
        ),
        _figure(
            on(draw_seeds),
            "Every validation seed's mean over the last three checkpoints; marks are means with "
            "95% intervals.",
        ),
        _figure(on(draw_profiles), "Performance profile: the fraction of seeds above each return."),
        _figure(
            optimism,
            f"The score after {text.steps(validation.settings.total_steps)} steps on each group "
            "of seeds. A fall from left to right is luck that fresh seeds do not repeat.",
        ),
    ]


def _finalist_rows(finalists: Finalists) -> list[FinalistRow]:
    rows = []
    for candidate in finalists.candidates:
        summary = summarize(candidate.finals.level)
        rows.append(
            FinalistRow(
                trial=candidate.number,
                is_baseline=candidate.is_baseline,
                tuning_score=None if candidate.trial is None else candidate.trial.score,
                level=None if summary is None else summary.mean,
                diverged_seeds=len(candidate.finals.diverged_seeds),
            )
        )
    return rows


def _study_figures(results: StudyResults) -> dict[str, Figure]:
    importances = results.analysis.importances
    return {
        "curves": _figure(
            lambda axes: draw_learning_curves(axes, results),
            "Mean return of each trial over its tuning seeds. A cross marks where a trial was "
            "pruned.",
            height=3.8,
        ),
        "history": _figure(
            lambda axes: draw_history(axes, results),
            "Score of each trial in order, and the best so far. Pruned trials have no score; they "
            "stand in the strip below.",
            height=3.8,
        ),
        "importances": _figure(
            lambda axes: draw_importances(axes, importances, title=""),
            "fANOVA: the share of the score's variance that a parameter explains alone. "
            "PED-ANOVA: its share in what separates the best quarter of the trials from all of "
            "them. Lines are 95% bootstrap intervals over trials.",
            height=1.2 + 0.34 * len(importances),
        ),
    }


def _interaction_figures(results: StudyResults) -> list[Figure]:
    return [
        _figure(
            functools.partial(draw_contour, results=results, pair=interaction.pair),
            f"{' × '.join(map(text.parameter, interaction.pair))}: "
            f"{text.percent(interaction.share, 1)} of the variance "
            f"({text.percent(interaction.interval[0], 1)} to "
            f"{text.percent(interaction.interval[1], 1)})",
            width=4.2,
            height=3.2,
        )
        for interaction in results.analysis.clear_interactions
    ]


def _slice_figures(results: StudyResults) -> list[Figure]:
    figures: list[Figure] = []
    if not results.finished:
        return figures
    for name, key in results.settings.space.keys.items():
        hit = results.analysis.bounds_hit.get(name)
        draw = functools.partial(draw_slice, results=results, name=key)
        caption = "" if hit is None else f"{text.bound_sentence(name, hit)}."
        figures.append(_figure(draw, caption, width=4.2, height=3.0))
    return figures


def _figure(
    draw: Callable[[Axes], None], caption: str, width: float = 5.2, height: float = 3.4
) -> Figure:
    return Figure(Markup(inline_svg(draw, width, height)), caption)


def _legend(results: StudyResults) -> list[tuple[str, str, str]]:
    """Return (glyph, colour, name) of what the pictures of the study show."""
    roles = Roles.in_study(results)
    named = {role for number in roles.of for role in roles.names(number)}
    states = {f"{trial.state.name.lower()}" for trial in results.finished}
    shown = [name for name in MARKS if name in named | states]
    found = [(*_glyph(MARKS[name]), name) for name in shown]
    if results.best is not None:
        found += [("━", "green", "best so far"), ("╌", "dark", "score of the baseline")]
    if results.analysis.clear_ranges:
        found += [("━", "orange", "expected score"), ("▒", "green", "good range")]
    return found


def _data_uri(gif: bytes) -> str:
    """Return a GIF as the address of an image."""
    return f"data:image/gif;base64,{base64.b64encode(gif).decode()}"


def _glyph(mark: Mark) -> tuple[str, str]:
    """Return a mark as text, and the name of its colour in the style sheet."""
    return mark.glyph, COLOR_NAMES[mark.color]


def _trial_rows(results: StudyResults) -> list[TrialRow]:
    roles = Roles.in_study(results)
    return [_trial_row(trial, results, roles.names(trial.number)) for trial in results.trials]


def _trial_row(trial: TrialRecord, results: StudyResults, roles: Sequence[str]) -> TrialRow:
    last = trial.returns[max(trial.returns)] if trial.returns else np.zeros(0)
    known = last[np.isfinite(last)]
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        roles=roles,
        glyphs=[_glyph(MARKS[role]) for role in roles],
        score=trial.score if trial.is_complete else None,
        last_return=float(known.mean()) if len(known) else None,
        worst_seed=float(known.min()) if len(known) else None,
        params=[trial.params.get(key) for key in results.settings.space.keys.values()],
        environment_steps=trial.environment_steps,
        seconds=trial.seconds,
    )


def _seed_groups(results: StudyResults) -> list[tuple[str, int, int]]:
    """Return (purpose, root, number of seeds) of each group."""
    settings = results.settings
    groups = [(TUNING_SEEDS, settings.seed, settings.seeds)]
    if results.validation is not None:
        seeds = results.validation.seeds
        groups.append((seeds.purpose, seeds.root, results.validation.verdict.seeds))
    return groups


def _median_seconds(finished: Sequence[TrialRecord]) -> float | None:
    """Return the median duration of a trial."""
    seconds = [trial.seconds for trial in finished if trial.seconds is not None]
    return statistics.median(seconds) if seconds else None


def _proof_steps(results: StudyResults) -> dict[str, int]:
    """Return the environment steps of finalists and validation, all seeds together."""
    found = {}
    if results.finalists is not None:
        curves = [candidate.finals for candidate in results.finalists.candidates]
        found["finalists"] = sum(curve.environment_steps for curve in curves)
    if results.validation is not None:
        runs: list[Candidate] = [results.validation.winner]
        if not results.validation.verdict.is_baseline:
            runs.append(results.validation.baseline)
        found["validation"] = sum(run.validated.environment_steps for run in runs)
    return found
