"""Pictures of a study and of its validation. No numbers are made here, only drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.files import replacing
from tune.settings import Settings
from tune.statistics import bootstrap_interval

if TYPE_CHECKING:
    from tune.validation import Validation

BLUE, ORANGE, GREEN, GREY, DARK = "#2563a8", "#d97706", "#15803d", "#9ca3af", "#374151"

_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def new_figure(*args: Any, **kwargs: Any) -> Figure:
    """Return a figure that needs no display and no global state."""
    return Figure(*args, layout="constrained", **kwargs)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def plot_optimization(
    trials: Sequence[FrozenTrial],
    settings: Settings,
    importances: Mapping[str, float],
    path: Path,
) -> None:
    """Draw history, importance, and score against learning rate and clip epsilon.

    Args:
      trials: finished trials.
      importances: parameter -> share of the variance; may be empty.
      path: a PNG file.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = new_figure(figsize=(13, 8.5))
        (history, importance), (left, right) = figure.subplots(2, 2)
        figure.suptitle(
            f"{settings.env}: {len(trials)} trials of {settings.seeds} seeds × "
            f"{settings.total_steps:,} steps",
            fontsize=14,
        )
        _draw_history(history, trials, settings)
        _draw_importance(importance, importances)
        _draw_slice(left, trials, settings, "learning_rate", log=True)
        _draw_slice(right, trials, settings, "clip_epsilon", log=False)
        save_figure(figure, path)


def plot_validation(validation: "Validation", settings: Settings, path: Path) -> None:
    """Draw mean and 95% interval of winner and baseline over environment steps."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = new_figure(figsize=(10, 5.5))
        axes = figure.subplots()
        draw_curve(axes, validation.steps, validation.baseline.returns, GREY, "default")
        if not validation.is_baseline:
            draw_curve(axes, validation.steps, validation.winner.returns, BLUE, "best of the study")
        draw_reference(axes, settings.reference_score)
        seeds = validation.winner.returns.shape[1]
        axes.set_title(f"{settings.env}: training on {seeds} fresh seeds")
        axes.set(xlabel="environment steps", ylabel="mean return (greedy)")
        axes.xaxis.set_major_formatter(FuncFormatter(_short_steps))
        axes.legend(loc="best")
        save_figure(figure, path)


def draw_curve(
    axes: Axes, steps: Sequence[int], returns: np.ndarray, color: str, label: str
) -> None:
    """Draw mean and 95% bootstrap interval over seeds of ``[checkpoints, seeds]`` returns."""
    means, lows, highs = [], [], []
    for row in returns:
        finite = row[np.isfinite(row)]
        mean = float(finite.mean()) if len(finite) else np.nan
        low, high = bootstrap_interval([finite], np.mean) or (mean, mean)
        means.append(mean)
        lows.append(low)
        highs.append(high)
    axes.plot(steps, means, color=color, marker="o", markersize=4, label=label)
    axes.fill_between(steps, lows, highs, color=color, alpha=0.2, linewidth=0)


def draw_reference(axes: Axes, reference_score: float | None) -> None:
    """Draw an earlier result as a line, where there is one."""
    if reference_score is not None:
        label = f"reference {reference_score:g}"
        axes.axhline(reference_score, color=ORANGE, linestyle=":", linewidth=2, label=label)


def _draw_history(axes: Axes, trials: Sequence[FrozenTrial], settings: Settings) -> None:
    axes.set_title("History")
    axes.set(xlabel="trial", ylabel=f"score ({settings.objective} of checkpoints)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    _scatter(axes, trials, lambda trial: trial.number)
    if complete:
        best = np.maximum.accumulate([trial.value for trial in complete])
        numbers = [trial.number for trial in complete]
        axes.step(
            [*numbers, max(t.number for t in trials)],
            [*best, best[-1]],
            where="post",
            color=GREEN,
            label="best so far",
        )
    baseline = next((t for t in complete if t.user_attrs.get("baseline")), None)
    if baseline is not None:
        label = f"default {baseline.value:.1f}"
        axes.axhline(baseline.value, color=DARK, linestyle="--", linewidth=1.2, label=label)
    draw_reference(axes, settings.reference_score)
    if trials:
        axes.legend(loc="lower right", fontsize=9)


def _draw_importance(axes: Axes, importances: Mapping[str, float]) -> None:
    axes.set_title("Importance (fANOVA)")
    if not importances:
        _say(axes, "too few complete trials to tell")
        return
    names = list(importances)[::-1]
    values = [importances[name] for name in names]
    axes.barh(names, values, color=BLUE)
    axes.bar_label(axes.containers[0], fmt="%.2f", padding=3, fontsize=9)
    axes.set(xlabel="share of the variance of the score", xlim=(0, max(values) * 1.15 or 1))
    axes.grid(visible=False, axis="y")


def _draw_slice(
    axes: Axes, trials: Sequence[FrozenTrial], settings: Settings, name: str, log: bool
) -> None:
    axes.set_title(name)
    shown = [trial for trial in trials if name in trial.params]
    if not shown:
        _say(axes, f"{name} is not tuned in this study")
        return
    _scatter(axes, shown, lambda trial: trial.params[name])
    axes.set(xlabel=name, ylabel="score")
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    draw_reference(axes, settings.reference_score)
    axes.legend(loc="best", fontsize=9)


def _scatter(axes: Axes, trials: Sequence[FrozenTrial], x: Any) -> None:
    """Draw complete trials filled, pruned ones hollow at their last report."""
    for state, label, style in (
        (TrialState.COMPLETE, "complete", {"color": BLUE, "s": 45}),
        (TrialState.PRUNED, "pruned (last checkpoint)", {"color": GREY, "marker": "x", "s": 40}),
    ):
        shown = [t for t in trials if t.state == state and t.value is not None]
        if shown:
            axes.scatter(
                [x(t) for t in shown], [t.value for t in shown], label=label, zorder=3, **style
            )


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK, transform=axes.transAxes)
    axes.set_axis_off()


def _short_steps(steps: float, _: int) -> str:
    return f"{steps / 1e6:g}M" if steps >= 1e6 else f"{steps / 1e3:g}k" if steps else "0"
