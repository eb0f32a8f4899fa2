"""The contents of ``optimization_results.json`` and ``all_trials.json``."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from tune.evidence.candidate import Candidate
from tune.protocol.settings import Settings
from tune.protocol.trials import TrialRecord
from tune.report.results import StudyResults, shown_score


def describe_trial(trial: TrialRecord) -> dict[str, Any]:
    """Return a trial as ``all_trials.json`` holds it."""
    configuration = trial.hyperparameters
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "baseline": trial.is_baseline,
        "params": trial.params,
        "hyperparameters": None if configuration is None else configuration.to_dict(),
        **({} if trial.agent is None else {"agent": trial.agent.to_dict()}),
        "value": shown_score(trial),
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


def describe_study(results: StudyResults) -> dict[str, Any]:
    """Return the content of ``optimization_results.json``."""
    settings, best = results.settings, results.best
    configuration = None if best is None else best.hyperparameters
    return {
        "study_name": results.name,
        "best_params": None if configuration is None else configuration.to_dict(),
        "best_value": results.best_score,
        "best_trial": None if best is None else best.number,
        "baseline_value": results.baseline_score,
        "gain": None if results.gain is None else dataclasses.asdict(results.gain),
        "winner": None if results.winner is None else _configuration(results.winner),
        "recommended": _recommended(results),
        "reference_score": settings.reference_score,
        "verdict": results.verdict,
        "written": _utc(results.written),
        "n_trials": {"total": len(results.trials), **results.counts},
        "environment": {"name": settings.env, "kwargs": dict(settings.env_kwargs)},
        "agent": settings.config.agent.to_dict(),
        "seeds": {"purpose": "tuning", "root": settings.seed, "count": settings.seeds},
        "protocol": describe_protocol(settings),
        "search_space": settings.space.to_tables(),
        "moved_defaults": settings.space.moved_defaults(),
        "analysis": results.analysis.to_dict(),
        "programs_compiled": results.programs_compiled,
        "environment_steps": results.environment_steps,
        "seconds": results.seconds,
        "versions": results.made_with["versions"],
        "device": results.made_with["device"],
    }


def describe_protocol(settings: Settings) -> dict[str, Any]:
    """Return how trials were chosen, trained, scored and pruned."""
    elsewhere = ("env", "env_kwargs", "agent", "space", "reference_score", "warm_start")
    names = [f.name for f in dataclasses.fields(settings) if f.name not in elsewhere]
    protocol = {name: getattr(settings, name) for name in names}
    if settings.warm_start is not None:
        protocol["warm_start"] = str(settings.warm_start)
    return protocol | {"checkpoints": settings.checkpoints()}


def _configuration(candidate: Candidate) -> dict[str, Any]:
    """Return which configuration it is."""
    return {
        "trial": candidate.number,
        "is_baseline": candidate.is_baseline,
        "hyperparameters": candidate.hyperparameters.to_dict(),
        "agent": candidate.agent.to_dict(),
    }


def _recommended(results: StudyResults) -> dict[str, Any] | None:
    """Return the configuration to use, and the command that trains it."""
    recommendation = results.recommendation
    if recommendation is None:
        return None
    return {
        "configuration": recommendation.name,
        **_configuration(recommendation.candidate),
        "command": recommendation.command,
    }


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
