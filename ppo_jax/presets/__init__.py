"""Hyperparameters that this project's tuner has found, with the studies that found them.

One TOML file an environment: ``env``, ``total_steps``, the tables ``hyperparameters`` and
``agent`` with what differs from the defaults, and ``evidence``.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ppo_jax.config import AgentConfig, EnvKwargs, changed, sorted_env_kwargs
from ppo_jax.errors import LARGEST_STEPS, UserError, nearest, require_count
from ppo_jax.files import read_toml
from ppo_jax.hyperparameters import Hyperparameters


@dataclasses.dataclass(frozen=True)
class Preset:
    """A configuration for an environment.

    Attributes:
      env, env_kwargs: see :func:`ppo_jax.environments.make`.
      total_steps: environment steps of a seed in its validation.
      hyperparameters, agent: the configuration.
      evidence: command and scores of the study that found it.

    Raises:
      UserError: naming the field, its value and what is allowed.
    """

    env: str
    env_kwargs: EnvKwargs
    total_steps: int
    hyperparameters: Hyperparameters
    agent: AgentConfig
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.env, str):
            raise UserError(f"env must be the name of an environment, but got {self.env!r:.80}")
        require_count("total_steps", self.total_steps, low=0, high=LARGEST_STEPS)
        if not isinstance(self.evidence, Mapping):
            raise UserError(f"evidence must be a table, but got {self.evidence!r:.80}")

    def to_table(self) -> dict[str, Any]:
        """Return the content of its file."""
        return {
            "env": self.env,
            "total_steps": self.total_steps,
            "env_kwargs": dict(self.env_kwargs),
            "hyperparameters": changed(self.hyperparameters),
            "agent": changed(self.agent),
            "evidence": dict(self.evidence),
        }


def names() -> list[str]:
    """Return the names of all presets: those of their environments."""
    return sorted(_files())


def load(name: str) -> Preset:
    """Return the preset `name`, or the one in a file ``NAME.toml``.

    Raises:
      UserError: for an unknown name or a file that holds no preset.
    """
    if isinstance(name, str) and name.endswith(".toml"):
        return read(Path(name))
    files = _files()
    if not isinstance(name, str) or name not in files:
        raise UserError(
            f"no preset {name!r}{nearest(str(name), files)} (presets: {', '.join(names())})"
        )
    return _preset(files[name])


def read(path: Path) -> Preset:
    """Return the preset in a TOML file; everything but ``env`` may be missing.

    Raises:
      UserError: when the file holds none.
    """
    try:
        return _preset({"total_steps": 0, **read_toml(path)})
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a preset: {error!r}") from error


def _preset(found: Mapping[str, Any]) -> Preset:
    return Preset(
        env=found["env"],
        env_kwargs=sorted_env_kwargs(found.get("env_kwargs", {})),
        total_steps=found["total_steps"],
        hyperparameters=Hyperparameters.from_dict(found.get("hyperparameters", {})),
        agent=AgentConfig.from_dict(found.get("agent", {})),
        evidence=found.get("evidence", {}),
    )


def _files() -> dict[str, dict[str, Any]]:
    tables = [
        tomllib.loads(file.read_text(encoding="utf-8"))
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".toml")
    ]
    return {table["env"]: table for table in tables}
