"""The storage of a study: its address, who may share it, and what happens while it is away.

Which file of a study's folder holds the storage is not decided here.
"""

import fcntl
import functools
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from ppo_jax.errors import UserError
from tune.search.optuna_private import BaseJournalFileLock, CachedStorage

PATIENCE = 300.0
"""Seconds for which a call waits for a storage that does not answer."""

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_DRIVERS |= {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}

_log = logging.getLogger(__name__)


def is_shared(address: str) -> bool:
    """Return whether several processes may work on a study at `address`; not with SQLite."""
    return not address.startswith("sqlite")


def sqlite_file(address: str) -> Path | None:
    """Return the file of an SQLite storage; None for any other storage or one in memory."""
    name = address.partition(":///")[2].partition("?")[0]
    return None if is_shared(address) or name in ("", ":memory:") else Path(name).resolve()


def storage_file(address: str) -> Path | None:
    """Return the file of an SQLite or journal storage; None for any other storage."""
    journal = address.removeprefix("journal:")
    return sqlite_file(address) if journal == address else Path(journal.removeprefix("//"))


def without_secrets(address: str) -> str:
    """Return `address` without user, password and options, fit to print.

    >>> without_secrets("postgresql://me:p@ssword@host:5432/studies?sslpassword=x")
    'postgresql://host:5432/studies'
    """
    scheme, separator, rest = address.partition(":")
    return scheme + separator + re.sub(r"^(//)?.*@", r"\1", rest).partition("?")[0]


def open_storage(address: str) -> BaseStorage:
    """Open the storage at `address`.

    ``sqlite:///FILE`` serves one process, ``journal:FILE`` the processes of one host,
    ``postgresql://USER:PASSWORD@HOST/DATABASE`` and ``mysql://...`` serve many hosts, and
    ``grpc://HOST:PORT`` is a proxy in front of any of them. While a database does not answer,
    calls wait for it, at most :data:`PATIENCE` seconds.

    Raises:
      UserError: when it cannot be opened; the message never holds the password.
    """
    scheme, _, rest = address.partition(":")
    try:
        if scheme == "journal":
            path = Path(rest.removeprefix("//")).absolute()
            backend = JournalFileBackend(str(path), lock_obj=_FileLock(path))
            storage: BaseStorage = _resilient(optuna.storages.JournalStorage)(address, backend)
        elif scheme == "grpc":
            storage = _open_proxy(address)
        else:
            storage = _resilient(CachedStorage)(address, _open_database(address))
    except UserError:
        raise
    except Exception as error:  # Whatever the database driver raises.
        raise UserError(
            f"cannot open the storage {without_secrets(address)}: {_reason(error, address)}"
        ) from error
    return storage


def _open_database(address: str) -> optuna.storages.RDBStorage:
    scheme, separator, rest = address.partition(":")
    address = _DRIVERS.get(scheme, scheme) + separator + rest
    options: dict[str, Any] = {}
    if is_shared(address):
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
        if address.startswith("postgresql"):  # Notice a vanished host within a minute.
            options["connect_args"] |= {"keepalives_idle": 20, "tcp_user_timeout": 60_000}
    for attempt in range(5):
        try:
            return optuna.storages.RDBStorage(address, engine_kwargs=options)
        except Exception as error:
            # Several processes may create the tables at the same moment; one of them succeeds.
            if attempt == 4 or not _lost_race(error):
                raise
            time.sleep(random.uniform(0.1, 1.0))
    raise AssertionError("unreachable")


def _lost_race(error: Exception) -> bool:
    text = f"{error} {error.__cause__}".lower()
    return any(word in text for word in ("already exists", "duplicate", "unique", "locked"))


def _open_proxy(address: str) -> BaseStorage:
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        raise UserError(f"a gRPC storage is grpc://HOST:PORT, but got {without_secrets(address)!r}")
    storage: optuna.storages.GrpcStorageProxy = _resilient(optuna.storages.GrpcStorageProxy)(
        address, host=parts.hostname, port=parts.port
    )
    storage.wait_server_ready(timeout=10)
    return storage


@functools.cache
def _resilient(kind: Any) -> Callable[..., Any]:
    """Return a subclass of the storage `kind` whose calls wait while it does not answer.

    A failure that waiting cannot cure becomes a ``UserError`` that names the storage. The
    instances have an attribute ``address``.
    """

    def __init__(self: Any, address: str, *args: Any, **kwargs: Any) -> None:
        self.address = address
        kind.__init__(self, *args, **kwargs)

    calls = {name: _with_retries(getattr(kind, name)) for name in BaseStorage.__abstractmethods__}
    return type(kind.__name__, (kind,), {"__init__": __init__, **calls})


def _with_retries(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        started, pause = time.monotonic(), 0.5
        while True:
            try:
                return call(self, *args, **kwargs)
            except Exception as error:
                away = _is_away(error)
                if not away and not _is_broken(error):
                    raise
                waited = time.monotonic() - started
                if not away or waited > PATIENCE:
                    raise UserError(
                        f"the storage {without_secrets(self.address)} fails: "
                        f"{_reason(error, self.address)}"
                        f"{f', for {waited:.0f} s' if away else ''}; {_what_is_kept(self.address)}"
                    ) from error
                if pause == 0.5:
                    _log.warning(
                        "the storage %s does not answer (%s); trying again for %.0f s",
                        without_secrets(self.address),
                        _reason(error, self.address),
                        PATIENCE,
                    )
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    return wrapper


def _what_is_kept(address: str) -> str:
    file = storage_file(address)
    if file is None or file.exists():
        return "finished trials are kept, the same command continues"
    return "its file has been removed, and the finished trials with it"


def _is_away(error: BaseException) -> bool:
    """Return whether the storage does not answer for now, so that waiting may help."""
    origin = _origin(error)
    if type(origin).__module__.startswith("grpc"):
        code: Any = getattr(origin, "code", None)
        return code is not None and code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    if type(origin).__module__.startswith("sqlite3"):
        return "locked" in str(origin)
    if any(getattr(link, "connection_invalidated", False) for link in _chain(error)):
        return True  # Whatever the driver calls it, SQLAlchemy knows that the connection is gone.
    # In every driver (PEP 249) the first two blame the connection, not the statement.
    names = {kind.__name__ for kind in type(origin).__mro__}
    return not names.isdisjoint({"OperationalError", "InterfaceError", "PendingRollbackError"})


def _is_broken(error: BaseException) -> bool:
    """Return whether the storage fails, rather than the call being wrong."""
    return isinstance(error, (optuna.exceptions.StorageInternalError, OSError)) or (
        type(error).__module__.startswith(("sqlalchemy", "grpc"))
    )


def _origin(error: BaseException) -> BaseException:
    """Return the driver's own error.

    Where a connection dies, Optuna's read of trials tries another query in the transaction that
    has failed. SQLAlchemy refuses it (``PendingRollbackError``), and the error that says why is
    its context. The call as a whole rolls back, so a second one gets a new connection.
    """
    origin: BaseException = error
    for link in _chain(error):
        origin = getattr(link, "orig", None) or link
        if type(link).__name__ != "PendingRollbackError":
            break
    return origin


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error of SQLAlchemy, below Optuna's, and then those that have led to it."""
    link: BaseException | None = error
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        link = error.__cause__
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _reason(error: BaseException, address: str) -> str:
    """Return the cause in one line, without any part of the address's password."""
    origin = _origin(error)
    text = " ".join(str(origin).split()) or type(origin).__name__
    if isinstance(origin, OSError) and origin.strerror:
        text = origin.strerror
    user = address.partition("//")[2].rpartition("@")[0]
    secrets = re.split(r"[/:@&=?]+", f"{user.partition(':')[2]}?{address.partition('?')[2]}")
    return type(origin).__name__ if any(secret and secret in text for secret in secrets) else text


class _FileLock(BaseJournalFileLock):
    """A lock on a journal that the kernel releases when its holder dies, unlike Optuna's.

    A line that the holder did not finish is cut off: it would spoil the next one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1

    def acquire(self) -> bool:
        self.release()  # An interrupted call may still hold it, and this call would wait for that.
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        _cut_torn_line(self._handle)
        return True

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _cut_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)
