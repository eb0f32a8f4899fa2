"""The one object that terminal, JSON files, pictures, report.html and dashboard are written from.

It holds what was found, nothing is computed here but counts and sums. How it becomes JSON is in
:mod:`tune.report.summary`.
"""

import math

from tune.protocol.trials import TrialRecord


def shown_score(trial: TrialRecord) -> float | None:
    """Return a trial's score; for a pruned one, its mean return at the last checkpoint.

    None if it has neither, or every seed has diverged.
    """
    if trial.is_complete:
        return trial.score
    value = trial.last_mean if trial.is_pruned else None
    return None if value is None or math.isnan(value) else value
