"""A study prepared for optuna-dashboard: note and artifacts.

This is the only place in the report that writes to a study.
"""

import shlex
import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from tune.protocol.study_folder import StudyFolder
from tune.report.figures import plot_details
from tune.report.results import NOT_VALIDATED, StudyResults
from tune.report.text import bound_sentence
from tune.search.storage import sqlite_file, without_secrets


def prepare_dashboard(
    study: optuna.Study, results: StudyResults, folder: StudyFolder, address: str
) -> str:
    """Write the verdict into the study's note; store pictures and policy as its artifacts.

    The returns of every seed are attributes of each trial already. A second call replaces what
    the first has stored.

    Args:
      study: to prepare.
      results: of the study; their files are in `folder`.
      folder: the artifacts are stored in its ``artifacts``.
      address: of the study's storage.

    Returns:
      The command that opens the dashboard.
    """
    from optuna_dashboard import save_note

    bounds = results.analysis.bounds_hit
    paragraphs = [
        results.verdict or NOT_VALIDATED,
        results.analysis.warning,
        *(f"{bound_sentence(name, hit)}." for name, hit in bounds.items()),
    ]
    save_note(study, "\n\n".join(filter(None, paragraphs)))

    folder.artifacts.mkdir(exist_ok=True)
    store = FileSystemArtifactStore(folder.artifacts)
    files = (
        folder.report,
        folder.overview,
        folder.validation_picture,
        folder.recommended,
        folder.policy / "model.safetensors",
        folder.policy / "policy.json",
    )
    with tempfile.TemporaryDirectory() as drawn:
        for path in (*files, *plot_details(results, Path(drawn))):
            if path.is_file():
                _upload(study, store, path)
    file = sqlite_file(address)
    shown = without_secrets(address) if file is None else f"sqlite:///{file}"
    shown = shown.removeprefix("journal:")
    return shlex.join(["optuna-dashboard", shown, "--artifact-dir", str(folder.artifacts)])


def _upload(study: optuna.Study, store: FileSystemArtifactStore, path: Path) -> None:
    """Store a file; one of the same name is replaced."""
    for known in get_all_artifact_meta(study):
        if known.filename == path.name:
            with path.open("rb") as content:
                store.write(known.artifact_id, content)
            return
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
