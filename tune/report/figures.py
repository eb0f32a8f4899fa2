"""Pictures of a study and of its validation, drawn from records.

A ``plot_...`` function writes a PNG file; a ``draw_...`` function draws on given axes, for a
picture or for report.html; a legend is the caller's, one for all axes. Only summaries of seeds are
computed here.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import TrialState

from ppo_jax.plots import BLUE, DARK, GREEN, GREY, ORANGE, label_steps, picture, show_span
from tune.analysis.importance import Importance, Interaction
from tune.analysis.surrogate import GoodRange
from tune.evidence.candidate import Candidate
from tune.evidence.statistics import finite, summarize
from tune.evidence.validation import Validation
from tune.protocol.axes import Axis, find_axis
from tune.protocol.trials import TrialRecord
from tune.report.marks import (
    BASELINE,
    BEST,
    COMPLETE,
    MARKS,
    PRUNED,
    RECOMMENDED,
    WINNER,
    Roles,
    draw_legend,
)
from tune.report.results import StudyResults
from tune.report.text import parameter, percent, plural, steps

_COLORS = {WINNER: GREEN, BASELINE: DARK}
_LINES = {WINNER: "-", BASELINE: "--"}

_NEAR = 0.2
"""How far from a trial, in the unit square, an expected score is shown."""


def plot_optimization(results: StudyResults, path: Path) -> None:
    """Draw history, importances, and the score against learning rate and clip epsilon.

    Args:
      results: of the study.
      path: a PNG file.
    """
    settings = results.settings
    with picture(path, 13, 9) as figure:
        (history, importance), (left, right) = figure.subplots(2, 2)
        study = (
            f"{plural(len(results.finished), 'trial')} of "
            f"{plural(settings.seeds, 'seed')} × {steps(settings.total_steps)} steps"
        )
        _title(figure, f"{settings.env}, {study}", results.verdict, width=125)
        draw_history(history, results)
        doubt = "" if results.analysis.warning is None else ": too uncertain to trust"
        draw_importances(importance, results.analysis.importances, f"Importance{doubt}")
        draw_slice(left, results, "learning_rate")
        draw_slice(right, results, "clip_epsilon")
        draw_legend(figure)


def plot_details(results: StudyResults, folder: Path) -> list[Path]:
    """Draw learning curves, slices and interactions, a PNG file each; return the files."""
    settings, analysis = results.settings, results.analysis
    files = [folder / "learning_curves.png"]
    with picture(files[0], 10, 5.5) as figure:
        draw_learning_curves(figure.subplots(), results)
        draw_legend(figure)

    def slice_of(name: str) -> Callable[[Axes], None]:
        return lambda axes: draw_slice(axes, results, name)

    def contour_of(found: Interaction) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            draw_contour(axes, results, found.pair)
            axes.set_title(f"{percent(found.share, 1)} of the variance", fontsize=10)

        return draw

    panels = {
        "slices": [slice_of(name) for name in settings.space.keys.values()],
        "interactions": [contour_of(found) for found in analysis.clear_interactions],
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
    with picture(path, 15, 5.6) as figure:
        curves, profile, optimism = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        _title(figure, settings.env, validation.sentence, width=140)
        draw_validation_curves(curves, validation)
        curves.set_title("Mean over seeds, 95% intervals")
        draw_profiles(profile, validation)
        profile.set_title("Last three checkpoints")
        draw_optimism(optimism, validation)
        optimism.set_title(f"Score after {steps(settings.total_steps)} steps")
        optimism.set(ylabel=f"{settings.objective} of checkpoints, 95% intervals")
        draw_legend(figure)


def _title(figure: Figure, what: str, verdict: str | None, width: int) -> None:
    """Write what a picture shows, and the verdict before it, in lines of `width` characters."""
    text = what if verdict is None else f"{what}. {verdict}"
    lines = math.ceil(len(text) / width)  # About equally long.
    wrapped = textwrap.fill(text, min(width, len(text) // lines + 12))
    figure.suptitle(wrapped, fontsize=12.5, parse_math=False)


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
        axes.plot(curve.steps, means, _LINES[name], color=color, linewidth=2)
        _draw_end(axes, validation, name, curve.steps, means)
        lows, highs = zip(*intervals, strict=True)
        axes.fill_between(curve.steps, lows, highs, color=color, alpha=0.2, linewidth=0)
    draw_reference(axes, validation.settings.reference_score)
    label_steps(axes)
    show_span(axes)


def _draw_end(
    axes: Axes, validation: Validation, name: str, x: Sequence[float], y: Sequence[float]
) -> None:
    """Mark the end of a line of the winner or the baseline."""
    for role in _roles_of(validation, name):
        MARKS[role].draw(axes, x[-1], y[-1], role)


def _roles_of(validation: Validation, name: str) -> tuple[str, ...]:
    """Return what the winner or the baseline, `name`, is besides."""
    found = validation.winner if name == WINNER else validation.baseline
    return (name, RECOMMENDED) if found is validation.verdict.recommended else (name,)


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
            axes.step(points, heights, _LINES[name], where="pre", color=_COLORS[name], linewidth=2)
            middle = int(np.flatnonzero(fractions <= 0.5)[:1].sum())
            for role in _roles_of(validation, name):
                MARKS[role].draw(axes, ordered[middle], fractions[middle], role)
    axes.set(xlabel="return τ", ylabel="fraction of seeds above τ", ylim=(0, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    show_span(axes, "x")


def draw_seeds(axes: Axes, validation: Validation) -> None:
    """Draw each validation seed's level, with mean and 95% interval."""
    shown = _validated(validation)
    for row, (name, candidate) in enumerate(shown.items()):
        known = finite(candidate.validated.level)
        spread = np.linspace(-0.18, 0.18, len(known)) if len(known) > 1 else np.zeros(len(known))
        axes.scatter(known, row + spread, color=_COLORS[name], alpha=0.55, s=28)
        summary = candidate.summary
        if summary is not None:
            for role in _roles_of(validation, name):
                MARKS[role].draw(axes, summary.mean.value, row + 0.32, role)
            if summary.mean.interval is not None:
                ends = summary.mean.interval
                axes.hlines(row + 0.32, *ends, color=_COLORS[name], linewidth=2.5)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(xlabel="mean return at the last three checkpoints", ylim=(-0.5, len(shown) - 0.3))
    axes.grid(visible=False, axis="y")
    show_span(axes, "x")


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
            for role in _roles_of(validation, name):
                MARKS[role].draw(axes, x, summary.mean.value, role)
            if summary.mean.interval is not None:
                axes.vlines(x, *summary.mean.interval, color=_COLORS[name], linewidth=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(x=0.2)
    show_span(axes)


def draw_reference(axes: Axes, reference_score: float | None) -> None:
    """Draw an earlier result as a line, if there is one."""
    if reference_score is not None:
        label = f"reference {reference_score:g}"
        axes.axhline(reference_score, color=ORANGE, linestyle=":", linewidth=2, label=label)


def draw_history(axes: Axes, results: StudyResults) -> None:
    """Draw the score of every finished trial and the best so far."""
    axes.set_title("History")
    settings, trials = results.settings, results.finished
    axes.set(xlabel="trial", ylabel=f"score ({settings.objective} of checkpoints)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    complete = [trial for trial in trials if trial.is_complete]
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
            axes.axhline(
                _score(trial),
                color=DARK,
                linestyle="--",
                linewidth=1.2,
                label="score of the baseline",
            )
    draw_reference(axes, settings.reference_score)
    _scatter(axes, results, trials, lambda trial: trial.number)


def draw_learning_curves(axes: Axes, results: StudyResults) -> None:
    """Draw the mean return over the seeds of every trial; pruned trials end in a cross."""
    axes.set_title("Learning curves")
    kinds = {
        TrialState.COMPLETE: ("complete", BLUE, 0.4, "-"),
        TrialState.PRUNED: ("pruned", GREY, 0.9, "-"),
        TrialState.RUNNING: ("running", ORANGE, 1.0, ":"),
    }
    roles = Roles.in_study(results)
    for trial in results.trials:
        if trial.state not in kinds or not trial.means:
            continue
        checkpoints, means = list(trial.means), list(trial.means.values())
        label, color, alpha, line = kinds[trial.state]
        names = roles.names(trial.number)
        width, order = 1.0, 2.0
        if WINNER in names or BEST in names:
            color, alpha, width, order = GREEN, 1.0, 2.2, 4.0
        if BASELINE in names:
            color, alpha, line, width, order = DARK, 1.0, "--", 1.8, 3.0
        axes.plot(
            checkpoints,
            means,
            line,
            color=color,
            alpha=alpha,
            linewidth=width,
            zorder=order,
            label="_" if names or trial.is_pruned else label,
            marker="o" if len(means) == 1 and not trial.is_pruned else None,
            markersize=3,
        )
        if trial.is_pruned:
            MARKS[PRUNED].draw(axes, checkpoints[-1], means[-1], PRUNED)
        elif names:
            roles.draw(axes, trial.number, checkpoints[-1], means[-1])
    draw_reference(axes, results.settings.reference_score)
    label_steps(axes)
    axes.set_xlim(0, results.settings.total_steps * 1.02)
    show_span(axes)


def draw_importances(
    axes: Axes, importances: dict[str, Importance], title: str = "Importance"
) -> None:
    """Draw both importances of every parameter with their 95% intervals."""
    axes.set_title(title)
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
    axes.set_yticks(rows, list(map(parameter, importances)))
    axes.set(xlabel="share, with 95% interval over trials", xlim=(0, None))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", fontsize=9)  # Of its own colours, which no other axes have.


def draw_slice(axes: Axes, results: StudyResults, name: str) -> None:
    """Draw the score of every trial against one parameter.

    Where the trials say enough of it, the expected score, averaged over the other parameters, is a
    line and the good range a band.

    Args:
      axes: to draw on.
      results: of the study.
      name: of the parameter.
    """
    axes.set_title(parameter(name))
    trials, analysis = results.finished, results.analysis
    axis = find_axis(trials, name)
    if axis is None:
        _write(axes, f"{parameter(name)} is not tuned in this study")
        return
    good = analysis.clear_ranges.get(name)
    if good is not None:
        assert analysis.surrogate is not None, "good ranges come from a surrogate"
        units = axis.grid()
        near = _near(units[:, None], np.array([[axis.to_unit(t.params[name])] for t in trials]))
        expected = np.where(near, analysis.surrogate.marginal(name), np.nan)
        points = [_coordinate(axis, point) for point in units]
        style = "o-" if axis.is_list else "-"
        axes.plot(points, expected, style, color=ORANGE, linewidth=1.8, label="expected score")
        for low, high in _bands(axis, good):
            axes.axvspan(low, high, color=GREEN, alpha=0.12, linewidth=0, label="good range")
    axes.set(ylabel="score")
    draw_reference(axes, results.settings.reference_score)
    shown = [trial for trial in trials if name in trial.params]
    _scatter(
        axes, results, shown, lambda trial: _coordinate(axis, axis.to_unit(trial.params[name]))
    )
    _scale(axes, axis, "x")


def draw_contour(axes: Axes, results: StudyResults, pair: tuple[str, str]) -> None:
    """Draw the expected score over two parameters, where trials are near, and the complete trials.

    Args:
      axes: to draw on.
      results: of a study whose analysis has a surrogate.
      pair: names of the parameters.
    """
    surrogate, trials = results.analysis.surrogate, results.finished
    assert surrogate is not None, "interactions come from a surrogate"
    first, second = (next(a for a in surrogate.axes if a.name == name) for name in pair)
    columns = [surrogate.axes.index(axis) for axis in (first, second)]
    units = np.stack(np.meshgrid(first.grid(41), second.grid(41), indexing="ij"), axis=-1)
    near = _near(units, surrogate.unit_points[:, columns])
    surface = np.where(near, surrogate.marginal(*pair, points=41), np.nan)
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
    roles = Roles.in_study(results)
    for trial, *point in zip(shown, x, y, strict=True):
        if roles.names(trial.number):
            roles.draw(axes, trial.number, *point)
    for axis, which, set_limits in ((first, "x", axes.set_xlim), (second, "y", axes.set_ylim)):
        _scale(axes, axis, which)
        ends = np.array([_coordinate(axis, point) for point in (axis.grid(41)[[0, -1]])])
        set_limits(*(ends + ([-0.5, 0.5] if axis.is_list else [0, 0])))
    axes.set(xlabel=parameter(first.name), ylabel=parameter(second.name))
    axes.grid(visible=False)
    assert axes.figure is not None
    axes.figure.colorbar(filled, ax=axes, label="expected score")


def _near(points: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Return which of `points`, float ``[..., axes]``, have one of `trials` nearby."""
    distances = np.linalg.norm(points[..., None, :] - trials, axis=-1)
    near: np.ndarray = distances.min(axis=-1) <= _NEAR
    return near


def _validated(validation: Validation) -> dict[str, Candidate]:
    """Return name -> configuration, only the baseline if it is the winner as well."""
    if validation.verdict.is_baseline:
        return {BASELINE: validation.baseline}
    return {WINNER: validation.winner, BASELINE: validation.baseline}


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
        draw_legend(figure)


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


def _scatter(
    axes: Axes,
    results: StudyResults,
    trials: Iterable[TrialRecord],
    x: Callable[[TrialRecord], float],
) -> None:
    """Draw complete trials at their scores, and pruned ones, which have none, in a strip below.

    To be called once all else is drawn, since the strip lies below it.
    """
    roles, trials = Roles.in_study(results), list(trials)
    complete = [trial for trial in trials if trial.is_complete]
    others = [trial for trial in complete if trial.number not in roles.of]
    if others:
        xs, scores = zip(*((x(trial), _score(trial)) for trial in others), strict=True)
        MARKS[COMPLETE].draw(axes, xs, scores, COMPLETE)
    for trial in complete:
        if trial.number in roles.of:
            roles.draw(axes, trial.number, x(trial), _score(trial))
    pruned = [x(trial) for trial in trials if trial.is_pruned]
    show_span(axes)
    if pruned:
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        axes.set_ylim(low - 0.14 * (high - low), high)
        axes.set_yticks(ticks)
        strip = Rectangle((0, 0), 1, 0.09, transform=axes.transAxes)
        strip.set(color=GREY, alpha=0.18, linewidth=0)
        axes.add_patch(strip)
        below = axes.get_xaxis_transform()
        heights = [0.045] * len(pruned)
        MARKS[PRUNED].draw(axes, pruned, heights, PRUNED, transform=below)


def _score(trial: TrialRecord) -> float:
    assert trial.score is not None, "a complete trial has a score"
    return trial.score


def _write(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK, transform=axes.transAxes)
    axes.set_axis_off()
