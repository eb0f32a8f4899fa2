"""Real studies of several strategies, in pairs: every trial is trained.

Studies of the same seed train on the same seeds, spend the same environment steps and run one
after another in one process, with programs that are compiled before. What they name the winner is
judged on the same fresh seeds.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import measuring
from benchmarks.equal_steps import CLASSIC, RERUN_SEEDS, candidates, run_trials
from benchmarks.measuring import Report, Table, with_interval
from ppo_jax.files import make_folder, read_json
from ppo_jax.seeds import seed_keys
from tune.evidence.learning_curve import mean_of_finite
from tune.evidence.statistics import summarize
from tune.protocol.purposes import VALIDATION
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.trials import StudyRecord
from tune.search.pool import ProgramPool

if TYPE_CHECKING:
    from rich.console import Console

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "gp": {},
    "tpe": {"sampler": "tpe"},
    "tpe, best rerun": CLASSIC,
}
"""Name -> settings of its studies, and the rule that names the winner; the first is the default."""

JUDGING_SEEDS = 10
_RERUNS = VALIDATION + 1
"""Purpose of the seeds of reruns: neither those of trials nor those that judge."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a study ends with.

    Attributes:
      trials: that are finished.
      seconds: wall clock, reruns included, judging not.
      score: mean return of the winner over the checkpoints of a trial, on fresh seeds.
      final: its return at the last of them.
      in_time: score of the winner among the trials that had ended when the time of the study that
        it is compared with was over; one a study.
    """

    trials: int
    seconds: float
    score: float
    final: float
    in_time: Sequence[float] = ()


class Training:
    """Trains configurations for the steps of a trial, each once.

    Args:
      settings: of the study.
      pool: of programs for so many seeds.
      purpose: of the seeds.
    """

    def __init__(self, settings: Settings, pool: ProgramPool, purpose: int) -> None:
        self._settings, self._pool = settings, pool
        self._keys = seed_keys(settings.seed, purpose, pool.seeds)
        self._known: dict[Configuration, list[float]] = {}

    def curve(self, configuration: Configuration) -> list[float]:
        """Return the mean return over seeds at each checkpoint of a trial."""
        if configuration not in self._known:
            checkpoints = self._settings.checkpoints()
            programs = self._pool.programs(configuration.agent)
            run = programs.run(self._keys, configuration.hyperparameters, checkpoints)
            self._known[configuration] = [mean_of_finite(found.returns) for found in run]
        return self._known[configuration]


@dataclasses.dataclass(frozen=True)
class Studies:
    """Studies of one task.

    Attributes:
      settings: of the default study.
      pool: the programs of its trials.
      long_pool: programs for as many seeds as judge.
      budget: environment steps of a study, everything included.
    """

    settings: Settings
    pool: ProgramPool
    long_pool: ProgramPool
    budget: int

    def of_seed(self, seed: int) -> dict[str, Outcome]:
        """Run the studies of a seed; which begins changes from seed to seed."""
        names = list(STRATEGIES)
        turn = seed % len(names)
        settings = dataclasses.replace(self.settings, seed=seed)
        judge = Training(settings, self.long_pool, VALIDATION)
        studies, seconds, winners = {}, {}, {}
        for name in names[turn:] + names[:turn]:
            own = {key: value for key, value in STRATEGIES[name].items() if key != "winner"}
            winner = STRATEGIES[name].get("winner", "model")
            start = time.perf_counter()
            study = run_trials(dataclasses.replace(settings, **own), self.pool, self.budget, winner)
            winners[name] = self._best(settings, study, winner)
            studies[name], seconds[name] = study, time.perf_counter() - start
        first, *others = names
        in_time = []
        for other in others:
            cut = ended_within(studies[first], seconds[other])
            in_time.append(float(np.mean(judge.curve(self._best(settings, cut, "model")))))
        found = {}
        for name in names:
            curve = judge.curve(winners[name])
            found[name] = Outcome(
                len(studies[name].finished), seconds[name], float(np.mean(curve)), curve[-1]
            )
        found[first] = dataclasses.replace(found[first], in_time=tuple(in_time))
        return found

    def _best(self, settings: Settings, study: StudyRecord, winner: str) -> Configuration:
        """Return what a rule names the winner."""
        found = []
        for trial in candidates(study, winner):
            configuration = trial.configuration(study.settings)
            assert configuration is not None
            found.append(configuration)
        if len(found) == 1:
            return found[0]
        rerun = Training(settings, self.long_pool, _RERUNS)
        return max(found, key=lambda configuration: settings.score(rerun.curve(configuration)))


def ended_within(study: StudyRecord, seconds: float) -> StudyRecord:
    """Return a study as it was after so many seconds; at least its first trial."""
    begun = study.trials[0].started
    assert begun is not None

    def within(number: int) -> bool:
        ended = study.trials[number].finished
        return ended is not None and (ended - begun).total_seconds() <= seconds

    kept = [trial for trial in study.trials if trial.number == 0 or within(trial.number)]
    return dataclasses.replace(study, trials=kept)


def compare(
    settings: Settings, trials: int, studies: int, folder: Path, console: "Console"
) -> Report:
    """Run real studies of every strategy and print what their winners reach.

    Args:
      settings: of the default study.
      trials: of a default study that prunes none; all spend its environment steps.
      studies: of each strategy.
      folder: for ``real.json``, which is written after each seed; those in it are not run again.
      console: prints a line a seed, and the table.
    """
    measured_with = measuring.setting(env=settings.env, studies=studies, trials=trials)
    measuring.print_setting(measured_with, console)
    make_folder(folder)
    path = folder / "real.json"
    found = known_studies(path, measured_with)[:studies]
    pool = ProgramPool(settings)
    long_pool = ProgramPool(dataclasses.replace(settings, seeds=max(JUDGING_SEEDS, RERUN_SEEDS)))
    budget = trials * settings.seeds * settings.total_steps
    real = Studies(settings, pool, long_pool, budget)

    def results() -> dict[str, Any]:
        rows = [{name: dataclasses.asdict(one[name]) for name in one} for one in found]
        return {**measured_with, "judging_seeds": long_pool.seeds, "studies": rows}

    if len(found) < studies:
        for programs in (pool, long_pool):  # Compiled before anything is timed.
            Training(settings, programs, _RERUNS).curve(settings.baseline)
    for seed in range(studies):
        if seed == len(found):
            found.append(real.of_seed(seed))
            measuring.write_results(path, results())
        texts = [
            f"{name} {one.score:.1f} ({one.seconds:.0f} s)" for name, one in found[seed].items()
        ]
        console.print(f"seed {seed}: {', '.join(texts)}", markup=False, soft_wrap=True)
    table = outcome_table(settings.env, found)
    table.print(console)
    return Report(
        "real",
        f"`python -m benchmarks.samplers --real`, {measuring.machine(measured_with)}; {studies} "
        f"studies a strategy, each with the environment steps of {trials} trials of "
        f"{settings.seeds} seeds × {settings.total_steps:,} steps, everything included.",
        "What the winners of real studies reach",
        [table.markdown()],
        results(),
        lambda path: plot(settings.env, found, path),
    )


def known_studies(path: Path, measured_with: Mapping[str, Any]) -> list[dict[str, Outcome]]:
    """Return the outcomes that an earlier call has written of the same studies, by seed."""
    if not path.exists():
        return []
    stored = read_json(path)
    for key, asked in measured_with.items():
        if {**stored.get(key, {}), "studies": None} != {**asked, "studies": None}:
            return []  # Another machine, other versions or sizes.
    return [
        {name: Outcome(**one[name]) for name in STRATEGIES} for one in stored.get("studies", [])
    ]


def outcome_table(env: str, found: Sequence[Mapping[str, Outcome]]) -> Table:
    """Return a row a strategy; differences are of pairs of the same seed."""
    first, *others = found[0]
    gain = f"gain of {first}"
    table = Table(
        f"{env}: mean score of the winner on {JUDGING_SEEDS} fresh seeds (95% interval)",
        ("", "trials", "seconds", "fresh seeds", "worst", "at the end", gain, "in its time"),
    )
    for name in found[0]:
        scores = values(found, name, "score")
        gains = ["", ""]
        if name != first:
            in_time = [one[first].in_time[others.index(name)] for one in found]
            gains = [
                _mean(ours - scores, "+.1f")
                for ours in (values(found, first, "score"), np.array(in_time))
            ]
        table.add(
            name,
            f"{np.median(values(found, name, 'trials')):.0f}",
            f"{np.median(values(found, name, 'seconds')):.0f}",
            _mean(scores, ".1f"),
            f"{scores.min():.1f}",
            f"{values(found, name, 'final').mean():.1f}",
            *gains,
        )
    return table


def values(found: Sequence[Mapping[str, Outcome]], name: str, attribute: str) -> np.ndarray:
    """Return an attribute of the outcomes of a strategy, float ``[studies]``."""
    return np.array([getattr(one[name], attribute) for one in found], float)


def _mean(numbers: np.ndarray, form: str) -> str:
    summary = summarize(numbers)
    assert summary is not None
    return with_interval(summary.mean, form)


def plot(env: str, found: Sequence[Mapping[str, Outcome]], path: Path) -> None:
    """Draw the score of every study's winner, those of the same seed joined."""
    from ppo_jax.plots import BLUE, GREY, picture

    names = list(found[0])
    with picture(path, 7, 4) as figure:
        axes = figure.subplots()
        for one in found:
            axes.plot([one[name].score for name in names], "-", color=GREY, linewidth=0.8)
        for place, name in enumerate(names):
            scores = values(found, name, "score")
            color = BLUE if place == 0 else GREY
            axes.plot([place] * len(scores), scores, "o", color=color, zorder=3)
            axes.hlines(scores.mean(), place - 0.15, place + 0.15, color=color, linewidth=2.5)
        axes.set_xticks(range(len(names)), names)
        axes.set(title=f"{env}: winners of real studies", ylabel="score on fresh seeds")
