"""Which trials of a study are worth training for longer: rules, compared on recorded trials.

Trials have a quarter of the recorded steps here, so what a configuration reaches in four times as
many is known. In some studies a model of a table answers, and the sampler goes where it likes; in
the others it chooses among the rows, and every return has once been measured.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import measuring
from benchmarks.equal_steps import run_trials
from benchmarks.measuring import Report, Table
from benchmarks.records import Records, halves, studied
from benchmarks.replays import (
    RowPrograms,
    Rows,
    RowSampler,
    plot,
    regret_cells,
    share_lacking,
    split,
)
from benchmarks.surrogate import Surrogate, regressors
from tune.evidence.finalists import choose_finalists
from tune.protocol.settings import Settings
from tune.protocol.trials import StudyRecord, TrialRecord
from tune.search.model import ranked_by_model

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from rich.console import Console

    from ppo_jax.schedules import RunsSeeds
    from tune.search.pool import ProgramPool

SHORTER = 4
"""Times the steps of a trial are those after which its configuration is judged."""

FINALISTS = 3


def _finalists(study: StudyRecord, count: int = FINALISTS) -> Sequence[TrialRecord]:
    chosen = [candidate.trial for candidate in choose_finalists(study, count)]
    return [trial for trial in chosen if trial is not None]


def _highest(study: StudyRecord) -> Sequence[TrialRecord]:
    order = ranked_by_model(study.trials, study.settings)
    best = [trial for trial in order if not trial.is_baseline][:FINALISTS]
    return [*best, *(trial for trial in order if trial.is_baseline)]


RULES: Mapping[str, Callable[[StudyRecord], Sequence[TrialRecord]]] = {
    "finalists": _finalists,
    "highest expected score": _highest,
    "five finalists": functools.partial(_finalists, count=5),
    "all trials": lambda study: study.ranked,
}
"""Rule -> the trials of a study that it has trained for longer, the default among them. The first
is the tuner's own; the last is a bound."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A study whose trials have ended, and what its trials reach in longer training.

    Attributes:
      study: the study.
      levels: trial -> its level on tuning seeds.
      regrets: trial -> the share of the gap between the median and the best recorded configuration
        that its level lacks on other seeds.
    """

    study: StudyRecord
    levels: Mapping[int, float]
    regrets: Mapping[int, float]

    def regret(self, rule: str) -> float:
        """Return the regret of the winner, which is the best of those that a rule chooses."""
        chosen = [trial.number for trial in RULES[rule](self.study)]
        return self.regrets[max(chosen, key=self.levels.__getitem__)]


def studies_on_a_model(records: Records, trials: int, studies: int) -> Iterator[Ended]:
    """Run studies of a table in which a model answers; another one judges."""
    settings = studied(records)
    tuning, judging = halves(records)
    model, judge = (
        Surrogate(records, settings, seeds, regressors(0)["Gaussian process"])
        for seeds in (tuning, judging)
    )
    ends = records.returns_at(settings.checkpoints()[-1:], judging).mean(axis=(1, 2))
    for seed in range(studies):
        model.reseed(seed)
        study = _run(_shorter(settings, seed), model, trials)
        known = {trial.number: h for trial in study.ranked if (h := trial.hyperparameters)}
        yield Ended(
            study,
            {n: float(model.draw(h, settings.seeds)[-1].mean()) for n, h in known.items()},
            {n: share_lacking(ends, judge.mean_curve(h)[-1]) for n, h in known.items()},
        )


def studies_over_rows(records: Records, trials: int, studies: int) -> Iterator[Ended]:
    """Run studies over the rows of a table."""
    rows = Rows(records)
    ends = rows.returns[:, -1]
    means = ends.mean(axis=1)
    for seed in range(studies):
        tuning, judging, _ = split(rows, seed)
        settings = _shorter(rows.settings, seed)
        study = _run(settings, RowPrograms(rows, tuning), trials, RowSampler(settings, rows))
        known = {
            trial.number: rows.row_of(configuration)
            for trial in study.ranked
            if (configuration := trial.configuration(settings))
        }
        yield Ended(
            study,
            {n: float(ends[row, tuning].mean()) for n, row in known.items()},
            {n: share_lacking(means, ends[row, judging].mean()) for n, row in known.items()},
        )


def _shorter(settings: Settings, seed: int) -> Settings:
    """Return the settings of a study whose trials have a fraction of the steps."""
    steps = settings.total_steps // SHORTER
    return dataclasses.replace(settings, total_steps=steps, eval_every=steps, seed=seed)


def _run(
    settings: Settings,
    programs: "RunsSeeds | ProgramPool",
    trials: int,
    sampler: "BaseSampler | None" = None,
) -> StudyRecord:
    budget = trials * settings.seeds * settings.total_steps
    return run_trials(settings, programs, budget, "model", sampler)


STUDIES = {"model": studies_on_a_model, "rows": studies_over_rows}
"""What answers in place of training -> how studies are run."""


def compare(tables: Mapping[str, Records], trials: int, studies: int, console: "Console") -> Report:
    """Run studies of every table, and print what the winners by each rule lack.

    Args:
      tables: name -> recorded trials.
      trials: of a study that prunes none; all spend its environment steps.
      studies: of each table, on a model and over its rows.
      console: prints the table.
    """
    measured_with = measuring.setting(studies=studies, trials=trials)
    measuring.print_setting(measured_with, console)
    regrets: dict[str, dict[str, np.ndarray]] = {name: {} for name in STUDIES}
    with console.status("") as status:
        for answers, run in STUDIES.items():
            for name, records in tables.items():
                if answers == "model" and records.settings.space.tuned_agent:
                    continue  # Models are of hyperparameters alone.
                status.update(f"{name}: {answers}")
                ended = list(run(records, trials, studies))
                found = [[study.regret(rule) for study in ended] for rule in RULES]
                regrets[answers][name] = np.array(found)
    table = regret_table(regrets)
    table.print(console)
    return Report(
        "finalists",
        f"`python -m benchmarks.samplers --finalists --studies {studies}`, "
        f"{measuring.machine(measured_with)}; {studies} studies of {trials} trials in each row.",
        "What winners lack by the rule for finalists",
        [table.markdown()],
        {
            **measured_with,
            "outcomes": {
                "file": "finalists.npz",
                "axes": {a: [list(found), list(RULES), "study"] for a, found in regrets.items()},
            },
        },
        lambda path: plot(
            [f"{name}, {answers}" for answers, found in regrets.items() for name in found],
            list(RULES),
            np.array([f for of_answers in regrets.values() for f in of_answers.values()]),
            path,
        ),
        {answers: np.array(list(found.values())) for answers, found in regrets.items()},
    )


def regret_table(regrets: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """Return a row a table and what answers, and the means of those with the same answers.

    Args:
      regrets: what answers -> table -> regrets, float ``[rules, studies]``.
    """
    first, *others = RULES
    headers = [name for rule in others for name in (rule, f"{first} − {rule}")]
    table = Table(
        "Share of the gap between median and best that the winner lacks (95% interval)",
        ("", "answers", first, *headers),
    )
    for answers, by_table in regrets.items():
        every = dict(by_table)
        if every:
            every["mean"] = np.mean(list(every.values()), axis=0)
        for name, found in every.items():
            table.add(name, answers, *regret_cells(found))
    return table
