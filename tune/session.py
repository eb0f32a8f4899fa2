"""A study from its first trial to its report: tune, finalists, validate, write."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from rich.console import Console

from ppo_jax.config import iterations_for
from ppo_jax.devices import set_up_process
from ppo_jax.environments import make, require_no_code
from ppo_jax.errors import LARGEST_STEPS, UserError, require_count
from ppo_jax.files import FolderInUseError, make_folder, require_writable, write_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network
from ppo_jax.programs import Programs
from ppo_jax.schedules import choose_lanes
from tune.evidence.candidate import Candidate
from tune.evidence.finalists import (
    Finalists,
    choose_finalists,
    finalist_name,
    train_finalists,
)
from tune.evidence.learning_curve import SeedsObserver
from tune.evidence.recommendation import read_recommended
from tune.evidence.validation import (
    Validation,
    baseline_of,
    config_for,
    rank,
    seed_group,
    validate,
    validation_name,
)
from tune.protocol.budget import Budget, seconds_per_step
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import (
    FINISHED,
    StudyRecord,
    TrialRecord,
    compilations,
    record_compilations,
    settings_of,
)
from tune.report.console import ConsoleProgress
from tune.report.files import load_results, write_conclusion, write_report
from tune.report.films import load_films, make_films
from tune.report.results import StudyResults
from tune.report.time_left import FINALISTS, VALIDATION
from tune.search.objective import make_programs, shared_pool
from tune.search.pool import ProgramPool
from tune.search.samplers import has_configurations_left
from tune.search.storage import is_shared
from tune.search.study import open_study, own_settings, run_trials
from tune.search.trial_loop import Progress

_LEFT_TO_ANOTHER = "another process on this study trains the finalists and validates at its end"


class SessionProgress(Progress, Protocol):
    """What a session reports while it runs."""

    def proof_started(self, phase: str, plan: Plan, runs: Mapping[str, Candidate]) -> None:
        """Report which configurations are going to be trained.

        Args:
          phase: ``finalists`` or ``validation``.
          plan: of the session, as the budget has left it.
          runs: name of a run, as ``seeds_checkpoint`` gets it -> its configuration.
        """

    def seeds_checkpoint(
        self, name: str, first: int, stop: int, step: int, returns: np.ndarray
    ) -> None:
        """Report a checkpoint of a finalist or a validation; see ``SeedsObserver``."""

    def line(self, text: str) -> None:
        """Report what happens next, in a line."""


class _Quiet:
    """Reports nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None


def run_study(
    n_trials: int = 20,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    finalists: int = 3,
    validate_steps: int = 1_000_000,
    validate_seeds: int = 20,
    budget: float | None = None,
    programs: Programs | ProgramPool | None = None,
    progress: SessionProgress | bool = False,
) -> StudyResults:
    """Run, or continue, a whole study: trials, finalists, validation, report.

    What ``python -m tune.run`` does, with the same files.

    Args:
      n_trials: see :func:`tune.run_optimization`, as for the other arguments it has.
      settings: the protocol.
      output: folder for all results; ``runs/<study name>`` by default.
      storage: an address.
      study_name: the environment's name by default.
      finalists: promising trials that are trained as far as the validation; 0 for none.
      validate_steps: environment steps of a validation seed; 0 for no validation.
      validate_seeds: fresh seeds, at most.
      budget: seconds of wall clock; trials are run while they fit, `n_trials` at most.
      programs: see :func:`tune.run_optimization`.
      progress: print how the study goes, or what is called as it goes on.

    Returns:
      The results. ``recommendation`` is what to use: its configuration, command and verdict.

    Raises:
      UserError: before anything is created or trained, when the request cannot work.
    """
    set_up_process()
    settings = Settings.of(settings)
    require_count("n_trials", n_trials)
    require_count("finalists", finalists, low=0)
    require_count("validate_steps", validate_steps, low=0, high=LARGEST_STEPS)
    require_count("validate_seeds", validate_seeds)
    name = study_name or settings.env
    plan = Plan(
        settings,
        n_trials,
        name,
        StudyFolder.of(output, name),
        storage=storage,
        finalists=finalists,
        validate_steps=validate_steps,
        validate_seeds=validate_seeds,
        budget=budget,
    )
    trained = programs or make_programs(settings, n_trials)
    clock = None if budget is None else Budget(budget)
    with contextlib.ExitStack() as stack:
        if progress is True:
            # A notebook gets plain lines: a status line there needs packages of its own, and its
            # kernel claims to be a terminal (FORCE_COLOR).
            progress = stack.enter_context(
                ConsoleProgress(
                    Console(force_jupyter=False, force_terminal=sys.stdout.isatty()),
                    plan=plan,
                    budget=clock,
                    is_compiling=lambda: trained.compile_log.waiting,
                )
            )
        quiet: Any = _Quiet()
        results = run(plan, trained, progress or quiet, clock)
    if results is None:
        raise UserError(f"{plan.folder.path}: {_LEFT_TO_ANOTHER}")
    return results


def run(
    plan: Plan,
    programs: Programs | ProgramPool,
    progress: SessionProgress,
    budget: Budget | None = None,
) -> StudyResults | None:
    """Run, or continue, a study, prove its winner and write every file of its folder.

    Args:
      plan: what to do.
      programs: of the settings' configuration, or a pool of them; tuning, finalists and
        validation share them.
      progress: called as the session goes on.
      budget: the clock of the plan's budget; it begins here if not given.

    Returns:
      The results; None where another process on the same study does so at its end.
    """
    folder = plan.folder
    if budget is None and plan.budget is not None:
        budget = Budget(plan.budget)
    shared = is_shared(plan.storage or folder.default_storage())
    try:
        with open_study(
            plan.settings, folder, storage=plan.storage, study_name=plan.study_name
        ) as study:
            plan = dataclasses.replace(plan, settings=own_settings(study))
            pool = ProgramPool.of(programs, plan.settings)
            _tune(plan, study, pool, progress, budget)
        with folder.held(shared=False):
            return _prove(plan, study, pool, progress, budget)
    except FolderInUseError:
        if not shared:
            raise
        # Its trials may still be running, so only the last process can name the winner.
        progress.line(_LEFT_TO_ANOTHER)
        return None


def _tune(
    plan: Plan,
    study: optuna.Study,
    programs: ProgramPool,
    progress: SessionProgress,
    budget: Budget | None,
) -> None:
    """Run the trials; write what there is when interrupted."""
    try:
        run_trials(
            study,
            plan.n_trials,
            plan.settings,
            programs,
            progress=progress,
            worker_timeout=plan.worker_timeout,
            max_retries=plan.max_retries,
            limit=None if budget is None else _StudyLimit(budget, plan, study),
        )
    except KeyboardInterrupt:
        write_report(load_results(study, plan.folder, analysed=False), plan.folder)
        raise
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    if finished < plan.n_trials and not has_configurations_left(study):
        tried = f"{finished} trial{'s' * (finished > 1)}"
        progress.line(f"{tried} in all: there is no other configuration to try")


@dataclasses.dataclass(frozen=True)
class _StudyLimit:
    """A budget as the loop of trials asks for it."""

    budget: Budget
    plan: Plan
    study: optuna.Study

    def has_room(self) -> bool:
        """See :class:`tune.search.trial_loop.TimeLimit`."""
        return self.budget.has_room(self._trials, self.plan)

    def is_overrun(self, ahead: float) -> bool:
        """See :class:`tune.search.trial_loop.TimeLimit`."""
        return self.budget.is_overrun(self._trials, self.plan, ahead)

    @property
    def _trials(self) -> list[TrialRecord]:
        return [TrialRecord.of(trial) for trial in self.study.get_trials(deepcopy=False)]


def _prove(
    plan: Plan,
    study: optuna.Study,
    programs: ProgramPool,
    progress: SessionProgress,
    budget: Budget | None,
) -> StudyResults:
    """Name a winner and validate it, as far as `plan` asks for it, and write the results."""
    folder = plan.folder
    results = load_results(study, folder)
    write_report(results, folder)  # There is much to look at while the winner is proved.
    if results.best is None or not plan.validate_steps:
        return results
    seeds = plan.validate_seeds
    if budget is not None:
        plan = _fitted(plan, seconds_per_step(results.finished), budget, progress)
    finalists = _train_finalists(plan, results, programs, progress)
    if budget is not None and finalists is not None:
        speeds = [c.finals.seconds / c.finals.steps[-1] for c in finalists.candidates]
        # What the finalists have not taken is time for more seeds than were thought to fit.
        plan = dataclasses.replace(plan, validate_seeds=seeds)
        plan = _fitted(plan, max(speeds), budget, progress, steps_are_fixed=True)
    validation = _prove_winner(plan, results.study, finalists, programs, progress, budget)
    record_compilations(study, programs.compile_log)
    record = dataclasses.replace(results.study, compilations=compilations(study))
    make_films(validation, folder)
    results = dataclasses.replace(
        results,
        study=record,
        finalists=finalists,
        validation=validation,
        films=load_films(validation, folder),
    )
    write_report(results, folder)
    return results


def _fitted(
    plan: Plan,
    per_step: float,
    budget: Budget,
    progress: SessionProgress,
    *,
    steps_are_fixed: bool = False,
) -> Plan:
    """Return the plan with a proof that fits into what is left of the budget."""
    fitted = budget.fitted(plan, per_step, steps_are_fixed=steps_are_fixed)
    if fitted != plan:
        progress.line(
            f"{max(budget.left, 0):.0f} s of the budget are left: the proof takes "
            f"{fitted.validate_steps:,} steps and up to {fitted.validate_seeds} seeds"
        )
    return fitted


def _train_finalists(
    plan: Plan, results: StudyResults, programs: ProgramPool, progress: SessionProgress
) -> Finalists | None:
    """Train promising trials as far as a validation, if that is farther than they have come."""
    if not plan.finalists or plan.validate_steps <= plan.settings.total_steps:
        return results.finalists  # Of an earlier session, if any.
    chosen = choose_finalists(results.study, plan.finalists)
    progress.proof_started(FINALISTS, plan, {finalist_name(found): found for found in chosen})
    numbers = [str(candidate.number) for candidate in chosen if not candidate.is_baseline]
    trials = f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)} and " if numbers else ""
    progress.line(
        f"finalists: {trials}the baseline on "
        f"{plan.settings.seeds} tuning seeds × {plan.validate_steps:,} steps"
    )
    return train_finalists(
        results.study,
        programs,
        plan.folder,
        plan.validate_steps,
        plan.finalists,
        progress.seeds_checkpoint,
        chosen,
    )


def _prove_winner(
    plan: Plan,
    study: StudyRecord,
    finalists: Finalists | None,
    programs: ProgramPool,
    progress: SessionProgress,
    budget: Budget | None,
) -> Validation:
    """Train winner and baseline on validation seeds."""
    candidates = rank(study, finalists)
    winner, baseline = candidates[0], baseline_of(candidates, plan.settings)
    runs = {validation_name("winner"): winner}
    if baseline is not winner:
        runs[validation_name("baseline")] = baseline
    progress.proof_started(VALIDATION, plan, runs)
    both = "the baseline" if winner is baseline else f"trial {winner.number} and the baseline"
    progress.line(
        f"validation: {both} on up to {plan.validate_seeds} fresh seeds × "
        f"{plan.validate_steps:,} steps"
    )
    return _validate(
        winner,
        baseline,
        programs,
        plan.folder,
        plan.validate_steps,
        plan.validate_seeds,
        progress.seeds_checkpoint,
        None if budget is None else budget.allows,
    )


def train_best_config(
    params: Mapping[str, Any] | Hyperparameters | Configuration | str | Path,
    num_steps: int = 1_000_000,
    *,
    settings: Settings | None = None,
    seeds: int = 20,
    output: str | Path | None = None,
    study: optuna.Study | None = None,
    finalists: Finalists | None = None,
    programs: Programs | ProgramPool | None = None,
    observer: SeedsObserver | None = None,
) -> Validation:
    """Train a configuration and the baseline on fresh seeds and say which is better.

    Writes into `output`: ``validation.json``, ``validation.png``, ``recommended.json``, the
    configuration to use, and ``policy/``, the network of its best seed. What an earlier call
    with the same request has trained into the same folder is not trained again; one that was
    stopped is continued at its last checkpoint, bit for bit. Validations of several
    configurations into one folder are counted, and each is held to a stricter level.

    Args:
      params: hyperparameters; the ``best_params`` of an ``optimization_results.json``, for
        example. What is missing keeps its default. Or the path of a ``recommended.json``,
        which brings the settings of its study.
      num_steps: environment steps of each seed.
      settings: of the study; by default those of `study`, of the file, or the defaults
        (CartPole-v1).
      seeds: validation seeds, at most: no more are trained than tell the two apart. None of
        them is a tuning seed.
      output: a folder; that of `study`, ``runs/<study name>``, or without one
        ``runs/<environment>-validation`` by default. The folder of a study is for `study` alone.
      study: where `params` come from, to tell how much tuning flattered them.
      finalists: likewise.
      programs: that can run the configuration; compiled in this process when not given.
      observer: called at each checkpoint of each group of seeds.

    Returns:
      The validation, with per-seed returns of both at every checkpoint.

    Raises:
      UserError: before anything is trained, when the request cannot work.
    """
    set_up_process()
    stored = None if study is None else settings_of(study)
    if isinstance(params, (str, Path)):
        params, stored = read_recommended(params)
    if settings is None and stored is not None:
        require_no_code(stored.env, "what is stored", "pass settings=")
    settings = Settings.of(stored if settings is None else settings)
    require_count("num_steps", num_steps, high=LARGEST_STEPS)
    if isinstance(params, Hyperparameters):
        params = Configuration(params.validated(), settings.space.fixed_agent)
    elif not isinstance(params, Configuration):
        if not isinstance(params, Mapping):
            raise UserError(f"params must be a mapping or a path, but got {params!r:.80}")
        params = settings.space.complete(params)
    config = config_for(settings, params)
    iterations_for(num_steps, params.hyperparameters.n_steps)
    make_network(params.agent, make(settings.env, settings.env_kwargs).spaces)
    winner, baseline = _given(params, settings, study, finalists)
    seed_group(config, winner, num_steps, seeds)
    name = f"{settings.env}-validation" if study is None else study.study_name
    folder = StudyFolder.of(output, name)
    _require_own(folder, study)
    make_folder(folder.path)
    if programs is None:
        # Both, and of each as many groups as the first look needs.
        groups = 2 * -(-seeds // settings.seeds)
        lanes = choose_lanes(config, settings.seeds, groups)
        programs = shared_pool(settings, config, lanes)
    with folder.held(shared=False):
        validation = _validate(winner, baseline, programs, folder, num_steps, seeds, observer)
        write_conclusion(validation, folder)
    return validation


def _require_own(folder: StudyFolder, study: optuna.Study | None) -> None:
    """Raise a ``UserError`` where a validation would overwrite the results of another study."""
    if study is not None:
        folder.require_usable(study.study_name)
    elif folder.config.exists():
        raise UserError(
            f"{folder.path} holds the study {folder.study_name()!r}, whose results a validation "
            f"would overwrite; choose another output, or pass study="
        )
    require_writable(folder.path)


def _given(
    configuration: Configuration,
    settings: Settings,
    study: optuna.Study | None,
    finalists: Finalists | None,
) -> tuple[Candidate, Candidate]:
    """Return a configuration given from outside, and the baseline.

    Outside, a configuration is known by its values alone, so its trial is found by them; from
    here on, records point to each other.
    """
    record = StudyRecord(settings.env, settings, ()) if study is None else StudyRecord.of(study)
    known = [*(finalists.candidates if finalists else ()), *rank(record, None)]
    baseline = baseline_of(known, settings)
    for candidate in [baseline, *known]:
        if candidate.configuration == configuration:
            return candidate, baseline
    return Candidate(settings, configuration), baseline


def _validate(
    winner: Candidate,
    baseline: Candidate,
    programs: Programs | ProgramPool,
    folder: StudyFolder,
    num_steps: int,
    seeds: int,
    observer: SeedsObserver | None,
    allows: Callable[[float], bool] | None = None,
) -> Validation:
    """Train winner and baseline, and write their returns."""
    validation = validate(winner, baseline, programs, folder, num_steps, seeds, observer, allows)
    write_json(folder.validation, validation.to_dict())
    folder.remove_training_state()
    return validation
