"""A study on a database whose connection dies at every message that a worker sends.

A proxy stands between a worker and a temporary server. It counts the messages of the worker,
each of which waits for an answer, and at one of them it closes the connection: before the
server has seen the message, or after, so that only the answer is lost. The worker's programs
are a stand-in; everything that it asks of the database is asked by the study's own code.
"""

import contextlib
import dataclasses
import functools
import gc
import multiprocessing
import os
import random
import re
import selectors
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import lives, postgres
from benchmarks.measuring import Table
from ppo_jax.devices import usable_cores

TRIALS = 3
LONGEST_LIFE = 600.0
"""Seconds beyond those for which the server is away."""

_OPTIONS = {
    **lives.OPTIONS,
    "--trials": TRIALS,
    "--validate-steps": 0,
    "--study-name": "shared",
    "--worker-timeout": 1,
}

_OPERATIONS = (
    ("open", r"pg_catalog|version_info|alembic|CREATE|studies|study_|SHOW|@@|DESCRIBE"),
    ("report", r"trial_intermediate_values"),
    ("tell", r"trial_values|SET state='(COMPLETE|PRUNED|FAIL)|UPDATE trials"),
    ("ask", r"INSERT INTO (trials|trial_params|trial_system)|FOR UPDATE"),
    ("heartbeat", r"(INSERT INTO|UPDATE) trial_user_attributes"),
    ("read", r"SELECT"),
)


def operation(statement: str, previous: str) -> str:
    """Return what a worker is doing when it sends `statement`.

    Args:
      statement: SQL, or whatever a message holds.
      previous: operation of the message before, which a commit belongs to.
    """
    for name, pattern in _OPERATIONS:
        if re.search(pattern, statement):
            return name
    return previous


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens to a connection.

    Attributes:
      message: number of the message at which it does.
      answered: whether the server has done what the message asks.
      seconds: for which the server is away afterwards.
    """

    message: int
    answered: bool
    seconds: float


@dataclasses.dataclass
class Found:
    """What a life has come to; see :func:`every_statement` for the meaning of the counts."""

    operation: str
    ended: int = 0
    lost: int = 0
    doubled: int = 0
    unfinished: int = 0
    example: str = ""


class Proxy:
    """Passes messages on to a server until it is time for a fault.

    Attributes:
      operations: of every message so far.
    """

    def __init__(self, server: "Server", fault: Fault | None) -> None:
        self.operations: list[str] = []
        self._server, self._fault = server, fault
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._doomed: set[socket.socket] = set()
        self._prepared: dict[tuple[socket.socket, bytes], bytes] = {}
        self._back = 0.0
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()

    def serve(self, process: Any, until: float) -> None:
        """Pass messages on while `process` runs, and kill it at the moment `until`."""
        while process.is_alive():
            if time.monotonic() > until:
                process.kill()
                process.join()
                return
            if self._listener is None and time.monotonic() >= self._back:
                self._listen()
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._peers:
                    self._pass_on(key.fileobj, key.data)

    def close(self) -> None:
        """Close everything."""
        for one in list(self._peers):
            self._drop(one)
        self._stop_listening()
        self._selector.close()

    def leave(self) -> None:
        """Give up this process's copy of the listening socket; it would keep the port open."""
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            # Not a port that the system gives to clients: while nobody listened there, a client
            # could be given it, and be connected to itself.
            port = self.port or random.randrange(10_000, 30_000)
            try:
                self._listener.bind(("127.0.0.1", port))
                break
            except OSError:
                if self.port:
                    raise
        self.port = port
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server.port))
        for one, other, kind in ((client, server, "client"), (server, client, "server")):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ, kind)

    def _pass_on(self, source: socket.socket, kind: str) -> None:
        try:
            data = source.recv(1 << 20)
        except OSError:
            data = b""
        if not data or source in self._doomed:
            self._drop(source)
            return
        if kind == "client":
            self._count(source, data)
            if self._fault is not None and len(self.operations) == self._fault.message:
                if not self._fault.answered:
                    self._break(source)
                    return
                self._doomed.add(self._peers[source])
        try:
            self._peers[source].sendall(data)
        except OSError:
            self._drop(source)

    def _count(self, source: socket.socket, data: bytes) -> None:
        statement = data
        if self._server.name == postgres.NAME:
            if data[:1] == b"P":  # A statement that is prepared.
                name, _, rest = data[5:].partition(b"\0")
                self._prepared[source, name] = rest
            elif data[:1] == b"B":  # And is executed.
                name = data[5:].split(b"\0")[1]
                statement = self._prepared.get((source, name), data)
        previous = self.operations[-1] if self.operations else "open"
        self.operations.append(operation(statement.decode(errors="replace"), previous))

    def _break(self, source: socket.socket) -> None:
        """Close the connection, and where the server is to be away, all of them."""
        fault = self._fault
        assert fault is not None
        self._drop(source)
        if fault.seconds:
            for one in list(self._peers):
                self._drop(one)
            self._stop_listening()
            self._back = time.monotonic() + fault.seconds

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._peers.get(one)):
            if end in self._peers:
                doomed = end in self._doomed
                self._doomed.discard(end)
                self._selector.unregister(end)
                del self._peers[end]
                end.close()
                if doomed:
                    self._answered()

    def _answered(self) -> None:
        fault = self._fault
        if fault is not None and fault.seconds and self._listener is not None:
            for one in list(self._peers):
                self._drop(one)
            self._stop_listening()
            self._back = time.monotonic() + fault.seconds


@dataclasses.dataclass(frozen=True)
class Server:
    """A database server that runs.

    Attributes:
      name: of the product.
      address: with a password and a port.
      database: from `address` and a name to the address of a new database, in a block.
    """

    name: str
    address: str
    database: Callable[[str, str], contextlib.AbstractContextManager[str]]

    @property
    def port(self) -> int:
        """On the loopback interface."""
        return urlsplit(self.address).port or 0


def every_statement(
    server: Server, away: float = 2.0, at_most: int = 0, folder: Path | None = None
) -> tuple[Table, list[str]]:
    """Break a worker's connection at every message, and see whether its study is whole.

    Args:
      server: that runs.
      away: seconds for which the server is away in the second half of the lives.
      at_most: messages of each kind of fault, evenly spread; 0 for all.
      folder: for results; a temporary one by default.

    Returns:
      A table with a row an operation: messages; lives; processes that ended before their study
      was finished; finished trials that were lost; trials beyond the total or run twice;
      trials that nobody finished. And examples.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = multiprocessing.get_context("fork")
        # A life spends most of its time waiting.
        begin = functools.partial(lives.prepare, folder, _OPTIONS)
        pool = stack.enter_context(ProcessPoolExecutor(2 * len(usable_cores()), context, begin))
        live = functools.partial(_live, server, folder)
        operations = pool.submit(live, None).result()[1]
        numbers = range(1, len(operations) + 1)
        faults = [
            Fault(number, answered, seconds)
            for seconds in (0.0, away)
            for answered in (False, True)
            for number in _spread(numbers, at_most)
        ]
        found = [result for result, _ in pool.map(live, faults)]
    table = Table(
        f"The connection to {server.name} dies at every message; the server is back at once, or "
        f"after {away:g} s",
        ("worker", "messages", "lives", "ended processes", "lost trials", "doubled trials",
         "unfinished trials"),
    )  # fmt: skip
    messages = Counter(operations)
    for name in (*(name for name, _ in _OPERATIONS), "in all"):
        own = [one for one in found if name in (one.operation, "in all")]
        total = len(operations) if name == "in all" else messages[name]
        counts = [
            sum(getattr(one, key) for one in own)
            for key in ("ended", "lost", "doubled", "unfinished")
        ]
        table.add(name, total, len(own), *counts)
    return table, [one.example for one in found if one.example]


def _spread(items: Sequence[Any], at_most: int) -> list[Any]:
    if not at_most or len(items) <= at_most:
        return list(items)
    return [items[i * len(items) // at_most] for i in range(at_most)]


def _live(server: Server, folder: Path, fault: Fault | None) -> tuple[Found, list[str]]:
    """Run a worker to its end, on a database of its own."""
    name = "whole" if fault is None else f"{fault.message}_{fault.answered:d}_{fault.seconds:g}"
    name = f"life_{name}_{os.getpid()}".replace(".", "_")
    output = folder / name
    with server.database(server.address, name) as address:
        proxy = Proxy(server, fault)
        own = address.replace(f":{server.port}/", f":{proxy.port}/")
        process = lives.fork(_work, own, output, proxy)
        away = 0.0 if fault is None else fault.seconds
        try:
            proxy.serve(process, time.monotonic() + LONGEST_LIFE + away)
        finally:
            process.kill()  # It has ended, unless the proxy has failed.
            process.join()
            proxy.close()
        # A message that another thread has sent in between may have moved the fault.
        seen = proxy.operations
        at = len(seen) if fault is None else min(fault.message, len(seen))
        found = Found(seen[at - 1])
        told = re.findall(r"^trial +(\d+) ", (output / "out").read_text(), re.M)
        _judge(found, address, [int(number) for number in told])
        found.ended = int(process.exitcode != 0)
        if found.ended or found.lost or found.doubled or found.unfinished:
            errors = (output / "err").read_text().strip().splitlines() or [""]
            found.example = f"{fault}: {found}, status {process.exitcode}: {errors[-1][:300]}"
        return found, seen


def _judge(found: Found, address: str, told: Sequence[int]) -> None:
    """Count what is wrong with the study at `address`."""
    import optuna

    from tune.search.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(address)
    names = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name="shared", storage=storage).trials if names else []
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    whole = {
        trial.number
        for trial in finished
        if trial.value == sum(trial.intermediate_values.values()) / 2
    }
    found.lost = len(set(told) - whole)
    different = {str(trial.params) for trial in finished}
    baselines = sum(bool(trial.user_attrs.get("baseline")) for trial in finished)
    found.doubled = (
        max(0, len(finished) - TRIALS) + len(finished) - len(different) + max(0, baselines - 1)
    )
    del storage  # And its connection: a server has a limited number of them.
    gc.collect()
    left = [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    found.unfinished = max(0, TRIALS - len(whole)) + len(left) + (baselines == 0)


def _work(address: str, output: Path, proxy: Proxy) -> None:
    proxy.leave()
    output.mkdir(parents=True)
    lives.print_to(output)
    os.environ["PPO_JAX_TUNE_STORAGE"] = address
    lives.run({**_OPTIONS, "--output": output / "study"}, slow=True)
