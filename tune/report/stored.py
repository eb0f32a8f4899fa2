"""A study as its folder or its storage holds it: found, opened, read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from ppo_jax.config import ask_for
from ppo_jax.errors import UserError, nearest
from ppo_jax.files import path_of
from tune.protocol.settings import ADDRESS_VARIABLE
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import settings_of
from tune.report.files import load_results
from tune.report.results import StudyResults
from tune.search.storage import open_storage, storage_file


def read_study(
    folder: str | Path,
    *,
    storage: str | None = None,
    study_name: str | None = None,
    network: str | Callable[..., Any] | None = None,
) -> StudyResults:
    """Return the results of a study, also of one that is running.

    Args:
      folder: of the study.
      storage: its address; ``study.db`` or ``study.journal`` in the folder by default.
      study_name: the one in the folder's ``config.json``, or the only one, by default.
      network: that of the study, where it is the user's own, as module:Class or the class: files
        never name code to import.

    Raises:
      UserError: when there is no such study.
    """
    ask_for(network)
    where = StudyFolder(path_of("folder", folder))
    return load_results(load_study(address_of(where, storage), where, study_name), where)


def address_of(folder: StudyFolder, storage: str | None) -> str:
    """Return the address of the storage of a study: `storage`, or what the folder has.

    Raises:
      UserError: when it is a file that does not exist.
    """
    given = storage or os.environ.get(ADDRESS_VARIABLE)
    address = given or folder.default_storage()
    file = storage_file(address)
    if file is not None and not file.is_file():
        if given is None:
            raise UserError(f"{folder.path / file.name} does not exist; give the study's storage")
        raise UserError(f"{file} does not exist")
    return address


def load_study(address: str, folder: StudyFolder, name: str | None) -> optuna.Study:
    """Return the study in the storage at `address`: `name`, that of `folder`, or the only one.

    Raises:
      UserError: when there is none, several, or one of another tool.
    """
    name = name or folder.study_name()
    opened = open_storage(address)
    names = sorted(optuna.get_all_study_names(opened))
    if name is None and len(names) == 1:
        (name,) = names
    if name is None:
        raise UserError(f"the storage holds {len(names)} studies; give the name of one")
    if name not in names:
        raise UserError(f"the storage holds no study {name!r}{nearest(name, names)}")
    study = optuna.load_study(study_name=name, storage=opened)
    if settings_of(study) is None:
        raise UserError(f"study {name!r} was not made by this tuner")
    return study
