"""What an earlier study hands to a new one: observations of scores, with their noise.

They are stored with the settings of the new study, so that it can be continued whatever becomes of
the earlier one. How they are used is in :mod:`tune.search.model`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_jax.config import AgentConfig, changed
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.space import Configuration
from tune.protocol.stored import items, number, table


@dataclasses.dataclass(frozen=True)
class EarlierTrial:
    """What a trial of an earlier study says.

    Attributes:
      configuration: that was trained.
      value: its score there.
      variance: of the value.
    """

    configuration: Configuration
    value: float
    variance: float


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The trials of an earlier study.

    Attributes:
      source: folder of the study.
      env: its environment.
      same_task: whether environment, lengths, objective and whatever is not tuned are those of
        the new study, so that the same parameters mean the same scores.
      trials: what they say.
    """

    source: str
    env: str
    same_task: bool
    trials: tuple[EarlierTrial, ...]

    def __str__(self) -> str:
        how = "as they are" if self.same_task else "as far as they agree with those of this study"
        return f"{len(self.trials)} trials of {self.env} in {self.source}, {how}"

    def is_of(self, source: str | Path) -> bool:
        """Return whether these are of the study in the folder `source`, however it is spelt."""
        return Path(self.source).resolve() == Path(source).resolve()

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes; strict JSON."""
        return {
            "source": self.source,
            "env": self.env,
            "same_task": self.same_task,
            "trials": [
                {
                    "hyperparameters": changed(t.configuration.hyperparameters),
                    "agent": changed(t.configuration.agent),
                    "value": t.value,
                    "variance": t.variance,
                }
                for t in self.trials
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WarmStart":
        """Restore :meth:`to_dict`.

        Raises:
          UserError: for a value of a wrong type.
        """
        return cls(
            source=str(values.get("source")),
            env=str(values.get("env")),
            same_task=values.get("same_task") is True,
            trials=tuple(
                _trial(table(trial, "warm_start.trials"))
                for trial in items(values.get("trials", []), "warm_start.trials")
            ),
        )


def _trial(stored: Mapping[str, Any]) -> EarlierTrial:
    return EarlierTrial(
        Configuration(
            Hyperparameters.from_dict(table(stored.get("hyperparameters"), "hyperparameters")),
            AgentConfig.from_dict(table(stored.get("agent"), "agent")),
        ),
        float(number(stored.get("value"), "value")),
        float(number(stored.get("variance"), "variance")),
    )
