"""An Optuna tuner for :mod:`ppo_jax`.

    >>> from tune import objective, run_optimization, run_study, save_optimization_results
    >>> from tune import train_best_config

The functions are imported when they are first asked for, so that ``import tune`` is
quick and starts no backend.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Settings": "tune.protocol.settings",
    "SearchSpace": "tune.protocol.space",
    "objective": "tune.search.objective",
    "run_optimization": "tune.search.study",
    "run_study": "tune.session",
    "save_optimization_results": "tune.report.files",
    "train_best_config": "tune.session",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tune' has no attribute {name!r}")
    # No module here has the name of one of these functions: importing it would hide the function.
    return getattr(importlib.import_module(_PUBLIC[name]), name)
