"""Environments behind one small protocol; one file per suite.

``make`` is the only way in. A suite's package is imported when one of its
environments is asked for: importing gymnax takes seconds and starts the backend.
"""

from typing import Any

import jax

from ppo_jax.environments.base import Environment, Timestep

__all__ = ["Environment", "Timestep", "make"]


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

    # An environment may hold arrays; made inside a trace they would not outlive it.
    with jax.ensure_compile_time_eval():
        return GymnaxEnvironment(name, dict(kwargs))
