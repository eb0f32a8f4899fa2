"""Addresses of storages, and storages that fail."""

import contextlib
import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy

from benchmarks import postgres, servers
from ppo_jax.errors import UserError
from tune.search import storage
from tune.search.optuna_private import storage_of
from tune.search.storage import is_shared, open_storage, sqlite_file, without_secrets

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

needs_postgres = pytest.mark.skipif(
    postgres.binaries() is None, reason="PostgreSQL is not installed: apt-get install postgresql"
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(storage, "OPENING_PATIENCE", 0.0)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://host:5432/db"),
        ("postgresql+psycopg://me:sec@ret@host/db?password=x", "postgresql+psycopg://host/db"),
        ("mysql://host/db", "mysql://host/db"),
        ("sqlite:////a/study.db", "sqlite:////a/study.db"),
        ("journal:/a/study.journal", "journal:/a/study.journal"),
        ("grpc://u:secret@host:13000", "grpc://host:13000"),
        ("nonsense", "nonsense"),
        ("./a folder/study.db", "./a"),
        ("postgresql://me:s3cret", "postgresql://me..."),
        ("postgresql://me:1234", "postgresql://me..."),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("postgresql://me:s3cret/db", "postgresql://me..."),
        ("postgresql://host/db;password=s3cret", "postgresql://host/db"),
        ("postgresql://host/db password=s3cret", "postgresql://host/db"),
        ("postgresql:///password=s3cret", "postgresql://..."),
        ("postgresql:host=h password=s3cret", "postgresql:..."),
        ("host=h password=s3cret", "..."),
        ("password=s3cret", "..."),
        ("sqlite:///x.db?password=s3cret", "sqlite:///x.db"),
        ("journal:/a=b/study.journal", "journal:/a=b/study.journal"),
        ("me:s3cret@host/db", "me:host/db"),
    ],
)
def test_addresses_are_shown_without_secrets(address, shown):
    assert without_secrets(address) == shown


def test_which_addresses_processes_share(tmp_path):
    assert not is_shared("sqlite:///x.db")
    assert all(map(is_shared, ("journal:x", "postgresql://h/d", "mysql://h/d", "grpc://h:1")))
    assert sqlite_file(f"sqlite:///{tmp_path}/x.db") == tmp_path / "x.db"
    assert sqlite_file("sqlite://") is sqlite_file("journal:x") is None


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////nowhere/secret/x.db",
        "nosuchdb://u:secret@host/db",
        "postgresql://u:secret@127.0.0.1:1/db",
        "postgresql://u:secret@127.0.0.1:port/db",
        "journal:/nowhere/x",
        "grpc://u:secret@127.0.0.1",
        "grpc://127.0.0.1:port",
        "nonsense",
        "",
    ],
)
def test_storage_that_cannot_be_opened_is_one_line_without_its_password(address):
    with pytest.raises(UserError) as caught:
        open_storage(address)
    assert "u:secret" not in str(caught.value)
    assert "secret@" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3cret",
        "postgresql://me:s3cret/db",
        "postgresql:host=127.0.0.1 port=1 password=s3cret",
        "host=127.0.0.1 password=s3cret",
        "postgresql://127.0.0.1:1/db?password=s3cret",
        "postgresql://127.0.0.1:1/db?user=me&passwd=s3cret",
        "postgresql://127.0.0.1:1/db;password=s3cret",
        "postgresql://me:a%20s3cret@127.0.0.1:s3cret/db",
        "mysql://me:s3cret",
        "grpc://me:s3cret",
        "nosuchdb://me:s3cret",
    ],
)
def test_password_is_never_shown_whatever_form_the_address_has(address, capsys):
    with pytest.raises(UserError) as caught:
        open_storage(address)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("study.db", "write sqlite:///study.db, or journal:study.db for the workers"),
        ("./journal.log", "write sqlite:///./journal.log, or journal:./journal.log"),
        ("/a/study.db", "write sqlite:////a/study.db, or"),
        ("", "write sqlite:///FILE or journal:FILE"),
        ("sqlite:study.db", "sqlite:///FILE, with three slashes, but got 'sqlite:study.db'"),
        ("sqlite://study.db", "sqlite:///FILE, with three slashes"),
        ("journal:", "a journal storage is journal:FILE"),
    ],
)
def test_path_in_place_of_an_address_is_told_what_to_write(address, message):
    with pytest.raises(UserError) as caught:
        open_storage(address)
    assert message in str(caught.value)


@pytest.mark.parametrize("password", ["a@b", "a/b", "a?b", "a%b", "a#b"])
def test_password_that_needs_encoding_is_told_how(password):
    with pytest.raises(UserError, match="in a password write @ as %40, / as %2F") as caught:
        open_storage(f"postgresql://me:{password}@127.0.0.1:1/db")
    assert password not in str(caught.value)
    with pytest.raises(UserError) as caught:
        open_storage("postgresql://me:a%40b@127.0.0.1:1/db")
    assert "%40" not in str(caught.value)


def test_half_a_line_of_a_journal_is_cut_off(tmp_path):
    address, path = f"journal:{tmp_path / 'j'}", tmp_path / "j"
    study = optuna.create_study(study_name="s", storage=open_storage(address))
    study.tell(study.ask(), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    again = optuna.load_study(study_name="s", storage=open_storage(address))
    again.tell(again.ask(), 2.0)
    for one in (study, optuna.load_study(study_name="s", storage=open_storage(address))):
        assert [trial.value for trial in one.trials] == [1.0, 2.0]


def test_lock_that_an_interrupted_call_still_holds_keeps_nobody_waiting(tmp_path):
    lock = storage._FileLock(tmp_path / "study.journal")
    assert lock.acquire()
    assert lock.acquire()
    lock.release()
    other = storage._FileLock(tmp_path / "study.journal")
    assert other.acquire()
    other.release()


def test_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "j"
    hold = f"""
import sys
from pathlib import Path
from types import SimpleNamespace
from tune.search.storage import _FileLock
_FileLock(Path({str(path)!r})).acquire()
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert holder.stdout.readline() == b"held\n"
    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.communicate()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    open_storage(f"journal:{path}").create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")


class Flaky(optuna.storages.InMemoryStorage):
    """Raises `errors` one after another, then works."""

    def __init__(self, errors):
        super().__init__()
        self.errors = list(errors)

    def get_all_studies(self):
        if self.errors:
            raise self.errors.pop(0)
        return super().get_all_studies()


def flaky(*errors):
    return storage._resilient(Flaky)("postgresql://u:secret@host/db", errors)


def replace_sleep(monkeypatch, sleep):
    """Let storages that wait call `sleep`; the rest of the process keeps its own."""
    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(storage, "time", clock)


def test_indexes_that_a_killed_process_has_not_made_are_made(tmp_path):
    """Without that of the names, a study that is opened again would be made a second time."""
    address = f"sqlite:///{tmp_path / 'study.db'}"
    open_storage(address)

    def indexes():
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE sql LIKE '% INDEX %'")
            return sorted(name for (name,) in found)

    before = indexes()
    assert "ix_studies_study_name" in before
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("DROP INDEX ix_studies_study_name")
    open_storage(address)
    assert indexes() == before


class OperationalError(Exception):
    """As database drivers name it."""


def test_database_that_is_away_while_it_is_opened_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(storage, "OPENING_PATIENCE", 9.0)
    pauses, opened = [], optuna.storages.InMemoryStorage()
    replace_sleep(monkeypatch, pauses.append)
    errors = [OperationalError("connection refused"), OperationalError("is starting up")]

    def open_database(*_, **__):
        if errors:
            raise errors.pop(0)
        return opened

    monkeypatch.setattr(optuna.storages, "RDBStorage", open_database)
    monkeypatch.setattr(storage, "create_missing_indexes", lambda _: None)
    storage._open_database("postgresql://u:secret@host/db", storage.OPENING_PATIENCE)
    assert pauses == [0.5, 1.0]
    assert "postgresql://host/db does not answer (connection refused)" in caplog.text
    # The address may be wrong, unless somebody has answered there.
    errors[:] = [OperationalError("connection refused")] * 4
    with pytest.raises(OperationalError):
        storage._open_database("postgresql://u:secret@host/db", 0.0)
    assert len(errors) == 3
    errors[:0] = [OperationalError("server closed the connection unexpectedly")]
    storage._open_database("postgresql://u:secret@host/db", 0.0)
    assert not errors
    errors[:] = [OperationalError("password authentication failed")] * 2
    with pytest.raises(OperationalError):
        storage._open_database("postgresql://u:secret@host/db", storage.OPENING_PATIENCE)
    assert len(errors) == 1


def test_calls_wait_for_a_storage_that_does_not_answer(monkeypatch, caplog):
    pauses = []
    replace_sleep(monkeypatch, pauses.append)
    assert flaky(*[OperationalError("connection refused")] * 4).get_all_studies() == []
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert [record.getMessage() for record in caplog.records] == [
        "the storage postgresql://host/db does not answer (connection refused); "
        "trying again for 300 s"
    ]


def test_read_whose_transaction_has_failed_is_rolled_back_and_read_again(monkeypatch, caplog):
    """As Optuna raises it: a second query in the transaction of a connection that has died."""
    pending = sqlalchemy.exc.PendingRollbackError("Can't reconnect until ... is rolled back")
    pending.__context__ = sqlalchemy.exc.OperationalError(
        "SELECT", {}, OperationalError("server closed the connection")
    )
    error = optuna.exceptions.StorageInternalError("during the commit")
    error.__cause__ = pending
    replace_sleep(monkeypatch, lambda _: None)
    assert flaky(error).get_all_studies() == []
    assert "does not answer (server closed the connection)" in caplog.records[0].getMessage()


def test_connection_that_sqlalchemy_gives_up_counts_as_away_whatever_its_error(monkeypatch):
    class InternalError(Exception):
        """PyMySQL's, for a packet out of sequence."""

    error = sqlalchemy.exc.DBAPIError("SELECT", {}, InternalError("packet sequence"))
    error.connection_invalidated = True
    replace_sleep(monkeypatch, lambda _: None)
    assert flaky(error).get_all_studies() == []


def test_patience_has_an_end(monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    replace_sleep(monkeypatch, lambda _: None)
    with pytest.raises(UserError, match="connection refused, for 0 s; finished trials are kept"):
        flaky(*[OperationalError("connection refused")] * 9).get_all_studies()


def test_failure_that_waiting_cannot_cure_is_raised_at_once():
    with pytest.raises(UserError, match="fails: No space left on device; finished trials"):
        flaky(OSError(28, "No space left on device")).get_all_studies()
    with pytest.raises(KeyError):
        flaky().get_study_id_from_name("a mistake in a call")


def test_rows_that_cannot_be_decoded_are_named_without_the_password():
    message = "postgresql://host/db holds what is no study of Optuna's: LookupError: 'NONSENSE'"
    with pytest.raises(UserError, match=message):
        flaky(LookupError("'NONSENSE' is not among the states")).get_all_studies()


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal:"])
def test_file_that_is_removed_under_a_study_is_named(tmp_path, scheme):
    folder = tmp_path / "a study"
    folder.mkdir()
    study = optuna.create_study(study_name="s", storage=open_storage(f"{scheme}{folder}/x"))
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="has been removed, and the finished trials with it"):
        study.ask()


def test_sqlite_that_is_read_only_or_full_is_reported(tmp_path):
    address = f"sqlite:///{tmp_path / 'x.db'}"
    study = optuna.create_study(study_name="s", storage=open_storage(address))
    engine = storage_of(study)._backend.engine

    @sqlalchemy.event.listens_for(engine, "connect")
    def read_only(connection, _):
        connection.execute("PRAGMA query_only = ON")

    engine.dispose()
    with pytest.raises(UserError, match=r"sqlite:.*x\.db fails: attempt to write a readonly"):
        study.ask()
    sqlalchemy.event.remove(engine, "connect", read_only)

    @sqlalchemy.event.listens_for(engine, "connect")
    def full(connection, _):
        connection.execute("PRAGMA max_page_count = 1")

    engine.dispose()
    with pytest.raises(UserError, match="database or disk is full"):
        study.set_user_attr("large", "x" * 1_000_000)


@needs_postgres
def test_postgres_that_restarts_in_the_middle_loses_nothing(monkeypatch):
    with postgres.server() as server:
        study = optuna.create_study(study_name="s", storage=open_storage(server.address))
        trial = study.ask()
        trial.report(1.0, 1)
        server.kill()
        pauses = []

        def restart(pause):
            pauses.append(pause)
            if len(pauses) == 1:
                server.start()

        replace_sleep(monkeypatch, restart)
        trial.report(2.0, 2)
        assert pauses
        study.tell(trial, 3.0)
        found = optuna.load_study(study_name="s", storage=open_storage(server.address)).trials
        assert [(t.value, t.intermediate_values) for t in found] == [(3.0, {1: 1.0, 2: 2.0})]


@pytest.mark.slow
@needs_postgres
def test_connection_that_dies_at_any_statement_loses_and_doubles_nothing(monkeypatch):
    replace_sleep(monkeypatch, lambda _: None)
    no_pause = SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("optuna.storages._rdb.storage.time", no_pause)
    with postgres.server() as server:
        left = [0]  # Statements until the connection dies; below 1 for never.
        sent = []
        killer = sqlalchemy.create_engine(
            server.address.replace("postgresql", "postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
        )
        backend = open_storage(server.address)

        @sqlalchemy.event.listens_for(backend._backend.engine, "before_cursor_execute")
        def count(connection, _cursor, statement, *_):
            sent.append(statement)
            left[0] -= 1
            if left[0] == 0:
                process = connection.connection.driver_connection.info.backend_pid
                with killer.connect() as other:
                    other.exec_driver_sql(f"SELECT pg_terminate_backend({process}, 5000)")

        def work(name):
            """Do everything that a worker asks of its storage."""
            study = optuna.create_study(study_name=name, storage=backend, load_if_exists=True)
            study.enqueue_trial({"x": 0.5})
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("heartbeat", 1)
            trial.report(1.0, 1)
            study.get_trials(deepcopy=False)
            study.tell(trial, 3.0)
            (found,) = study.trials
            assert (found.value, found.params, found.intermediate_values) == (
                3.0,
                {"x": 0.5},
                {1: 1.0},
            )

        work("whole")
        statements = len(sent)
        assert statements > 20
        for at in range(1, statements + 1):
            left[0] = at
            work(f"dies at {at}")
        backend._backend.remove_session()
        backend._backend.engine.dispose()
        killer.dispose()


@needs_postgres
def test_processes_that_make_one_study_at_the_same_moment_do_not_race():
    make = """
import sys, optuna
from tune.search.storage import open_storage
print("ready", flush=True)
sys.stdin.readline()
study = optuna.create_study(
    study_name="s", storage=open_storage(sys.argv[1]), load_if_exists=True
)
study.tell(study.ask(), 1.0)
"""
    with postgres.server() as server:
        makers = [
            subprocess.Popen(
                [sys.executable, "-c", make, server.address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
            )
            for _ in range(3)
        ]
        for maker in makers:
            assert maker.stdout.readline() == b"ready\n"
        for maker in makers:
            maker.stdin.write(b"\n")
            maker.stdin.flush()
        for maker in makers:
            _, errors = maker.communicate()
            assert maker.returncode == 0, errors
        study = optuna.load_study(study_name="s", storage=open_storage(server.address))
        assert [trial.number for trial in study.trials] == [0, 1, 2]


@needs_postgres
def test_wrong_password_is_not_shown():
    with postgres.server() as server:
        wrong = server.address.replace(servers.PASSWORD, "my-pass-phrase")
        with pytest.raises(UserError, match="password authentication failed") as caught:
            open_storage(wrong)
        assert "my-pass-phrase" not in str(caught.value)


def test_grpc_proxy_in_front_of_a_storage(tmp_path, wait_until):
    pytest.importorskip("grpc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = f"""
import warnings
warnings.simplefilter("ignore")  # It is experimental, says Optuna.
from optuna.storages import run_grpc_proxy_server
from tune.search.storage import open_storage
run_grpc_proxy_server(
    open_storage("sqlite:///{tmp_path}/x.db"), host="127.0.0.1", port={port}, thread_pool=None
)
"""
    server = subprocess.Popen([sys.executable, "-c", serve], env=ENVIRONMENT)

    def listens():
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, server)
        address = f"grpc://127.0.0.1:{port}"
        study = optuna.create_study(study_name="s", storage=open_storage(address))
        study.tell(study.ask(), 1.0)
        assert optuna.load_study(study_name="s", storage=open_storage(address)).best_value == 1.0
    finally:
        server.kill()
        server.wait()
