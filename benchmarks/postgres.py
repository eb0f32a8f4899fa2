"""A temporary PostgreSQL server on the loopback interface."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.servers import PASSWORD, run_as, temporary, unused_port

NAME = "PostgreSQL"


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None when it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = [Path(folder) for folder in os.get_exec_path()]
    complete = (
        folder
        for folder in (*debian, *on_path)
        if all((folder / name).exists() for name in ("initdb", "postgres", "pg_isready"))
    )
    return next(complete, None)


class Server:
    """A server with its data in `folder`; it has to be started.

    Attributes:
      port: on the loopback interface.
      address: for ``--storage``; contains a password.

    Raises:
      FileNotFoundError: when PostgreSQL is not installed.
    """

    def __init__(self, folder: Path) -> None:
        found = binaries()
        if found is None:
            raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
        self._programs = found
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = unused_port()
        self.address = f"postgresql://tuner:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        self._user = run_as("postgres", folder)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb = f"{found / 'initdb'} -U tuner -A scram-sha-256 --no-sync -D data --pwfile password"
        subprocess.run(initdb.split(), check=True, capture_output=True, cwd=folder, **self._user)

    def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
          RuntimeError: when it does not start within a minute.
        """
        settings = "listen_addresses=127.0.0.1,127.0.0.2 unix_socket_directories= fsync=off"
        postgres = f"{self._programs / 'postgres'} -D data -p {self.port}"
        self._process = subprocess.Popen(
            [*postgres.split(), *(word for s in settings.split() for word in ("-c", s))],
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            **self._user,
        )
        deadline = time.monotonic() + 60
        ready = f"{self._programs / 'pg_isready'} -q -h 127.0.0.1 -p {self.port}"
        while subprocess.run(ready.split()).returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("PostgreSQL does not start")
            time.sleep(0.1)

    def kill(self) -> None:
        """Stop the server at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: immediate shutdown.
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def database(address: str, name: str) -> Iterator[str]:
    """Yield the address of a new database on the server at `address`; removed after the block."""
    import psycopg
    from psycopg import sql

    def execute(statement: str) -> None:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

    execute("CREATE DATABASE {}")
    try:
        yield address.rpartition("/")[0] + f"/{name}"
    finally:
        execute("DROP DATABASE {} WITH (FORCE)")


def server() -> contextlib.AbstractContextManager[Server]:
    """Return a context with a running server, which is removed after the block."""
    return temporary(Server)
