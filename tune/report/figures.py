"""Pictures of a study and of its validation, drawn from records.

A ``plot_...`` function writes a PNG file; a ``draw_...`` function draws on given axes, for a
picture or for report.html. Only summaries of seeds are computed here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import TrialState

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, label_steps, picture
from ppo_jax.text import fixed
from tune.analysis.analysis import Analysis
from tune.analysis.importance import Importance, Interaction
from tune.analysis.surrogate import GoodRange, Surrogate
from tune.evidence.candidate import Candidate
from tune.evidence.statistics import finite, summarize
from tune.evidence.validation import Validation
from tune.protocol.axes import Axis, find_axis
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord
from tune.report.results import StudyResults, shown_score
from tune.report.text import percent, plural, steps

_COLORS = {"winner": BLUE, "baseline": GREY}


def plot_optimization(results: StudyResults, path: Path) -> None:
    """Draw history, importances, and the score against learning rate and clip epsilon.

    Args:
      results: of the study.
      path: a PNG file.
    """
    settings, finished = results.settings, results.finished
    with picture(path, 13, 8.5) as figure:
        (history, importance), (left, right) = figure.subplots(2, 2)
        figure.suptitle(
            f"{settings.env}: {plural(len(finished), 'trial')} of "
            f"{plural(settings.seeds, 'seed')} × {steps(settings.total_steps)} steps",
            fontsize=14,
            parse_math=False,
        )
        draw_history(history, finished, settings)
        draw_importances(importance, results.analysis.importances)
        draw_slice(left, finished, settings, "learning_rate", results.analysis)
        draw_slice(right, finished, settings, "clip_epsilon", results.analysis, legend=False)


def plot_details(results: StudyResults, folder: Path) -> list[Path]:
    """Draw learning curves, slices and interactions, a PNG file each; return the files."""
    settings, analysis = results.settings, results.analysis
    files = [folder / "learning_curves.png"]
    with picture(files[0], 10, 5.5) as figure:
        draw_learning_curves(figure.subplots(), results)
    tuned = list(settings.space.keys.values())

    def slice_of(name: str) -> Callable[[Axes], None]:
        return lambda axes: draw_slice(
            axes, results.finished, settings, name, analysis, legend=name == tuned[0]
        )

    def contour_of(found: Interaction) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            assert analysis.surrogate is not None, "interactions come from a surrogate"
            draw_contour(axes, results.finished, analysis.surrogate, found.pair)
            axes.set_title(f"{percent(found.share, 1)} of the variance", fontsize=10)

        return draw

    panels = {
        "slices": [slice_of(name) for name in tuned],
        "interactions": [contour_of(found) for found in analysis.interactions],
    }
    for name, drawn in panels.items():
        if drawn:
            files.append(folder / f"{name}.png")
            _plot_grid(drawn, files[-1])
    return files


def plot_validation(validation: Validation, path: Path) -> None:
    """Draw learning curves, performance profiles, and the score on each group of seeds.

    Args:
      validation: of the winner and the baseline.
      path: a PNG file.
    """
    settings = validation.settings
    with picture(path, 15, 5) as figure:
        curves, profile, optimism = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        figure.suptitle(
            f"{settings.env}: {plural(validation.verdict.seeds, 'fresh seed')}",
            fontsize=14,
            parse_math=False,
        )
        draw_validation_curves(curves, validation)
        curves.set_title("Mean over seeds, 95% intervals")
        draw_profiles(profile, validation)
        profile.set_title("Last three checkpoints")
        draw_optimism(optimism, validation)
        optimism.set_title(f"Score after {steps(settings.total_steps)} steps")
        optimism.set(ylabel=f"{settings.objective} of checkpoints, 95% intervals")


def draw_validation_curves(axes: Axes, validation: Validation) -> None:
    """Draw mean and 95% interval over the validation seeds at each checkpoint."""
    for name, candidate in _validated(validation).items():
        curve = candidate.validated
        summaries = [summarize(row) for row in curve.returns]
        means = [np.nan if s is None else s.mean.value for s in summaries]
        intervals = [
            (mean, mean) if s is None or s.mean.interval is None else s.mean.interval
            for mean, s in zip(means, summaries, strict=True)
        ]
        color = _COLORS[name]
        axes.plot(curve.steps, means, color=color, marker="o", markersize=4, label=name)
        lows, highs = zip(*intervals, strict=True)
        axes.fill_between(curve.steps, lows, highs, color=color, alpha=0.2, linewidth=0)
    draw_reference(axes, validation.settings.reference_score)
    label_steps(axes)
    axes.legend(loc="best")


def draw_profiles(axes: Axes, validation: Validation) -> None:
    """Draw the fraction of seeds above each return, a seed's mean at the last three checkpoints.

    Agarwal et al., 2021, section 4.2. A diverged seed is above no return.
    """
    levels = {name: c.validated.level for name, c in _validated(validation).items()}
    known = {name: np.sort(finite(values)) for name, values in levels.items()}
    returns = np.concatenate(list(known.values()))
    if not len(returns):
        _write(axes, "every seed has diverged")
        return
    # The step down from all seeds is visible only with room to the left of the worst one.
    start = returns.min() - 0.04 * (np.ptp(returns) or 1.0)
    for name, ordered in known.items():
        if len(ordered):
            fractions = np.arange(len(ordered), 0, -1) / len(levels[name])
            points = [start, *ordered, ordered[-1]]
            heights = [fractions[0], *fractions, 0]
            axes.step(points, heights, where="pre", color=_COLORS[name], label=name)
    axes.set(xlabel="return τ", ylabel="fraction of seeds above τ", ylim=(0, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="best")


def draw_seeds(axes: Axes, validation: Validation) -> None:
    """Draw each validation seed's level, with mean and 95% interval."""
    shown = _validated(validation)
    for row, (name, candidate) in enumerate(shown.items()):
        known = finite(candidate.validated.level)
        spread = np.linspace(-0.18, 0.18, len(known)) if len(known) > 1 else np.zeros(len(known))
        axes.scatter(known, row + spread, color=_COLORS[name], alpha=0.55, s=28)
        summary = candidate.summary
        if summary is not None:
            axes.plot(summary.mean.value, row + 0.32, "D", color=_COLORS[name], markersize=6)
            if summary.mean.interval is not None:
                ends = summary.mean.interval
                axes.hlines(row + 0.32, *ends, color=_COLORS[name], linewidth=2.5)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(xlabel="mean return at the last three checkpoints", ylim=(-0.5, len(shown) - 0.3))
    axes.grid(visible=False, axis="y")


def draw_optimism(axes: Axes, validation: Validation) -> None:
    """Draw the study's objective on each group of seeds, mean and 95% interval.

    All groups are scored at equal steps, so a fall from tuning to validation seeds is luck.
    """
    scores = {name: candidate.scores for name, candidate in _validated(validation).items()}
    groups = list(dict.fromkeys(group for known in scores.values() for group in known))
    for number, (name, known) in enumerate(scores.items()):
        for group, values in known.items():
            summary = summarize(values)
            if summary is None:
                continue
            x = groups.index(group) + 0.12 * (2 * number - 1) * (len(scores) > 1)
            axes.plot(x, summary.mean.value, "o", color=_COLORS[name])
            if summary.mean.interval is not None:
                axes.vlines(x, *summary.mean.interval, color=_COLORS[name], linewidth=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(x=0.2)


def draw_reference(axes: Axes, reference_score: float | None) -> None:
    """Draw an earlier result as a line, if there is one."""
    if reference_score is not None:
        label = f"reference {reference_score:g}"
        axes.axhline(reference_score, color=ORANGE, linestyle=":", linewidth=2, label=label)


def draw_history(axes: Axes, trials: Sequence[TrialRecord], settings: Settings) -> None:
    """Draw the score of every finished trial and the best so far."""
    axes.set_title("History")
    axes.set(xlabel="trial", ylabel=f"score ({settings.objective} of checkpoints)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    complete = [trial for trial in trials if trial.is_complete]
    _scatter(axes, trials, lambda trial: trial.number)
    if complete:
        best = np.maximum.accumulate([_score(trial) for trial in complete])
        numbers = [trial.number for trial in complete]
        axes.step(
            [*numbers, max(trial.number for trial in trials)],
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


def draw_learning_curves(axes: Axes, results: StudyResults) -> None:
    """Draw the mean return over the seeds of every trial; pruned trials end in a cross."""
    axes.set_title("Learning curves")
    kinds = {
        TrialState.COMPLETE: ("complete", BLUE, 0.35, "-"),
        TrialState.PRUNED: ("pruned", GREY, 0.9, "-"),
        TrialState.RUNNING: ("running", ORANGE, 1.0, ":"),
    }
    named = set()
    for trial in results.trials:
        if trial.state not in kinds or not trial.means:
            continue
        checkpoints, means = list(trial.means), list(trial.means.values())
        label, color, alpha, line = kinds[trial.state]
        width, order = 1.0, 2.0
        if trial is results.best:
            label, color, alpha, width, order = f"best (trial {trial.number})", GREEN, 1.0, 2.6, 4.0
        elif trial.is_baseline:
            label, color, alpha, line, width, order = "baseline", DARK, 1.0, "--", 1.8, 3.0
        axes.plot(
            checkpoints,
            means,
            line,
            color=color,
            alpha=alpha,
            linewidth=width,
            zorder=order,
            label=None if label in named else label,
            marker="o" if len(means) == 1 and not trial.is_pruned else None,
            markersize=3,
        )
        named.add(label)
        if trial.is_pruned:
            axes.plot(checkpoints[-1], means[-1], "x", color=GREY, markersize=6, zorder=order)
    draw_reference(axes, results.settings.reference_score)
    label_steps(axes)
    axes.set_xlim(0, results.settings.total_steps * 1.02)
    if named:
        axes.legend(loc="lower right", fontsize=9)


def draw_importances(axes: Axes, importances: dict[str, Importance]) -> None:
    """Draw both importances of every parameter with their 95% intervals."""
    axes.set_title("Importance")
    if not importances:
        _write(axes, "too few scores to estimate importances")
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
    *,
    legend: bool = True,
) -> None:
    """Draw the score of every trial against one parameter.

    Args:
      axes: to draw on.
      trials: finished ones.
      settings: of the study.
      name: of the parameter.
      analysis: adds the expected score, averaged over the other parameters, as a line and the
        good range as a band.
      legend: draw one.
    """
    axes.set_title(name)
    axis = find_axis(trials, name)
    if axis is None:
        _write(axes, f"{name} is not tuned in this study")
        return
    if analysis is not None and name in analysis.good_ranges:
        assert analysis.surrogate is not None, "good ranges come from a surrogate"
        points = [_coordinate(axis, point) for point in axis.grid()]
        style = "o-" if axis.is_list else "-"
        expected = analysis.surrogate.marginal(name)
        axes.plot(points, expected, style, color=ORANGE, linewidth=1.8, label="expected")
        for low, high in _bands(axis, analysis.good_ranges[name]):
            axes.axvspan(low, high, color=GREEN, alpha=0.12, linewidth=0)
    shown = [trial for trial in trials if name in trial.params]
    _scatter(axes, shown, lambda trial: _coordinate(axis, axis.to_unit(trial.params[name])))
    axes.set(ylabel="score")
    _scale(axes, axis, "x")
    draw_reference(axes, settings.reference_score)
    if legend:
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
        coordinates = np.array([_coordinate(axis, point) for point in points])
        if axis.is_list:  # A choice fills its whole cell.
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


def _validated(validation: Validation) -> dict[str, Candidate]:
    """Return name -> configuration, only the baseline if it is the winner as well."""
    if validation.verdict.is_baseline:
        return {"baseline": validation.baseline}
    return {"winner": validation.winner, "baseline": validation.baseline}


def _plot_grid(panels: Sequence[Callable[[Axes], None]], path: Path) -> None:
    """Draw panels in rows of four."""
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    with picture(path, 4 * columns, 3.2 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, draw in zip(grid, panels, strict=False):
            draw(axes)


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
    """Give the x or y axis, `which`, the scale and the ticks of a parameter."""
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
    """Draw complete trials as dots, pruned ones as crosses at their last checkpoint."""
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
            xs, scores = zip(*points, strict=True)
            axes.scatter(xs, scores, label=label, color=color, marker=marker, s=45, zorder=3)


def _score(trial: TrialRecord) -> float:
    assert trial.score is not None, "a complete trial has a score"
    return trial.score


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9)


def _write(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK, transform=axes.transAxes)
    axes.set_axis_off()
