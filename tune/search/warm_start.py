"""Earlier trials as observations of a new study."""

from pathlib import Path

from ppo_jax.errors import UserError
from tune.protocol.settings import Settings
from tune.protocol.trials import StudyRecord
from tune.protocol.warm_start import EarlierTrial, WarmStart
from tune.search.model import observe

_TASK = ("env", "env_kwargs", "total_steps", "eval_every", "objective")
"""Settings by which scores mean the same."""


def warm_start_from(record: StudyRecord, source: Path, settings: Settings) -> WarmStart:
    """Return what the finished trials of `record` say to a study with `settings`.

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
    same = all(getattr(record.settings, name) == getattr(settings, name) for name in _TASK)
    trials = []
    for seen in observe(record.trials, record.settings):
        configuration = seen.trial.configuration(record.settings)
        if configuration is not None:
            trials.append(EarlierTrial(configuration, float(seen.value), float(seen.variance)))
    if not trials:
        raise UserError(f"no trial of the study in {source} has finished")
    return WarmStart(str(source), record.settings.env, same, tuple(trials))
