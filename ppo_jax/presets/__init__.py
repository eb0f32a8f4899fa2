"""Hyperparameters that this project's tuner has found, with the studies that found them.

One TOML file an environment: ``env``, ``total_steps``, the tables ``hyperparameters`` and
``agent`` with what differs from the defaults, and ``evidence``.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ppo_jax.config import AgentConfig, EnvKwargs
from ppo_jax.errors import UserError, nearest
from ppo_jax.hyperparameters import Hyperparameters


@dataclasses.dataclass(frozen=True)
class Preset:
    """A configuration for an environment.

    Attributes:
      env, env_kwargs: see :func:`ppo_jax.environments.make`.
      total_steps: environment steps of a seed in its validation.
      hyperparameters, agent: the configuration.
      evidence: command and scores of the study that found it.
    """

    env: str
    env_kwargs: EnvKwargs
    total_steps: int
    hyperparameters: Hyperparameters
    agent: AgentConfig
    evidence: Mapping[str, Any]


def names() -> list[str]:
    """Return the names of all presets: those of their environments."""
    return sorted(_files())


def load(name: str) -> Preset:
    """Return the preset `name`.

    Raises:
      UserError: for an unknown name.
    """
    files = _files()
    if not isinstance(name, str) or name not in files:
        raise UserError(
            f"no preset {name!r}{nearest(str(name), files)} (presets: {', '.join(names())})"
        )
    found = files[name]
    return Preset(
        env=found["env"],
        env_kwargs=tuple(sorted(found.get("env_kwargs", {}).items())),
        total_steps=found["total_steps"],
        hyperparameters=Hyperparameters.from_dict(found["hyperparameters"]),
        agent=AgentConfig.from_dict(found["agent"]),
        evidence=found["evidence"],
    )


def _files() -> dict[str, dict[str, Any]]:
    tables = [
        tomllib.loads(file.read_text(encoding="utf-8"))
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".toml")
    ]
    return {table["env"]: table for table in tables}
