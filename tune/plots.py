"""Pictures of a study and of its validation. No numbers are made here, only drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, label_steps, picture
from tune.settings import Settings
from tune.statistics import bootstrap_interval
from tune.trial import is_baseline


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
    with picture(path, 13, 8.5) as figure:
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


def plot_validation(
    title: str,
    steps: Sequence[int],
    winner: np.ndarray | None,
    baseline: np.ndarray,
    reference_score: float | None,
    path: Path,
) -> None:
    """Draw mean and 95% interval over seeds of winner and baseline.

    Args:
      title: of the picture.
      steps: nominal steps of the checkpoints.
      winner: returns ``[checkpoints, seeds]``; None where the baseline has won.
      baseline: the same of the baseline.
      reference_score: an earlier result, if there is one.
      path: a PNG file.
    """
    with picture(path, 10, 5.5) as figure:
        axes = figure.subplots()
        draw_curve(axes, steps, baseline, GREY, "default")
        if winner is not None:
            draw_curve(axes, steps, winner, BLUE, "best of the study")
        draw_reference(axes, reference_score)
        axes.set_title(title)
        label_steps(axes)
        axes.legend(loc="best")


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
        best = np.maximum.accumulate(_values(complete))
        numbers = [trial.number for trial in complete]
        axes.step(
            [*numbers, max(t.number for t in trials)],
            [*best, best[-1]],
            where="post",
            color=GREEN,
            label="best so far",
        )
    for value in _values([t for t in complete if is_baseline(t)]):
        label = f"default {value:.1f}"
        axes.axhline(value, color=DARK, linestyle="--", linewidth=1.2, label=label)
    draw_reference(axes, settings.reference_score)
    _legend(axes)


def _draw_importance(axes: Axes, importances: Mapping[str, float]) -> None:
    axes.set_title("Importance (fANOVA)")
    if not importances:
        _say(axes, "too few complete trials to tell")
        return
    names = list(importances)[::-1]
    values = [importances[name] for name in names]
    axes.bar_label(axes.barh(names, values, color=BLUE), fmt="%.2f", padding=3, fontsize=9)
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
    _legend(axes)


def _scatter(axes: Axes, trials: Sequence[FrozenTrial], x: Callable[[FrozenTrial], float]) -> None:
    """Draw complete trials as dots, pruned ones as crosses at their last report."""
    for state, label, color, marker in (
        (TrialState.COMPLETE, "complete", BLUE, "o"),
        (TrialState.PRUNED, "pruned (last checkpoint)", GREY, "x"),
    ):
        shown = [t for t in trials if t.state == state and t.value is not None]
        if shown:
            axes.scatter(
                [x(trial) for trial in shown],
                _values(shown),
                label=label,
                color=color,
                marker=marker,
                s=45,
                zorder=3,
            )


def _values(trials: Sequence[FrozenTrial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK, transform=axes.transAxes)
    axes.set_axis_off()
