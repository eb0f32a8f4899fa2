"""A temporary MariaDB server on the loopback interface."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import PASSWORD, run_as, temporary, unused_port

NAME = "MariaDB"


class Server:
    """A server with its data in `folder`.

    Attributes:
      port: on the loopback interface.
      address: for ``--storage``; contains a password.

    Raises:
      FileNotFoundError: when MariaDB is not installed.
    """

    def __init__(self, folder: Path) -> None:
        install, serve = (
            shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
            for name in ("mariadb-install-db", "mariadbd")
        )
        if install is None or serve is None:
            raise FileNotFoundError("MariaDB is not installed: apt-get install mariadb-server")
        self._folder, self._serve = folder, serve
        self._process: subprocess.Popen[bytes] | None = None
        self.port = unused_port()
        self.address = f"mysql://tuner:{PASSWORD}@127.0.0.1:{self.port}/mysql"
        self._user = run_as("mysql", folder)
        options = f"--no-defaults --datadir={folder}/data --auth-root-authentication-method=normal"
        subprocess.run(
            [install, *options.split(), "--skip-test-db"],
            check=True,
            capture_output=True,
            cwd=folder,
            **self._user,
        )
        self._setup = folder / "setup.sql"
        self._setup.write_text(
            f"CREATE OR REPLACE USER tuner@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO tuner@'%';\n"
        )
        self._setup.chmod(0o644)

    def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
          RuntimeError: when it does not start within a minute.
        """
        folder = self._folder
        options = (
            f"--no-defaults --datadir={folder}/data --port={self.port} "
            f"--bind-address=127.0.0.1 --socket={folder}/socket --pid-file={folder}/pid "
            f"--skip-name-resolve --init-file={self._setup}"
        )
        self._process = subprocess.Popen(
            [self._serve, *options.split()], stderr=subprocess.DEVNULL, cwd=folder, **self._user
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("MariaDB does not start")
            time.sleep(0.1)

    def _answers(self) -> bool:
        import pymysql

        try:
            _connect(self.address).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Stop the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _connect(address: str) -> Any:
    import pymysql

    port = int(address.rpartition(":")[2].partition("/")[0])
    return pymysql.connect(
        host="127.0.0.1", port=port, user="tuner", password=PASSWORD, autocommit=True
    )


@contextlib.contextmanager
def database(address: str, name: str) -> Iterator[str]:
    """Yield the address of a new database on the server at `address`; removed after the block."""

    def execute(statement: str) -> None:
        with _connect(address) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    execute(f"CREATE DATABASE `{name}`")
    try:
        yield address.rpartition("/")[0] + f"/{name}"
    finally:
        execute(f"DROP DATABASE `{name}`")


def server() -> contextlib.AbstractContextManager[Server]:
    """Return a context with a running server, which is removed after the block."""
    return temporary(Server)
