"""What a worker is asked to do, as the launcher sends it."""

import dataclasses
import json
from pathlib import Path

from ppo_jax.config import ask_for
from ppo_jax.errors import UserError
from ppo_jax.tracking import TrackingConfig
from tune.protocol.settings import Settings


@dataclasses.dataclass(frozen=True)
class WorkerRequest:
    """The request of one worker; the same for every worker of a study.

    Attributes:
      n_trials: finished trials in all, those of other workers included.
      settings: the protocol of the study.
      output: folder of the study.
      storage: its address, which may hold a password; not shown.
      study_name: of the study.
      worker_timeout: seconds without a heartbeat after which a worker counts as dead.
      max_retries: how often a configuration whose worker died is run again.
      lanes: trials that a worker trains side by side; None for as many as suit its device.
      tracking: where trials are logged.
    """

    n_trials: int
    settings: Settings
    output: Path
    storage: str = dataclasses.field(repr=False)
    study_name: str
    worker_timeout: float
    max_retries: int
    lanes: int | None = None
    tracking: TrackingConfig = TrackingConfig()

    def to_json(self) -> str:
        """Return one line that :meth:`from_json` reads."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(
            values
            | {
                "networks": [a.network for a in self.settings.space.agents() if ":" in a.network],
                "settings": self.settings.to_dict(),
                "output": str(self.output),
                "tracking": dataclasses.asdict(self.tracking),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "WorkerRequest":
        """Restore a request from :meth:`to_json`.

        Raises:
          UserError: when `text` is not a request.
        """
        try:
            values = json.loads(text)
            for network in values.pop("networks"):  # The user has named them to our parent.
                ask_for(network)
            return cls(
                **{
                    **values,
                    "settings": Settings.from_dict(values["settings"]),
                    "output": Path(values["output"]),
                    "tracking": TrackingConfig(**values["tracking"]),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                "a worker reads its request from standard input; start workers with "
                "`python -m tune.run --workers N`"
            ) from error
