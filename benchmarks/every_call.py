"""A small study that is stopped at every call that changes its folder.

What trains is a stand-in; everything that is written is written by the study's own code. A
process that is killed leaves what the folder holds at that moment, so one study is run, and at
each call the folder is copied: as it is, and with half of what the call would write. Every copy
is then continued by the same command. Errors need a process of their own for each call; what it
leaves is continued as well.

A call is known by what it does to which file, and by how often that has been done before: threads
make their calls in an order of their own, and TensorStore some of them now oftener, now less often.

Whatever the fault was, the same content is continued once. Contents are the same that differ only
in the clock, in names and numbers made up by libraries, and in how far SQLite has come within a
transaction, once SQLite has brought each of them back.
"""

import contextlib
import dataclasses
import errno
import faulthandler
import functools
import hashlib
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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import lives, syscalls
from benchmarks.measuring import Table
from benchmarks.syscalls import Call
from ppo_jax.devices import usable_cores
from ppo_jax.errors import UserError
from ppo_jax.files import replacing

_ATTEMPTS = 5
"""Lives until a call counts as not made."""

LONGEST_LIFE = 300.0
"""Seconds; a process that takes longer counts as blocked."""

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

    def hits(self, place: "_Place") -> bool:
        """Return whether a call can end with this error."""
        return self.error != errno.ENOSPC or place.kind in _ALLOCATING


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
    study = _Study(folder, storage)
    begin = functools.partial(_begin, study)
    with ProcessPoolExecutor(cores, mp_context=context, initializer=begin) as pool:
        reference = pool.submit(_reference, study).result()
        continue_copy = functools.partial(_continue_copy, study, reference.outcome)
        continued: set[tuple[str, frozenset[int]]] = set()
        ended_there: dict[int | None, set[_Place]] = {}

        def continue_all(copies: Iterable[_Copy]) -> Iterator[Losses]:
            new = {copy.content: copy for copy in copies if copy.content not in continued}
            continued.update(new)
            return pool.map(continue_copy, new.values())

        for mode in MODES:
            losses = Losses()
            if mode in POWER_LOSSES:
                places = _spread(_files_of(reference), at_most)
                losses.calls = len(places)
                way = list(DAMAGES)[POWER_LOSSES.index(mode)]
                damage = functools.partial(_damage, study, reference.outcome, way)
                found = pool.map(damage, places)
            elif mode.error is None:
                states = reference.torn if "half" in mode.name else reference.states
                losses.calls = reference.writes if "half" in mode.name else len(reference.places)
                found = continue_all(_spread(states, at_most))
            else:
                chosen = _spread([place for place in reference.places if mode.hits(place)], at_most)
                # A process that made no call after the one that failed would do the same again.
                done = ended_there.get(mode.error, set())
                rest = [place for place in chosen if place not in done]
                failed = list(pool.map(functools.partial(_fail_at, study, mode), rest))
                ended_there[mode.error] = {one.place for one in failed if one.ended_there}
                losses.calls = len(chosen) - sum(one.copy is None for one in failed)
                for one in failed:
                    losses.add(one.losses)
                found = continue_all(one.copy for one in failed if one.copy is not None)
            for continuation in found:
                losses.add(continuation)
            counts = [getattr(losses, field.name) for field in dataclasses.fields(losses)][:-1]
            table.add(mode.name, *counts)
            print(mode.name, *counts, *losses.examples[:5], file=sys.stderr, flush=True)
            examples += [f"{mode.name}: {example}" for example in losses.examples]
    return table, examples


def _spread(items: Sequence[Any], at_most: int) -> list[Any]:
    if not at_most or len(items) <= at_most:
        return list(items)
    return [items[i * len(items) // at_most] for i in range(at_most)]


_slot = 0
"""Number of this process of the pool; its studies inherit it."""


def _begin(study: "_Study") -> None:
    """Prepare a process of the pool."""
    global _slot
    _slot = os.getpid()
    lives.prepare(study.root, study.options)


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

    @property
    def copies(self) -> Path:
        """The folder of what processes have left."""
        return self.root / "copies"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the command."""
        options: dict[str, Any] = {
            **lives.OPTIONS,
            **lives.PROOF,
            "--trials": 2,
            "--space": self.root / "space.toml",
        }
        return options | ({"--worker-timeout": 1} if self.storage == "journal" else {})

    def live(self, decision: Any = None, longest: float = LONGEST_LIFE) -> Life:
        """Run the command to its end.

        Args:
          decision: about its calls; see :func:`benchmarks.syscalls.decide`.
          longest: seconds after which it is killed.
        """
        self.work.mkdir(exist_ok=True)
        for name in ("out", "err"):
            (self.work / name).write_bytes(b"")
        # The file of a journal is made, but not its folder.
        made = self.output if self.storage == "journal" else self.output.parent
        made.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        process = lives.fork(self._run, theirs, decision is not None)
        theirs.close()
        timer = _kill_after(longest, process.pid or 0)
        with timer, ours:
            if decision is not None:
                syscalls.decide(ours, self.work / "studies", decision)
            process.join()
        return Life(
            None if timer.passed else process.exitcode,
            self.told(),
            (self.work / "err").read_text(errors="replace"),
        )

    def copy(self, files: Files, name: str) -> "_Copy":
        """Keep `files` of the study of this process."""
        file = self.copies / _digest(files)
        if not file.exists():
            with replacing(file) as temporary:
                temporary.write_bytes(pickle.dumps(files))
        return _Copy(file, self.told(), name)

    def told(self) -> frozenset[int]:
        """Return the numbers of the trials that the last process has reported as finished."""
        text = (self.work / "out").read_text(errors="replace")
        return frozenset(int(number) for number in re.findall(r"^trial +(\d+) ", text, re.M))

    def _run(self, parent: socket.socket, ask: bool) -> None:
        lives.print_to(self.work)
        faulthandler.dump_traceback_later(0.9 * LONGEST_LIFE, file=sys.stderr)
        if ask:
            syscalls.ask_before_calls(parent)
        parent.close()
        where: dict[str, Any] = {"--output": self.output}
        if self.storage == "journal":
            where["--storage"] = f"journal:{self.output / 'study.journal'}"
        lives.run({**self.options, **where})


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
class _Place:
    """A call of a study.

    Attributes:
      kind: of the call.
      path: below the study's folder, without what libraries have made up in it.
      earlier: number of such calls before.
    """

    kind: str
    path: str
    earlier: int

    def __str__(self) -> str:
        return f"{self.kind} {self.path}, call {self.earlier + 1}"


class _Places:
    """Tells which call of a life comes next; the folder of the study is below `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._seen = Counter[tuple[str, str]]()

    def __call__(self, call: Call) -> _Place:
        path = _without_chance("/".join(call.path.relative_to(self._base).parts[1:]) or ".")
        self._seen[call.kind, path] += 1
        return _Place(call.kind, path, self._seen[call.kind, path] - 1)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """What a process leaves.

    Attributes:
      file: of the copied :data:`Files`, pickled; named after a digest of them.
      told: trials that had been reported as finished by then.
      name: of the call.
    """

    file: Path
    told: frozenset[int]
    name: str

    @property
    def content(self) -> tuple[str, frozenset[int]]:
        """What the copy is known by."""
        return self.file.name, self.told


@dataclasses.dataclass(frozen=True)
class _Failed:
    """A process one of whose calls was to fail.

    Attributes:
      place: of that call.
      losses: of this process.
      copy: what it leaves; None where it did not make the call.
      ended_there: whether it made no call after the one that failed.
    """

    place: _Place
    losses: Losses
    copy: _Copy | None
    ended_there: bool


@dataclasses.dataclass
class _Reference:
    """The uninterrupted study.

    Attributes:
      outcome: see :func:`_outcome`.
      places: its calls that changed its folder, in order.
      writes: how many of them could be halved.
      states, torn: copies of its folder at its calls, each content once.
    """

    outcome: dict[str, Any]
    places: list[_Place]
    writes: int
    states: list[_Copy]
    torn: list[_Copy]


def _reference(study: _Study) -> _Reference:
    """Run the study once, copying its folder at every call."""
    shutil.rmtree(study.work, ignore_errors=True)
    shutil.rmtree(study.copies, ignore_errors=True)
    study.copies.mkdir(parents=True)
    known: set[tuple[str, frozenset[int]]] = set()
    states: list[_Copy] = []
    torn: list[_Copy] = []
    places: list[_Place] = []
    writes = 0
    base = study.work / "studies"
    place_of = _Places(base)

    def keep(files: Files, into: list[_Copy], name: str) -> None:
        copied = study.copy(files, name)
        if copied.content not in known:
            known.add(copied.content)
            into.append(copied)

    def copy(call: Call, _: int) -> None:
        nonlocal writes
        places.append(place_of(call))
        files = _read(base)
        name = str(places[-1])
        keep(files, states, name)
        path = str(call.path.relative_to(base))
        if call.data and len(call.data) > 1 and path in files:
            writes += 1
            half = call.data[: len(call.data) // 2]
            content = bytearray(files[path] or b"")
            content[call.offset : (call.offset or 0) + len(half)] = half
            keep({**files, path: bytes(content)}, torn, name)

    life = study.live(copy, longest=3600.0)
    if life.status != 0:
        raise UserError(f"the study has failed: {life.errors[-1000:]}")
    keep(_read(base), states, "the end")
    return _Reference(_outcome(study.output), places, writes, states, torn)


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


class _Fault:
    """Lets the call at `place` fail in a life.

    Attributes:
      calls: of the life, from the one that failed.
    """

    def __init__(self, base: Path, mode: Mode, place: _Place) -> None:
        self.calls: list[_Place] = []
        self._place_of, self._mode, self._place = _Places(base), mode, place

    def __call__(self, call: Call, _: int) -> int | None:
        here = self._place_of(call)
        if not (self.calls or here == self._place):
            return None
        self.calls.append(here)
        fails = len(self.calls) == 1 or (self._mode.lasting and self._mode.hits(here))
        return self._mode.error if fails else None


def _fail_at(study: _Study, mode: Mode, place: _Place) -> _Failed:
    """Run the command and let the call at `place` fail; again, where it was not made."""
    base = study.work / "studies"
    losses = Losses()
    for _ in range(_ATTEMPTS):
        shutil.rmtree(base, ignore_errors=True)
        fault = _Fault(base, mode, place)
        life = study.live(fault)
        losses.lives += 1
        if life.status is None:
            losses.blocked += 1
            losses.examples.append(f"{place}: {_where_it_stands(life.errors)}")
        elif life.has_traceback:
            losses.tracebacks += 1
            losses.examples.append(f"{place}: ends with {life.status}: {_last_line(life.errors)}")
        if fault.calls:
            copy = study.copy(_read(base), str(place))
            return _Failed(place, losses, copy, len(fault.calls) == 1)
    return _Failed(place, losses, None, ended_there=False)


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
        why = _where_it_stands(life.errors) if life.status is None else _last_line(life.errors)
        losses.examples.append(f"{name}: blocked: {why}")
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


def _where_it_stands(errors: str) -> str:
    """Return where a process that was killed for its length was, by what it printed before."""
    _, _, stack = errors.rpartition("(most recent call first):")  # The main thread is the last.
    calls = re.findall(r'File "(.+)", line (\d+) in (\S+)', stack)[:4]
    places = " < ".join(f"{Path(file).name}:{line} {name}" for file, line, name in calls)
    return f"takes more than {LONGEST_LIFE:.0f} s, in {places or 'no call of Python'}"


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
        "schema": _schema(output / "study.db"),
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


def _schema(database: Path) -> list[Any]:
    """Return tables and indexes of a database; what is missing would only tell later."""
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return sorted(connection.execute("SELECT type, name, tbl_name FROM sqlite_master"))


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


_CLOCK = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?|\b1\d{9}\.\d+|(?<=seconds)\W+[0-9.e-]+"
    rb"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
"""Moments, durations, and the random names of processes."""


def _digest(files: Files) -> str:
    """Return a digest of `files`, but for what the clock and chance have made of them.

    Of a database it is what SQLite would recover. Orbax's files are compressed, so that their
    sizes have to do, and their names where a checkpoint is not finished; a call that fails writes
    nothing else in their place.
    """
    found = set()
    for name, content in files.items():
        if Path(name).name == "study.db-journal":
            continue
        if Path(name).name == "study.db":
            content = _recovered(content or b"", files.get(f"{name}-journal"))
        if content is not None:
            content = _without_clock(name, content)
        found.add((_without_chance(name), content is None, content or b""))
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def _without_chance(name: str) -> str:
    """Return the name of a file without what TensorStore or :mod:`ppo_jax.files` have made up.

    >>> _without_chance("policy/.policy-unfinished-01ab23cd.json")
    'policy/.policy-unfinished-.json'
    """
    return re.sub(r"[0-9a-f]{32}|((?:^|/)\.\w+-unfinished-)[0-9a-f]{8}(?=\.)", r"\1", name)


def _without_clock(name: str, content: bytes) -> bytes:
    if "training_state" in name:
        return b"" if ".orbax-checkpoint-tmp/" in name else b"%d" % len(content)
    if name.endswith(".html"):
        return re.sub(rb"[0-9.e-]+", b"", content)
    if name.endswith(".json"):
        with contextlib.suppress(ValueError):
            return json.dumps(_steady(json.loads(content))).encode()
    return _CLOCK.sub(b"", content)


@functools.lru_cache(maxsize=8)
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
