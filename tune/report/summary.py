"""What a study holds, as plain tables: the content of the JSON files."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import TrialState

from ppo_jax.versions import device_description, versions
from tune.analysis.analysis import Analysis
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord
from tune.report.results import shown_score
from tune.search.study import best_trial, compilations


def describe_trial(trial: TrialRecord) -> dict[str, Any]:
    """Return a trial as ``all_trials.json`` holds it."""
    configuration = trial.hyperparameters
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "baseline": trial.is_baseline,
        "params": trial.params,
        "hyperparameters": None if configuration is None else configuration.to_dict(),
        "value": shown_score(trial),
        "intermediate_values": {str(step): mean for step, mean in trial.means.items()},
        "per_seed_returns": {str(step): returns for step, returns in trial.returns.items()},
        "diverged_seeds": trial.diverged_seeds,
        "environment_steps": trial.environment_steps,
        "interrupted": trial.interrupted,
        "duration": trial.seconds,
        "training_seconds": trial.training_seconds,
        "evaluation_seconds": trial.evaluation_seconds,
        "started": _utc(trial.started),
        "finished": _utc(trial.finished),
    }


def programs_compiled(study: optuna.Study) -> dict[str, int]:
    """Return how often each program was compiled, in the process that compiled it most."""
    recorded = compilations(study)
    names = sorted({name for log in recorded for name in log["programs"]})
    return {name: max(log["programs"].get(name, 0) for log in recorded) for name in names}


def describe_study(
    study: optuna.Study,
    settings: Settings,
    trials: list[TrialRecord],
    analysis: Analysis,
) -> dict[str, Any]:
    """Return the content of ``optimization_results.json``, but for the verdict."""
    best = best_trial(study)
    baseline = next((shown_score(t) for t in trials if t.is_baseline and t.is_finished), None)
    states = {state.name.lower(): 0 for state in TrialState}
    for trial in trials:
        states[trial.state.name.lower()] += 1

    def total(name: str) -> float:
        return sum(getattr(trial, name) or 0 for trial in trials)

    best_value = None if best is None else best.value
    improvement = None
    if best_value is not None and baseline:
        improvement = 100 * (best_value - baseline) / abs(baseline)
    recorded = compilations(study)
    # Studies of earlier versions do not say what they were made with.
    made_with = {"versions": versions(), "device": device_description()}
    made_with |= recorded[-1] if recorded else {}
    return {
        "study_name": study.study_name,
        "best_params": None if best is None else best.user_attrs.get("hyperparameters"),
        "best_value": best_value,
        "best_trial": None if best is None else best.number,
        "baseline_value": baseline,
        "improvement_percent": improvement,
        "reference_score": settings.reference_score,
        "verdict": None,
        "written": _utc(datetime.now(UTC)),
        "n_trials": {"total": len(trials), **{k: v for k, v in states.items() if v}},
        "environment": {
            "name": settings.env,
            "kwargs": dict(settings.env_kwargs),
        },
        "agent": settings.config.agent.to_dict(),
        "seeds": {"purpose": "tuning", "root": settings.seed, "count": settings.seeds},
        "protocol": {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(settings)
            if field.name not in ("env", "env_kwargs", "agent", "space", "reference_score")
        }
        | {"checkpoints": settings.checkpoints()},
        "search_space": settings.space.to_tables(),
        "moved_defaults": settings.space.moved_defaults(),
        "analysis": analysis.to_dict(),
        "programs_compiled": programs_compiled(study),
        "environment_steps": total("environment_steps"),
        "seconds": {
            "trials": sum(t.seconds for t in trials if t.seconds),
            "compilation": sum(log["seconds"] for log in recorded),
            "training": total("training_seconds"),
            "evaluation": total("evaluation_seconds"),
        },
        "versions": made_with["versions"],
        "device": made_with["device"],
    }


def _utc(moment: Any) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
