"""``python -m benchmarks.atlas``: which hyperparameters matter, and what one configuration costs.

Everything comes from recorded trials (:mod:`benchmarks.records`); nothing is trained. The tables
over the standard space hold the same configurations, so that one can be chosen for all of their
tasks together (Patterson et al., 2024, arXiv:2407.18840); what that costs against one for each
task is the sensitivity of Adkins et al., 2024, arXiv:2412.07165.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from optuna.trial import TrialState

from benchmarks import measuring
from benchmarks.measuring import PUBLISHED, Report, Table, with_interval
from benchmarks.records import TASKS, Records, records_path
from benchmarks.replays import Rows
from ppo_jax import command_line
from ppo_jax.config import changed
from ppo_jax.errors import UserError
from ppo_jax.files import require_writable
from tune.analysis.analysis import MIN_SHARE, Analysis, analyse
from tune.analysis.importance import Importance
from tune.evidence.statistics import summarize
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord

TOGETHER, OWN = "best together", "best of its own"
CHOICES = "defaults", TOGETHER, OWN
"""Configurations that are compared on every task."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Analyse recorded trials: importances, what the defaults lose, the best of all tasks together.

    Prints tables and writes atlas.json and atlas.png.
    """

    records: Path = PUBLISHED
    """Folder of the recorded trials, with a file trials_ENV.npz per table."""
    resamples: int = 100
    """Bootstrap resamples of the trials, for the intervals of importances."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.atlas``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.atlas", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "resamples", low=2)
    paths = {task: records_path(arguments.records, task) for task in TASKS}
    tables = {task: Rows(Records.load(path)) for task, path in paths.items() if path.exists()}
    together = alike(tables)
    if len(together) < 2:
        raise UserError(f"--records {arguments.records} holds fewer than two tables to compare")
    require_writable(arguments.output)
    console = measuring.make_console()
    measured_with = measuring.setting(tables=len(tables), resamples=arguments.resamples)
    measuring.print_setting(measured_with, console)
    lost, chosen = compare(list(together.values()))
    analyses = {}
    with console.status("") as status:
        for task, rows in tables.items():
            status.update(task)
            analyses[task] = analyse(as_trials(rows), rows.settings, resamples=arguments.resamples)
    importances = {task: by_name(tables[task], found) for task, found in analyses.items()}
    shown = [loss_table(list(together), lost), importance_table(analyses, importances)]
    for table in shown:
        table.print(console)
    first = next(iter(together.values()))
    best = changed(first.settings.space.decode(first.params[chosen]).hyperparameters)
    flags = [f"--{name.replace('_', '-')} {value:.4g}" for name, value in best.items()]
    options = " ".join(flags) or "the defaults"
    console.print(f"\n{TOGETHER}: {options}", markup=False, soft_wrap=True)
    report = Report(
        "atlas",
        f"`python -m benchmarks.atlas`, Python {measured_with['versions']['python']}: "
        f"{len(tables)} tables of recorded trials, intervals of importances from "
        f"{arguments.resamples} bootstrap resamples of the trials.",
        "What matters on which task",
        [shown[0].markdown(), f"*{TOGETHER.capitalize()}* is `{options}`.", shown[1].markdown()],
        {
            **measured_with,
            "best_together": best,
            "lost": {
                "axes": [list(together), list(CHOICES), "held-out seed"],
                "values": lost.tolist(),
            },
            "importances": {
                task: {name: dataclasses.asdict(found) for name, found in one.items()}
                for task, one in importances.items()
            },
        },
        lambda path: plot(list(together), lost, importances, path),
    )
    written = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(written)


def alike(tables: Mapping[str, Rows]) -> dict[str, Rows]:
    """Return the tables of the standard space, all cut to the rows that each of them has."""
    space = Settings().space.distributions()
    found = {
        task: rows for task, rows in tables.items() if rows.settings.space.distributions() == space
    }
    shared = min((len(rows.points) for rows in found.values()), default=0)
    for task, rows in found.items():
        first = next(iter(found.values()))
        if not np.allclose(rows.points[:shared], first.points[:shared]):
            raise UserError(f"the table of {task} holds other configurations than the first one")
    return {task: rows.first(shared) for task, rows in found.items()}


def compare(tables: Sequence[Rows]) -> tuple[np.ndarray, int]:
    """Return what each of :data:`CHOICES` lacks on every table and seed.

    For each seed the configurations are chosen on all others, and judged on this one.

    Args:
      tables: with the same configurations and number of seeds.

    Returns:
      Regrets, float ``[tables, choices, seeds]``, shares of the gap between a table's median and
      best row; and the row that is best on all tables together, chosen on all seeds.
    """
    seeds = range(tables[0].returns.shape[2])

    def regrets(chosen: Sequence[int]) -> np.ndarray:
        """Return the regret of every row on some of the seeds, ``[tables, rows]``."""
        return np.array([[rows.regret(x) for x in rows.scores_on(chosen)] for rows in tables])

    lost = np.zeros((len(tables), len(CHOICES), len(seeds)))
    for held_out in seeds:
        seen = regrets([seed for seed in seeds if seed != held_out])
        together, own = seen.mean(axis=0).argmin(), seen.argmin(axis=1)
        judged = regrets([held_out])
        lost[:, 0, held_out] = judged[:, 0]
        lost[:, 1, held_out] = judged[:, together]
        lost[:, 2, held_out] = np.take_along_axis(judged, own[:, None], axis=1)[:, 0]
    return lost, int(regrets(list(seeds)).mean(axis=0).argmin())


def as_trials(rows: Rows) -> list[TrialRecord]:
    """Return the rows of a table as complete trials of a study."""
    settings = rows.settings
    steps, distributions = settings.checkpoints(), settings.space.distributions()
    trials = []
    for number, (params, returns, score) in enumerate(
        zip(rows.params, rows.returns, rows.scores, strict=True)
    ):
        configuration = settings.space.decode(params)
        trials.append(
            TrialRecord(
                number=number,
                state=TrialState.COMPLETE,
                is_baseline=number == 0,
                params=params,
                distributions=distributions,
                hyperparameters=configuration.hyperparameters,
                score=float(score),
                means=dict(zip(steps, returns.mean(axis=1).tolist(), strict=True)),
                returns=dict(zip(steps, returns, strict=True)),
                diverged_seeds=(),
                environment_steps=returns.shape[1] * settings.total_steps,
                training_seconds=None,
                evaluation_seconds=None,
                interrupted=0,
                started=None,
                finished=None,
                agent=configuration.agent,
            )
        )
    return trials


def loss_table(tasks: Sequence[str], lost: np.ndarray) -> Table:
    """Return a row a task, and one of their means: what :func:`compare` has found."""
    table = Table(
        "Share of the gap between median and best row that a configuration lacks (95% interval "
        "over held-out seeds)",
        ("", *CHOICES, f"{TOGETHER} − {OWN}"),
    )

    def cells(found: np.ndarray) -> list[str]:
        """Return the cells of regrets ``[choices, seeds]``."""
        return [_mean(one, "z.2f") for one in found] + [_mean(found[1] - found[2], "+z.2f")]

    for task, found in zip(tasks, lost, strict=True):
        table.add(task, *cells(found))
    table.add("mean", *cells(lost.mean(axis=0)))
    return table


def by_name(rows: Rows, found: Analysis) -> dict[str, Importance]:
    """Return hyperparameter -> importance; the analysis has what is suggested, as 1 − gamma."""
    names = {parameter.key(name): name for name, parameter in rows.settings.space.tuned}
    return {names[key]: importance for key, importance in found.importances.items()}


def importance_table(
    analyses: Mapping[str, Analysis], importances: Mapping[str, Mapping[str, Importance]]
) -> Table:
    """Return a row a task: the hyperparameters that explain something of the score."""
    table = Table(
        "Share of the score's variance that a hyperparameter explains alone (fANOVA, 95% interval "
        "over trials)",
        ("", "rows", "leave-one-out R²", "hyperparameters, where the interval begins above 1%"),
    )
    for task, found in analyses.items():
        surrogate = found.surrogate
        assert surrogate is not None, "the scores of a table differ"
        shown = [
            f"{name} {one.fanova:.2f} ({one.fanova_interval[0]:.2f} … {one.fanova_interval[1]:.2f})"
            for name, one in importances[task].items()
            if one.fanova_interval[0] >= MIN_SHARE
        ]
        rows = len(surrogate.unit_points)
        table.add(task, rows, f"{surrogate.loo_r2:.2f}", ", ".join(shown))
    return table


def _mean(numbers: np.ndarray, form: str) -> str:
    summary = summarize(numbers)
    assert summary is not None, "a table has no seeds that have diverged"
    return with_interval(summary.mean, form)


def plot(
    tasks: Sequence[str],
    lost: np.ndarray,
    importances: Mapping[str, Mapping[str, Importance]],
    path: Path,
) -> None:
    """Draw what each configuration lacks, and the importances of all tasks as a map."""
    from ppo_jax.plots import BLUE, GREY, ORANGE, picture

    names: list[str] = list(dict.fromkeys(name for one in importances.values() for name in one))
    shares = np.array(
        [
            [one[name].fanova if name in one else np.nan for name in names]
            for one in importances.values()
        ]
    )
    order = np.argsort(-np.nanmean(shares, axis=0))
    with picture(path, 13, 1.8 + 0.42 * len(importances)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        for place, (choice, color) in enumerate(zip(CHOICES, (GREY, ORANGE, BLUE), strict=True)):
            rows = np.arange(len(tasks)) + 0.2 * (place - 1)
            left.plot(lost[:, place].mean(axis=1), rows, "o", color=color, label=choice)
            for row, found in zip(rows, lost[:, place], strict=True):
                summary = summarize(found)
                if summary is not None and summary.mean.interval is not None:
                    left.hlines(row, *summary.mean.interval, color=color, linewidth=1.5)
        left.set_yticks(range(len(tasks)), tasks)
        left.invert_yaxis()
        left.grid(visible=False, axis="y")
        left.set(xlabel="lacks, as a share of the gap between median and best row")
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(CHOICES))
        image = right.imshow(shares[:, order], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.argwhere(np.isnan(shares[:, order])):
            right.text(column, row, "–", color=GREY, ha="center", va="center")
        right.set_xticks(range(len(names)), [names[i] for i in order], rotation=40, ha="right")
        right.set_yticks(range(len(importances)), list(importances))
        right.grid(visible=False)
        right.set_title("Share of the variance explained alone", fontsize=10)
        figure.colorbar(image, ax=right)


if __name__ == "__main__":
    main()
