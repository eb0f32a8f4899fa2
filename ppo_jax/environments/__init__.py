"""Environments behind one small protocol; one file per suite.

``make`` is the only way in. A suite's package is imported when one of its
environments is asked for: importing gymnax takes seconds and starts the backend.
"""

import functools
from typing import Any

from ppo_jax.environments.base import Environment, Timestep

__all__ = ["Environment", "Timestep", "make"]


@functools.lru_cache(maxsize=64)
def make(name: str, kwargs: tuple[tuple[str, Any], ...] = ()) -> Environment:
    """Return the environment `name` with its parameters overridden by `kwargs`.

    Args:
      name: a name that a suite registers, for example ``CartPole-v1``.
      kwargs: (parameter, value) pairs, for example ``(("max_steps_in_episode", 1000),)``.

    Raises:
      UserError: for an unknown name, an environment that is not supported yet, or a
        parameter that the environment does not have.
    """
    from ppo_jax.environments.gymnax import GymnaxEnvironment

    return GymnaxEnvironment(name, dict(kwargs))
