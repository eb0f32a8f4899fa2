"""An Optuna tuner for :mod:`ppo_jax`.

    >>> from tune import objective, run_optimization, run_study, save_optimization_results
    >>> from tune import train_best_config

The functions are imported when they are first asked for, so that ``import tune`` is
quick and starts no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.evidence.recommendation import Recommendation
    from tune.evidence.validation import Validation
    from tune.protocol.settings import Settings
    from tune.protocol.space import SearchSpace
    from tune.report.files import save_optimization_results
    from tune.report.results import StudyResults
    from tune.report.stored import read_study
    from tune.search.objective import objective
    from tune.search.study import run_optimization
    from tune.session import run_study, train_best_config

_HOMES = {
    "Recommendation": "tune.evidence.recommendation",
    "SearchSpace": "tune.protocol.space",
    "Settings": "tune.protocol.settings",
    "StudyResults": "tune.report.results",
    "Validation": "tune.evidence.validation",
    "objective": "tune.search.objective",
    "read_study": "tune.report.stored",
    "run_optimization": "tune.search.study",
    "run_study": "tune.session",
    "save_optimization_results": "tune.report.files",
    "train_best_config": "tune.session",
}
"""Name -> the module that has it. No module in this package has the name of one of them:
importing it would hide the function."""

__all__ = [
    "Recommendation",
    "SearchSpace",
    "Settings",
    "StudyResults",
    "Validation",
    "objective",
    "read_study",
    "run_optimization",
    "run_study",
    "save_optimization_results",
    "train_best_config",
]

if not TYPE_CHECKING:  # Else every name would be one.

    def __dir__() -> list[str]:
        return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
