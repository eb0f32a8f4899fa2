"""A study made ready for optuna-dashboard: note, artifacts. The one place that adds to a study."""

import shlex
import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from ppo_jax.files import read_json
from tune.analysis.analysis import analyse
from tune.protocol.settings import Settings
from tune.protocol.trials import StudyRecord, settings_of
from tune.report.figures import plot_details
from tune.report.html import bound_sentence
from tune.search.storage import sqlite_file, without_secrets

_FILES = (
    "report.html",
    "optimization_results.png",
    "validation.png",
    "recommended.json",
    "policy/model.safetensors",
    "policy/policy.json",
)


def prepare_dashboard(study: optuna.Study, folder: Path, address: str) -> str:
    """Put the verdict into the study's note, pictures and policy into its artifacts.

    The returns of every seed are attributes of each trial already. Doing it again replaces
    what was there before.

    Args:
      study: whose results lie in `folder`.
      folder: the artifacts go into ``artifacts`` in it.
      address: of the study's storage.

    Returns:
      The command that opens the dashboard.
    """
    from optuna_dashboard import save_note

    settings = settings_of(study) or Settings()
    trials = study.get_trials(deepcopy=False)
    analysis = analyse(trials, settings)
    results = read_json(folder / "optimization_results.json")
    bounds = [f"{bound_sentence(*item)}." for item in analysis.bounds_hit.items()]
    paragraphs = [
        results["verdict"] or "Not validated on fresh seeds.",
        analysis.warning,
        *bounds,
    ]
    save_note(study, "\n\n".join(filter(None, paragraphs)))

    artifacts = folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    store = FileSystemArtifactStore(artifacts)
    best = StudyRecord.of(study).best
    with tempfile.TemporaryDirectory() as drawn:
        pictures = plot_details(
            trials, settings, analysis, None if best is None else best.number, Path(drawn)
        )
        for path in [*(folder / name for name in _FILES), *pictures]:
            if path.is_file():
                _upload(study, store, path)
    file = sqlite_file(address)
    shown = without_secrets(address) if file is None else f"sqlite:///{file}"
    shown = shown.removeprefix("journal:")
    return shlex.join(["optuna-dashboard", shown, "--artifact-dir", str(artifacts)])


def _upload(study: optuna.Study, store: FileSystemArtifactStore, path: Path) -> None:
    """Store a file, in the place of one of its name."""
    for known in get_all_artifact_meta(study):
        if known.filename == path.name:
            with path.open("rb") as content:
                store.write(known.artifact_id, content)
            return
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
