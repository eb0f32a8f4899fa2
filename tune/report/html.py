"""The page ``report.html``: one file that needs nothing beside it, light and dark.

What is shown is put together here, how it looks is the template's business. Every text is
escaped by the template; only pictures, drawn here, are put in as they are.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.plots import BLUE, GREY, inline_svg, label_steps
from tune.analysis.analysis import Analysis, BoundHit
from tune.protocol.settings import Settings
from tune.protocol.trials import FINISHED, attribute, is_baseline
from tune.report.figures import (
    draw_contour,
    draw_curve,
    draw_history,
    draw_importances,
    draw_learning_curves,
    draw_optimism,
    draw_profiles,
    draw_reference,
    draw_seeds,
    draw_slice,
)

_WINNER, _BASELINE = "best of the study", "default"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with what it shows."""

    svg: Markup
    caption: str


def render_html(
    results: Mapping[str, Any],
    trials: Sequence[FrozenTrial],
    settings: Settings,
    analysis: Analysis,
    validation: Mapping[str, Any] | None,
    selection: Mapping[str, Any] | None,
    recommended: Mapping[str, Any] | None,
) -> str:
    """Return the page.

    Args:
      results: content of ``optimization_results.json``.
      trials: all trials of the study, in any state.
      settings: of the study.
      analysis: of the trials.
      validation: content of ``validation.json`` if it is one of this study's winner.
      selection: content of ``selection.json``, likewise.
      recommended: content of ``recommended.json``, likewise.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["steps"] = lambda value: f"{value:,}"
    environment.filters["estimate"] = estimate
    environment.filters["duration"] = duration
    finished = [trial for trial in trials if trial.state in FINISHED]
    return environment.get_template("report.html").render(
        results=results,
        settings=settings,
        analysis=analysis,
        validation=validation,
        selection=selection,
        recommended=recommended,
        outcome=_outcome(results["verdict"]),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        tiles=_tiles(results, analysis, validation),
        configuration=_configuration(results, settings, analysis, validation),
        validation_figures=_validation_figures(validation, settings),
        study_figures=_study_figures(trials, finished, settings, results, analysis),
        interaction_figures=_interaction_figures(finished, analysis),
        slice_figures=_slice_figures(finished, settings, analysis),
        rows=[_row(trial, settings, results["best_trial"]) for trial in trials],
        tuned=[name for name, _ in settings.space.tuned],
        seeds=_seeds(settings, validation, selection),
        durations=_durations(finished),
    )


def number(value: Any) -> str:
    """Return a value as a person reads it.

    >>> [number(v) for v in (None, True, 3e-4, 0.00031415, 2048, 494.57, "relu")]
    ['–', 'yes', '0.0003', '0.0003142', '2048', '494.6', 'relu']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(number, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {number(v)}" for k, v in value.items()) or "–"
    return str(value)


def estimate(found: Mapping[str, Any] | None, form: str = ".1f") -> str:
    """Return an estimate with its interval.

    >>> estimate({"value": 9.9, "interval": [6.7, 13.1]}, "+.1f")
    '+9.9 (+6.7 to +13.1)'
    >>> estimate(None)
    '–'
    """
    if found is None:
        return "–"
    text = format(found["value"], form)
    if found["interval"] is None:
        return text
    low, high = (format(bound, form) for bound in found["interval"])
    return f"{text} ({low} to {high})"


def duration(seconds: float | None) -> str:
    """Return seconds as a person reads them.

    >>> [duration(s) for s in (None, 0.42, 59.6, 754.0, 8000.0)]
    ['–', '0.4 s', '60 s', '12.6 min', '2.2 h']
    """
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _outcome(verdict: str | None) -> str:
    """Return ``improved``, ``unclear``, ``worse`` or, without a validation, ``open``."""
    if verdict is None:
        return "open"
    outcomes = {"Improved": "improved", "Worse": "worse"}
    return outcomes.get(verdict.partition(":")[0], "unclear")


def _tiles(
    results: Mapping[str, Any], analysis: Analysis, validation: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures at the top."""
    best, gain = results["best_value"], results["improvement_percent"]
    tiles = [
        (
            "best trial, tuning seeds",
            "–" if best is None else f"{best:.1f}",
            "no trial is complete" if best is None else f"trial {results['best_trial']}",
        )
    ]
    if results["baseline_value"] is not None:
        remark = "" if gain is None else f"the best is {gain:+.1f}%"
        tiles.append(("default, tuning seeds", f"{results['baseline_value']:.1f}", remark))
    comparison = (validation or {}).get("comparison")
    if comparison and comparison.get("difference"):
        difference = comparison["difference"]
        interval = difference["interval"]
        remark = f"95%: {interval[0]:+.1f} to {interval[1]:+.1f}" if interval else "a single seed"
        tiles.append(("best − default, fresh seeds", f"{difference['value']:+.1f}", remark))
        chance = comparison["probability_of_improvement"]
        interval = chance["interval"]
        remark = f"95%: {interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
        tiles.append(("P(best beats default)", f"{chance['value']:.2f}", remark))
    counts = results["n_trials"]
    states = ", ".join(f"{n} {state}" for state, n in counts.items() if state != "total")
    tiles.append(("trials", str(counts["total"]), states))
    if analysis.pruning.trials:
        saved = analysis.pruning
        remark = f"{saved.environment_steps:,} steps, {duration(saved.seconds)}"
        tiles.append(("saved by pruning", f"{saved.share_of_steps:.0%}", remark))
    return tiles


def _configuration(
    results: Mapping[str, Any],
    settings: Settings,
    analysis: Analysis,
    validation: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Return a row for each hyperparameter: winner, default, good range, a word on its bounds."""
    baseline = settings.space.complete(settings.space.baseline()).to_dict()
    winner = validation["winner"]["hyperparameters"] if validation else results["best_params"]
    tuned = {name for name, _ in settings.space.tuned}
    rows = []
    for name, default in baseline.items():
        good, pressed = analysis.good_ranges.get(name), analysis.bounds_hit.get(name)
        text = ""
        if good is not None:
            values = [number(value) for value in good.values]
            ordered = len(values) == 2 and not _is_list(settings, name)
            text = " … ".join(values) if ordered else ", ".join(values)
            text = "everywhere" if good.everywhere else text
        rows.append(
            {
                "name": name,
                "winner": None if winner is None else winner.get(name),
                "default": default,
                "tuned": name in tuned,
                "changed": winner is not None and winner.get(name) != default,
                "good": text,
                "bound": "" if pressed is None else bound_sentence(name, pressed),
            }
        )
    return sorted(rows, key=lambda row: not row["tuned"])


def bound_sentence(name: str, pressed: BoundHit) -> str:
    """Return what to do about a bound that the best trials press against."""
    return (
        f"{pressed.count} of the {pressed.best} best trials lie at the "
        f"{'lower' if pressed.side == 'low' else 'upper'} bound {number(pressed.bound)} of {name}: "
        f"widen it to {number(pressed.widen_to)}"
    )


def _is_list(settings: Settings, name: str) -> bool:
    return hasattr(dict(settings.space.tuned).get(name), "values")


def _validation_figures(validation: Mapping[str, Any] | None, settings: Settings) -> list[Figure]:
    if validation is None:
        return []
    shown = {_WINNER: validation["winner"], _BASELINE: validation["baseline"]}
    if validation["winner_is_baseline"]:
        del shown[_WINNER]
    returns = {name: np.array(found["returns"], np.float64) for name, found in shown.items()}
    colors = {name: BLUE if name == _WINNER else GREY for name in shown}
    finals = {name: values[-1] for name, values in returns.items()}
    steps = validation["steps"]
    scores = {
        name: {
            group: np.array(known["seeds"], np.float64)
            for group, known in found.get("scores", {}).items()
        }
        for name, found in shown.items()
    }

    def curves(axes: Axes) -> None:
        for name, values in returns.items():
            draw_curve(axes, steps, values, colors[name], name)
        draw_reference(axes, settings.reference_score)
        label_steps(axes)
        axes.legend(loc="best")

    def profile(axes: Axes) -> None:
        draw_profiles(axes, finals, colors)
        if axes.lines:
            axes.legend(loc="best")

    def optimism(axes: Axes) -> None:
        draw_optimism(axes, scores, colors)
        axes.set(ylabel=f"{settings.objective} of checkpoints")

    figures = [
        _figure(curves, "Mean over the validation seeds at each checkpoint, with 95% intervals."),
        _figure(
            functools.partial(draw_seeds, finals=finals, colors=colors),
            "Every validation seed at the end of training; diamonds are means with 95% intervals.",
        ),
        _figure(profile, "Performance profile: the fraction of seeds above each return."),
    ]
    if any(scores.values()):
        caption = (
            f"The same score over {settings.total_steps:,} steps on each group of seeds: what "
            "falls from left to right was luck."
        )
        figures.append(_figure(optimism, caption))
    return figures


def _study_figures(
    trials: Sequence[FrozenTrial],
    finished: Sequence[FrozenTrial],
    settings: Settings,
    results: Mapping[str, Any],
    analysis: Analysis,
) -> dict[str, Figure]:
    best = results["best_trial"]
    return {
        "curves": _figure(
            lambda axes: draw_learning_curves(axes, trials, settings, best),
            "Mean return over the tuning seeds of every trial; a cross is where it was pruned.",
            height=3.8,
        ),
        "history": _figure(
            lambda axes: draw_history(axes, finished, settings),
            "Score of every trial in order, and the best so far.",
            height=3.8,
        ),
        "importances": _figure(
            lambda axes: draw_importances(axes, analysis.importances),
            "fANOVA: share of the score's variance that a parameter explains alone. PED-ANOVA: "
            "its share in what tells the best quarter of the trials from all. Lines are 95% "
            "bootstrap intervals over trials.",
            height=1.2 + 0.34 * len(analysis.importances),
        ),
    }


def _interaction_figures(finished: Sequence[FrozenTrial], analysis: Analysis) -> list[Figure]:
    surrogate = analysis.surrogate
    if surrogate is None:
        return []
    return [
        _figure(
            functools.partial(
                draw_contour, trials=finished, surrogate=surrogate, pair=interaction.pair
            ),
            f"{interaction.pair[0]} × {interaction.pair[1]}: {interaction.share:.1%} of the "
            f"variance ({interaction.interval[0]:.1%} to {interaction.interval[1]:.1%})",
            width=4.2,
            height=3.2,
        )
        for interaction in analysis.interactions
    ]


def _slice_figures(
    finished: Sequence[FrozenTrial], settings: Settings, analysis: Analysis
) -> list[Figure]:
    figures: list[Figure] = []
    if not finished:
        return figures
    for name, _ in settings.space.tuned:
        pressed = analysis.bounds_hit.get(name)
        figures.append(
            _figure(
                functools.partial(
                    draw_slice, trials=finished, settings=settings, name=name, analysis=analysis
                ),
                "" if pressed is None else f"{bound_sentence(name, pressed)}.",
                width=4.2,
                height=3.0,
            )
        )
    return figures


def _figure(draw: Any, caption: str, width: float = 5.2, height: float = 3.4) -> Figure:
    return Figure(Markup(inline_svg(draw, width, height)), caption)


def _row(trial: FrozenTrial, settings: Settings, best: int | None) -> dict[str, Any]:
    """Return a trial as the table shows it."""
    attributes = trial.user_attrs
    last = list(attribute(trial, "returns", {}).values())[-1:]
    known = [score for score in (last[0] if last else []) if score is not None]
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "note": "best" if trial.number == best else "default" if is_baseline(trial) else "",
        "score": trial.value,
        "worst": min(known, default=None),
        "params": {name: trial.params.get(name) for name, _ in settings.space.tuned},
        "steps": attributes.get("environment_steps", 0),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _seeds(
    settings: Settings,
    validation: Mapping[str, Any] | None,
    selection: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Return the groups of seeds."""
    groups = [{"purpose": "tuning", "root": settings.seed, "count": settings.seeds}]
    return groups + [found["seeds"] for found in (selection, validation) if found]


def _durations(finished: Sequence[FrozenTrial]) -> float | None:
    """Return the median duration of a trial, in seconds."""
    seconds = [trial.duration.total_seconds() for trial in finished if trial.duration]
    return statistics.median(seconds) if seconds else None
