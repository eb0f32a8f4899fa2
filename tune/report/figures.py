"""Pictures of a study and of its validation. No numbers are made here, only drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import TrialState

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, label_steps, picture
from tune.analysis.analysis import Analysis
from tune.analysis.axes import Axis, find_axis
from tune.analysis.importance import Importance
from tune.analysis.surrogate import GoodRange, Surrogate
from tune.evidence.statistics import finite, summarize
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord
from tune.report.results import shown_score
from tune.report.text import fixed


def plot_optimization(
    trials: Sequence[TrialRecord],
    settings: Settings,
    analysis: Analysis,
    path: Path,
) -> None:
    """Draw history, importance, and score against learning rate and clip epsilon.

    Args:
      trials: finished trials.
      settings: of the study.
      analysis: of the trials.
      path: a PNG file.
    """
    with picture(path, 13, 8.5) as figure:
        (history, importance), (left, right) = figure.subplots(2, 2)
        figure.suptitle(
            f"{settings.env}: {len(trials)} trials of {settings.seeds} seeds × "
            f"{settings.total_steps:,} steps",
            fontsize=14,
            parse_math=False,
        )
        draw_history(history, trials, settings)
        draw_importances(importance, analysis.importances)
        draw_slice(left, trials, settings, "learning_rate", analysis)
        draw_slice(right, trials, settings, "clip_epsilon", analysis)


def plot_details(
    trials: Sequence[TrialRecord],
    settings: Settings,
    analysis: Analysis,
    best: int | None,
    folder: Path,
) -> list[Path]:
    """Draw learning curves, slices and interactions, a PNG file each; return the files."""
    files = [folder / "learning_curves.png"]
    with picture(files[0], 10, 5.5) as figure:
        draw_learning_curves(figure.subplots(), trials, settings, best)
    finished = [trial for trial in trials if trial.is_finished]
    names = [name for name, _ in settings.space.tuned]
    interactions = analysis.interactions if analysis.surrogate is not None else []
    for name, count in (("slices", len(names)), ("interactions", len(interactions))):
        if not count:
            continue
        files.append(folder / f"{name}.png")
        columns = min(count, 4)
        rows = -(-count // columns)
        with picture(files[-1], 4 * columns, 3.2 * rows) as figure:
            panels = figure.subplots(rows, columns, squeeze=False).ravel()
            for number, axes in enumerate(panels):
                if number >= count:
                    axes.set_axis_off()
                elif name == "slices":
                    draw_slice(axes, finished, settings, names[number], analysis)
                else:
                    assert analysis.surrogate is not None
                    found = interactions[number]
                    draw_contour(axes, finished, analysis.surrogate, found.pair)
                    axes.set_title(f"{found.share:.0%} of the variance", fontsize=10)
    return files


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
    colors = dict(zip(returns, (BLUE, GREY) if len(returns) > 1 else (GREY,), strict=True))
    with picture(path, 15, 5) as figure:
        curves, profile, optimism = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        figure.suptitle(title, fontsize=14)
        for name, color in colors.items():
            draw_curve(curves, steps, returns[name], color, name)
        draw_profiles(profile, {name: values[-1] for name, values in returns.items()}, colors)
        draw_reference(curves, settings.reference_score)
        curves.set_title("Mean over seeds, 95% intervals")
        label_steps(curves)
        curves.legend(loc="best")
        profile.set_title("At the end")
        draw_optimism(optimism, scores, colors)
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


def draw_profiles(axes: Axes, finals: Mapping[str, np.ndarray], colors: Mapping[str, str]) -> None:
    """Draw the fraction of seeds above each return; a diverged seed is above none.

    Args:
      axes: to draw on.
      finals: configuration -> returns at the end of training, ``[seeds]``.
      colors: configuration -> color.
    """
    known = {name: np.sort(finite(values)) for name, values in finals.items()}
    lowest = min((float(ordered[0]) for ordered in known.values() if len(ordered)), default=0.0)
    for name, ordered in known.items():
        if len(ordered):
            fractions = np.arange(len(ordered), 0, -1) / len(finals[name])
            returns = [lowest, *ordered, ordered[-1]]
            heights = [fractions[0], *fractions, 0]
            axes.step(returns, heights, where="pre", color=colors[name], label=name)
    axes.set(xlabel="return τ", ylabel="fraction of seeds above τ", ylim=(0, 1.05))


def draw_optimism(
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


def draw_history(axes: Axes, trials: Sequence[TrialRecord], settings: Settings) -> None:
    """Draw the score of every finished trial and the best so far."""
    axes.set_title("History")
    axes.set(xlabel="trial", ylabel=f"score ({settings.objective} of checkpoints)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    complete = [t for t in trials if t.is_complete]
    _scatter(axes, trials, lambda trial: trial.number)
    if complete:
        best = np.maximum.accumulate([_score(trial) for trial in complete])
        numbers = [trial.number for trial in complete]
        axes.step(
            [*numbers, max(t.number for t in trials)],
            [*best, best[-1]],
            where="post",
            color=GREEN,
            label="best so far",
        )
    for trial in complete:
        if trial.is_baseline:
            label = f"baseline {fixed(_score(trial))}"
            axes.axhline(_score(trial), color=DARK, linestyle="--", linewidth=1.2, label=label)
    draw_reference(axes, settings.reference_score)
    _legend(axes)


def draw_learning_curves(
    axes: Axes, trials: Sequence[TrialRecord], settings: Settings, best: int | None
) -> None:
    """Draw the mean return over seeds of every trial; pruned ones end in a cross.

    Args:
      axes: to draw on.
      trials: in any state.
      settings: of the study.
      best: number of the trial to highlight, if there is one.
    """
    axes.set_title("Learning curves")
    kinds = {
        TrialState.COMPLETE: ("complete", BLUE, 0.35, "-"),
        TrialState.PRUNED: ("pruned", GREY, 0.9, "-"),
        TrialState.RUNNING: ("running", ORANGE, 1.0, ":"),
    }
    named = set()
    for trial in trials:
        if trial.state not in kinds or not trial.means:
            continue
        steps, means = zip(*trial.means.items(), strict=True)
        label, color, alpha, line = kinds[trial.state]
        width, order = 1.0, 2.0
        if trial.number == best:
            label, color, alpha, width, order = f"best (trial {best})", GREEN, 1.0, 2.6, 4.0
        elif trial.is_baseline:
            label, color, alpha, line, width, order = "baseline", DARK, 1.0, "--", 1.8, 3.0
        axes.plot(
            steps,
            means,
            line,
            color=color,
            alpha=alpha,
            linewidth=width,
            zorder=order,
            label=None if label in named else label,
            marker="o" if len(steps) == 1 and not trial.is_pruned else None,
            markersize=3,
        )
        named.add(label)
        if trial.is_pruned:
            axes.plot(steps[-1], means[-1], "x", color=GREY, markersize=6, zorder=order)
    draw_reference(axes, settings.reference_score)
    label_steps(axes)
    axes.set_xlim(0, settings.total_steps * 1.02)
    if named:
        axes.legend(loc="lower right", fontsize=9)


def draw_importances(axes: Axes, importances: Mapping[str, Importance]) -> None:
    """Draw both importances of every parameter with their 95% intervals."""
    axes.set_title("Importance")
    if not importances:
        _say(axes, "too few complete trials to tell")
        return
    rows = np.arange(len(importances))[::-1]
    found = list(importances.values())
    for offset, color, label, values, intervals in (
        (0.2, BLUE, "fANOVA", [i.fanova for i in found], [i.fanova_interval for i in found]),
        (
            -0.2,
            ORANGE,
            "PED-ANOVA",
            [i.ped_anova for i in found],
            [i.ped_anova_interval for i in found],
        ),
    ):
        axes.barh(rows + offset, values, height=0.36, color=color, alpha=0.75, label=label)
        lows, highs = zip(*intervals, strict=True)
        axes.hlines(rows + offset, lows, highs, color=DARK, linewidth=1.2)
    axes.set_yticks(rows, list(importances))
    axes.set(xlabel="share, with 95% interval over trials", xlim=(0, None))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", fontsize=9)


def draw_slice(
    axes: Axes,
    trials: Sequence[TrialRecord],
    settings: Settings,
    name: str,
    analysis: Analysis | None = None,
) -> None:
    """Draw the score of every trial against one parameter.

    Args:
      axes: to draw on.
      trials: finished ones.
      settings: of the study.
      name: of the parameter.
      analysis: adds the expected score over all other parameters as a line, and the good
        range as a band.
    """
    axes.set_title(name)
    axis = find_axis(trials, name)
    if axis is None:
        _say(axes, f"{name} is not tuned in this study")
        return
    if analysis is not None and name in analysis.good_ranges:
        assert analysis.surrogate is not None
        points = [_coordinate(axis, p) for p in axis.grid()]
        style = "o-" if axis.is_list else "-"
        expected = analysis.surrogate.marginal(name)
        axes.plot(points, expected, style, color=ORANGE, linewidth=1.8, label="expected")
        good = analysis.good_ranges[name]
        for low, high in _bands(axis, good):
            axes.axvspan(low, high, color=GREEN, alpha=0.12, linewidth=0)
    shown = [trial for trial in trials if name in trial.params]
    _scatter(axes, shown, lambda trial: _coordinate(axis, axis.to_unit(trial.params[name])))
    axes.set(ylabel="score")
    _scale(axes, axis, "x")
    draw_reference(axes, settings.reference_score)
    _legend(axes)


def draw_contour(
    axes: Axes, trials: Sequence[TrialRecord], surrogate: Surrogate, pair: tuple[str, str]
) -> None:
    """Draw the expected score over two parameters, and the complete trials."""
    first, second = (next(a for a in surrogate.axes if a.name == name) for name in pair)
    surface = surrogate.marginal(*pair, points=41)
    grids, rows = [], []
    for axis in (first, second):
        points = axis.grid(41)
        index = np.arange(len(points))
        coordinates = np.array([_coordinate(axis, p) for p in points])
        if axis.is_list:  # There is nothing between two choices.
            coordinates = np.stack([coordinates - 0.5, coordinates + 0.5], axis=1).ravel()
            index = np.repeat(index, 2)
        grids.append(coordinates)
        rows.append(index)
    filled = axes.contourf(*grids, surface[np.ix_(*rows)].T, levels=12, cmap="viridis")
    shown = [trial for trial in trials if trial.is_complete]
    x, y = (
        [_coordinate(axis, axis.to_unit(trial.params[axis.name])) for trial in shown]
        for axis in (first, second)
    )
    axes.scatter(
        x, y, color="white", edgecolor="black", linewidth=0.6, s=18, zorder=3, clip_on=False
    )
    _scale(axes, first, "x")
    _scale(axes, second, "y")
    axes.set(xlabel=first.name, ylabel=second.name)
    axes.grid(visible=False)
    assert axes.figure is not None
    axes.figure.colorbar(filled, ax=axes, label="expected score")


def draw_seeds(axes: Axes, finals: Mapping[str, np.ndarray], colors: Mapping[str, str]) -> None:
    """Draw every seed's return at the end of a validation, and mean and 95% interval."""
    for row, (name, values) in enumerate(finals.items()):
        known = finite(values)
        spread = np.linspace(-0.18, 0.18, len(known)) if len(known) > 1 else np.zeros(len(known))
        axes.scatter(known, row + spread, color=colors[name], alpha=0.55, s=28)
        summary = summarize(values)
        if summary is not None:
            axes.plot(summary.mean.value, row + 0.32, "D", color=colors[name], markersize=6)
            if summary.mean.interval is not None:
                axes.hlines(row + 0.32, *summary.mean.interval, color=colors[name], linewidth=2.5)
    axes.set_yticks(range(len(finals)), list(finals))
    axes.set(xlabel="return at the end, each seed", ylim=(-0.5, len(finals) - 0.3))
    axes.grid(visible=False, axis="y")


def _coordinate(axis: Axis, point: float) -> float:
    """Return where a point of [0, 1] is drawn: at its value; a choice at its index."""
    if axis.is_list:
        assert axis.values is not None
        return point * len(axis.values) - 0.5
    return float(axis.from_unit(point))


def _bands(axis: Axis, good: GoodRange) -> list[tuple[float, float]]:
    if not axis.is_list:
        return [(good.values[0], good.values[1])]
    assert axis.values is not None
    numbers = [axis.values.index(value) for value in good.values]
    return [(number - 0.5, number + 0.5) for number in numbers]


def _scale(axes: Axes, axis: Axis, which: str) -> None:
    """Give the axis `which`, x or y, the scale and the ticks of a parameter."""
    line = axes.xaxis if which == "x" else axes.yaxis
    if axis.is_list:
        assert axis.values is not None
        labels = [str(value) for value in axis.values]
        line.set_ticks(range(len(labels)), labels)
    elif axis.is_log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        decades = np.log10(axis.high / axis.low)
        subs = (1,) if decades >= 2 else (1, 3) if decades > 1 else (1, 2, 5)
        line.set_major_locator(LogLocator(subs=subs))
        line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        line.set_minor_formatter(NullFormatter())
    elif axis.values is not None:
        line.set_major_locator(MaxNLocator(integer=True))


def _scatter(axes: Axes, trials: Sequence[TrialRecord], x: Callable[[TrialRecord], float]) -> None:
    """Draw complete trials as dots, pruned ones as crosses at their last report."""
    for state, label, color, marker in (
        (TrialState.COMPLETE, "complete", BLUE, "o"),
        (TrialState.PRUNED, "pruned (last checkpoint)", GREY, "x"),
    ):
        points = [
            (x(trial), score)
            for trial in trials
            if trial.state == state and (score := shown_score(trial)) is not None
        ]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                label=label,
                color=color,
                marker=marker,
                s=45,
                zorder=3,
            )


def _score(trial: TrialRecord) -> float:
    assert trial.score is not None, "a complete trial has a score"
    return trial.score


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK, transform=axes.transAxes)
    axes.set_axis_off()
