"""Result files: written completely or not at all, strict JSON, folder names."""

import contextlib
import fcntl
import glob
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.errors import UserError


def write_json(path: Path, data: Any) -> None:
    """Write `data` as strict JSON; numbers that are not finite become null."""
    with replacing(path) as temporary:
        text = json.dumps(plain(data), indent=2, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      UserError: when the file is missing, cannot be read, or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def folder_name(name: str) -> str:
    """Return `name`, of an environment or a study, as the name of a folder.

    >>> folder_name("my_package.my_module:MyEnv")
    'my_package.my_module-MyEnv'
    """
    return re.sub(r"[/:\\]", "-", name)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    Files left there by processes that were killed inside such a block are removed.
    """
    prefix = f".{path.stem}-"
    for stale in path.parent.glob(f"{glob.escape(prefix)}*{glob.escape(path.suffix)}"):
        _remove_unless_locked(stale)
    handle, temporary = _locked_temporary(path.parent, prefix, path.suffix)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def require_writable(folder: Path) -> None:
    """Raise a ``UserError`` unless files can be written to `folder`, which may not exist yet.

    Nothing is created.
    """
    existing = next((p for p in (folder, *folder.parents) if _exists(p)), Path())
    if not existing.is_dir():
        raise UserError(f"output folder {folder} cannot be made: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"output folder {folder} cannot be written: {existing}: {error.strerror}"
        ) from error


def _locked_temporary(folder: Path, prefix: str, suffix: str) -> tuple[int, Path]:
    """Return a lock on a new file, held while its writer lives, and the file's path."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # Another process removed it as stale before it was locked.


def _remove_unless_locked(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # A name that is too long, or a parent that cannot be searched.
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain(value: Any) -> Any:
    """Return `value` as it comes back from a JSON file: lists, strings for keys, None for NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
