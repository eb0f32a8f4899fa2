"""What a session does with a study: how many trials, and how the winner is proved."""

import dataclasses

from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder

WORKER_TIMEOUT = 60.0
MAX_RETRIES = 3
NO_LIMIT = 100_000
"""Trials in all where a budget alone ends them."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a session does. Checked where it is made.

    Attributes:
      settings: the protocol of the study.
      n_trials: finished trials in all.
      study_name: name of the study in its storage.
      folder: for all results.
      storage: address of the study; in the folder where it is None.
      finalists: promising trials that are trained as far as a validation before one is the winner;
        0 for none.
      validate_steps: environment steps of a validation seed; 0 for no validation.
      validate_seeds: fresh seeds for that, at most.
      lanes: trials that train side by side; None for as many as suit the device.
      budget: seconds of wall clock for all of it; None for no limit.
      worker_timeout: seconds without a heartbeat after which a worker counts as dead.
      max_retries: how often the configuration of a dead worker is run again.
    """

    settings: Settings
    n_trials: int
    study_name: str
    folder: StudyFolder
    storage: str | None = None
    finalists: int = 3
    validate_steps: int = 1_000_000
    validate_seeds: int = 20
    lanes: int | None = None
    budget: float | None = None
    worker_timeout: float = WORKER_TIMEOUT
    max_retries: int = MAX_RETRIES
