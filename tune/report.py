"""The files of a study: results, trials, pictures, page. Made from the study alone.

``python -m tune.report`` rebuilds them, also while the study runs. A study is only read.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ppo_jax import command_line
from ppo_jax.errors import UserError, nearest, require_package
from ppo_jax.files import read_json, replacing, require_writable, write_json

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


def save_optimization_results(
    study: "optuna.Study", output: str | Path | None = None
) -> dict[str, Any]:
    """Write all tables, pictures and ``report.html`` of a study, whatever state it is in.

    ``optimization_results.json``, ``all_trials.json`` and ``optimization_results.png``. What a
    selection or a validation has left in the folder is shown where it is one of this study's
    winner.

    Args:
      study: of :func:`tune.run_optimization`, or any study that optimized
        :func:`tune.objective`.
      output: a folder; ``runs/<study name>`` by default.

    Returns:
      The content of ``optimization_results.json``.
    """
    from tune.analysis import analyse
    from tune.page import render_page
    from tune.plots import plot_optimization
    from tune.settings import Settings
    from tune.study import FINISHED, default_output
    from tune.tables import describe_study, describe_trial
    from tune.trial import settings_of

    folder = Path(output) if output is not None else default_output(study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(study) or Settings()
    trials = study.get_trials(deepcopy=False)
    analysis = analyse(trials, settings)
    results = describe_study(study, settings, trials, analysis)
    found = _proof(folder, results["best_params"])
    results["verdict"] = found["validation"] and found["validation"]["verdict"]
    write_json(folder / "optimization_results.json", results)
    write_json(folder / "all_trials.json", [describe_trial(trial) for trial in trials])
    finished = [trial for trial in trials if trial.state in FINISHED]
    plot_optimization(finished, settings, analysis, folder / "optimization_results.png")
    page = render_page(results, trials, settings, analysis, **found)
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results


def _run(arguments: Arguments) -> None:
    from tune.dashboard import prepare_dashboard
    from tune.settings import ADDRESS_VARIABLE
    from tune.storage import storage_file
    from tune.study import default_storage

    folder = arguments.folder
    address = arguments.storage or os.environ.get(ADDRESS_VARIABLE)
    require_writable(folder)
    if address is None:
        address = default_storage(folder)
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

    from tune.storage import open_storage
    from tune.trial import settings_of

    storage = open_storage(address)
    names = sorted(optuna.get_all_study_names(storage))
    name = arguments.study_name or (_read(arguments.folder / "config.json") or {}).get("study_name")
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


def _proof(folder: Path, best_params: dict[str, Any] | None) -> dict[str, Any]:
    """Return what `folder` holds of a selection and a validation of this study's winner."""
    from tune.selection import selected_params

    selected = selected_params(folder, best_params)
    selection = _read(folder / "selection.json") if selected else None
    validation, recommended = _read(folder / "validation.json"), _read(folder / "recommended.json")
    try:
        same = validation["winner"]["hyperparameters"] in (best_params, selected)
        complete = "statistics" in validation
    except (KeyError, TypeError):
        same = complete = False
    if not (same and complete):
        validation = recommended = None
    return {"selection": selection, "validation": validation, "recommended": recommended}


def _read(path: Path) -> Any:
    """Return the content of a JSON file, None where there is none."""
    try:
        return read_json(path)
    except UserError:
        return None


if __name__ == "__main__":
    main()
