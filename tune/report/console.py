"""Terminal output of a study: progress while it runs and the summary at its end.

A terminal gets a status line besides the lines that stay; other outputs get only those, and more
in each.
"""

import dataclasses
import itertools
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ppo_jax.programs import Checkpoint
from ppo_jax.text import estimate_text, printable
from tune.evidence.candidate import Candidate
from tune.evidence.recommendation import Recommendation
from tune.evidence.statistics import Estimate, summarize
from tune.evidence.validation import Validation
from tune.protocol.budget import Budget
from tune.protocol.plan import NO_LIMIT, Plan
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import FINISHED, TrialRecord, is_baseline
from tune.report import advice, text
from tune.report.results import NOT_VALIDATED, StudyResults
from tune.report.time_left import TRIALS, Job
from tune.report.trial_table import LABELS, TrialTable, value_in_short


@dataclasses.dataclass
class _Shown:
    """A trial that is being trained.

    Attributes:
      start: moment.
      steps: of the checkpoints it has passed, as text.
      means: mean returns there, likewise.
    """

    start: float
    steps: list[str] = dataclasses.field(default_factory=list)
    means: list[str] = dataclasses.field(default_factory=list)

    @property
    def checkpoints(self) -> list[str]:
        """Steps and returns together."""
        return [f"{step} {mean}" for step, mean in zip(self.steps, self.means, strict=True)]


class ConsoleProgress:
    """Prints the progress of a study; a context manager that removes the status line at its end.

    A terminal gets trials as rows of a table, and one line for the whole session below them.

    Args:
      console: to print to.
      heading: print a heading when the study starts. Workers leave it to the process that
        started them.
      plan: of the session; None for a process that runs trials alone.
      budget: the clock of the plan's budget, if it has one.
      is_compiling: says whether the session waits for the compiler.
    """

    def __init__(
        self,
        console: Console,
        heading: bool = True,
        plan: Plan | None = None,
        budget: Budget | None = None,
        is_compiling: Callable[[], bool] = lambda: False,
    ) -> None:
        self._heading, self._plan, self._budget = heading, plan, budget
        self._is_compiling = is_compiling
        self._console = console
        self._live: Live | None = None
        self._spinner = Spinner("line" if _shown(console, "⠋") != "⠋" else "dots")
        self._job: Job | None = None
        self._lock = threading.RLock()  # The status line is drawn in a thread.
        self._n_trials = 0
        self._best: float | None = None
        self._space = SearchSpace()
        self._table: TrialTable | None = None
        self._trials: dict[int, _Shown] = {}
        self._now: Sequence[str] = ()  # What is going on, at length and in short.

    def __enter__(self) -> "ConsoleProgress":
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._status,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        """Print what the study does and how far it is."""
        self._n_trials, self._space = n_trials, settings.space
        trials = study.get_trials(deepcopy=False, states=FINISHED)
        records = [TrialRecord.of(trial) for trial in trials]
        self._job = Job(settings, n_trials, self._plan, records, time.monotonic())
        self._best = _best_score(study)
        if not self._heading:
            return
        self.line(
            f"study {study.study_name!r}: {settings.env}, {_trials(n_trials)} of "
            f"{text.plural(settings.seeds, 'seed')} × {text.steps(settings.total_steps)} steps, "
            f"{settings.sampler} sampler, {settings.pruner} pruner"
        )
        if settings.warm_start is not None:
            self.line(f"warm start: {settings.warm_start}")
        if trials:
            self.line(f"continuing after {text.plural(len(trials), 'finished trial')}")
        for name, (default, value) in settings.space.moved_defaults().items():
            self.line(
                f"the baseline uses {name} = {text.number(value)}: the search space does not hold "
                f"the default {text.number(default)}"
            )
        for hint in advice.before(settings):
            self.line(hint)
        if len(trials) < n_trials:
            sizes = [n for n in settings.space.tuned_agent if not n.startswith("normalize")]
            once = f"each {', '.join(sizes)}" if sizes else "the whole study"
            self.line(f"compiling the programs, once for {once}")

    def trial_started(self, trial: optuna.Trial) -> None:
        """Show the trial on the status line."""
        self._trials[trial.number] = _Shown(time.monotonic())
        self._now = (_title(trial.number),)

    def checkpoint(self, trial: optuna.Trial, checkpoint: Checkpoint) -> None:
        """Show a trial with the mean returns at its checkpoints on the status line."""
        returns = checkpoint.returns[np.isfinite(checkpoint.returns)]
        shown = self._trials[trial.number]
        shown.steps.append(text.steps_in_short(checkpoint.step))
        shown.means.append(text.score(returns.mean()) if len(returns) else "diverged")
        title = _title(trial.number)
        self._now = f"{title}: {'  '.join(shown.checkpoints)}", f"{title}: {shown.checkpoints[-1]}"
        with self._lock:
            self._known_job.trial_checkpoint(
                trial.number,
                trial.user_attrs["hyperparameters"]["n_epochs"],
                checkpoint.step,
                checkpoint.training_seconds + checkpoint.evaluation_seconds,
                time.monotonic(),
            )

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print score, checkpoints and configuration of the trial."""
        shown = self._trials.pop(trial.number)
        seconds = time.monotonic() - shown.start
        finished = _count_finished(study)
        with self._lock:
            self._known_job.trial_finished(trial.number, trial.value, finished, time.monotonic())
        self._best = _best_score(study)
        pruned = trial.state == TrialState.PRUNED
        score = "pruned" if pruned else text.score(trial.value)
        diverged = trial.user_attrs.get("diverged_seeds")
        values = self._space.decode(trial.params).to_dict()
        if self._live is not None:
            if self._table is None:
                in_ascii = _shown(self._console, "γ") != "γ"
                self._table = TrialTable(self._space, self._console.width, in_ascii)
                self.lines(self._table.header)
            if diverged and pruned:
                score = "diverged"
            self.lines([self._table.row(trial.number, score, values, seconds, shown.means)])
            return
        in_short = (
            f"{LABELS.get(name, name)} {value_in_short(values[name])}" for name in self._space.keys
        )
        configuration = "defaults" if is_baseline(trial) else " ".join(in_short)
        self.line(
            f"{_title(trial.number)} {score:>7}  {'  '.join(shown.checkpoints)}  | {configuration}"
            f"{f' | diverged seeds: {len(diverged)}' if diverged else ''}"
            f" | {self._best_so_far()} | {seconds:.1f} s, {self._time_left()}"
        )

    def proof_started(self, phase: str, plan: Plan, runs: Mapping[str, Candidate]) -> None:
        """Show the phase on the status line."""
        known = {name: (run.number, run.hyperparameters.n_epochs) for name, run in runs.items()}
        with self._lock:
            self._known_job.proof_started(phase, plan, known, time.monotonic())
        self._now = ()

    def seeds_checkpoint(
        self, name: str, first: int, stop: int, step: int, returns: np.ndarray
    ) -> None:
        """Show a checkpoint of a finalist or a validation run; print its last one.

        Args:
          name: of the run.
          first: the first of the seeds that are trained at once.
          stop: the seed after the last of them.
          step: nominal environment step.
          returns: of these seeds, float ``[stop - first]``; NaN for a diverged one.
        """
        job = self._known_job
        with self._lock:
            job.seeds_checkpoint(name, first, stop, step, time.monotonic())
        finite = returns[np.isfinite(returns)]
        mean = f"return {text.score(finite.mean())}" if len(finite) else "diverged"
        steps = text.steps_in_short(step)
        line = f"{name}, seeds {first}–{stop - 1}: {steps} steps, {mean}"
        self._now = line, f"{name.rpartition(', ')[2]} at {steps}"
        if job.plan is not None and step == job.plan.validate_steps:
            self.line(line if self._live is not None else f"{line}, {self._time_left()}")

    def line(self, line: str) -> None:
        """Print a line that stays."""
        self.lines([line])

    def lines(self, lines: Sequence[str]) -> None:
        """Print lines that stay."""
        print_lines(self._console, lines)

    @property
    def _known_job(self) -> Job:
        assert self._job is not None, "the study has started"
        return self._job

    def _status(self) -> RenderableType:
        """Return the line of the whole session, as much of it as fits."""
        room = self._console.width - 3  # The spinner, and a last column that wraps nowhere.
        with self._lock:
            (line,), *parts = self._status_parts()
        for wordings in parts:
            fitting = (word for word in wordings if len(line) + 3 + len(word) <= room)
            line += "".join(f" | {word}" for word in itertools.islice(fitting, 1))
        self._spinner.text = Text(_shown(self._console, printable(line[:room])), no_wrap=True)
        return self._spinner

    def _status_parts(self) -> list[Sequence[str]]:
        """Return what the status line says, the most important first, in the wordings there are."""
        job = self._job
        if job is None:
            return [["starting"]]
        place = f"phase {job.phases.index(job.phase) + 1} of {len(job.phases)}, {job.phase}"
        if job.phase == TRIALS:
            of = "" if self._n_trials >= NO_LIMIT else f" of {self._n_trials}"
            place += f" {job.finished}{of}"
        done, total = job.steps()
        steps = text.steps_in_short(done)
        if total is not None:
            steps += f" of {text.steps_in_short(total)}"
        left = "compiling" if self._is_compiling() else self._time_left()
        best = self._best_so_far()
        return [[place], [f"{steps} steps", steps], [left], self._now, [best]]

    def _best_so_far(self) -> str:
        return "no score yet" if self._best is None else f"best {text.score(self._best)}"

    def _time_left(self) -> str:
        """Return how long the whole session, as far as its plan is known, will take."""
        left = None if self._job is None else self._job.seconds_left(time.monotonic())
        if self._budget is not None:
            at_most = max(0.0, self._budget.left)
            if left is None:
                return f"at most {text.duration_left(at_most, at_most)} left"
            left = min(left[0], at_most), min(left[1], at_most)
        if left is None:
            return "time left unknown"
        what = " of the trials" if self._plan is None else ""
        return f"{text.duration_left(*left)} left{what}"


def print_summary(
    console: Console, results: StudyResults, folder: StudyFolder, seconds: float
) -> None:
    """Print the outcome of a study: a table, then what to take home.

    Args:
      console: to print to.
      results: of the study.
      folder: where its files are.
      seconds: wall clock of the process.
    """
    rows = _score_rows(results)
    if results.validation is not None:
        rows |= _validation_rows(results.validation, results.decimals)
    if results.analysis.bounds_hit:
        rows["best at a bound of the space"] = "; ".join(
            f"{name} {text.number(hit.bound)}, try {text.number(hit.widen_to)}"
            for name, hit in results.analysis.bounds_hit.items()
        )
    counts, spent = results.counts, results.seconds
    processes = len(results.study.compilations)
    in_all = f"{seconds:.0f} s in all; "
    if processes > 1:  # Workers, or earlier runs of the command.
        in_all = f"{seconds:.0f} s this time; {processes} processes together: "
    rows |= {
        "trials": f"{counts.get('complete', 0)} complete, {counts.get('pruned', 0)} pruned",
        "time": f"{in_all}{spent['compilation']:.0f} s compiling, "
        f"{spent['training']:.0f} s training, {spent['evaluation']:.1f} s evaluating trials",
        "programs compiled": ", ".join(f"{k} {v}" for k, v in results.programs_compiled.items()),
        "results": str(folder.path),
    }
    console.print()
    _print_rows(console, rows)
    further = advice.next_steps(results)
    if results.validation is None and results.best is not None:
        further.append(
            "To prove the best trial on fresh seeds, run the same command with --validate-steps 1M"
        )
    print_lines(console, ["", *conclusion(results, folder, further)])


def conclusion(results: StudyResults, folder: StudyFolder, next_steps: Sequence[str]) -> list[str]:
    """Return what a reader takes home.

    The verdict, the recommended hyperparameters and how to use them, where the report is, and
    what to do next.
    """
    lines = [results.verdict or NOT_VALIDATED]
    found = results.recommendation
    if found is not None:
        lines += ["", *_recommended(found), "", f"Train the {found.name}:", f"  {found.command}"]
        if folder.policy.is_dir():
            play = ["python", "-m", "ppo_jax.evaluate", str(folder.policy)]
            own = {"--env": results.settings.env, "--network": found.candidate.agent.network}
            play += [word for pair in own.items() if ":" in pair[1] for word in pair]
            lines += ["Play with its policy:", f"  {shlex.join(play)}"]
    lines += [
        *([] if found is not None else [""]),
        "Read the report, one file for any browser:",
        f"  {folder.report.resolve().as_uri()}",
    ]
    if next_steps:
        lines += ["Next:", *(f"- {step}." for step in next_steps)]
    return lines


def _recommended(found: Recommendation) -> list[str]:
    """Return the recommended hyperparameters, where they are not the baseline's."""
    candidate = found.candidate
    baseline = candidate.settings.baseline.to_dict()
    trial = "" if candidate.number is None else f", trial {candidate.number}"
    rows = {
        name: (text.number(value), text.number(baseline[name]))
        for name, value in candidate.configuration.to_dict().items()
        if value != baseline[name]
    }
    if not rows:
        return [f"Recommended: the {found.name}{trial}, which the study started from"]
    name_width, value_width = max(map(len, rows)), max(len(value) for value, _ in rows.values())
    return [
        f"Recommended: the {found.name}{trial}",
        *(
            f"  {name:<{name_width}}  {value:<{value_width}}  baseline {default}"
            for name, (value, default) in rows.items()
        ),
    ]


def report_lines(results: StudyResults, folder: StudyFolder) -> list[str]:
    """Return what ``python -m tune.report`` prints: trials, warning, and the conclusion."""
    states = ", ".join(f"{count} {state}" for state, count in results.counts.items())
    warning = results.analysis.warning
    return [
        f"{results.name}: {states}",
        *([] if warning is None else [warning]),
        *conclusion(results, folder, advice.next_steps(results)),
    ]


def _print_rows(console: Console, rows: Mapping[str, str]) -> None:
    """Print names and what they stand for; on a terminal, long ones are wrapped beside the name."""
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=max(map(len, rows)))
        table.add_column(overflow="fold")
        for name, content in rows.items():
            table.add_row(Text(printable(name)), Text(printable(content)))
        console.print(table)
        return
    width = max(map(len, rows))
    print_lines(console, [f"{name:<{width}}  {content}" for name, content in rows.items()])


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print lines as they are, without markup and colours.

    A terminal gets them wrapped between words, but for indented ones, which are to be copied or
    are rows of a table.
    """
    for line in lines:
        wrapped = console.is_terminal and not line.startswith(" ")
        shown = _shown(console, printable(line))
        console.print(shown, markup=False, highlight=False, soft_wrap=not wrapped)


_IN_ASCII = str.maketrans(
    {"×": "x", "–": "-", "−": "-", "…": "...", "γ": "gamma", "λ": "lambda", "ε": "clip"}
)
"""What stands for a character that the encoding of a terminal lacks."""


def _shown(console: Console, line: str) -> str:
    """Return `line` in characters that the encoding of `console` has, as far as they are ours."""
    try:
        line.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return line.translate(_IN_ASCII)
    return line


def _score_rows(results: StudyResults) -> dict[str, str]:
    """Return the scores on tuning seeds, and the reference."""
    best, score, gain = results.best, results.best_score, results.gain
    digits = results.decimals
    trial = f" (trial {best.number})" if best else ""
    rows = {
        "best on tuning seeds": text.score(score, digits) + trial,
        "baseline on tuning seeds": text.score(results.baseline_score, digits),
        "gain on tuning seeds": "–" if gain is None else _text(gain, digits, signed=True),
    }
    reference = results.settings.reference_score
    if reference is not None:
        rows["reference"] = f"{reference:g}"
        if score is not None:
            away = text.score(score - reference, digits, signed=True)
            rows["reference"] += f" (best − reference {away})"
    return rows


def _validation_rows(validation: Validation, digits: int) -> dict[str, str]:
    """Return the findings of a validation besides its verdict."""
    number = validation.winner.number
    rows = {"winner": "not a trial of the study" if number is None else f"trial {number}"}
    for name, candidate in (("winner", validation.winner), ("baseline", validation.baseline)):
        rows[f"score of the {name} by seeds"] = _scores(candidate, digits)
        if candidate.optimism is not None:
            rows[f"optimism of the {name}"] = _text(candidate.optimism, digits, signed=True)
    verdict = validation.verdict
    if not verdict.is_baseline:
        if verdict.speed.difference is not None:
            speed = _text(verdict.speed.difference, digits, signed=True)
            rows["winner − baseline over training"] = f"{speed}: {verdict.speed_outcome}"
        chance = verdict.level.probability_of_improvement
        rows["P(winner beats baseline)"] = _text(chance, 2)
    return rows


def _scores(candidate: Candidate, digits: int) -> str:
    """Return the mean score on each group of seeds."""
    summaries = {group: summarize(scores) for group, scores in candidate.scores.items()}
    return ", ".join(
        f"{text.score(summary.mean.value, digits)} {group}"
        for group, summary in summaries.items()
        if summary is not None
    )


def _text(estimate: Estimate, digits: int, *, signed: bool = False) -> str:
    return estimate_text(
        estimate.value, estimate.interval, digits, signed=signed, confidence=estimate.confidence
    )


def _title(number: int) -> str:
    return f"trial {number:>2}"


def _count_finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _best_score(study: optuna.Study) -> float | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((trial.value for trial in complete if trial.value is not None), default=None)


def _trials(count: int) -> str:
    return "trials" if count == NO_LIMIT else text.plural(count, "trial")
