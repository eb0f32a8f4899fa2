"""Result files: written completely or not at all, strict JSON, folder names.

A file counts as written once a power loss cannot undo it: its content and the entry in its
folder are synced.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.errors import UserError


def path_of(name: str, value: str | Path) -> Path:
    """Return `value`, which the user gave as `name`, as a path.

    Raises:
      UserError: when it is neither text nor a path.
    """
    if not isinstance(value, (str, Path)):
        raise UserError(f"{name} must be a path, but got {value!r:.80}")
    return Path(value)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as strict JSON; numbers that are not finite become null."""
    with replacing(path) as temporary:
        text = json.dumps(plain(data), indent=2, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, largest: int = 2**26) -> Any:
    """Read a JSON file; see :func:`read_text` for errors."""
    return _parsed(path, largest, json.loads)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; see :func:`read_text` for errors."""
    tables: dict[str, Any] = _parsed(path, 2**20, tomllib.loads)
    return tables


def _parsed(path: Path, largest: int, parse: Callable[[str], Any]) -> Any:
    """Return what the text of a file says; see :func:`read_text` for errors."""
    text = read_text(path, largest)
    try:
        value = parse(text)
    except RecursionError:
        raise UserError(f"cannot read {path}: {_TOO_DEEP}") from None
    except ValueError as error:  # Also integers beyond all bounds.
        raise UserError(f"cannot read {path}: {error}") from error
    level: list[dict[str, Any] | list[Any]] = [[value]]
    for _ in range(_DEEPEST + 1):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return value
    raise UserError(f"cannot read {path}: {_TOO_DEEP}")


def read_text(path: Path, largest: int) -> str:
    """Read a text file.

    Args:
      path: of the file.
      largest: bytes that it may have.

    Raises:
      UserError: when it is missing, no file, larger than that, cannot be read, or does not
        hold what it should.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # A device or a pipe may have no end.
            raise UserError(f"cannot read {path}: it is not a file")
        if found.st_size > largest:
            raise UserError(
                f"cannot read {path}: it must have at most {largest:,} bytes, "
                f"but has {found.st_size:,}"
            )
        return path.read_text(encoding="utf-8")
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error


_DEEPEST = 50
_TOO_DEEP = f"tables and lists must be nested at most {_DEEPEST} deep"


def folder_name(name: str) -> str:
    """Return `name`, of an environment or a study, as the name of a folder.

    >>> folder_name("my_package.my_module:MyEnv")
    'my_package.my_module-MyEnv'
    >>> folder_name("..")
    '--'

    Whatever `name` is, this is one folder below its parent, never the parent or one above it.
    """
    valid = name.encode("utf-8", "replace").decode()
    readable = re.sub(r"[/:\\\x00-\x1f\x7f]", "-", valid)
    if not readable.strip("."):
        return "-" * max(1, len(readable))
    encoded = readable.encode()
    if len(encoded) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{encoded[:_LONGEST_NAME].decode(errors='ignore')}-{digest}"
    return readable


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, where they are missing."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove `folder`, if it exists, completely or not at all.

    A process that is killed meanwhile leaves nothing under its name; the next call removes
    what it leaves under another.
    """
    doomed = folder.with_name(f".{folder.name}-removed")
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        folder.replace(doomed)
    except FileNotFoundError:
        return
    _sync(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise a failing disk as an ``OSError`` with a path, as which not every library raises it.

    Args:
      path: what the block writes; named where the error names nothing, or a file without its
        folder.

    Raises:
      OSError: when an error, or one that has led to it, says that the disk has failed.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        if error.errno is None or (isinstance(name, str) and name != Path(name).name):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        link: BaseException | None = error
        while link is not None:
            for number in _DISK_ERRORS:
                if getattr(link, "errno", None) == number or os.strerror(number) in str(link):
                    raise OSError(number, os.strerror(number), str(path)) from error
            link = link.__cause__ or link.__context__
        raise


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

_LONGEST_NAME = 200
"""Bytes; file systems take 255, and a file in preparation has a longer name than its final one."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    Files left there by processes that were killed inside such a block are removed.
    """
    names = path.parent.glob(f".{glob.escape(path.stem)}-unfinished-*{glob.escape(path.suffix)}")
    for stale in names:
        _remove_unless_locked(stale)
    handle, temporary = _locked_temporary(path)
    try:
        yield temporary
        _sync(temporary)  # Else a power loss may leave the name with half of the content.
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


class FolderInUseError(UserError):
    """Another process holds a folder."""


@contextlib.contextmanager
def held(lock: Path, in_use: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the folder of the file `lock`, so that two processes never mix what they write there.

    Args:
      lock: an empty file, made where it is missing. It stays, since another process may have
        opened it already.
      in_use: what to say where another process holds it.
      shared: let other processes hold it that share as well.

    Raises:
      FolderInUseError: when another process holds it.
    """
    # A file that is open for writing: NFS locks no other exclusively, and no folder.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise OSError(error.errno, error.strerror, str(lock)) from error
            raise FolderInUseError(in_use) from error
        yield
    finally:
        os.close(descriptor)


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


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Return a lock on a new file beside `path`, held while its writer lives, and its own path."""
    while True:
        name = f".{path.stem}-unfinished-{secrets.token_hex(4)}{path.suffix}"
        temporary = path.with_name(name)
        # Not `mkstemp`, which makes files private.
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # Another process removed it as stale before it was locked.


def _remove_unless_locked(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR)  # NFS locks no file that is open for reading.
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _sync(path: Path) -> None:
    """Return once the content of a file, or the entries of a folder, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        _flush(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # A file system without it.
            raise
    finally:
        os.close(handle)


def _flush(handle: int) -> None:
    """Have the drive write down what is at `handle`; macOS leaves it in the drive's cache else."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
            return
        except OSError as error:  # A network's file system may know the other one only.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise
    os.fsync(handle)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # A name that is too long, or a parent that cannot be searched.
        return False


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
