"""Suites besides gymnax, one module each. To add a suite, add a module.

The module's name is the suite's prefix in environment names (``brax/ant``) and the extra in
``pyproject.toml`` that installs its package. It defines ``load(name, kwargs)``, which returns
the :class:`~ppo_jax.environments.base.Environment` called `name`, without the prefix, with its
parameters overridden by `kwargs`. Modules are imported when one of their environments is
asked for.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from ppo_jax.environments.base import Environment

Load = Callable[[str, Mapping[str, Any]], Environment]


def names() -> list[str]:
    """Return the prefixes of all suites, whether their packages are installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def loader(suite: str) -> Load:
    """Return the ``load`` of `suite`, one of :func:`names`.

    Raises:
      ImportError: when its package is not installed.
    """
    load: Load = importlib.import_module(f"{__name__}.{suite}").load
    return load
