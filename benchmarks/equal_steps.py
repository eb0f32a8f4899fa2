"""Studies that may spend a given number of environment steps, everything included.

They run by the tuner's own sampler, pruner, objective and model; what answers in place of training
is a model of recorded trials (:mod:`benchmarks.surrogate`) or their rows
(:mod:`benchmarks.replays`).
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tune.protocol.settings import Settings

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

    from ppo_jax.schedules import RunsSeeds
    from tune.protocol.trials import StudyRecord, TrialRecord
    from tune.search.pool import ProgramPool

RERUN_TOP, RERUN_SEEDS = 3, 10
"""How many of the best trials, and on how many fresh seeds, the winner rule ``rerun`` trains."""

WINNERS: Mapping[str, str] = {
    "model": "the complete trial that the model expects most of, as in ``tune.run``",
    "score": "the trial with the best score",
    "rerun": "the best of three trials and the default, run again on ten fresh seeds each",
}
"""Rule that names the winner of a study -> what it takes. ``rerun`` was once the tuner's own way
to correct for luck; the model does that without steps."""

CLASSIC: Mapping[str, Any] = {"sampler": "tpe", "sampler_startup_trials": 5, "winner": "rerun"}
"""What the tuner did before it had a model: settings of a study, and the rule for its winner."""


def run_trials(
    settings: Settings,
    programs: "RunsSeeds | ProgramPool",
    budget: int,
    winner: str,
    sampler: "BaseSampler | None" = None,
    lanes: int = 1,
) -> "StudyRecord":
    """Run the trials of a study as ``tune.run`` does, until its environment steps are spent.

    Args:
      settings: of the study.
      programs: what answers in their place.
      budget: environment steps of everything together.
      winner: a rule in :data:`WINNERS`, whose steps are kept back.
      sampler: that of the settings if not given.
      lanes: trials side by side.
    """
    import optuna

    from benchmarks.lockstep import LanePool
    from tune.protocol.trials import StudyRecord
    from tune.search.pool import ProgramPool
    from tune.search.pruners import make_pruner
    from tune.search.samplers import make_sampler
    from tune.search.trial_loop import train_trials

    study = optuna.create_study(
        direction="maximize",
        sampler=sampler or make_sampler(settings),
        pruner=make_pruner(settings),
    )
    study.set_user_attr("settings", settings.to_dict())
    study.enqueue_trial(settings.space.baseline_params(), user_attrs={"baseline": True})
    if winner == "rerun":
        budget -= (RERUN_TOP + 1) * RERUN_SEEDS * settings.total_steps
    pool = LanePool(settings, ProgramPool.of(programs, settings), lanes)
    train_trials(study, settings, pool, _StepLimit(study, settings, budget))
    return StudyRecord.of(study)


class _StepLimit:
    """Trials as long as there are environment steps for a whole one."""

    interrupted = ()

    def __init__(self, study: "optuna.Study", settings: Settings, budget: int) -> None:
        self._study, self._budget = study, budget
        self._of_trial = settings.seeds * settings.total_steps

    def ask(self, wait: bool) -> "optuna.Trial | None":
        """See :class:`tune.search.trial_loop.TrialSource`."""
        from tune.search.samplers import has_configurations_left

        del wait
        begun = [t for t in self._study.get_trials(deepcopy=False) if t.datetime_start is not None]
        spent = sum(
            t.user_attrs["environment_steps"] if t.state.is_finished() else self._of_trial
            for t in begun
        )
        if spent + self._of_trial > self._budget or not has_configurations_left(self._study):
            return None
        return self._study.ask()

    def held(self, trial: "optuna.Trial") -> contextlib.AbstractContextManager[None]:
        """See :class:`tune.search.trial_loop.TrialSource`."""
        del trial
        return contextlib.nullcontext()


def candidates(study: "StudyRecord", winner: str) -> "Sequence[TrialRecord]":
    """Return the trials among which the rule `winner` chooses; the first, where it runs none."""
    from tune.search.model import ranked_by_model

    if winner == "model":
        return ranked_by_model(study.trials, study.settings)[:1]
    if winner == "score":
        return study.ranked[:1]
    best = [trial for trial in study.ranked if not trial.is_baseline][:RERUN_TOP]
    return [*best, *(trial for trial in study.ranked if trial.is_baseline)]
