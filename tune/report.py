"""The files of a study: results, trials, pictures, page. Made from the study alone."""

import base64
import dataclasses
import statistics
from datetime import UTC
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ppo_jax.errors import UserError
from ppo_jax.files import read_json, replacing, write_json
from ppo_jax.versions import device_description, versions
from tune.analysis import Analysis, analyse
from tune.plots import plot_optimization
from tune.selection import selected_params
from tune.settings import Settings
from tune.study import FINISHED, best_trial, compilations, default_output
from tune.trial import is_baseline, settings_of


def save_optimization_results(
    study: optuna.Study, output: str | Path | None = None
) -> dict[str, Any]:
    """Write ``optimization_results.json``, ``all_trials.json``, the picture and the page.

    Args:
      study: of :func:`tune.run_optimization`, or any study that optimized
        :func:`tune.objective`.
      output: a folder; ``runs/<study name>`` by default.

    Returns:
      The content of ``optimization_results.json``.
    """
    folder = Path(output) if output is not None else default_output(study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(study) or Settings()
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state in FINISHED]
    analysis = analyse(trials, settings)
    results = _results(study, settings, trials, analysis)
    results["verdict"] = _verdict(folder, results["best_params"])
    write_json(folder / "optimization_results.json", results)
    write_json(folder / "all_trials.json", [describe_trial(trial) for trial in trials])
    picture = folder / "optimization_results.png"
    importances = {name: found.fanova for name, found in analysis.importances.items()}
    plot_optimization(finished, settings, importances, picture)
    _write_page(folder, study.study_name, settings, results, finished)
    return results


def describe_trial(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as ``all_trials.json`` holds it."""
    attributes = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "baseline": is_baseline(trial),
        "params": trial.params,
        "hyperparameters": attributes.get("hyperparameters"),
        "value": trial.value,
        "intermediate_values": {str(k): v for k, v in sorted(trial.intermediate_values.items())},
        "per_seed_scores": attributes.get("scores", {}),
        "diverged_seeds": attributes.get("diverged_seeds", []),
        "environment_steps": attributes.get("environment_steps", 0),
        "interrupted": attributes.get("interrupted", 0),
        "duration": trial.duration.total_seconds() if trial.duration else None,
        "training_seconds": attributes.get("training_seconds"),
        "evaluation_seconds": attributes.get("evaluation_seconds"),
        "started": _utc(trial.datetime_start),
        "finished": _utc(trial.datetime_complete),
    }


def programs_compiled(study: optuna.Study) -> dict[str, int]:
    """Return how often each program was compiled, in the process that compiled it most."""
    recorded = compilations(study)
    names = sorted({name for log in recorded for name in log["programs"]})
    return {name: max(log["programs"].get(name, 0) for log in recorded) for name in names}


def _results(
    study: optuna.Study,
    settings: Settings,
    trials: list[FrozenTrial],
    analysis: Analysis,
) -> dict[str, Any]:
    best = best_trial(study)
    baseline = next((t.value for t in trials if is_baseline(t) and t.state in FINISHED), None)
    states = {state.name.lower(): 0 for state in TrialState}
    for trial in trials:
        states[trial.state.name.lower()] += 1

    def total(name: str) -> float:
        return sum(trial.user_attrs.get(name, 0) for trial in trials)

    best_value = None if best is None else best.value
    improvement = None
    if best_value is not None and baseline:
        improvement = 100 * (best_value - baseline) / abs(baseline)
    recorded = compilations(study)
    return {
        "study_name": study.study_name,
        "best_params": None if best is None else best.user_attrs.get("hyperparameters"),
        "best_value": best_value,
        "best_trial": None if best is None else best.number,
        "baseline_value": baseline,
        "improvement_percent": improvement,
        "reference_score": settings.reference_score,
        "verdict": None,
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
        "versions": versions(),
        "device": device_description(),
    }


def _verdict(folder: Path, best_params: dict[str, Any] | None) -> str | None:
    """Return the verdict of the validation in `folder`, if it is one of the winner."""
    try:
        validation = read_json(folder / "validation.json")
        winners = [best_params, selected_params(folder, best_params)]
        same = validation["winner"]["hyperparameters"] in winners
        return validation["verdict"] if same else None
    except (UserError, KeyError, TypeError):
        return None


def _utc(moment: Any) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def _write_page(
    folder: Path,
    study_name: str,
    settings: Settings,
    results: dict[str, Any],
    finished: list[FrozenTrial],
) -> None:
    """Write ``report.html``: one file that needs nothing beside it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tune"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    pictures = [
        (title, base64.b64encode(path.read_bytes()).decode())
        for title, path in (
            ("Validation on fresh seeds", folder / "validation.png"),
            ("The study", folder / "optimization_results.png"),
        )
        if path.exists() and (title == "The study" or results["verdict"])
    ]
    durations = [t.duration.total_seconds() for t in finished if t.duration]
    page = environment.get_template("report.html").render(
        study_name=study_name,
        settings=settings,
        results=results,
        trials=[describe_trial(trial) for trial in finished],
        tuned=[name for name, _ in settings.space.tuned],
        pictures=pictures,
        median_seconds=statistics.median(durations) if durations else 0.0,
    )
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
