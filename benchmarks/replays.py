"""Studies over the rows of a recorded table: every return has once been measured.

A sampler may only propose configurations that were recorded and that the study has not tried. Each
study tunes on one half of the recorded seeds, drawn anew, and its winner is judged on the other.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from benchmarks import measuring
from benchmarks.equal_steps import CLASSIC, RERUN_SEEDS, candidates, run_trials
from benchmarks.measuring import Report, Table, with_interval
from benchmarks.records import Records, studied
from ppo_jax.config import AgentConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint
from tune.evidence.statistics import summarize
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.trials import TrialRecord
from tune.search.model import axes_of, unit_point
from tune.search.pool import ProgramPool
from tune.search.samplers import make_sampler
from tune.search.samplers.gp import GPSampler
from tune.search.samplers.seeded import seeded_by_draw

if TYPE_CHECKING:
    from rich.console import Console


class Rows:
    """The rows of a table as a study sees them.

    Args:
      records: the table.

    Attributes:
      settings: the protocol of the trials, with four seeds.
      params: what Optuna suggests for each row.
      points: of the rows in the unit cube, float ``[rows, axes]``.
      returns: at the checkpoints of a trial, float ``[rows, checkpoints, seeds]``.
      scores: of each row over all seeds, float ``[rows]``.
    """

    def __init__(self, records: Records) -> None:
        settings = studied(records)
        space, axes = settings.space, axes_of(settings)
        rows, params, points = [], [], []
        for row, configuration in enumerate(records.configurations()):
            suggested = space.encode(configuration)
            if suggested is None:
                continue  # Its sizes were repaired to some that are no choices.
            # Suggested, and read back from what was trained: equal but for rounding errors.
            place = unit_point(axes, space.encode(space.decode(suggested)) or {})
            assert place is not None, "it is in the space"
            rows.append(row)
            params.append(suggested)
            points.append(place)
        self.settings = settings
        self.params: Sequence[Mapping[str, Any]] = params
        self.points = np.array(points)
        every = range(records.returns.shape[2])
        self.returns = records.returns_at(settings.checkpoints(), every)[rows]
        self.scores = self.scores_on(every)
        self._rows = {space.decode(known): row for row, known in enumerate(params)}

    def scores_on(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the score of each row on some of the seeds, float ``[rows]``."""
        means = self.returns[..., list(seeds)].mean(axis=2)
        return np.array([self.settings.score(list(mean)) for mean in means])

    def row_of(self, configuration: Configuration) -> int:
        """Return the row of a configuration."""
        return self._rows[configuration]

    def first(self, count: int) -> "Rows":
        """Return the table as if it had its first rows only."""
        cut = copy.copy(self)
        cut.params, cut.points = self.params[:count], self.points[:count]
        cut.returns, cut.scores = self.returns[:count], self.scores[:count]
        return cut

    def regret(self, score: float) -> float:
        """Return the share of the gap between the median and the best row that `score` lacks."""
        return share_lacking(self.scores, score)


def share_lacking(scores: np.ndarray, score: float) -> float:
    """Return the share of the gap between the median and the best of `scores` that one lacks."""
    best, median = float(scores.max()), float(np.median(scores))
    return (best - score) / (best - median)


class RowPrograms(ProgramPool):
    """Takes the place of a study's programs: returns some seeds of the recorded rows.

    Args:
      rows: the table.
      seeds: of the table, in the order of the study's.
    """

    def __init__(self, rows: Rows, seeds: Sequence[int]) -> None:
        super().__init__(rows.settings)
        self._rows, self._chosen = rows, list(seeds)

    def programs(self, agent: AgentConfig) -> Any:
        """Return what runs `agent`."""
        return _Runner(self._rows, self._chosen, agent)


@dataclasses.dataclass(frozen=True)
class _Runner:
    rows: Rows
    seeds: Sequence[int]
    agent: AgentConfig

    def run(
        self, _keys: Any, hyperparameters: Hyperparameters, checkpoints: Sequence[int]
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints as :meth:`ppo_jax.programs.Programs.run` does."""
        row = self.rows.row_of(Configuration(hyperparameters, self.agent))
        nothing: Any = None
        curve = self.rows.returns[row][: len(checkpoints)]  # Trials may be shorter.
        for step, returns in zip(checkpoints, curve, strict=True):
            taken = math.ceil(step / hyperparameters.n_steps) * hyperparameters.n_steps
            yield Checkpoint(step, taken, returns[self.seeds], nothing, nothing, 0.0, 0.0)


class RowSampler(BaseSampler):
    """A sampler of the tuner, whose suggestions become the nearest row that is left.

    The two that choose among candidates by a model, the project's and TPE, choose among the rows.

    Args:
      settings: of the study.
      rows: of the table.
    """

    def __init__(self, settings: Settings, rows: Rows) -> None:
        self._settings, self._rows, self._axes = settings, rows, axes_of(settings)
        self._left: list[int] = []
        self._taken: dict[int, int] = {}
        self._inner = {
            "gp": lambda settings: _AmongRows(settings, rows),
            "tpe": seeded_by_draw(lambda settings, seed: _TPEAmongRows(settings, seed, self)),
        }.get(settings.sampler, make_sampler)(settings)

    def has_points_left(self, study: optuna.Study) -> bool:
        """Return whether there is a row that no trial has."""
        return bool(self._rows_left(study))

    def _rows_left(self, study: optuna.Study) -> list[int]:
        for trial in study.get_trials(deepcopy=False):
            if trial.params and trial.number not in self._taken:
                configuration = self._settings.space.decode(trial.params)
                self._taken[trial.number] = self._rows.row_of(configuration)
        taken = set(self._taken.values())
        return [row for row in range(len(self._rows.points)) if row not in taken]

    def infer_relative_search_space(
        self, _study: optuna.Study, _trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return dict(self._settings.space.distributions())

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._left = self._rows_left(study)
        place = unit_point(self._axes, self._suggestion(study, trial, search_space))
        distance = ((self._rows.points[self._left] - place) ** 2).sum(axis=1)
        return dict(self._rows.params[self._left[int(distance.argmin())]])

    def _suggestion(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        inner = self._inner
        space = inner.infer_relative_search_space(study, trial)
        found = inner.sample_relative(study, trial, space)
        return {
            name: found[name]
            if name in found
            else inner.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`; nothing is left for it."""
        raise NotImplementedError

    def internal_params(self) -> dict[str, np.ndarray]:
        """Return the rows that are left as Optuna's samplers see them, ``[rows]`` each."""
        distributions = self._settings.space.distributions()
        return {
            name: np.array([d.to_internal_repr(self._rows.params[row][name]) for row in self._left])
            for name, d in distributions.items()
        }


class _AmongRows(GPSampler):
    """The project's sampler; what it takes for candidates are the rows."""

    def __init__(self, settings: Settings, rows: Rows) -> None:
        super().__init__(settings)
        self._rows = rows.points

    def _repaired(self, points: np.ndarray) -> np.ndarray:
        return points if len(points) == 1 else self._rows


class _TPEAmongRows(optuna.samplers.TPESampler):
    """Optuna's TPE; what it takes for candidates are the rows that are left."""

    def __init__(self, settings: Settings, seed: int, rows: RowSampler) -> None:
        super().__init__(n_startup_trials=settings.sampler_startup_trials, seed=seed)
        self._left = rows

    def _compute_acquisition_func(
        self, samples: dict[str, np.ndarray], mpe_below: Any, mpe_above: Any
    ) -> np.ndarray:
        # Optuna takes the sample with the highest value: the first becomes the best row.
        rows = self._left.internal_params()
        left = {name: rows[name] for name in samples}
        best = int(super()._compute_acquisition_func(left, mpe_below, mpe_above).argmax())
        for name, values in samples.items():
            values[0] = left[name][best]
        return -np.arange(len(values))


def split(rows: Rows, seed: int) -> tuple[list[int], list[int], np.random.Generator]:
    """Return the seeds of a table that a study tunes on, those that judge it, and its generator."""
    rng = np.random.default_rng(seed)
    seeds = rng.permutation(rows.returns.shape[2]).tolist()
    return seeds[: rows.settings.seeds], seeds[rows.settings.seeds :], rng


def regret_of_trying_all(rows: Rows, seed: int) -> float:
    """Return the regret of the row with the best score of all, on the seeds of a study.

    A bound that no study can be expected to beat: what is left is the noise of the seeds.
    """
    tuning, judging, _ = split(rows, seed)
    best = rows.scores_on(tuning).argmax()
    return rows.regret(float(rows.scores_on(judging)[best]))


def replay(
    rows: Rows, settings: Settings, budget: int, winner: str, lanes: int = 1
) -> tuple[float, int]:
    """Run a study over the rows of a table.

    Args:
      rows: of the table.
      settings: of the study, of the protocol of the table; their seed also draws which of the
        recorded seeds are for tuning.
      budget: environment steps of everything together.
      winner: a rule in :data:`benchmarks.equal_steps.WINNERS`. Where it trains candidates on fresh
        seeds, these are drawn from the held-out ones but one, which judges, each in its turn.
      lanes: trials side by side.

    Returns:
      The regret of the winner on the held-out seeds, and the number of finished trials.
    """
    tuning, judging, rng = split(rows, settings.seed)
    programs = RowPrograms(rows, tuning)
    study = run_trials(settings, programs, budget, winner, RowSampler(settings, rows), lanes)

    def score(trial: TrialRecord, seeds: Sequence[int]) -> float:
        configuration = trial.configuration(settings)
        assert configuration is not None
        return float(rows.scores_on(seeds)[rows.row_of(configuration)])

    found = candidates(study, winner)
    scores = []
    for judge in judging:
        others = [seed for seed in judging if seed != judge]
        fresh = rng.choice(others, RERUN_SEEDS).tolist()
        best = max(found, key=lambda t: score(t, fresh)) if len(found) > 1 else found[0]
        scores.append(score(best, [judge]))
    return rows.regret(float(np.mean(scores))), len(study.finished)


STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "gp": {},
    "tpe, best rerun": CLASSIC,
}
"""Name -> settings of its studies, and the rule that names the winner; the first is the default."""


def compare(tables: Mapping[str, Records], trials: int, studies: int, console: "Console") -> Report:
    """Run studies of every strategy over every table, and print what they lose.

    Args:
      tables: name -> recorded trials.
      trials: of a default study that prunes none; all spend its environment steps.
      studies: a strategy and table.
      console: prints the table.
    """
    measured_with = measuring.setting(studies=studies, trials=trials)
    measuring.print_setting(measured_with, console)
    regrets = np.zeros((len(tables), len(STRATEGIES), studies))
    finished = np.zeros_like(regrets)
    bounds = np.zeros((len(tables), studies))
    sizes = []
    with console.status("") as status:
        for row, (name, records) in enumerate(tables.items()):
            rows = Rows(records)
            sizes.append(len(rows.scores))
            bounds[row] = [regret_of_trying_all(rows, seed) for seed in range(studies)]
            budget = trials * rows.settings.seeds * rows.settings.total_steps
            for column, (strategy, changes) in enumerate(STRATEGIES.items()):
                status.update(f"{name}: {strategy}")
                winner = changes.get("winner", "model")
                own = {key: value for key, value in changes.items() if key != "winner"}
                for seed in range(studies):
                    settings = dataclasses.replace(rows.settings, seed=seed, **own)
                    found = replay(rows, settings, budget, winner)
                    regrets[row, column, seed], finished[row, column, seed] = found
    table = regret_table(dict(zip(tables, sizes, strict=True)), regrets, finished, bounds)
    table.print(console)
    return Report(
        "replays",
        f"`python -m benchmarks.samplers --replays`, {measuring.machine(measured_with)}; "
        f"{studies} studies a strategy and table, each with the environment steps of {trials} "
        "trials, everything included.",
        "What studies lose",
        [table.markdown()],
        {
            **measured_with,
            "outcomes": {
                "file": "replays.npz",
                "axes": [list(tables), list(STRATEGIES), "study"],
            },
            "protocols": {
                name: {
                    "configurations": size,
                    "seeds": records.returns.shape[2],
                    **records.settings.to_dict(),
                }
                for size, (name, records) in zip(sizes, tables.items(), strict=True)
            },
        },
        lambda path: plot(list(tables), list(STRATEGIES), regrets, path),
        {"regrets": regrets, "trials": finished, "all_rows": bounds},
    )


def compare_lanes(
    tables: Mapping[str, Records],
    trials: int,
    studies: int,
    lanes: Sequence[int],
    console: "Console",
) -> dict[str, Any]:
    """Run default studies one after another and side by side, and print what lanes lose.

    Args:
      tables: name -> recorded trials.
      trials: of a study that prunes none; all spend its environment steps.
      studies: a number of lanes and table, with the same seeds.
      lanes: numbers of trials side by side.
      console: prints the table.

    Returns:
      What is to be written.
    """
    measured_with = measuring.setting(studies=studies, trials=trials)
    measuring.print_setting(measured_with, console)
    table = Table(
        "Share of the gap between median and best row that the winner lacks (95% interval)",
        ("", "lanes", "trials", "regret", "− one after another"),
    )
    regrets: dict[str, dict[int, list[float]]] = {}
    for name, records in tables.items():
        rows, regrets[name] = Rows(records), {}
        budget = trials * rows.settings.seeds * rows.settings.total_steps
        for count in (1, *lanes):
            runs = [
                replay(rows, dataclasses.replace(rows.settings, seed=seed), budget, "model", count)
                for seed in range(studies)
            ]
            found, finished = np.array(runs).T
            regrets[name][count] = found.tolist()
            lost = summarize(found - np.array(regrets[name][1]))
            assert lost is not None
            text = with_interval(lost.mean, "+.3f") if count > 1 else ""
            table.add(name, count, f"{np.median(finished):.0f}", f"{found.mean():.3f}", text)
    table.print(console)
    return {**measured_with, "regrets": regrets}


def regret_table(
    sizes: Mapping[str, int], regrets: np.ndarray, finished: np.ndarray, bounds: np.ndarray
) -> Table:
    """Return a row a table of recorded trials, and one of their means.

    Args:
      sizes: name -> number of rows.
      regrets: float ``[tables, strategies, studies]``.
      finished: trials of the studies, likewise.
      bounds: of :func:`regret_of_trying_all`, float ``[tables, studies]``.
    """
    first, *others = STRATEGIES
    table = Table(
        "Share of the gap between median and best row that the winner lacks (95% interval)",
        (
            "",
            "rows",
            "trials",
            first,
            *[c for o in others for c in (o, f"{first} − {o}")],
            "all rows",
        ),
    )

    parts = zip(sizes.items(), regrets, finished, bounds, strict=True)
    for (name, size), found, counts, bound in parts:
        trials = ", ".join(f"{np.median(c):.0f}" for c in counts)
        table.add(name, size, trials, *regret_cells(found), f"{bound.mean():.3f}")
    table.add("mean", "", "", *regret_cells(regrets.mean(axis=0)), f"{bounds.mean():.3f}")
    return table


def regret_cells(regrets: np.ndarray) -> list[str]:
    """Return the mean regret of the first strategy, and of each other one with the difference.

    Args:
      regrets: float ``[strategies, studies]``.
    """
    own, *rest = regrets
    texts = [f"{own.mean():.3f}"]
    for other in rest:
        difference = summarize(own - other)
        assert difference is not None
        texts += [f"{other.mean():.3f}", with_interval(difference.mean, "+.3f")]
    return texts


def plot(names: Sequence[str], strategies: Sequence[str], regrets: np.ndarray, path: Path) -> None:
    """Draw the mean regret of every strategy on every table, with its interval.

    Args:
      names: of the tables.
      strategies: names of at most four.
      regrets: float ``[tables, strategies, studies]``.
      path: of the picture.
    """
    from ppo_jax.plots import BLUE, GREEN, GREY, ORANGE, picture

    with picture(path, 9, 1.5 + 0.45 * len(names)) as figure:
        axes = figure.subplots()
        colors = BLUE, ORANGE, GREY, GREEN
        offsets = np.linspace(-0.2, 0.2, len(strategies))
        for column, (strategy, color) in enumerate(zip(strategies, colors, strict=False)):
            for row, found in enumerate(regrets[:, column]):
                summary = summarize(found)
                assert summary is not None
                place = row + offsets[column]
                label = strategy if row == 0 else None
                axes.plot(summary.mean.value, place, "o", color=color, label=label)
                if summary.mean.interval is not None:
                    axes.hlines(place, *summary.mean.interval, color=color, linewidth=2.5)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="share of the gap between median and best row, 95% intervals")
        axes.legend()
