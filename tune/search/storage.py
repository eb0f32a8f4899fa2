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
from urllib.parse import unquote, urlsplit

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from ppo_jax.errors import UserError
from tune.search.optuna_private import (
    BaseJournalFileLock,
    CachedStorage,
    create_missing_indexes,
    silence_lost_connections,
    without_experimental_warning,
)

PATIENCE = 300.0
"""Seconds for which a call waits for a storage that does not answer."""

OPENING_PATIENCE = 20.0
"""Seconds for which a database that is not there when a study is opened is waited for.

It may be about to start; but where the address is wrong, the user should hear of it. Where one
has answered and goes away while the study is opened, the address is right.
"""

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

    An address of another form is cut off where a password may begin.

    >>> without_secrets("postgresql://me:p@ssword@host:5432/studies?sslpassword=x")
    'postgresql://host:5432/studies'
    >>> without_secrets("postgresql://me:s3cret")
    'postgresql://me...'
    >>> without_secrets("host=h password=s3cret")
    '...'
    """
    scheme, rest = _parts(address)
    rest = rest.removeprefix("//")
    if scheme.startswith(("sqlite", "journal")) and "@" not in rest:
        whole = file = rest.partition("?")[0]
        kept = file.partition("=")[0] if "password" in file.lower() else file
    else:
        whole = re.split(r"[?#;&\s]", re.sub(r"^.*@", "", rest, flags=re.DOTALL), maxsplit=1)[0]
        # A port is digits, and without a user or a database they may be a password.
        port = r"(?::\d+)?" if "@" in rest or "/" in whole else ""
        found = re.match(rf"(?:\[[\da-fA-F:.]*\]|[\w.+-]*){port}(?:/[^=]*(?!=))?", whole)
        kept = found[0] if found else ""
        kept = kept if "=" not in whole else ""
    slashes = "//" if _parts(address)[1].startswith("//") else ""
    return scheme + slashes + kept + ("..." if kept != whole else "")


def _parts(address: str) -> tuple[str, str]:
    """Return the scheme of `address` with its colon, empty where there is none, and the rest."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address)
    end = found.end() if found else 0
    return address[:end], address[end:]


def open_storage(address: str, patience: float | None = None) -> BaseStorage:
    """Open the storage at `address`.

    ``sqlite:///FILE`` serves one process, ``journal:FILE`` the processes of one host,
    ``postgresql://USER:PASSWORD@HOST/DATABASE`` and ``mysql://...`` serve many hosts, and
    ``grpc://HOST:PORT`` is a proxy in front of any of them. While a database does not answer,
    calls wait for it, at most :data:`PATIENCE` seconds; so does this one, for `patience`.

    Args:
      address: of the storage.
      patience: seconds; :data:`OPENING_PATIENCE` by default. Of a database that refuses a
        password or does not exist, nothing is expected.

    Raises:
      UserError: when it cannot be opened; the message never holds the password.
    """
    scheme, _, rest = address.partition(":")
    _require_address(address)
    try:
        if scheme == "journal":
            path = Path(rest.removeprefix("//")).absolute()
            backend = JournalFileBackend(str(path), lock_obj=_FileLock(path))
            storage: BaseStorage = _resilient(optuna.storages.JournalStorage)(address, backend)
        elif scheme == "grpc":
            storage = _open_proxy(address)
        else:
            patience = OPENING_PATIENCE if patience is None else patience
            storage = _resilient(CachedStorage)(address, _open_database(address, patience))
    except UserError:
        raise
    except Exception as error:  # Whatever the database driver raises.
        raise UserError(
            f"cannot open the storage {without_secrets(address)}: {_reason(error, address)}"
            f"{_encoding_hint(address)}"
        ) from error
    return storage


def _require_address(address: str) -> None:
    """Raise a ``UserError`` for a path in the place of an address, and for half of one."""
    scheme, rest = _parts(address)
    shown = without_secrets(address)
    if not scheme:
        what_to_write = (
            "sqlite:///FILE or journal:FILE for a file"
            if shown != address or not address
            else f"sqlite:///{address}, or journal:{address} for the workers of one host"
        )
        raise UserError(f"a storage is an address, but got {shown!r}; write {what_to_write}")
    if scheme.startswith("sqlite") and rest != "//" and not rest.startswith("///"):
        raise UserError(
            f"an SQLite storage is sqlite:///FILE, with three slashes, but got {shown!r}"
        )
    if scheme == "journal:" and not rest.removeprefix("//"):
        raise UserError(f"a journal storage is journal:FILE, but got {shown!r}")


def _encoding_hint(address: str) -> str:
    """Return what to write where the password holds characters that end it in an address."""
    user = _parts(address)[1].removeprefix("//").rpartition("@")[0]
    if re.search(r"[@/?#]|%(?![0-9A-Fa-f]{2})", user.partition(":")[2]):
        return "; in a password write @ as %40, / as %2F, ? as %3F, # as %23 and % as %25"
    return ""


def _open_database(address: str, patience: float) -> optuna.storages.RDBStorage:
    scheme, separator, rest = address.partition(":")
    url = _DRIVERS.get(scheme, scheme) + separator + rest
    options: dict[str, Any] = {}
    if is_shared(url):
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
        if url.startswith("postgresql"):  # Notice a vanished host within a minute.
            options["connect_args"] |= {"keepalives_idle": 20, "tcp_user_timeout": 60_000}
    silence_lost_connections()
    waiting = _Wait(address, patience)
    races = 0
    while True:
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            create_missing_indexes(storage)
            return storage
        except Exception as error:
            # Several processes may create the tables at the same moment; one of them succeeds.
            if _lost_race(error) and races < _MOST_RACES:
                races += 1
                time.sleep(random.uniform(0.1, 1.0))
            else:
                if _says(error, _WENT_AWAY):
                    waiting.patience = max(patience, PATIENCE)
                if not (_says(error, _NOBODY + _WENT_AWAY) and waiting.again(error)):
                    raise


_MOST_RACES = 4


def _lost_race(error: Exception) -> bool:
    text = str(_origin(error)).lower()  # Without the statement.
    return any(word in text for word in ("already exists", "duplicate", "unique", "locked"))


_NOBODY = ("refused", "timed out", "timeout")
_WENT_AWAY = (
    "closed the connection", "connection is closed", "reset", "broken pipe", "lost connection",
    "gone away", "starting up", "shutting down", "recovery mode", "terminat", "too many",
)  # fmt: skip
"""What databases and drivers say when nobody answers, and when one has answered and then ended the
connection. A driver blames the connection also for a wrong password, database or host."""


def _says(error: Exception, signs: tuple[str, ...]) -> bool:
    """Return whether a database that could not be opened is away, with one of `signs`."""
    text = str(_origin(error)).lower()
    return _is_away(error) and any(sign in text for sign in signs)


class _Wait:
    """Waits for a storage that does not answer, in pauses that grow, for `patience` seconds."""

    def __init__(self, address: str, patience: float) -> None:
        self._address, self.patience = address, patience
        self._start, self._pause = time.monotonic(), 0.5

    @property
    def waited(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._start

    def again(self, error: Exception) -> bool:
        """Return, after a pause, whether to try once more."""
        if self.waited > self.patience:
            return False
        if self._pause == 0.5:
            _log.warning(
                "the storage %s does not answer (%s); trying again for %.0f s",
                without_secrets(self._address),
                _reason(error, self._address),
                self.patience,
            )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, 10.0)
        return True


def _open_proxy(address: str) -> BaseStorage:
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        raise UserError(f"a gRPC storage is grpc://HOST:PORT, but got {without_secrets(address)!r}")
    proxy = _resilient(optuna.storages.GrpcStorageProxy)
    with without_experimental_warning():
        storage: optuna.storages.GrpcStorageProxy = proxy(
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


_READS_ALL = ("get_all_studies", "get_all_trials")
"""Calls that fail, other than by a storage that is away, only at what cannot be decoded."""


def _with_retries(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        wait = _Wait(self.address, PATIENCE)
        while True:
            try:
                return call(self, *args, **kwargs)
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                if call.__name__ not in _READS_ALL:
                    raise
                raise UserError(
                    f"the storage {without_secrets(self.address)} holds what is no study of "
                    f"Optuna's: {type(error).__name__}: {_reason(error, self.address)}"
                ) from error
            except Exception as error:
                away = _is_away(error)
                if not away and not _is_broken(error):
                    raise
                if not (away and wait.again(error)):
                    seconds = f", for {wait.waited:.0f} s" if away else ""
                    raise UserError(
                        f"the storage {without_secrets(self.address)} fails: "
                        f"{_reason(error, self.address)}{seconds}; {_what_is_kept(self.address)}"
                    ) from error

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
    return type(origin).__name__ if any(secret in text for secret in _secrets(address)) else text


def _secrets(address: str) -> set[str]:
    """Return what may be a password in `address`, or a part of one, in every spelling.

    The user's name may be shown, since a database names it in the reasons that it gives.
    """
    rest = _parts(address)[1].removeprefix("//")
    user, at, place = rest.rpartition("@")
    hidden = [user.partition(":")[2]]
    if not at and not is_shared(address):
        place = place.partition("?")[2]
    shown = set(_words(without_secrets(address)))
    hidden += [word for word in _words(place) if word not in shown | _OPTION_NAMES]
    words = {word for text in hidden for word in (text, *_words(text))}
    return {spelling for word in words for spelling in (word, unquote(word)) if spelling}


_OPTION_NAMES = {"password", "passwd", "user", "host", "port", "dbname", "sslmode"}


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[/:@&=?#;\s]+", text) if word]


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
