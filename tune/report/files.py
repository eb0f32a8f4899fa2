"""The files of a study: JSON, pictures and report.html, written from its results.

A study is only read.
"""

import dataclasses
from pathlib import Path
from typing import Any

import optuna

from ppo_jax.files import make_folder, replacing, write_json
from tune.evidence.finalists import Finalists
from tune.evidence.recommendation import Recommendation
from tune.evidence.validation import Validation
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord
from tune.report.figures import plot_optimization, plot_validation
from tune.report.films import load_films
from tune.report.html import render_html
from tune.report.notebook import ShownResults
from tune.report.results import StudyResults
from tune.report.summary import describe_study, describe_trial


def save_optimization_results(
    study: optuna.Study, output: str | Path | None = None
) -> dict[str, Any]:
    """Write ``report.html`` and the other result files of a study, whatever state it is in.

    These are ``optimization_results.json``, ``all_trials.json`` and
    ``optimization_results.png``. Finalists and a validation that the folder holds are shown if
    they are of this study's winner.

    Args:
      study: of :func:`tune.run_optimization`, or any study that optimized
        :func:`tune.objective`.
      output: a folder; ``runs/<study name>`` by default.

    Returns:
      The content of ``optimization_results.json``.
    """
    folder = StudyFolder.of(output, study.study_name)
    results = load_results(study, folder)
    write_report(results, folder)
    return describe_study(results)


def load_results(
    study: optuna.Study, folder: StudyFolder, *, analysed: bool = True
) -> StudyResults:
    """Return the results of a study, with the finalists and the validation in `folder`.

    Args:
      study: to read.
      folder: of the study.
      analysed: also analyse its trials, which takes seconds.
    """
    record = StudyRecord.of(study)
    finalists = Finalists.load(folder, record)
    make = ShownResults.of if analysed else ShownResults.without_analysis
    results = make(record, finalists, Validation.load(folder, record, finalists))
    results = dataclasses.replace(results, folder=folder)
    if results.validation is None:
        return results
    return dataclasses.replace(results, films=load_films(results.validation, folder))


def write_report(results: StudyResults, folder: StudyFolder) -> None:
    """Write everything that can be made from `results`; no file is read."""
    make_folder(folder.path)
    write_json(folder.results, describe_study(results))
    write_json(folder.trials, [describe_trial(trial) for trial in results.trials])
    plot_optimization(results, folder.overview)
    if results.validation is not None:
        write_conclusion(results.validation, folder)
    page = render_html(results)
    with replacing(folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_conclusion(validation: Validation, folder: StudyFolder) -> None:
    """Write ``validation.png`` and ``recommended.json``."""
    plot_validation(validation, folder.validation_picture)
    write_json(folder.recommended, Recommendation(validation.verdict).to_dict())
