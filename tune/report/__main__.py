"""``python -m tune.report``: rebuild the files of a study, also while it runs."""

if __name__ == "__main__":  # Before what takes long to import.
    from ppo_jax.scripts import start

    start("tune.report.__main__")


import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ppo_jax import command_line
from ppo_jax.config import ask_for
from ppo_jax.errors import require_package
from ppo_jax.files import require_writable
from tune.protocol.study_folder import StudyFolder


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Rebuild the result files of a study, report.html among them, also while it runs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the study; results are written here."""
    storage: str | None = None
    """Optuna storage URL of the study. study.db or study.journal in the folder if not given."""
    study_name: str | None = None
    """Name of the study. The one in the folder's config.json, or the only one, if not given."""
    network: str | None = None
    """Network of a study whose network is your own, as module:Class."""
    dashboard: bool = False
    """Also prepare the study for optuna-dashboard: add verdict, pictures and policy to it."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m tune.report``."""
    arguments = command_line.parse(Arguments, "python -m tune.report", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    ask_for(arguments.network)
    folder = StudyFolder(arguments.folder)
    require_writable(folder.path)
    if arguments.dashboard:
        require_package("optuna_dashboard", "dashboard", "--dashboard")

    import optuna
    from rich.console import Console

    from tune.report.console import print_lines, report_lines
    from tune.report.dashboard import prepare_dashboard
    from tune.report.files import load_results, write_report
    from tune.report.stored import address_of, load_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = address_of(folder, arguments.storage)
    study = load_study(address, folder, arguments.study_name)
    results = load_results(study, folder)
    write_report(results, folder)
    lines = report_lines(results, folder)
    if arguments.dashboard:
        lines.append(prepare_dashboard(study, results, folder, address))
    print_lines(Console(), lines)
