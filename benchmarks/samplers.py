"""``python -m benchmarks.samplers``: which way of tuning finds the best configuration.

Every study spends the same number of environment steps, selection included, and is judged
on seeds that it has not seen. So that hundreds of studies take minutes, trials are answered
by a surrogate: a model of trials that were recorded once (``--record``) with the real
programs. Sampler, pruner, objective and selection are the ones of ``tune.run``.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import (
    PUBLISHED,
    Table,
    machine,
    make_console,
    print_setting,
    publish,
    setting,
)
from ppo_jax import command_line
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import folder_name
from tune.protocol.settings import OBJECTIVES, Settings
from tune.search.samplers import SAMPLERS

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.surrogate import Records, Surrogate
    from tune.evidence.statistics import Estimate

SELECT_TOP, SELECT_SEEDS = 3, 10
"""Of ``tune.run``."""

CHANGES: tuple[dict[str, Any], ...] = (
    {"seeds": 2},
    {"seeds": 8},
    {"objective": "final"},
    {"objective": "tail"},
    {"sampler_startup_trials": 2},
    {"sampler_startup_trials": 10},
    {"pruner": "percentile", "pruner_percentile": 25.0},
    {"pruner": "hyperband"},
    {"pruner_startup_trials": 2},
    {"pruner_startup_trials": 8},
    {"pruner_warmup_checkpoints": 0},
    {"pruner_warmup_checkpoints": 2},
    {"select_top": 0},
    {"select_top": 1},
    {"select_top": 5},
)
"""What is varied, one change of the defaults at a time."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare samplers, pruners and settings of a study at equal environment steps.

    Prints tables and writes samplers.json and samplers.png.
    """

    env: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1")
    """Environments whose trials are recorded: one that is easy to tune, one that is not."""
    trials: int = 20
    """Trials of the study whose environment steps all others spend as well."""
    studies: int = 40
    """Studies of each way of tuning."""
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    """Samplers to compare."""
    changes: bool = True
    """Also change the other settings, one at a time."""
    record: int = 0
    """First train quasi-random configurations until so many are recorded."""
    record_seeds: int = 8
    """Seeds of each recorded configuration."""
    record_long: int = 32
    """Recorded configurations that are trained to 1,000,000 steps."""
    records: Path = PUBLISHED
    """Folder of the recorded trials, a file trials_ENV.npz for each environment."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the README shows."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one study has found.

    Attributes:
      trials: finished ones.
      tuning_score: of the winner, as the study saw it.
      score: of the winner on seeds that judge: mean over the checkpoints of a trial.
      final: its return at the last of them.
      seconds: wall clock.
    """

    trials: int
    tuning_score: float
    score: float
    final: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Study:
    """What all studies of an environment share.

    Attributes:
      env: its name.
      records: its recorded trials.
      models: model -> how well it foretells configurations that it has not seen.
      trials: of the study whose environment steps all others spend as well.
      studies: of each way of tuning.
    """

    env: str
    records: "Records"
    models: dict[str, dict[str, float]]
    trials: int
    studies: int

    @property
    def best_model(self) -> str:
        """The model that foretells best; the last row of `models` is no model."""
        return max(list(self.models)[:-1], key=lambda name: self.models[name]["r2"])

    @property
    def budget(self) -> int:
        """Environment steps of a study."""
        default = Settings(env=self.env)
        return default.total_steps * (self.trials * default.seeds + (SELECT_TOP + 1) * SELECT_SEEDS)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of tuning, and the outcomes of its studies."""

    name: str
    outcomes: tuple[Outcome, ...]
    failure: str | None = None

    def values(self, name: str) -> np.ndarray:
        """Return an attribute of all outcomes."""
        return np.array([getattr(outcome, name) for outcome in self.outcomes], float)

    def mean(self, name: str) -> "Estimate":
        """Return the mean of an attribute with its 95% interval."""
        from tune.evidence.statistics import estimate

        return estimate([self.values(name)], np.mean)


def run_study(
    settings: Settings, surrogate: "Surrogate", judge: "Surrogate", budget: int, select_top: int
) -> Outcome:
    """Run a study as ``tune.run`` does, until its environment steps are spent."""
    import optuna
    from optuna.trial import TrialState

    from tune.evidence.selection import choose_candidates
    from tune.protocol.trials import FINISHED, StudyRecord
    from tune.search.objective import objective
    from tune.search.pruners import make_pruner
    from tune.search.samplers import has_configurations_left, make_sampler

    start = time.perf_counter()
    study = optuna.create_study(
        direction="maximize", sampler=make_sampler(settings), pruner=make_pruner(settings)
    )
    study.enqueue_trial(settings.space.baseline(), user_attrs={"baseline": True})
    if select_top:
        budget -= (select_top + 1) * SELECT_SEEDS * settings.total_steps
    while budget >= settings.seeds * settings.total_steps and has_configurations_left(study):
        trial = study.ask()
        try:
            study.tell(trial, objective(trial, settings, programs=surrogate))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        (*_, finished) = study.get_trials(deepcopy=False)
        budget -= finished.user_attrs["environment_steps"]
    record = dataclasses.replace(StudyRecord.of(study), settings=settings)
    winner = record.best
    assert winner is not None, "the default configuration is never pruned"
    if select_top:
        scores = []
        candidates = choose_candidates(record, select_top)
        for candidate in candidates:
            returns = surrogate.draw(candidate.hyperparameters, SELECT_SEEDS)
            scores.append(settings.score([float(row.mean()) for row in returns]))
        winner = candidates[int(np.argmax(scores))].trial
    assert winner is not None
    assert winner.score is not None
    assert winner.hyperparameters is not None
    curve = judge.draw(winner.hyperparameters, 400).mean(axis=1)
    trials = len(study.get_trials(deepcopy=False, states=FINISHED))
    seconds = time.perf_counter() - start
    return Outcome(trials, winner.score, float(curve.mean()), float(curve[-1]), seconds)


def measure(study: Study, name: str, **changes: Any) -> Way:
    """Run all studies of one way of tuning."""
    from benchmarks.surrogate import Surrogate, halves, regressors
    from tune.search.samplers import require_sampler

    select_top = changes.pop("select_top", SELECT_TOP)
    settings = Settings(env=study.env, **changes)
    try:
        require_sampler(settings.sampler)
    except UserError as error:
        return Way(name, (), str(error))
    surrogate, judge = (
        Surrogate(study.records, settings, seeds, regressors(0)[study.best_model])
        for seeds in halves(study.records)
    )
    outcomes = []
    for seed in range(study.studies):
        surrogate.reseed(seed)
        judge.reseed(seed)
        settings = dataclasses.replace(settings, seed=seed)
        outcomes.append(run_study(settings, surrogate, judge, study.budget, select_top))
    return Way(name, tuple(outcomes))


def objectives_and_long_training(
    records: "Records", settings: Settings, draws: int = 2_000
) -> list[dict[str, Any]]:
    """Return how well each objective of short trials foretells the end of long ones.

    Nothing where fewer than three were trained for long.

    From the recorded returns alone, without a surrogate: scores of a trial's budget on the
    first half of the seeds against returns of the second half. ``best_of_20`` is what the
    best of 20 of the configurations, drawn at random, reaches.
    """
    from scipy import stats

    from benchmarks.surrogate import halves
    from tune.evidence.statistics import CONFIDENCE

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        """Return the rank correlation; 0 where one of the two does not vary."""
        return stats.spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0

    long = records.checkpoints == len(records.steps)
    if long.sum() < 3:
        return []
    tuning, judging = halves(records)
    short = records.upto(settings.checkpoints(), tuning)[long].mean(axis=2)
    curves = records.upto([int(step) for step in records.steps], judging)[long].mean(axis=2)
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
        lambda: _run(arguments), "; what is recorded is kept, the same command continues"
    )


def _run(arguments: Arguments) -> None:
    for name in ("trials", "studies", "record_seeds"):
        require_count("--" + name.replace("_", "-"), getattr(arguments, name))
    require_count("--studies", arguments.studies, low=5)
    for name in ("record", "record_long"):
        require_count("--" + name.replace("_", "-"), getattr(arguments, name), low=0)
    defaults = {env: Settings(env=env) for env in arguments.env}
    for sampler in arguments.samplers:
        Settings(sampler=sampler)
    names = {env: f"trials_{folder_name(env)}.npz" for env in defaults}
    paths = {env: arguments.records / name for env, name in names.items()}
    for path in paths.values():
        if not arguments.record and not path.exists():
            raise UserError(f"no trials are recorded in {path}: give --record, 200 for example")
    from ppo_jax.files import require_writable, write_json

    require_writable(arguments.output)
    command_line.start_backend()
    import optuna

    from benchmarks.surrogate import Records, quality, record

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = make_console()
    if arguments.record:
        require_writable(arguments.records)
        for env, settings in defaults.items():
            recorded = dataclasses.replace(settings, seeds=arguments.record_seeds, sampler="qmc")
            long = (arguments.record_long, 1_000_000)
            record(recorded, arguments.record, *long, paths[env], console)
    measured_with = setting(
        env=", ".join(defaults), studies=arguments.studies, trials=arguments.trials
    )
    print_setting(measured_with, console)
    found: dict[str, dict[str, list[Way]]] = {}
    results, parts = {}, []
    for env, settings in defaults.items():
        records = Records.load(paths[env])
        models = quality(records, settings)
        study = Study(env, records, models, arguments.trials, arguments.studies)
        ways = found[env] = run_studies(study, arguments, console)
        objectives = objectives_and_long_training(records, settings)
        tables = [
            *(way_table(f"{env}: {group}", some) for group, some in ways.items()),
            quality_table(study),
            *([objective_table(env, objectives)] if objectives else []),
        ]
        for table in tables:
            table.print(console)
        configurations, _, seeds = records.returns.shape
        results[env] = {
            "configurations": configurations,
            "seeds": seeds,
            "surrogate": {"model": study.best_model, "quality": models},
            **{group: [dataclasses.asdict(way) for way in some] for group, some in ways.items()},
            "objectives": objectives,
        }
        parts += [
            f"<details>\n<summary>{env}, {configurations} recorded configurations</summary>",
            *(table.markdown() for table in tables),
            "</details>",
        ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "samplers.json", {**measured_with, "environments": results})
    plot(arguments.studies, found, arguments.output / "samplers.png")
    for suffix in ("json", "png"):
        path = arguments.output / f"samplers.{suffix}"
        console.print(str(path), markup=False, soft_wrap=True)
    if arguments.publish:
        text = [
            f"`python -m benchmarks.samplers`, {machine(measured_with)}; {arguments.studies} "
            f"studies in each row, all with the environment steps of {arguments.trials} trials "
            "and a selection, on a surrogate of recorded trials.",
            "![Ways of tuning](benchmarks/results/samplers.png)",
            *parts,
        ]
        publish("samplers", "\n\n".join(text), arguments.output)


def run_studies(study: Study, arguments: Arguments, console: "Console") -> dict[str, list[Way]]:
    """Return group -> ways of tuning an environment; the first of a group is the default."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {"samplers": []}
    for sampler in arguments.samplers:
        for pruner, pruning in (("median", "pruned"), ("none", "not pruned")):
            way = (f"{sampler}, {pruning}", {"sampler": sampler, "pruner": pruner})
            groups["samplers"].append(way)
    if arguments.changes:
        groups["one change of the defaults"] = [("defaults", {})]
        for changes in CHANGES:
            text = ", ".join(f"{name} {value}" for name, value in changes.items())
            groups["one change of the defaults"].append((text, changes))
    found: dict[str, list[Way]] = {}
    with console.status("") as status:
        for group, ways in groups.items():
            found[group] = []
            for name, changes in ways:
                status.update(f"{study.env}: {name}")
                found[group].append(measure(study, name, **changes))
    return found


def way_table(title: str, ways: Sequence[Way]) -> Table:
    """Return a row a way of tuning; the first is the one that others are compared with."""
    from tune.evidence.statistics import compare

    table = Table(
        f"{title}; mean score of the winner (95% interval)",
        ("", "trials", "tuning", "fresh seeds", "− first", "at the end"),
    )
    for way in ways:
        if way.failure is not None:
            table.add(way.name, way.failure, *[""] * 4)
            continue
        gain = None
        if way is not ways[0] and ways[0].outcomes:
            gain = compare(way.values("score"), ways[0].values("score")).difference
        table.add(
            way.name,
            f"{np.median(way.values('trials')):.0f}",
            f"{way.mean('tuning_score').value:.1f}",
            _cell(way.mean("score"), ".1f"),
            "" if gain is None else _cell(gain, "+.1f"),
            f"{way.mean('final').value:.1f}",
        )
    return table


def quality_table(study: Study) -> Table:
    """Return how well each model foretells configurations that it has not seen."""
    title = f"{study.env}: models of the recorded trials, on configurations and seeds held out"
    table = Table(title, ("model", "R²", "rank correlation"))
    for name, found in study.models.items():
        text = f"{name} (used)" if name == study.best_model else name
        table.add(text, f"{found['r2']:.2f}", f"{found['rank_correlation']:.2f}")
    return table


def objective_table(env: str, objectives: Sequence[dict[str, Any]]) -> Table:
    """Return how well each objective foretells long training."""
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


def plot(studies: int, found: dict[str, dict[str, list[Way]]], path: Path) -> None:
    """Draw the mean score of each way on fresh seeds, with its interval; a row an environment."""
    from ppo_jax.plots import BLUE, GREY, ORANGE, picture

    longest = max(len(ways) for groups in found.values() for ways in groups.values())
    with picture(path, 13, (1.2 + 0.32 * longest) * len(found)) as figure:
        shape = len(found), max(map(len, found.values()))
        grid = figure.subplots(*shape, squeeze=False)
        for (env, groups), panels in zip(found.items(), grid, strict=True):
            for axes, (title, ways) in zip(panels, groups.items(), strict=True):
                ways = [way for way in ways if way.outcomes]
                for place, way in enumerate(ways):
                    score = way.mean("score")
                    color = BLUE if place == 0 else ORANGE if "not pruned" in way.name else GREY
                    axes.plot(score.value, place, "o", color=color)
                    if score.interval is not None:
                        axes.hlines(place, *score.interval, color=color, linewidth=2.5)
                if ways:
                    first = ways[0].mean("score").value
                    axes.axvline(first, color=BLUE, linewidth=1, linestyle=":")
                axes.set_yticks(range(len(ways)), [way.name.replace("_", " ") for way in ways])
                axes.invert_yaxis()
                axes.grid(visible=False, axis="y")
                axes.set_title(f"{env}\n{title}")
                axes.set(xlabel="score of the winner on fresh seeds, 95% intervals")
        figure.suptitle(f"{studies} studies of equal environment steps in each row")


def _cell(estimate: "Estimate", form: str) -> str:
    if estimate.interval is None:
        return f"{estimate.value:{form}}"
    low, high = estimate.interval
    return f"{estimate.value:{form}} ({low:{form}} … {high:{form}})"


if __name__ == "__main__":
    main()
