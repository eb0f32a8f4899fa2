"""The files of a study: results, trials, pictures, page. Made from the study alone.

A study is only read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_jax.errors import UserError
from ppo_jax.files import read_json, replacing, write_json

if TYPE_CHECKING:
    import optuna


def save_optimization_results(
    study: "optuna.Study", output: str | Path | None = None
) -> dict[str, Any]:
    """Write all tables, pictures and ``report.html`` of a study, whatever state it is in.

    ``optimization_results.json``, ``all_trials.json`` and ``optimization_results.png``. What a
    selection or a validation has left in the folder is shown where it is one of this study's
    winner.

    Args:
      study: of :func:`tune.run_optimization`, or any study that optimized
        :func:`tune.objective`.
      output: a folder; ``runs/<study name>`` by default.

    Returns:
      The content of ``optimization_results.json``.
    """
    from tune.analysis.analysis import analyse
    from tune.protocol.settings import Settings
    from tune.protocol.trials import settings_of, trials_of
    from tune.report.figures import plot_optimization
    from tune.report.html import render_html
    from tune.report.summary import describe_study, describe_trial
    from tune.search.study import default_output

    folder = Path(output) if output is not None else default_output(study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(study) or Settings()
    trials = trials_of(study)
    analysis = analyse(trials, settings)
    results = describe_study(study, settings, trials, analysis)
    found = _proof(folder, results["best_params"])
    results["verdict"] = found["validation"] and found["validation"]["verdict"]
    write_json(folder / "optimization_results.json", results)
    write_json(folder / "all_trials.json", [describe_trial(trial) for trial in trials])
    finished = [trial for trial in trials if trial.is_finished]
    plot_optimization(finished, settings, analysis, folder / "optimization_results.png")
    page = render_html(results, trials, settings, analysis, **found)
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results


def _proof(folder: Path, best_params: dict[str, Any] | None) -> dict[str, Any]:
    """Return what `folder` holds of a selection and a validation of this study's winner."""
    from tune.evidence.selection import selected_params

    selected = selected_params(folder, best_params)
    selection = _read(folder / "selection.json") if selected else None
    validation, recommended = _read(folder / "validation.json"), _read(folder / "recommended.json")
    try:
        same = validation["winner"]["hyperparameters"] in (best_params, selected)
        complete = "statistics" in validation
    except (KeyError, TypeError):
        same = complete = False
    if not (same and complete):
        validation = recommended = None
    return {"selection": selection, "validation": validation, "recommended": recommended}


def _read(path: Path) -> Any:
    """Return the content of a JSON file, None where there is none."""
    try:
        return read_json(path)
    except UserError:
        return None
