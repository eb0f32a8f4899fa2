"""The files of a study: results, trials, pictures, page. Made from the study alone.

A study is only read.
"""

from pathlib import Path
from typing import Any

import optuna

from ppo_jax.errors import UserError
from ppo_jax.files import read_json, replacing, write_json
from tune.analysis.analysis import analyse
from tune.evidence.recommendation import Recommendation
from tune.evidence.selection import Selection
from tune.evidence.validation import Validation
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import FINISHED, StudyRecord
from tune.report.figures import plot_optimization, plot_validation
from tune.report.html import render_html
from tune.report.summary import describe_study, describe_trial


def save_optimization_results(
    study: optuna.Study, output: str | Path | None = None
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
    folder = StudyFolder.of(output, study.study_name)
    folder.path.mkdir(parents=True, exist_ok=True)
    record = StudyRecord.of(study)
    trials = study.get_trials(deepcopy=False)
    analysis = analyse(trials, record.settings)
    selection = Selection.load(folder, record)
    validation = Validation.load(folder, record, selection)
    results = describe_study(record, trials, analysis)
    results["verdict"] = validation and validation.sentence
    write_json(folder.results, results)
    write_json(folder.trials, [describe_trial(trial) for trial in record.trials])
    finished = [trial for trial in trials if trial.state in FINISHED]
    plot_optimization(finished, record.settings, analysis, folder.overview)
    page = render_html(
        results,
        trials,
        record.settings,
        analysis,
        selection=_read(folder.selection) if selection else None,
        validation=_read(folder.validation) if validation else None,
        recommended=_read(folder.recommended) if validation else None,
    )
    with replacing(folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results


def write_validation(validation: Validation, folder: StudyFolder) -> None:
    """Write ``validation.json``, ``recommended.json`` and ``validation.png``."""
    write_json(folder.validation, validation.to_dict())
    write_json(folder.recommended, Recommendation(validation.verdict).to_dict())
    shown = {"best of the study": validation.winner, "default": validation.baseline}
    if validation.verdict.is_baseline:
        del shown["best of the study"]
    plot_validation(
        f"{validation.settings.env}: {validation.seeds.seeds} fresh seeds",
        validation.steps,
        {name: candidate.validated.returns for name, candidate in shown.items()},
        {name: candidate.scores for name, candidate in shown.items()},
        validation.settings,
        folder.validation_picture,
    )


def _read(path: Path) -> Any:
    """Return the content of a JSON file, None where there is none."""
    try:
        return read_json(path)
    except UserError:
        return None
