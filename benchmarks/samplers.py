"""``python -m benchmarks.samplers``: which tuning strategy finds the best configuration.

Every study spends the same number of environment steps, and its winner is judged on seeds that
the study has not seen. Hundreds of studies take only minutes because recorded trials answer in
place of the compiled programs: a model of them (:mod:`benchmarks.surrogate`), or their rows as they
are (:mod:`benchmarks.replays`). Sampler, pruner, objective and the choice of a winner are those of
``tune.run`` without finalists: what is compared is how well the steps of the trials are spent.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import measuring
from benchmarks.equal_steps import CLASSIC, RERUN_SEEDS, candidates, run_trials
from benchmarks.measuring import PUBLISHED, Report, Table, mean_of, with_interval
from benchmarks.records import TASKS, Records, halves, record, records_path, studied
from ppo_jax import command_line
from ppo_jax.errors import UserError, require_choice
from ppo_jax.files import require_writable
from tune.protocol.settings import OBJECTIVES, Settings
from tune.search.samplers import SAMPLERS

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.surrogate import Surrogate
    from tune.evidence.statistics import Estimate
    from tune.protocol.trials import TrialRecord

CHANGES: tuple[dict[str, Any], ...] = (
    {"seeds": 2},
    {"seeds": 8},
    {"objective": "final"},
    {"objective": "tail"},
    {"sampler_startup_trials": 5},
    {"sampler_startup_trials": 20},
    {"pruner": "percentile", "pruner_percentile": 25.0},
    {"pruner": "hyperband"},
    {"pruner_startup_trials": 2},
    {"pruner_startup_trials": 8},
    {"pruner_warmup_checkpoints": 0},
    {"pruner_warmup_checkpoints": 2},
    {"winner": "score"},
    {"winner": "rerun"},
)
"""Changes to the defaults, compared one at a time."""


ON_SURROGATES = ("CartPole-v1", "Pendulum-v1")
"""The tables of which models answer in studies."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare samplers, pruners and settings of a study at equal environment steps.

    Prints tables and writes samplers.json, samplers.npz and samplers.png.
    """

    replays: bool = False
    """Compare the default study with TPE on the rows of recorded tables, and write
    replays.json, replays.npz and replays.png instead."""
    finalists: bool = False
    """Compare rules for the finalists in studies with shorter trials, and write finalists.json,
    finalists.npz and finalists.png instead."""
    earlier: bool = False
    """Compare studies that know of an earlier one (--from-study) with studies that know of none,
    and write earlier.json, earlier.npz and earlier.png instead."""
    real: bool = False
    """Train every trial: compare the default study with TPE in pairs of real studies of Pendulum-v1
    (--env), and write real.json and real.png instead."""
    lanes: tuple[int, ...] = ()
    """With --replays: compare the default study with itself, so many trials side by side, and write
    lanes.json instead."""
    env: tuple[str, ...] = ()
    """Tables of recorded trials, of those in benchmarks/records.py: for replays and finalists all
    that there are, for earlier studies those of one agent, else CartPole-v1, which is easy to tune,
    and Pendulum-v1, which is not."""
    trials: int = 30
    """Trials of a default study; every study spends the environment steps of that many that are
    not pruned."""
    studies: int = 40
    """Studies per strategy."""
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    """Samplers to compare."""
    changes: bool = True
    """Also compare changes to the other settings, one at a time."""
    record: int = 0
    """Record trials of quasi-random configurations first, up to this number."""
    record_seeds: int = 8
    """Seeds of each recorded configuration."""
    record_long: int = 32
    """Recorded configurations that are trained for 1,000,000 steps."""
    records: Path = PUBLISHED
    """Folder of the recorded trials, with a file trials_ENV.npz per table."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one study.

    Attributes:
      trials: number of finished trials.
      tuning_score: the winner's score in the study.
      score: the winner's mean return over the checkpoints of a trial, on fresh seeds.
      final: its return at the last of these checkpoints.
      seconds: wall clock.
    """

    trials: int
    tuning_score: float
    score: float
    final: float
    seconds: float


OUTCOME = tuple(field.name for field in dataclasses.fields(Outcome))
"""Last axis of the arrays in ``samplers.npz``."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all studies of an environment have in common.

    Attributes:
      env: the environment's name.
      records: its recorded trials.
      models: model -> how well it predicts configurations that it was not fitted to. The last
        row is a bound instead of a model.
      trials: of a default study; every study spends the environment steps of that one.
      studies: number per strategy.
    """

    env: str
    records: Records
    models: dict[str, dict[str, float]]
    trials: int
    studies: int

    @property
    def best_model(self) -> str:
        """The model that predicts best."""
        return max(list(self.models)[:-1], key=lambda name: self.models[name]["r2"])

    @property
    def budget(self) -> int:
        """Environment steps that a study may spend."""
        default = studied(self.records)
        return default.total_steps * self.trials * default.seeds


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A strategy of tuning, and the outcomes of its studies.

    Attributes:
      name: sampler and pruner, or what is changed from the defaults.
      outcomes: one per study; none when the strategy cannot run here.
      failure: why it cannot run.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    failure: str | None = None

    def values(self, name: str) -> np.ndarray:
        """Return an attribute of the outcomes, float ``[studies]``."""
        return np.array([getattr(outcome, name) for outcome in self.outcomes], float)

    def mean(self, name: str) -> "Estimate":
        """Return the mean of an attribute with its 95% interval."""
        return mean_of(self.values(name))


def run_study(
    settings: Settings, surrogate: "Surrogate", judge: "Surrogate", budget: int, winner: str
) -> Outcome:
    """Run a study as ``tune.run`` does, until its environment steps are spent.

    Args:
      settings: of the study.
      surrogate: answers in tuning.
      judge: answers for the winner's fresh seeds.
      budget: environment steps of everything together.
      winner: a rule in :data:`WINNERS`.
    """
    start = time.perf_counter()
    study = run_trials(settings, surrogate, budget, winner)
    found = candidates(study, winner)

    def rerun(trial: "TrialRecord") -> float:
        assert trial.hyperparameters is not None
        curve = surrogate.draw(trial.hyperparameters, RERUN_SEEDS).mean(axis=1)
        return settings.score(curve.tolist())

    best = max(found, key=rerun) if len(found) > 1 else found[0]
    assert best.hyperparameters is not None
    assert best.score is not None
    curve = judge.draw(best.hyperparameters, 400).mean(axis=1)
    return Outcome(
        len(study.finished),
        best.score,
        float(curve.mean()),
        float(curve[-1]),
        time.perf_counter() - start,
    )


def measure(setup: Setup, name: str, **changes: Any) -> Strategy:
    """Run all studies of one strategy; `changes` are its settings."""
    from benchmarks.surrogate import Surrogate, regressors
    from tune.search.samplers import require_sampler

    winner = changes.pop("winner", "model")
    settings = dataclasses.replace(studied(setup.records), **changes)
    try:
        require_sampler(settings.sampler)
    except UserError as error:
        return Strategy(name, (), str(error))
    surrogate, judge = (
        Surrogate(setup.records, settings, seeds, regressors(0)[setup.best_model])
        for seeds in halves(setup.records)
    )
    outcomes = []
    for seed in range(setup.studies):
        surrogate.reseed(seed)
        judge.reseed(seed)
        settings = dataclasses.replace(settings, seed=seed)
        outcomes.append(run_study(settings, surrogate, judge, setup.budget, winner))
    return Strategy(name, tuple(outcomes))


def objectives_and_long_training(
    records: Records, settings: Settings, draws: int = 2_000
) -> list[dict[str, Any]]:
    """Return how well each objective of short trials predicts the result of long training.

    This uses the recorded returns only, without a surrogate: scores of trials on the first half
    of the seeds against returns of long training on the second half.

    Args:
      records: of the environment.
      settings: of a study; its checkpoints are among the recorded ones.
      draws: random groups of 20 configurations, from which ``best_of_20`` is estimated: the
        long return of the configuration with the best score in a group.

    Returns:
      A row per objective; no rows when fewer than three configurations were trained for long.
    """
    from scipy import stats

    from ppo_jax.statistics import CONFIDENCE

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        """Return the rank correlation; 0 when one of the two does not vary."""
        return stats.spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0

    long = records.checkpoints == len(records.steps)
    if long.sum() < 3:
        return []
    tuning, judging = halves(records)
    short = records.returns_at(settings.checkpoints(), tuning)[long].mean(axis=2)
    curves = records.returns_at([int(step) for step in records.steps], judging)[long].mean(axis=2)
    targets = {"end": curves[:, -1], "training": curves.mean(axis=1)}
    rng = np.random.default_rng(0)
    groups = [rng.permutation(len(curves))[:20] for _ in range(draws)]
    rows = []
    for objective in OBJECTIVES:
        own = dataclasses.replace(settings, objective=objective)
        scores = np.array([own.score(list(curve)) for curve in short])
        row: dict[str, Any] = {"objective": objective, "configurations": len(scores)}
        for name, target in targets.items():
            interval = stats.bootstrap(
                (scores, target),
                correlation,
                paired=True,
                vectorized=False,
                n_resamples=999,
                confidence_level=CONFIDENCE,
                method="percentile",
                rng=np.random.default_rng(0),
            ).confidence_interval
            row[name] = {
                "rank_correlation": correlation(scores, target),
                "interval": [float(interval.low), float(interval.high)],
                "best_of_20": float(np.mean([target[g[scores[g].argmax()]] for g in groups])),
                "best_there_is": float(np.mean([target[g].max() for g in groups])),
            }
        rows.append(row)
    return rows


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.samplers``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.samplers", args)
    command_line.run(
        lambda: _run(arguments),
        "; what has ended is kept, the same command continues",
    )


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "trials", "record_seeds")
    measuring.require_counts(arguments, "studies", low=5)
    measuring.require_counts(arguments, "record", "record_long", low=0)
    if arguments.real:
        _on_real_studies(arguments)
        return
    asked = [name for name in ("replays", "finalists", "earlier") if getattr(arguments, name)]
    if len(asked) > 1:
        options = " and ".join(f"--{name}" for name in asked)
        raise UserError(f"{options} are different comparisons: give one of them")
    recorded = [task for task in TASKS if records_path(arguments.records, task).exists()]
    one_agent = [task for task in recorded if not TASKS[task].space.tuned_agent]
    chosen = {"replays": recorded, "finalists": recorded, "earlier": one_agent}
    comparison = asked[0] if asked else None
    tables = arguments.env or (chosen[comparison] if comparison else ON_SURROGATES)
    if not tables:
        raise UserError(
            f"no trials are recorded in {arguments.records}: name tables by --env and give "
            "--record, 128 for example"
        )
    for table in tables:
        require_choice("--env", table, TASKS)
        if comparison == "earlier" and TASKS[table].space.tuned_agent:
            raise UserError(f"--earlier needs trials of one agent, but got {table}")
        if comparison is None and TASKS[table].space != Settings().space:
            raise UserError(f"the models are of the standard space: give --replays for {table}")
        if arguments.lanes and (not arguments.replays or TASKS[table].space.tuned_agent):
            raise UserError(f"--lanes needs --replays and trials of one agent, but got {table}")
    if arguments.earlier and len(tables) < 2:
        raise UserError(f"--earlier needs two tables at least, but got --env {' '.join(tables)}")
    measuring.require_counts(arguments, "lanes", low=2)
    for sampler in arguments.samplers:
        require_choice("--samplers", sampler, SAMPLERS)
    paths = {table: records_path(arguments.records, table) for table in tables}
    for path in paths.values():
        if not arguments.record and not path.exists():
            raise UserError(f"no trials are recorded in {path}: give --record, 128 for example")
    require_writable(arguments.output)
    command_line.start_backend()
    import optuna

    from benchmarks import earlier, finalists, replays
    from tune.search.pool import ProgramPool

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = measuring.make_console()
    if arguments.record:
        require_writable(arguments.records)
        for table, path in paths.items():
            settings = dataclasses.replace(TASKS[table], seeds=arguments.record_seeds)
            long = (arguments.record_long, 1_000_000)
            record(settings, ProgramPool(settings), arguments.record, *long, path, console)
    found = {table: Records.load(path) for table, path in paths.items()}
    if arguments.lanes:
        sizes = arguments.trials, arguments.studies, arguments.lanes
        path = arguments.output / "lanes.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        measuring.write_results(path, replays.compare_lanes(found, *sizes, console))
        console.print(str(path), markup=False, soft_wrap=True)
        return
    if comparison:
        module = {"replays": replays, "finalists": finalists, "earlier": earlier}[comparison]
        report = module.compare(found, arguments.trials, arguments.studies, console)
    else:
        report = _on_surrogates(found, arguments, console)
    written = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(written)


def _on_real_studies(arguments: Arguments) -> None:
    """Compare strategies by training every trial."""
    for name in ("replays", "finalists", "earlier", "lanes", "record"):
        if getattr(arguments, name):
            raise UserError(f"--real trains every trial and does not go with --{name}")
    tables = arguments.env or ("Pendulum-v1",)
    if len(tables) != 1:
        raise UserError(f"--real is of one table, but got --env {' '.join(tables)}")
    require_choice("--env", tables[0], TASKS)
    require_writable(arguments.output)
    command_line.start_backend()
    import optuna

    from benchmarks import real

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = measuring.make_console()
    sizes = arguments.trials, arguments.studies
    report = real.compare(TASKS[tables[0]], *sizes, arguments.output, console)
    written = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(written)


def _on_surrogates(
    tables: Mapping[str, Records], arguments: Arguments, console: "Console"
) -> Report:
    """Compare strategies on models of recorded trials."""
    from benchmarks.surrogate import quality

    measured_with = measuring.setting(
        env=", ".join(tables), studies=arguments.studies, trials=arguments.trials
    )
    measuring.print_setting(measured_with, console)
    found: dict[str, dict[str, list[Strategy]]] = {}
    results, arrays, sections = {}, {}, list[str]()
    for env, records in tables.items():
        models = quality(records, studied(records))
        setup = Setup(env, records, models, arguments.trials, arguments.studies)
        groups = found[env] = run_studies(setup, arguments, console)
        objectives = objectives_and_long_training(records, studied(records))
        shown = [
            *(strategy_table(f"{env}: {group}", some) for group, some in groups.items()),
            quality_table(setup),
            *([objective_table(env, objectives)] if objectives else []),
        ]
        for table in shown:
            table.print(console)
        configurations, _, seeds = records.returns.shape
        results[env] = {
            "configurations": configurations,
            "seeds": seeds,
            "surrogate": {"model": setup.best_model, "quality": models},
            **{
                group: [{"name": s.name, "failure": s.failure} for s in strategies]
                for group, strategies in groups.items()
            },
            "objectives": objectives,
        }
        arrays[env] = outcome_array(list(itertools.chain(*groups.values())), arguments.studies)
        sections += [
            f"<details>\n<summary>{env}, {configurations} recorded configurations</summary>",
            *(table.markdown() for table in shown),
            "</details>",
        ]
    return Report(
        "samplers",
        f"`python -m benchmarks.samplers`, {measuring.machine(measured_with)}; "
        f"{arguments.studies} studies in each row, all with the environment steps of "
        f"{arguments.trials} trials, on a surrogate of recorded trials.",
        "Tuning strategies",
        sections,
        {
            **measured_with,
            "outcomes": {"file": "samplers.npz", "axes": ["strategy", "study", list(OUTCOME)]},
            "environments": results,
        },
        lambda path: plot(arguments.studies, found, path),
        arrays,
    )


def outcome_array(strategies: Sequence[Strategy], studies: int) -> np.ndarray:
    """Return the outcomes, float64 ``[strategies, studies, len(OUTCOME)]``; NaN for a failure."""
    found = np.full((len(strategies), studies, len(OUTCOME)), np.nan)
    for rows, strategy in zip(found, strategies, strict=True):
        for row, outcome in zip(rows, strategy.outcomes, strict=False):
            row[:] = dataclasses.astuple(outcome)
    return found


def run_studies(
    setup: Setup, arguments: Arguments, console: "Console"
) -> dict[str, list[Strategy]]:
    """Return group -> strategies; the first of a group is the default."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {"samplers": []}
    for sampler in arguments.samplers:
        for pruner, pruning in (("median", "pruned"), ("none", "not pruned")):
            changes = {"sampler": sampler, "pruner": pruner}
            groups["samplers"].append((f"{sampler}, {pruning}", changes))
    if "tpe" in arguments.samplers:
        groups["samplers"].append(("tpe, pruned, best rerun", {**CLASSIC}))
    if arguments.changes:
        groups["one change from the defaults"] = [("defaults", {})]
        for changes in CHANGES:
            text = ", ".join(f"{name} {value}" for name, value in changes.items())
            groups["one change from the defaults"].append((text, changes))
    found: dict[str, list[Strategy]] = {}
    with console.status("") as status:
        for group, strategies in groups.items():
            found[group] = []
            for name, changes in strategies:
                status.update(f"{setup.env}: {name}")
                found[group].append(measure(setup, name, **changes))
    return found


def strategy_table(title: str, strategies: Sequence[Strategy]) -> Table:
    """Return a row per strategy; all are compared with the first."""
    from tune.evidence.statistics import compare

    table = Table(
        f"{title}; mean score of the winner (95% interval)",
        ("", "trials", "tuning", "fresh seeds", "− first", "at the end"),
    )
    first = strategies[0]
    for strategy in strategies:
        if strategy.failure is not None:
            table.add(strategy.name, strategy.failure, *[""] * 4)
            continue
        gain = None
        if strategy is not first and first.outcomes:
            gain = compare(strategy.values("score"), first.values("score")).difference
        table.add(
            strategy.name,
            f"{np.median(strategy.values('trials')):.0f}",
            f"{strategy.mean('tuning_score').value:.1f}",
            with_interval(strategy.mean("score")),
            "" if gain is None else with_interval(gain, "+.1f"),
            f"{strategy.mean('final').value:.1f}",
        )
    return table


def quality_table(setup: Setup) -> Table:
    """Return how well each model predicts configurations that it was not fitted to."""
    title = f"{setup.env}: models of the recorded trials, on configurations and seeds held out"
    table = Table(title, ("model", "R²", "rank correlation"))
    for name, found in setup.models.items():
        text = f"{name} (used)" if name == setup.best_model else name
        table.add(text, f"{found['r2']:.2f}", f"{found['rank_correlation']:.2f}")
    return table


def objective_table(env: str, objectives: Sequence[dict[str, Any]]) -> Table:
    """Return how well each objective predicts the result of long training."""
    count = objectives[0]["configurations"]
    table = Table(
        f"{env}: objectives of short trials against 1,000,000 steps, {count} configurations",
        ("objective", "rank correlation with the end", "best of 20, end", "with the mean", "mean"),
    )
    for row in objectives:
        cells = []
        for name in ("end", "training"):
            low, high = row[name]["interval"]
            cells += [
                f"{row[name]['rank_correlation']:.2f} ({low:.2f} … {high:.2f})",
                f"{row[name]['best_of_20']:.1f} of {row[name]['best_there_is']:.1f}",
            ]
        table.add(row["objective"], *cells)
    return table


def plot(studies: int, found: dict[str, dict[str, list[Strategy]]], path: Path) -> None:
    """Draw each strategy's mean score on fresh seeds, with its interval; a row per environment."""
    from ppo_jax.plots import BLUE, GREY, ORANGE, picture

    longest = max(len(group) for groups in found.values() for group in groups.values())
    with picture(path, 13, (1.2 + 0.32 * longest) * len(found)) as figure:
        shape = len(found), max(map(len, found.values()))
        grid = figure.subplots(*shape, squeeze=False)
        for (env, groups), panels in zip(found.items(), grid, strict=True):
            for axes, (title, group) in zip(panels, groups.items(), strict=True):
                shown = [strategy for strategy in group if strategy.outcomes]
                for place, strategy in enumerate(shown):
                    score, unpruned = strategy.mean("score"), "not pruned" in strategy.name
                    color = BLUE if place == 0 else ORANGE if unpruned else GREY
                    axes.plot(score.value, place, "o", color=color)
                    if score.interval is not None:
                        axes.hlines(place, *score.interval, color=color, linewidth=2.5)
                if shown:
                    first = shown[0].mean("score").value
                    axes.axvline(first, color=BLUE, linewidth=1, linestyle=":")
                axes.set_yticks(range(len(shown)), [s.name.replace("_", " ") for s in shown])
                axes.invert_yaxis()
                axes.grid(visible=False, axis="y")
                axes.set_title(f"{env}\n{title}")
                axes.set(xlabel="score of the winner on fresh seeds, 95% intervals")
        figure.suptitle(f"{studies} studies of equal environment steps in each row")


if __name__ == "__main__":
    main()
