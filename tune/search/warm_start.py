"""Earlier trials as observations of a new study."""

from pathlib import Path

import optuna

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.protocol.trials import StudyRecord, settings_of
from tune.protocol.warm_start import EarlierTrial, WarmStart
from tune.search.model import observe
from tune.search.storage import open_storage, storage_file

_TASK = ("env", "env_kwargs", "total_steps", "eval_every", "objective")
"""Settings by which the scores of a configuration mean the same."""


def stored_warm_start(address: str, study_name: str) -> WarmStart | None:
    """Return what a study was begun with; None where there is none, or no such study yet.

    Args:
      address: of the storage of the study; a file that is missing is not made.
      study_name: of the study.
    """
    file = storage_file(address)
    if file is not None and not file.is_file():
        return None
    storage = open_storage(address)
    if study_name not in optuna.get_all_study_names(storage):
        return None
    settings = settings_of(optuna.load_study(study_name=study_name, storage=storage))
    return None if settings is None else settings.warm_start


def warm_start_from(record: StudyRecord, source: Path, settings: Settings) -> WarmStart:
    """Return what the finished trials of `record` say to a study with `settings`.

    To that study a trial is a point of its space, and whatever the space leaves out, such as the
    network or a fixed discount, does not show there. So where that is another than in the new
    study, in any trial, theirs is another task.

    Args:
      record: of the earlier study.
      source: its folder.
      settings: of the new study.

    Raises:
      UserError: when no trial of it has finished, or the new sampler cannot use them.
    """
    if settings.sampler != "gp":
        raise UserError(
            f"--from-study needs --sampler gp, which knows noise, but got {settings.sampler!r}"
        )
    trials = []
    for seen in observe(record.trials, record.settings):
        configuration = seen.trial.configuration(record.settings)
        if configuration is not None:
            trials.append(EarlierTrial(configuration, float(seen.value), float(seen.variance)))
    if not trials:
        raise UserError(f"no trial of the study in {source} has finished")
    same = all(getattr(record.settings, name) == getattr(settings, name) for name in _TASK)
    same = same and all(settings.space.has_untuned(trial.configuration) for trial in trials)
    return WarmStart(str(source), record.settings.env, same, tuple(trials))
