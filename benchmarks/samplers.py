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
from unittest import mock

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
from tune.settings import OBJECTIVES, SAMPLERS, Settings

if TYPE_CHECKING:
    from benchmarks.surrogate import Records, Surrogate
    from tune.statistics import Estimate

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

    env: str = Settings.env
    """Environment that trials are recorded of."""
    trials: int = 20
    """Trials of the study whose environment steps all others spend as well."""
    studies: int = 40
    """Studies of each way of tuning."""
    samplers: tuple[str, ...] = SAMPLERS
    """Samplers to compare."""
    changes: bool = True
    """Also change the other settings, one at a time."""
    record: int = 0
    """First train quasi-random configurations until so many are recorded."""
    record_seeds: int = 8
    """Seeds of each recorded configuration."""
    record_long: int = 32
    """Recorded configurations that are trained to 1,000,000 steps."""
    records: Path | None = None
    """File of the recorded trials. benchmarks/results/trials_ENV.npz if not given."""
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
        from tune.statistics import estimate

        return estimate([self.values(name)], np.mean)


def run_study(
    settings: Settings, surrogate: "Surrogate", judge: "Surrogate", budget: int, select_top: int
) -> Outcome:
    """Run a study as ``tune.run`` does, until its environment steps are spent."""
    import optuna
    from optuna.trial import TrialState

    from tune.samplers import has_configurations_left, make_sampler
    from tune.selection import candidate_trials
    from tune.study import FINISHED, best_trial, make_pruner
    from tune.trial import objective

    start = time.perf_counter()
    study = optuna.create_study(
        direction="maximize", sampler=make_sampler(settings), pruner=make_pruner(settings)
    )
    study.enqueue_trial(settings.space.baseline(), user_attrs={"baseline": True})
    if select_top:
        budget -= (select_top + 1) * SELECT_SEEDS * settings.total_steps
    with mock.patch("tune.trial.programs_for", return_value=surrogate):
        while budget >= settings.seeds * settings.total_steps and has_configurations_left(study):
            trial = study.ask()
            try:
                study.tell(trial, objective(trial, settings))
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
            (*_, finished) = study.get_trials(deepcopy=False)
            budget -= finished.user_attrs["environment_steps"]
    winner = best_trial(study)
    assert winner is not None, "the default configuration is never pruned"
    if select_top:
        scores = []
        candidates = candidate_trials(study, select_top)
        for candidate in candidates:
            returns = surrogate.draw(settings.space.complete(candidate.params), SELECT_SEEDS)
            scores.append(settings.score([float(row.mean()) for row in returns]))
        winner = candidates[int(np.argmax(scores))]
    assert winner.value is not None
    curve = judge.draw(settings.space.complete(winner.params), 400).mean(axis=1)
    trials = len(study.get_trials(deepcopy=False, states=FINISHED))
    seconds = time.perf_counter() - start
    return Outcome(trials, winner.value, float(curve.mean()), float(curve[-1]), seconds)


def measure(
    arguments: Arguments, records: "Records", regressor: str, name: str, **changes: Any
) -> Way:
    """Run all studies of one way of tuning."""
    from benchmarks.surrogate import Surrogate, halves, regressors
    from tune.samplers import require_sampler_package

    select_top = changes.pop("select_top", SELECT_TOP)
    default = Settings(env=arguments.env)
    trials = arguments.trials * default.seeds + (SELECT_TOP + 1) * SELECT_SEEDS
    budget = trials * default.total_steps
    outcomes = []
    tuning, judging = halves(records)
    settings = dataclasses.replace(default, **changes)
    try:
        require_sampler_package(settings.sampler)
    except UserError as error:
        return Way(name, (), str(error))
    surrogate = Surrogate(records, settings, tuning, regressors(0)[regressor])
    judge = Surrogate(records, settings, judging, regressors(0)[regressor])
    for seed in range(arguments.studies):
        surrogate.reseed(seed)
        judge.reseed(seed)
        settings = dataclasses.replace(settings, seed=seed)
        outcomes.append(run_study(settings, surrogate, judge, budget, select_top))
    return Way(name, tuple(outcomes))


def objectives_and_long_training(
    records: "Records", settings: Settings, draws: int = 2_000
) -> list[dict[str, Any]]:
    """Return how well each objective of short trials foretells the end of long ones.

    From the recorded returns alone, without a surrogate: scores of a trial's budget on the
    first half of the seeds against returns of the second half. ``best_of_20`` is what the
    best of 20 of the configurations, drawn at random, reaches.
    """
    from scipy import stats

    from benchmarks.surrogate import halves
    from tune.statistics import CONFIDENCE

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        """Return the rank correlation; 0 where one of the two does not vary."""
        return stats.spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0

    long = records.checkpoints == len(records.steps)
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
    settings = Settings(env=arguments.env)
    for sampler in arguments.samplers:
        dataclasses.replace(settings, sampler=sampler)
    path = arguments.records or PUBLISHED / f"trials_{arguments.env}.npz"
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
        require_writable(path.parent)
        recorded = dataclasses.replace(settings, seeds=arguments.record_seeds, sampler="qmc")
        record(recorded, arguments.record, arguments.record_long, 1_000_000, path, console)
    records = Records.load(path)
    measured_with = setting(
        env=arguments.env,
        configurations=len(records.params),
        seeds=records.returns.shape[2],
        studies=arguments.studies,
        trials=arguments.trials,
    )
    print_setting(measured_with, console)
    models = quality(records, settings)
    best = max(list(models)[:-1], key=lambda name: models[name]["r2"])
    ways: dict[str, list[Way]] = {"samplers": [], "settings": []}
    with console.status("") as status:

        def add(group: str, name: str, **changes: Any) -> None:
            status.update(name)
            ways[group].append(measure(arguments, records, best, name, **changes))

        for sampler in arguments.samplers:
            for pruner in ("median", "none"):
                pruning = "pruned" if pruner == "median" else "not pruned"
                add("samplers", f"{sampler}, {pruning}", sampler=sampler, pruner=pruner)
        if arguments.changes:
            add("settings", "defaults")
            for changes in CHANGES:
                add("settings", ", ".join(f"{k} {v}" for k, v in changes.items()), **changes)
    objectives = objectives_and_long_training(records, settings)
    tables = [
        way_table(f"{arguments.env}: samplers", ways["samplers"]),
        quality_table(arguments.env, models, best),
        objective_table(arguments.env, objectives),
    ]
    if ways["settings"]:
        tables.insert(
            1, way_table(f"{arguments.env}: one change of the defaults", ways["settings"])
        )
    for table in tables:
        table.print(console)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(
        arguments.output / "samplers.json",
        {
            **measured_with,
            "surrogate": {"model": best, "quality": models},
            **{group: [dataclasses.asdict(way) for way in found] for group, found in ways.items()},
            "objectives": objectives,
        },
    )
    plot(arguments, ways, arguments.output / "samplers.png")
    paths = [str(arguments.output / f"samplers.{suffix}") for suffix in ("json", "png")]
    console.print(*paths, sep="\n", markup=False, soft_wrap=True)
    if arguments.publish:
        text = [
            f"`python -m benchmarks.samplers`, {machine(measured_with)}; {arguments.studies} "
            f"studies in each row, all with the environment steps of {arguments.trials} trials "
            f"and a selection, on a surrogate of {len(records.params)} recorded configurations.",
            "![Ways of tuning](benchmarks/results/samplers.png)",
            *(table.markdown() for table in tables),
        ]
        publish("samplers", "\n\n".join(text), arguments.output)


def way_table(title: str, ways: Sequence[Way]) -> Table:
    """Return a row a way of tuning; the first is the one that others are compared with."""
    from tune.statistics import compare

    headers = ("", "trials", "tuning", "fresh seeds", "95% interval", "− first", "95% interval")
    table = Table(f"{title}; mean score of the winner", (*headers, "at the end"))
    for way in ways:
        if way.failure is not None:
            table.add(way.name, way.failure, *[""] * 6)
            continue
        score, low_high = way.mean("score"), ("", "")
        if way is not ways[0] and ways[0].outcomes:
            gain = compare(way.values("score"), ways[0].values("score")).difference
            assert gain is not None
            low_high = f"{gain.value:+.1f}", _range(gain, "+.1f")
        table.add(
            way.name,
            f"{np.median(way.values('trials')):.0f}",
            f"{way.mean('tuning_score').value:.1f}",
            f"{score.value:.1f}",
            _range(score, ".1f"),
            *low_high,
            f"{way.mean('final').value:.1f}",
        )
    return table


def quality_table(env: str, models: dict[str, dict[str, float]], best: str) -> Table:
    """Return how well each model foretells configurations that it has not seen."""
    title = f"{env}: models of the recorded trials, on configurations and seeds held out"
    table = Table(title, ("model", "R²", "rank correlation"))
    for name, found in models.items():
        text = f"{name} (used)" if name == best else name
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


def plot(arguments: Arguments, ways: dict[str, list[Way]], path: Path) -> None:
    """Draw the mean score of each way on fresh seeds, with its interval."""
    from ppo_jax.plots import BLUE, GREY, ORANGE, picture

    groups = {title: [w for w in found if w.outcomes] for title, found in ways.items() if found}
    with picture(path, 13, 1.5 + 0.33 * max(map(len, groups.values()))) as figure:
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (title, found) in zip(panels, groups.items(), strict=True):
            for place, way in enumerate(found):
                score = way.mean("score")
                color = BLUE if place == 0 else ORANGE if "not pruned" in way.name else GREY
                axes.plot(score.value, place, "o", color=color)
                if score.interval is not None:
                    axes.hlines(place, *score.interval, color=color, linewidth=2.5)
            axes.axvline(found[0].mean("score").value, color=BLUE, linewidth=1, linestyle=":")
            axes.set_yticks(range(len(found)), [way.name.replace("_", " ") for way in found])
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
            axes.set_title(title.capitalize())
            axes.set(xlabel="score of the winner on fresh seeds, 95% intervals")
        figure.suptitle(f"{arguments.env}: {arguments.studies} studies of equal environment steps")


def _range(estimate: "Estimate", form: str) -> str:
    if estimate.interval is None:
        return ""
    low, high = estimate.interval
    return f"{low:{form}} … {high:{form}}"


if __name__ == "__main__":
    main()
