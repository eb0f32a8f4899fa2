"""Temporary database servers: a free port, a user, a folder that is removed afterwards."""

import contextlib
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

PASSWORD = "s3cret-w0rd"


class Startable(Protocol):
    """A server with its data in a folder; it has to be started."""

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        ...

    def kill(self) -> None:
        """Stop the server at once, as a crash would."""
        ...


def unused_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def run_as(name: str, folder: Path) -> dict[str, Any]:
    """Return arguments of ``subprocess.run`` for a server that refuses to run as root.

    Args:
      name: of the user that Debian's package creates for it.
      folder: with the data; handed to that user.
    """
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam(name)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


_Server = TypeVar("_Server", bound=Startable)


@contextlib.contextmanager
def temporary(kind: Callable[[Path], _Server]) -> Iterator[_Server]:
    """Yield a running server with its data in a temporary folder, both removed after the block."""
    folder = tempfile.mkdtemp(prefix="database-")
    try:
        Path(folder).chmod(0o755)
        running = kind(Path(folder))
        running.start()
        try:
            yield running
        finally:
            running.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
