"""Terminal output of a study: progress while it runs and the summary at its end.

A terminal gets a status line besides the lines that stay; other outputs get only those.
"""

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ppo_jax.hyperparameters import DOMAINS
from ppo_jax.programs import Checkpoint
from ppo_jax.text import estimate_text, printable
from tune.evidence.candidate import Candidate
from tune.evidence.recommendation import Recommendation
from tune.evidence.statistics import Estimate, summarize
from tune.evidence.validation import Validation
from tune.protocol.plan import NO_LIMIT
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import FINISHED, is_baseline
from tune.report import advice, text
from tune.report.results import NOT_VALIDATED, StudyResults


@dataclasses.dataclass
class _Shown:
    """A trial that is being trained.

    Attributes:
      start: moment.
      checkpoints: it has passed, as text.
    """

    start: float
    checkpoints: list[str] = dataclasses.field(default_factory=list)


class ConsoleProgress:
    """Prints the progress of a study; a context manager that removes the status line at its end.

    Args:
      console: to print to.
      heading: print a heading when the study starts. Workers leave it to the process that
        started them.
    """

    def __init__(self, console: Console, heading: bool = True) -> None:
        self._heading = heading
        self._console = console
        self._status: Status | None = None
        self._n_trials = self._finished = self._finished_before = 0
        self._shares: list[float] = []
        self._best: float | None = None
        self._space = SearchSpace()
        self._trials: dict[int, _Shown] = {}

    def __enter__(self) -> "ConsoleProgress":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def study_started(self, study: optuna.Study, settings: Settings, n_trials: int) -> None:
        """Print what the study does and how far it is."""
        self._n_trials, self._space = n_trials, settings.space
        self._finished = self._finished_before = _count_finished(study)
        self._best = _best_score(study)
        if not self._heading:
            return
        self.line(
            f"study {study.study_name!r}: {settings.env}, {_trials(n_trials)} of "
            f"{text.plural(settings.seeds, 'seed')} × {text.steps(settings.total_steps)} steps, "
            f"{settings.sampler} sampler, {settings.pruner} pruner"
        )
        if self._finished:
            self.line(f"continuing after {text.plural(self._finished, 'finished trial')}")
        for name, (default, value) in settings.space.moved_defaults().items():
            self.line(
                f"the baseline uses {name} = {text.number(value)}: the search space does not hold "
                f"the default {text.number(default)}"
            )
        for hint in advice.before(settings):
            self.line(hint)
        if self._finished < n_trials:
            sizes = [n for n in settings.space.tuned_agent if not n.startswith("normalize")]
            once = f"each {', '.join(sizes)}" if sizes else "the whole study"
            self.line(f"compiling the programs, once for {once}")

    def trial_started(self, trial: optuna.Trial) -> None:
        """Show the trial on the status line."""
        self._trials[trial.number] = _Shown(time.perf_counter())
        self._show(trial.number, "training")

    def checkpoint(self, trial: optuna.Trial, checkpoint: Checkpoint) -> None:
        """Show a trial with the mean return at its checkpoint on the status line."""
        returns = checkpoint.returns[np.isfinite(checkpoint.returns)]
        mean = text.score(returns.mean()) if len(returns) else "diverged"
        checkpoints = self._trials[trial.number].checkpoints
        checkpoints.append(f"{checkpoint.step // 1000}k {mean}")
        self._show(trial.number, "  ".join(checkpoints))

    def trial_finished(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print a line with score, checkpoints and configuration of the trial."""
        self._finished = _count_finished(study)
        shown = self._trials.pop(trial.number)
        seconds = time.perf_counter() - shown.start
        self._shares.append(seconds / (1 + len(self._trials)))
        self._best = _best_score(study)
        score = "pruned" if trial.state == TrialState.PRUNED else text.score(trial.value)
        configuration = "defaults" if is_baseline(trial) else self._in_short(trial)
        diverged = trial.user_attrs.get("diverged_seeds")
        self.line(
            f"{_title(trial.number)} {score:>7}  {'  '.join(shown.checkpoints)}  | {configuration}"
            f"{f' | diverged seeds: {len(diverged)}' if diverged else ''}"
            f" | {self._best_so_far()} | {seconds:.1f} s, {self._time_left()}"
        )

    def seeds_checkpoint(
        self, name: str, first: int, stop: int, step: int, returns: np.ndarray
    ) -> None:
        """Show a checkpoint of a finalist or a validation run on the status line.

        Args:
          name: of the run.
          first: the first of the seeds that are trained at once.
          stop: the seed after the last of them.
          step: nominal environment step.
          returns: of these seeds, float ``[stop - first]``; NaN for a diverged one.
        """
        if self._status is None:
            return
        finite = returns[np.isfinite(returns)]
        mean = f"return {text.score(finite.mean())}" if len(finite) else "diverged"
        seeds = f"seeds {first}–{stop - 1}"
        self._status.update(f"{name}, {seeds}: {text.steps(step)} steps, {mean}")

    def line(self, line: str) -> None:
        """Print a line that stays."""
        print_lines(self._console, [line])

    def _show(self, number: int, status: str) -> None:
        if self._status is not None:
            of = "" if self._n_trials == NO_LIMIT else f" of {self._n_trials}"
            self._status.update(
                f"{_title(number)}{of}: {status}  ({self._best_so_far()}, {self._time_left()})"
            )

    def _in_short(self, trial: FrozenTrial) -> str:
        values = self._space.decode(trial.params).to_dict()
        shown = {name: values[name] for name in self._space.keys}
        return " ".join(f"{_LABELS.get(n, n)} {_value_in_short(v)}" for n, v in shown.items())

    def _best_so_far(self) -> str:
        return "no score yet" if self._best is None else f"best {text.score(self._best)}"

    def _time_left(self) -> str:
        """Return it as text; by each trial's share of the time, as others train beside it."""
        if not self._shares or self._n_trials == NO_LIMIT:
            return "time left unknown"
        # The first trial includes the compilation, so it counts only while it is alone.
        known = self._shares[1:] or self._shares
        # Other processes on the same study finish trials as well.
        share = len(self._shares) / max(1, self._finished - self._finished_before)
        seconds = max(0, self._n_trials - self._finished) * share * sum(known) / len(known)
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


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
        rows |= _validation_rows(results.validation)
    if results.analysis.bounds_hit:
        rows["best at a bound of the space"] = "; ".join(
            f"{name} {text.number(hit.bound)}, try {text.number(hit.widen_to)}"
            for name, hit in results.analysis.bounds_hit.items()
        )
    counts, spent = results.counts, results.seconds
    rows |= {
        "trials": f"{counts.get('complete', 0)} complete, {counts.get('pruned', 0)} pruned",
        "time": f"{seconds:.0f} s in all; {spent['compilation']:.0f} s compiling, "
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
        return [f"Recommended: the {found.name}{trial}, with the hyperparameters it started from"]
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
        str(folder.report),
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

    A terminal gets them wrapped between words, but for indented ones, which are to be copied.
    """
    for line in lines:
        wrapped = console.is_terminal and not line.startswith(" ")
        console.print(printable(line), markup=False, highlight=False, soft_wrap=not wrapped)


def _score_rows(results: StudyResults) -> dict[str, str]:
    """Return the scores on tuning seeds, and the reference."""
    best, score, gain = results.best, results.best_score, results.gain
    rows = {
        "best on tuning seeds": text.score(score) + (f" (trial {best.number})" if best else ""),
        "baseline on tuning seeds": text.score(results.baseline_score),
        "gain on tuning seeds": "–" if gain is None else _text(gain, signed=True),
    }
    reference = results.settings.reference_score
    if reference is not None:
        difference = "" if score is None else text.score(score - reference, signed=True)
        rows["reference"] = f"{reference:g}" + (f" (best {difference})" if difference else "")
    return rows


def _validation_rows(validation: Validation) -> dict[str, str]:
    """Return the findings of a validation besides its verdict."""
    number = validation.winner.number
    rows = {"winner": "not a trial of the study" if number is None else f"trial {number}"}
    for name, candidate in (("winner", validation.winner), ("baseline", validation.baseline)):
        rows[f"score of the {name} by seeds"] = _scores(candidate)
        if candidate.optimism is not None:
            rows[f"optimism of the {name}"] = _text(candidate.optimism, signed=True)
    verdict = validation.verdict
    if not verdict.is_baseline:
        if verdict.speed.difference is not None:
            speed = _text(verdict.speed.difference, signed=True)
            rows["winner − baseline over training"] = f"{speed}: {verdict.speed_outcome}"
        chance = verdict.level.probability_of_improvement
        rows["P(winner beats baseline)"] = _text(chance, digits=2)
    return rows


def _scores(candidate: Candidate) -> str:
    """Return the mean score on each group of seeds."""
    summaries = {group: summarize(scores) for group, scores in candidate.scores.items()}
    return ", ".join(
        f"{text.score(summary.mean.value)} {group}"
        for group, summary in summaries.items()
        if summary is not None
    )


def _text(estimate: Estimate, *, digits: int = 1, signed: bool = False) -> str:
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


_LABELS = {
    **{name: domain.label for name, domain in DOMAINS.items()},
    "num_envs": "envs",
    "hidden_sizes": "hidden",
    "normalize_observations": "norm-obs",
    "normalize_rewards": "norm-rew",
}


def _value_in_short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
