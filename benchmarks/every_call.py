"""A small study that is stopped at every call that changes its folder.

What trains is a stand-in; everything that is written is written by the study's own code. A
process that is killed leaves what the folder holds at that moment, so one study is run, and at
each call the folder is copied: as it is, and with half of what the call would write. Every copy
is then continued by the same command. Errors need a process of their own for each call.

Copies that differ only in how far SQLite has come within a transaction are continued once, after
SQLite has brought each of them back to the same content.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import syscalls
from benchmarks.measuring import Table
from benchmarks.syscalls import Call
from ppo_jax.devices import usable_cores
from ppo_jax.errors import UserError

LONGEST_LIFE = 120.0
"""Seconds; a process that takes longer counts as blocked."""

SMALL_STUDY: Mapping[str, Any] = {
    "--seeds": 2,
    "--total-steps": 8192,
    "--eval-every": 4096,
    "--eval-episodes": 2,
    "--sampler": "random",
    "--pruner": "none",
}
"""Option -> value, but for trials, proof and where the study is kept."""

_ALLOCATING = {"create", "write", "rename", "link", "mkdir", "sync", "truncate"}
"""Kinds of calls that a full disk can refuse; it never refuses to remove."""

_SPACE = "".join(
    f"[{name}]\ndrop = true\n"
    for name in (
        "learning_rate", "gae_lambda", "clip_epsilon", "value_coef", "entropy_coef",
        "max_grad_norm", "n_steps", "batch_size", "n_epochs",
    )
)  # fmt: skip

Files = Mapping[str, bytes | None]
"""Path -> content; None for a folder."""


@dataclasses.dataclass(frozen=True)
class Mode:
    """A kind of fault.

    Attributes:
      name: for the table.
      error: that calls end with; None for a kill.
      lasting: whether all later calls end with it as well.
    """

    name: str
    error: int | None = None
    lasting: bool = False


KILLS = (Mode("killed before and after"), Mode("killed with half of it written"))
ERRORS = (
    Mode("ENOSPC, once", errno.ENOSPC),
    Mode("ENOSPC, from then on", errno.ENOSPC, lasting=True),
    Mode("EIO, once", errno.EIO),
    Mode("EIO, from then on", errno.EIO, lasting=True),
)

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: content[:0],
    "halved": lambda content: content[: len(content) // 2],
    "filled with NUL": lambda content: bytes(len(content)),
}
"""What a power loss makes of a file."""
POWER_LOSSES = tuple(Mode(f"a file {way}") for way in DAMAGES)


@dataclasses.dataclass
class Losses:
    """What was found; all but the first two should be 0.

    Attributes:
      calls: at which a study was stopped.
      lives: processes.
      told: trials that had been reported as finished and were gone, or others, afterwards.
      blocked: studies that the same command did not finish, once the fault was over.
      different: studies with other results than the uninterrupted one.
      temporary: files left that a finished study should have removed.
      tracebacks: processes that ended with one, or without a line that says why.
      examples: of the above.
    """

    calls: int = 0
    lives: int = 0
    told: int = 0
    blocked: int = 0
    different: int = 0
    temporary: int = 0
    tracebacks: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "Losses") -> None:
        """Add what `other` has found."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, value + getattr(other, field.name))

    @property
    def total(self) -> int:
        """What should be 0."""
        return self.told + self.blocked + self.different + self.temporary + self.tracebacks


@dataclasses.dataclass(frozen=True)
class Life:
    """A process that has ended.

    Attributes:
      status: its exit status; None when it was killed for taking too long.
      told: numbers of the trials that it has reported as finished.
      errors: what it has printed to standard error.
    """

    status: int | None
    told: frozenset[int]
    errors: str

    @property
    def has_traceback(self) -> bool:
        """Whether it says anything but one line, where it failed."""
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        expected = 0 if self.status == 0 else 1
        return "Traceback" in self.errors or (self.status is not None and len(lines) != expected)


MODES = KILLS + ERRORS + POWER_LOSSES


def every_call(folder: Path, storage: str = "sqlite", at_most: int = 0) -> tuple[Table, list[str]]:
    """Stop a study at every call that changes its folder, and continue it.

    Args:
      folder: for the studies.
      storage: ``sqlite`` or ``journal``.
      at_most: calls of each mode, evenly spread; 0 for all.

    Returns:
      A table with one row a mode, and examples of what was lost.
    """
    if not syscalls.is_available():
        raise UserError("calls are intercepted with seccomp's user notification, which is missing")
    import_everything()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.toml").write_text(_SPACE)
    context = multiprocessing.get_context("fork")
    cores = len(usable_cores())
    table = Table(
        f"A study in {storage}, stopped at every call that changes its folder",
        ("", "calls", "lives", "told trials lost", "studies blocked", "different results",
         "temporary files left", "tracebacks"),
    )  # fmt: skip
    examples: list[str] = []
    with ProcessPoolExecutor(cores, mp_context=context, initializer=_take_slot) as pool:
        study = _Study(folder, storage)
        reference = pool.submit(_reference, study).result()
        for mode in MODES:
            losses = Losses()
            work: Callable[[Any], Losses]
            if mode in POWER_LOSSES:
                chosen = _spread(_files_of(reference), at_most)
                losses.calls = len(chosen)
                way = list(DAMAGES)[POWER_LOSSES.index(mode)]
                work = functools.partial(_damage, study, reference.outcome, way)
            elif mode.error is None:
                states = reference.torn if "half" in mode.name else reference.states
                chosen = _spread(states, at_most)
                losses.calls = reference.writes if "half" in mode.name else reference.calls
                work = functools.partial(_continue_copy, study, reference.outcome)
            else:
                kinds = reference.kinds
                able = [
                    number
                    for number, kind in enumerate(kinds)
                    if mode.error != errno.ENOSPC or kind in _ALLOCATING
                ]
                chosen = _spread(able, at_most)
                losses.calls = len(chosen)
                work = functools.partial(_fail_at, study, reference.outcome, mode)
            for found in pool.map(work, chosen):
                losses.add(found)
            counts = [getattr(losses, field.name) for field in dataclasses.fields(losses)][:-1]
            table.add(mode.name, *counts)
            examples += [f"{mode.name}: {example}" for example in losses.examples]
    return table, examples


def _spread(items: Sequence[Any], at_most: int) -> list[Any]:
    if not at_most or len(items) <= at_most:
        return list(items)
    return [items[i * len(items) // at_most] for i in range(at_most)]


def import_everything() -> None:
    """Import what a study needs, once for all processes; JAX's backend must not start here."""
    for module in (
        "benchmarks.blank_pictures", "benchmarks.stand_in", "matplotlib.backends.backend_agg",
        "optuna.storages", "orbax.checkpoint", "safetensors.numpy", "scipy.stats",
        "sklearn.ensemble", "sqlalchemy.dialects.sqlite", "alembic.command", "tune.run",
        "tune.report.console", "tune.report.tracking", "rich.console", "tune.session",
    ):  # fmt: skip
        importlib.import_module(module)


_slot = 0
"""Number of this process of the pool; its studies inherit it."""


def _take_slot() -> None:
    global _slot
    _slot = os.getpid()


@dataclasses.dataclass(frozen=True)
class _Study:
    """How a study is run.

    Attributes:
      root: for the folders of the processes that work side by side.
      storage: ``sqlite`` or ``journal``.
    """

    root: Path
    storage: str

    @property
    def work(self) -> Path:
        """A folder for this process."""
        return self.root / f"process-{_slot}"

    @property
    def output(self) -> Path:
        """The folder of the study of this process."""
        return self.work / "studies" / "study"

    def arguments(self) -> list[str]:
        """Return the command line."""
        options: dict[str, Any] = {
            **SMALL_STUDY,
            "--trials": 2,
            "--finalists": 1,
            "--validate-steps": 16384,
            "--validate-seeds": 2,
            "--space": self.root / "space.toml",
            "--output": self.output,
        }
        if self.storage == "journal":
            options["--storage"] = f"journal:{self.output / 'study.journal'}"
            options["--worker-timeout"] = 1
        return [str(word) for option in options.items() for word in option]

    def live(self, decision: Any = None) -> Life:
        """Run the command to its end.

        Args:
          decision: about its calls; see :func:`benchmarks.syscalls.decide`.
        """
        self.work.mkdir(exist_ok=True)
        for name in ("out", "err"):
            (self.work / name).write_bytes(b"")
        (self.work / "studies").mkdir(exist_ok=True)
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(theirs, decision is not None)
        )
        process.start()
        theirs.close()
        timer = _kill_after(LONGEST_LIFE, process.pid or 0)
        with timer, ours:
            if decision is not None:
                syscalls.decide(ours, self.work / "studies", decision)
            process.join()
        return Life(
            None if timer.passed else process.exitcode,
            self.told(),
            (self.work / "err").read_text(errors="replace"),
        )

    def told(self) -> frozenset[int]:
        """Return the numbers of the trials that the last process has reported as finished."""
        text = (self.work / "out").read_text(errors="replace")
        return frozenset(int(number) for number in re.findall(r"^trial +(\d+) ", text, re.M))

    def _run(self, parent: socket.socket, ask: bool) -> None:
        from benchmarks.blank_pictures import draw_nothing
        from benchmarks.stand_in import StandIn
        from ppo_jax import command_line
        from tune import run
        from tune.options import Arguments

        sys.stdout = (self.work / "out").open("w", buffering=1)
        sys.stderr = (self.work / "err").open("w", buffering=1)
        draw_nothing()
        if ask:
            syscalls.ask_before_calls(parent)
        parent.close()
        arguments = command_line.parse(Arguments, "python -m tune.run", self.arguments())
        run.run(arguments, lambda settings: StandIn(settings.config, settings.seeds))


class _kill_after:
    """Kill a process that takes longer than `seconds`."""

    def __init__(self, seconds: float, pid: int) -> None:
        self.passed = False
        self._seconds, self._pid = seconds, pid

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._kill)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _kill(self, *_: object) -> None:
        self.passed = True
        os.kill(self._pid, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """What a kill leaves.

    Attributes:
      file: of the copied :data:`Files`, pickled.
      told: trials that had been reported as finished by then.
      name: of the call.
    """

    file: Path
    told: frozenset[int]
    name: str


@dataclasses.dataclass
class _Reference:
    """The uninterrupted study.

    Attributes:
      outcome: see :func:`_outcome`.
      calls, writes: how many calls changed its folder, and how many of them could be halved.
      kinds: of its calls, in order.
      states, torn: copies of its folder at its calls, each content once.
    """

    outcome: dict[str, Any]
    calls: int
    writes: int
    kinds: list[str]
    states: list[_Copy]
    torn: list[_Copy]


def _reference(study: _Study) -> _Reference:
    """Run the study once, copying its folder at every call."""
    copies = study.root / "copies"
    shutil.rmtree(study.work, ignore_errors=True)
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    known: set[bytes] = set()
    states: list[_Copy] = []
    torn: list[_Copy] = []
    kinds: list[str] = []
    writes = 0
    base = study.work / "studies"

    def keep(files: Files, into: list[_Copy], name: str) -> None:
        digest = _content(files)
        if digest not in known:
            known.add(digest)
            file = copies / digest.hex()
            file.write_bytes(pickle.dumps(files))
            into.append(_Copy(file, study.told(), name))

    def copy(call: Call, _: int) -> None:
        nonlocal writes
        kinds.append(call.kind)
        files = _read(base)
        name = f"call {len(kinds)}, {call.kind} {_short(call.path, base)}"
        keep(files, states, name)
        path = str(call.path.relative_to(base))
        if call.data and len(call.data) > 1 and path in files:
            writes += 1
            half = call.data[: len(call.data) // 2]
            content = bytearray(files[path] or b"")
            content[call.offset : (call.offset or 0) + len(half)] = half
            keep({**files, path: bytes(content)}, torn, name)

    life = study.live(copy)
    if life.status != 0:
        raise UserError(f"the study has failed: {life.errors[-1000:]}")
    keep(_read(base), states, "the end")
    return _Reference(_outcome(study.output), len(kinds), writes, kinds, states, torn)


def _short(path: Path, base: Path) -> str:
    return "/".join(path.relative_to(base).parts[1:]) or "."


def _continue_copy(study: _Study, expected: dict[str, Any], copy: _Copy) -> Losses:
    """Run the command on what a kill has left."""
    _write(study.work / "studies", pickle.loads(copy.file.read_bytes()))
    return _finish(study, expected, copy.told, copy.name, Losses())


def _files_of(reference: _Reference) -> list[tuple[_Copy, str]]:
    """Return the files of the finished study, and of one amid finalists and one amid validation.

    Each with the copy of the study that it is in.
    """
    found: list[tuple[_Copy, str]] = []
    signs = {"study/report.html": False, "study/training_state/winner": True,
             "study/training_state/2/": True}  # fmt: skip
    for copy in reversed(reference.states):
        files = pickle.loads(copy.file.read_bytes())
        for sign, only_below in list(signs.items()):
            if any(name.startswith(sign) for name in files):
                del signs[sign]
                found += [
                    (copy, name)
                    for name, content in files.items()
                    if content and (not only_below or name.startswith("study/training_state"))
                ]
    return found


def _damage(study: _Study, expected: dict[str, Any], way: str, place: tuple[_Copy, str]) -> Losses:
    """Run the command on a study one of whose files a power loss has damaged.

    The storage cannot be rebuilt; a line has to name it.
    """
    copy, name = place
    files = dict(pickle.loads(copy.file.read_bytes()))
    files[name] = DAMAGES[way](files[name] or b"")
    _write(study.work / "studies", files)
    storage = Path(name).name in ("study.db", "study.journal")
    return _finish(study, expected, frozenset(), f"{name} {way}", Losses(), may_refuse=storage)


def _fail_at(study: _Study, expected: dict[str, Any], mode: Mode, number: int) -> Losses:
    """Let call `number` fail, and finish the study once the error has gone."""
    shutil.rmtree(study.work / "studies", ignore_errors=True)
    count = -1
    name = ""

    def fail(call: Call, _: int) -> int | None:
        nonlocal count, name
        if mode.error == errno.ENOSPC and call.kind not in _ALLOCATING:
            count += 1
            return None
        count += 1
        if count == number:
            name = f"call {number + 1}, {call.kind} {_short(call.path, study.work / 'studies')}"
        return mode.error if count == number or (mode.lasting and count > number) else None

    life = study.live(fail)
    losses = Losses(lives=1)
    if life.status is None:
        losses.blocked += 1
        losses.examples.append(f"{name}: takes more than {LONGEST_LIFE:.0f} s")
    elif life.has_traceback:
        losses.tracebacks += 1
        losses.examples.append(f"{name}: ends with {life.status}: {_last_line(life.errors)}")
    return _finish(study, expected, life.told, name, losses)


def _finish(
    study: _Study,
    expected: dict[str, Any],
    told: frozenset[int],
    name: str,
    losses: Losses,
    may_refuse: bool = False,
) -> Losses:
    """Run the command once more, without a fault, and compare.

    Args:
      study: to run.
      expected: outcome of the uninterrupted study.
      told: trials that must be there.
      name: of the fault, for examples.
      losses: to add to, and return.
      may_refuse: whether a line that names the folder will do.
    """
    life = study.live()
    losses.lives += 1
    if may_refuse and life.status == 2 and not life.has_traceback:
        if str(study.output) not in life.errors:
            losses.blocked += 1
            losses.examples.append(f"{name}: names no file: {_last_line(life.errors)}")
        return losses
    if life.status != 0:
        losses.blocked += 1
        losses.examples.append(f"{name}: blocked: {_last_line(life.errors)}")
        losses.tracebacks += life.has_traceback
        return losses
    if life.has_traceback:
        losses.tracebacks += 1
        losses.examples.append(f"{name}: {_last_line(life.errors)}")
    outcome = _outcome(study.output)
    for number in told:
        if outcome["trials"].get(number) != expected["trials"].get(number):
            losses.told += 1
            losses.examples.append(f"{name}: trial {number} is lost")
    if outcome != expected:
        losses.different += 1
        keys = [key for key in expected if outcome[key] != expected[key]]
        losses.examples.append(f"{name}: other {', '.join(keys)}")
    left = [path for path in outcome["files"] if path not in expected["files"]]
    losses.temporary += len(left)
    return losses


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "nothing was printed"


def _outcome(output: Path) -> dict[str, Any]:
    """Return all results that must not depend on interruptions."""
    results: dict[str, Any] = {
        path.name: _steady(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(output.rglob("*.json"))
    }
    results["all_trials.json"] = [
        trial for trial in results["all_trials.json"] if trial["state"] != "fail"
    ]
    return {
        **results,
        "policy": (output / "policy" / "model.safetensors").read_bytes(),
        "page": (output / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"),
        "trials": _trials(output),
        "files": sorted(str(path.relative_to(output)) for path in output.rglob("*")),
    }


_MOMENTS = re.compile("seconds|written|started|^finished$|duration|compil|interrupted")


def _steady(value: Any) -> Any:
    """Return `value` without what depends on the clock."""
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if not _MOMENTS.search(key)}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _trials(output: Path) -> dict[int, Any]:
    """Return number -> values, parameters and returns of the finished trials."""
    import optuna

    from tune.search.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    database = output / "study.db"
    if database.exists():
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT number, state, value, param_value FROM trials "
                "LEFT JOIN trial_values USING (trial_id) LEFT JOIN trial_params USING (trial_id) "
                "WHERE state IN ('COMPLETE', 'PRUNED')"
            ).fetchall()
        return {row[0]: row[1:] for row in rows}
    storage = open_storage(f"journal:{output / 'study.journal'}")
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    return {trial.number: (trial.state.name, trial.value, trial.params) for trial in finished}


def _read(base: Path) -> dict[str, bytes | None]:
    """Return the content of a folder that others may be changing."""
    files: dict[str, bytes | None] = {}
    for folder, folders, names in os.walk(base):  # Which goes on where a folder has gone.
        inside = Path(folder).relative_to(base)
        files |= {str(inside / name): None for name in folders}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                files[str(inside / name)] = (base / inside / name).read_bytes()
    return files


def _write(base: Path, files: Files) -> None:
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    for name, content in files.items():
        path = base / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)


def _content(files: Files) -> bytes:
    """Return a digest of `files`, of a database as SQLite would recover it."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        if Path(name).name == "study.db-journal":
            continue
        if Path(name).name == "study.db":
            content = _recovered(content or b"", files.get(f"{name}-journal"))
        digest.update(repr((name, content)).encode())
    return digest.digest()


def _recovered(database: bytes, journal: bytes | None) -> bytes:
    """Return what a database holds once SQLite has rolled back what was not committed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        path.write_bytes(database)
        if journal is not None:
            path.with_name("study.db-journal").write_bytes(journal)
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
                return repr((sound, list(connection.iterdump()))).encode()
        except sqlite3.DatabaseError:
            return repr((database, journal)).encode()
