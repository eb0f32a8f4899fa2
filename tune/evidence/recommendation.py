"""The configuration to use, why, and how to train with it: ``recommended.json``."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from ppo_jax.command_words import agent_words, environment_words, hyperparameter_words
from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.files import read_json
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.notebook import card, changes
from tune.evidence.candidate import Candidate
from tune.evidence.verdict import Verdict
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to use from now on.

    Attributes:
      verdict: that it follows from.
    """

    verdict: Verdict

    @property
    def candidate(self) -> Candidate:
        """The recommended configuration."""
        return self.verdict.recommended

    @property
    def is_baseline(self) -> bool:
        """Whether it is the default configuration."""
        return self.candidate is self.verdict.baseline

    @property
    def name(self) -> str:
        """What a reader knows it as: ``winner`` or ``baseline``."""
        return "baseline" if self.is_baseline else "winner"

    @property
    def command(self) -> str:
        """The command that trains it without a study."""
        return train_command(
            self.candidate.settings, self.candidate.configuration, self.verdict.steps[-1]
        )

    @property
    def changes(self) -> dict[str, str]:
        """What differs from the defaults, in two lines of a table."""
        return {
            "hyperparameters": changes(self.candidate.hyperparameters),
            "agent": changes(self.candidate.agent),
        }

    def _repr_html_(self) -> str:
        rows = {**self.changes, "command": self.command}
        return card(f"Recommended: the {self.name}", rows, text=self.verdict.sentence)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``recommended.json``."""
        settings = self.candidate.settings
        steps = self.verdict.steps[-1]
        return {
            "configuration": self.name,
            "trial": self.candidate.number,
            "why": self.verdict.sentence,
            "hyperparameters": self.candidate.hyperparameters.to_dict(),
            "environment": {"name": settings.env, "kwargs": dict(settings.env_kwargs)},
            "agent": self.candidate.agent.to_dict(),
            "total_steps": steps,
            "how_to_train": {
                "command": self.command,
                "python": f"tune.train_best_config('recommended.json', num_steps={steps})",
            },
            "settings": settings.to_dict(),
        }


def read_recommended(path: str | Path) -> tuple[Configuration, Settings]:
    """Return the configuration and the settings of the study in a ``recommended.json``.

    Raises:
      UserError: when the file is missing or is not a recommended configuration.
    """
    found = read_json(Path(path))
    try:
        hyperparameters = Hyperparameters.from_dict(found["hyperparameters"])
        settings = Settings.from_dict(found["settings"])
        agent = settings.space.fixed_agent
        if "agent" in found:
            agent = AgentConfig.from_dict(found["agent"])
        return Configuration(hyperparameters, agent), settings
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a recommended configuration: {error!r}") from error


def train_command(settings: Settings, configuration: Configuration, num_steps: int) -> str:
    """Return the command that trains a configuration without a study."""
    words = [
        "python",
        "-m",
        "ppo_jax.train",
        *environment_words(settings.env, dict(settings.env_kwargs)),
    ]
    words += ["--total-steps", str(num_steps)]
    if settings.matmul_precision != Settings.matmul_precision:
        words += ["--matmul-precision", settings.matmul_precision]
    words += agent_words(configuration.agent)
    return shlex.join(words + hyperparameter_words(configuration.hyperparameters))
