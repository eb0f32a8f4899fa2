"""``python -m tune.report``: rebuild the files of a study, also while it runs."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ppo_jax import command_line
from ppo_jax.errors import UserError, nearest, require_package
from ppo_jax.files import require_writable
from tune.protocol.settings import ADDRESS_VARIABLE
from tune.protocol.study_folder import StudyFolder

if TYPE_CHECKING:
    import optuna


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Rebuild the result files of a study, report.html among them, also while it runs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the study; results are written here."""
    storage: str | None = None
    """Optuna storage URL of the study. study.db or study.journal in the folder if not given."""
    study_name: str | None = None
    """Name of the study. The one in the folder's config.json, or the only one, if not given."""
    dashboard: bool = False
    """Also prepare the study for optuna-dashboard: add verdict, pictures and policy to it."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.report``."""
    arguments = command_line.parse(Arguments, "python -m tune.report", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    folder = StudyFolder(arguments.folder)
    require_writable(folder.path)
    address = _address(arguments, folder)
    if arguments.dashboard:
        require_package("optuna_dashboard", "dashboard", "--dashboard")

    import optuna
    from rich.console import Console

    from tune.report.console import print_lines, report_lines
    from tune.report.dashboard import prepare_dashboard
    from tune.report.files import load_results, write_report

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _load(address, arguments.study_name or folder.study_name())
    results = load_results(study, folder)
    write_report(results, folder)
    lines = report_lines(results, folder)
    if arguments.dashboard:
        lines.append(prepare_dashboard(study, results, folder, address))
    print_lines(Console(), lines)


def _address(arguments: Arguments, folder: StudyFolder) -> str:
    """Return the address of the study's storage.

    Raises:
      UserError: when it is a file that does not exist.
    """
    from tune.search.storage import storage_file

    given = arguments.storage or os.environ.get(ADDRESS_VARIABLE)
    address = given or folder.default_storage()
    file = storage_file(address)
    if file is not None and not file.is_file():
        if given is None:
            raise UserError(f"{folder.path / file.name} does not exist; give the study's --storage")
        raise UserError(f"{file} does not exist")
    return address


def _load(address: str, name: str | None) -> "optuna.Study":
    """Load a study from the storage at `address`, the only one if `name` is None."""
    import optuna

    from tune.protocol.trials import settings_of
    from tune.search.storage import open_storage

    storage = open_storage(address)
    names = sorted(optuna.get_all_study_names(storage))
    if name is None and len(names) == 1:
        (name,) = names
    if name is None:
        raise UserError(f"the storage holds {len(names)} studies; choose one with --study-name")
    if name not in names:
        raise UserError(f"the storage holds no study {name!r}{nearest(name, names)}")
    study = optuna.load_study(study_name=name, storage=storage)
    if settings_of(study) is None:
        raise UserError(f"study {name!r} was not made by this tuner")
    return study


if __name__ == "__main__":
    main()
