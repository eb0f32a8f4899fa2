"""What an earlier study tells a new one: studies with its trials and without, on recorded trials.

A model of a table answers in place of training, and another one, of other seeds, judges. A study
that knew of none is the earlier one of the next study of its table, and of studies of the other
tables, which take turns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import measuring
from benchmarks.equal_steps import candidates, run_trials
from benchmarks.measuring import Report, Table
from benchmarks.records import Records, halves, studied
from benchmarks.replays import plot, regret_cells, share_lacking
from benchmarks.surrogate import Surrogate, regressors
from tune.protocol.trials import StudyRecord
from tune.search.warm_start import warm_start_from

if TYPE_CHECKING:
    from rich.console import Console

EARLIER = ("no earlier study", "the same task", "another task")
"""The earlier study that a new one knows."""

MOMENTS = (10, 20, None)
"""Numbers of trials after which a winner is chosen; None is after all."""


class TableStudies:
    """Studies of a table.

    Args:
      name: of the table.
      records: its trials.
      trials: of a study that prunes none; all spend its environment steps.
    """

    def __init__(self, name: str, records: Records, trials: int) -> None:
        self.name, self._trials, self._settings = name, trials, studied(records)
        tuning, judging = halves(records)
        self._model, self._judge = (
            Surrogate(records, self._settings, seeds, regressors(0)["Gaussian process"])
            for seeds in (tuning, judging)
        )
        self._scores = records.returns_at(self._settings.checkpoints(), judging).mean(axis=(1, 2))

    def run(self, seed: int, earlier: StudyRecord | None = None) -> StudyRecord:
        """Run a study that knows of an earlier one."""
        settings = dataclasses.replace(self._settings, seed=seed)
        if earlier is not None:
            warm = warm_start_from(earlier, Path(earlier.settings.env), settings)
            settings = dataclasses.replace(settings, warm_start=warm)
        self._model.reseed(seed)
        budget = self._trials * settings.seeds * settings.total_steps
        return run_trials(settings, self._model, budget, "model")

    def regret(self, study: StudyRecord, trials: int | None = None) -> float:
        """Return the share of the gap between median and best row that the winner lacks.

        Args:
          study: one of these.
          trials: how many of its first ones there are to choose from; all if not given.
        """
        study = dataclasses.replace(study, trials=study.trials[:trials])
        (winner,) = candidates(study, "model")
        assert winner.hyperparameters is not None
        return share_lacking(self._scores, self._judge.mean_curve(winner.hyperparameters).mean())


def measure(tables: Sequence[TableStudies], studies: int, console: "Console") -> np.ndarray:
    """Run studies of every table, alone and with earlier ones.

    Args:
      tables: at least two of them.
      studies: of each table and kind of earlier study.
      console: says how far it is.

    Returns:
      Regrets, float ``[tables, moments, kinds, studies]``.
    """
    regrets = np.empty((len(tables), len(MOMENTS), len(EARLIER), studies))
    with console.status("") as status:
        alone = []
        for table in tables:
            status.update(f"{table.name}: {EARLIER[0]}")
            alone.append([table.run(seed) for seed in range(studies)])
        for place, table in enumerate(tables):
            status.update(f"{table.name}: with an earlier study")
            others = [found for other, found in enumerate(alone) if other != place]
            for seed in range(studies):
                before = (seed + 1) % studies
                earlier = alone[place][before], others[seed % len(others)][before]
                found = alone[place][seed], *(table.run(seed, one) for one in earlier)
                regrets[place, ..., seed] = [
                    [table.regret(one, trials) for one in found] for trials in MOMENTS
                ]
    return regrets


def compare(tables: Mapping[str, Records], trials: int, studies: int, console: "Console") -> Report:
    """Run studies of every table, and print what their winners lack.

    Args:
      tables: name -> recorded trials.
      trials: of a study that prunes none; all spend its environment steps.
      studies: of each table and kind of earlier study.
      console: prints the table.
    """
    measured_with = measuring.setting(studies=studies, trials=trials)
    measuring.print_setting(measured_with, console)
    known = [TableStudies(name, records, trials) for name, records in tables.items()]
    regrets = measure(known, studies, console)
    table = regret_table(list(tables), regrets)
    table.print(console)
    return Report(
        "earlier",
        f"`python -m benchmarks.samplers --earlier --studies {studies}`, "
        f"{measuring.machine(measured_with)}; {studies} studies of {trials} trials in each row.",
        f"What winners lack after {MOMENTS[0]} trials",
        [table.markdown()],
        {
            **measured_with,
            "outcomes": {
                "file": "earlier.npz",
                "axes": [
                    list(tables),
                    [moment or "all" for moment in MOMENTS],
                    list(EARLIER),
                    "study",
                ],
            },
        },
        lambda path: plot(list(tables), EARLIER, regrets[:, 0], path),
        {"regrets": regrets},
    )


def regret_table(names: Sequence[str], regrets: np.ndarray) -> Table:
    """Return a row a table and moment, and the means of the tables at each moment.

    Args:
      names: of the tables.
      regrets: as :func:`measure` returns them.
    """
    first, *others = EARLIER
    headers = [text for kind in others for text in (kind, f"{first} − {kind}")]
    table = Table(
        "Share of the gap between median and best that the winner lacks (95% interval)",
        ("", "trials", first, *headers),
    )
    for name, found in zip([*names, "mean"], [*regrets, regrets.mean(axis=0)], strict=True):
        for moment, at in zip(MOMENTS, found, strict=True):
            table.add(name, str(moment or "all"), *regret_cells(at))
    return table
