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
from tune.protocol.study_folder import StudyFolder
from tune.report.files import save_optimization_results

if TYPE_CHECKING:
    import optuna


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Rebuild all tables and pictures of a study and report.html, also while it runs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the study; results are written here."""
    storage: str | None = None
    """Optuna storage URL of the study. study.db in the folder if not given."""
    study_name: str | None = None
    """Name of the study. The one in the folder's config.json, or the only one, if not given."""
    dashboard: bool = False
    """Also prepare the study for optuna-dashboard: verdict, pictures and policy go into it."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.report``."""
    arguments = command_line.parse(Arguments, "python -m tune.report", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    from tune.protocol.settings import ADDRESS_VARIABLE
    from tune.report.dashboard import prepare_dashboard
    from tune.search.storage import storage_file

    folder = arguments.folder
    address = arguments.storage or os.environ.get(ADDRESS_VARIABLE)
    require_writable(folder)
    if address is None:
        address = StudyFolder(folder).default_storage()
        if (file := storage_file(address)) is not None and not file.is_file():
            raise UserError(
                f"{folder / file.name} does not exist; --storage says where the study is"
            )
    elif (file := storage_file(address)) is not None and not file.is_file():
        raise UserError(f"{file} does not exist")

    if arguments.dashboard:
        require_package("optuna_dashboard", "dashboard", "--dashboard")

    import optuna
    from rich.console import Console

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _load(address, arguments)
    results = save_optimization_results(study, folder)
    counts = {k: v for k, v in results["n_trials"].items() if k != "total"}
    lines = [
        f"{study.study_name}: " + ", ".join(f"{n} {state}" for state, n in counts.items()),
        *([results["analysis"]["warning"]] if results["analysis"]["warning"] else []),
        results["verdict"] or "Not validated on fresh seeds.",
        str(folder / "report.html"),
    ]
    if arguments.dashboard:
        lines.append(prepare_dashboard(study, folder, address))
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _load(address: str, arguments: Arguments) -> "optuna.Study":
    """Load the study that `arguments` name from the storage at `address`."""
    import optuna

    from tune.protocol.trials import settings_of
    from tune.search.storage import open_storage

    storage = open_storage(address)
    names = sorted(optuna.get_all_study_names(storage))
    name = arguments.study_name or StudyFolder(arguments.folder).study_name()
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise UserError(f"the storage holds {len(names)} studies; name one with --study-name")
    if name not in names:
        raise UserError(f"the storage holds no study {name!r}{nearest(name, names)}")
    study = optuna.load_study(study_name=name, storage=storage)
    if settings_of(study) is None:
        raise UserError(f"study {name!r} was not made by this tuner")
    return study


if __name__ == "__main__":
    main()
