"""Pictures of a study and of its validation. No numbers are made here, only drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, label_steps, picture
from tune.settings import Settings
from tune.statistics import finite, summarize
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
    returns: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    settings: Settings,
    path: Path,
) -> None:
    """Draw learning curves, performance profiles, and scores on each group of seeds.

    Args:
      title: of the picture.
      steps: nominal steps of the checkpoints.
      returns: configuration -> returns ``[checkpoints, seeds]`` on validation seeds.
      scores: configuration -> group of seeds -> the study's objective of each seed.
      settings: of the study.
      path: a PNG file.
    """
    lowest = min((float(v.min()) for r in returns.values() if len(v := finite(r[-1]))), default=0.0)
    colors = dict(zip(returns, (BLUE, GREY) if len(returns) > 1 else (GREY,), strict=True))
    with picture(path, 15, 5) as figure:
        curves, profile, optimism = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        figure.suptitle(title, fontsize=14)
        for name, color in colors.items():
            draw_curve(curves, steps, returns[name], color, name)
            _draw_profile(profile, returns[name][-1], lowest, color)
        draw_reference(curves, settings.reference_score)
        curves.set_title("Mean over seeds, 95% intervals")
        label_steps(curves)
        curves.legend(loc="best")
        profile.set_title("At the end")
        profile.set(xlabel="return τ", ylabel="fraction of seeds above τ", ylim=(0, 1.05))
        _draw_optimism(optimism, scores, colors)
        optimism.set_title(f"Score of {settings.total_steps:,} steps")
        optimism.set(ylabel=f"{settings.objective} of checkpoints, 95% intervals")


def draw_curve(
    axes: Axes, steps: Sequence[int], returns: np.ndarray, color: str, label: str
) -> None:
    """Draw mean and 95% bootstrap interval over seeds of ``[checkpoints, seeds]`` returns."""
    summaries = [summarize(row) for row in returns]
    means = [np.nan if s is None else s.mean.value for s in summaries]
    intervals = [
        (mean, mean) if s is None or s.mean.interval is None else s.mean.interval
        for mean, s in zip(means, summaries, strict=True)
    ]
    axes.plot(steps, means, color=color, marker="o", markersize=4, label=label)
    lows, highs = zip(*intervals, strict=True)
    axes.fill_between(steps, lows, highs, color=color, alpha=0.2, linewidth=0)


def _draw_profile(axes: Axes, values: np.ndarray, lowest: float, color: str) -> None:
    """Draw the fraction of seeds above each value, from `lowest` on; no diverged one is."""
    ordered = np.sort(finite(values))
    if len(ordered):
        fractions = np.arange(len(ordered), 0, -1) / len(values)
        axes.step(
            [lowest, *ordered, ordered[-1]], [fractions[0], *fractions, 0], where="pre", color=color
        )


def _draw_optimism(
    axes: Axes, scores: Mapping[str, Mapping[str, np.ndarray]], colors: Mapping[str, str]
) -> None:
    """Draw mean and interval of each group of seeds: what falls from left to right was luck."""
    groups = list(dict.fromkeys(group for known in scores.values() for group in known))
    for number, (name, known) in enumerate(scores.items()):
        for group, values in known.items():
            summary = summarize(values)
            if summary is None:
                continue
            x = groups.index(group) + 0.12 * (2 * number - 1) * (len(scores) > 1)
            axes.plot(x, summary.mean.value, "o", color=colors[name])
            if summary.mean.interval is not None:
                axes.vlines(x, *summary.mean.interval, color=colors[name], linewidth=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(x=0.2)


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
