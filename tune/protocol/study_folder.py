"""The folder of a study: the name of every file in it, its lock, and whose study it is."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from ppo_jax.errors import UserError
from ppo_jax.files import (
    folder_name,
    held,
    path_of,
    read_json,
    remove_folder,
    require_writable,
    write_json,
)
from tune.protocol.settings import Settings

LONGEST_STUDY_NAME = 512
"""Characters that Optuna's tables have for it."""


def require_study_name(name: str) -> None:
    """Raise a ``UserError`` for a name that files and storages cannot hold."""
    if not isinstance(name, str):
        raise UserError(f"the name of a study must be text, but got {name!r:.80}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the name of a study must be valid Unicode, but got {name[:40]!a}"
        ) from error
    if "\0" in name:
        raise UserError(f"the name of a study must not hold NUL, but got {name[:40]!r}")
    if len(name) > LONGEST_STUDY_NAME:
        raise UserError(
            f"the name of a study must have at most {LONGEST_STUDY_NAME} characters, "
            f"but got {len(name)}: {name[:40]!r}..."
        )


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """Where the results of a study are.

    Attributes:
      path: the folder; it may have yet to be made.
    """

    path: Path

    @classmethod
    def of(cls, output: str | Path | None, study_name: str) -> "StudyFolder":
        """Return `output`, or ``runs/<study name>`` where that is None."""
        require_study_name(study_name)
        if output is None:
            return cls(Path("runs") / folder_name(study_name))
        return cls(path_of("output", output))

    @property
    def database(self) -> Path:
        """The study in SQLite, for one process."""
        return self.path / "study.db"

    @property
    def journal(self) -> Path:
        """The study as a journal, for the workers of one host."""
        return self.path / "study.journal"

    @property
    def config(self) -> Path:
        """The study's name and settings."""
        return self.path / "config.json"

    @property
    def results(self) -> Path:
        """The summary of the study."""
        return self.path / "optimization_results.json"

    @property
    def trials(self) -> Path:
        """Every trial."""
        return self.path / "all_trials.json"

    @property
    def overview(self) -> Path:
        """History, importance and two slices, drawn."""
        return self.path / "optimization_results.png"

    @property
    def finalists(self) -> Path:
        """Returns of the finalists."""
        return self.path / "finalists.json"

    @property
    def validation(self) -> Path:
        """Returns on the validation seeds, and the verdict."""
        return self.path / "validation.json"

    @property
    def validation_picture(self) -> Path:
        """The validation, drawn."""
        return self.path / "validation.png"

    @property
    def recommended(self) -> Path:
        """The configuration to use."""
        return self.path / "recommended.json"

    @property
    def policy(self) -> Path:
        """The trained network, a folder."""
        return self.path / "policy"

    @property
    def baseline_policy(self) -> Path:
        """The trained network of the baseline where another is recommended, a folder."""
        return self.path / "policy_baseline"

    @property
    def films(self) -> Path:
        """An episode of each policy, where the environment can be drawn, a folder."""
        return self.path / "films"

    @property
    def report(self) -> Path:
        """Everything on one page."""
        return self.path / "report.html"

    @property
    def artifacts(self) -> Path:
        """What optuna-dashboard shows beside the study, a folder."""
        return self.path / "artifacts"

    @property
    def lock(self) -> Path:
        """An empty file that a process locks while it holds the folder."""
        return self.path / ".lock"

    @property
    def training_state(self) -> Path:
        """Where the finalists or a validation continue, a folder; gone when it has ended."""
        return self.path / "training_state"

    def remove_training_state(self) -> None:
        """Remove the training states of finalists or of a validation that has ended."""
        remove_folder(self.training_state)

    def default_storage(self, workers: int = 1) -> str:
        """Return the address of the storage in this folder.

        SQLite, or a journal where `workers` share the study or have begun it.

        Raises:
          UserError: when several workers are to share an SQLite file that is there already.
        """
        database, journal = self.database.resolve(), self.journal.resolve()
        if workers > 1 and database.exists():
            raise UserError(
                f"the study in {self.path} was begun by one process and is kept in SQLite, which "
                f"workers cannot share; continue without --workers, or choose another --output"
            )
        shared = workers > 1 or journal.exists()
        return f"journal:{journal}" if shared else f"sqlite:///{database}"

    def study_name(self) -> str | None:
        """Return the name of the study whose results are here; None where that is unknown."""
        try:
            name = read_json(self.config).get("study_name")
        except (UserError, AttributeError):
            return None
        return name if isinstance(name, str) else None

    def require_usable(self, study_name: str) -> None:
        """Raise a ``UserError`` if this folder holds another study or cannot be written.

        Nothing is created.
        """
        require_writable(self.path)
        if self.config.exists() and not self._has_torn_config():
            read_json(self.config)  # Somebody else's must not be overwritten.
        found = self.study_name()
        if found not in (None, study_name):
            raise UserError(
                f"{self.path} holds the study {found!r}, but got {study_name!r}; "
                f"choose another --output"
            )

    def _has_torn_config(self) -> bool:
        """Return whether ``config.json`` is what a power loss leaves of one of ours.

        It is nothing, zeros, or the beginning of the file, and is written again from the study.
        """
        try:
            rest = self.config.read_bytes().partition(b"\0")[0]
        except OSError:
            return False
        start = b'{\n  "study_name": '
        torn = rest.startswith(start) or start.startswith(rest)
        return torn and self.study_name() is None

    def require_study(self, study_name: str, names: Collection[str]) -> None:
        """Raise a ``UserError`` unless the storage in this folder may hold a study.

        Args:
          study_name: of the study that is to be continued, or begun.
          names: of the studies that a storage in this folder, which was there before, holds.
        """
        if study_name in names:
            return
        found = self.study_name()
        if names and found is None:
            raise UserError(
                f"{self.path} holds the study {min(names)!r}, but got {study_name!r}; "
                f"choose another --output"
            )
        if found is not None:
            raise UserError(
                f"the storage in {self.path} was damaged or replaced: it does not hold the "
                f"study {found!r} of {self.config.name}; remove the folder to begin anew"
            )

    def write_config(self, study_name: str, settings: Settings) -> None:
        """Say whose results these are."""
        write_json(self.config, {"study_name": study_name, **settings.to_dict()})

    @contextlib.contextmanager
    def held(self, *, shared: bool) -> Iterator[None]:
        """Hold the folder, so that two studies never mix their files.

        Args:
          shared: let other processes hold it that share as well.

        Raises:
          FolderInUseError: when another process holds it.
        """
        in_use = (
            f"another process is running a study in {self.path}; to work on one study together, "
            f"use --workers, or a --storage that processes can share"
        )
        with held(self.lock, in_use, shared=shared):
            yield
