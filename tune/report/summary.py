"""What a study holds, as plain tables: the content of the JSON files."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ppo_jax.versions import device_description, versions
from tune.analysis.analysis import Analysis
from tune.protocol.trials import StudyRecord, TrialRecord


def describe_trial(trial: TrialRecord) -> dict[str, Any]:
    """Return a trial as ``all_trials.json`` holds it."""
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "baseline": trial.is_baseline,
        "params": trial.params,
        "hyperparameters": trial.hyperparameters and trial.hyperparameters.to_dict(),
        "value": trial.score if trial.is_complete else trial.last_mean if trial.is_pruned else None,
        "intermediate_values": trial.means,
        "per_seed_returns": trial.returns,
        "diverged_seeds": trial.diverged_seeds,
        "environment_steps": trial.environment_steps,
        "interrupted": trial.interrupted,
        "duration": trial.seconds,
        "training_seconds": trial.training_seconds,
        "evaluation_seconds": trial.evaluation_seconds,
        "started": _utc(trial.started),
        "finished": _utc(trial.finished),
    }


def programs_compiled(study: StudyRecord) -> dict[str, int]:
    """Return how often each program was compiled, in the process that compiled it most."""
    recorded = study.compilations
    names = sorted({name for log in recorded for name in log["programs"]})
    return {name: max(log["programs"].get(name, 0) for log in recorded) for name in names}


def describe_study(
    study: StudyRecord,
    trials: list[FrozenTrial],
    analysis: Analysis,
) -> dict[str, Any]:
    """Return the content of ``optimization_results.json``, but for the verdict."""
    settings, best = study.settings, study.best
    baseline = None if study.baseline is None else study.baseline.score
    states = {state.name.lower(): 0 for state in TrialState}
    for trial in trials:
        states[trial.state.name.lower()] += 1

    def total(name: str) -> float:
        return sum(trial.user_attrs.get(name, 0) for trial in trials)

    best_value = None if best is None else best.score
    improvement = None
    if best_value is not None and baseline:
        improvement = 100 * (best_value - baseline) / abs(baseline)
    recorded = study.compilations
    # Studies of earlier versions do not say what they were made with.
    made_with = {"versions": versions(), "device": device_description()}
    made_with |= recorded[-1] if recorded else {}
    return {
        "study_name": study.name,
        "best_params": best and best.hyperparameters and best.hyperparameters.to_dict(),
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
            "trials": sum(t.duration.total_seconds() for t in trials if t.duration),
            "compilation": sum(log["seconds"] for log in recorded),
            "training": total("training_seconds"),
            "evaluation": total("evaluation_seconds"),
        },
        "versions": made_with["versions"],
        "device": made_with["device"],
    }


def _utc(moment: Any) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
