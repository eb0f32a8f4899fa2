"""Environments behind one small protocol; one file per suite.

``make`` is the only way in. A suite's package is imported when one of its
environments is asked for: importing gymnax takes seconds and starts the backend.
"""

from ppo_jax.environments.base import Environment, Timestep, make

__all__ = ["Environment", "Timestep", "make"]
