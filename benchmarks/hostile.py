"""``python -m benchmarks.hostile``: hostile files and values, each read as the commands read it.

Policies, search spaces, JSON of ours, databases, journals, addresses and names, damaged in every
way that a disk, an editor or another hand can. Each must be read, or refused on one line, in
little time and memory. They are read one after another in this process, whose imports are done
and whose backend has started, so what is measured is the reading alone.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Table
from ppo_jax import command_line
from ppo_jax.errors import UserError

LONGEST = 2.0
"""Seconds of CPU that reading one may take."""

MOST_MEMORY = 200e6
"""Bytes that reading one may take."""

_DEADLINE = 60

_PARTS = ("policies", "spaces", "JSON", "databases", "journals", "addresses", "names")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Read hostile files and values, and print what became of them."""

    every: int = 1
    """Read every n-th of each kind only."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One file or value.

    Attributes:
      kind: of :data:`_PARTS`.
      name: says what is wrong with it.
      read: reads it as a command would; called in an empty working folder.
    """

    kind: str
    name: str
    read: Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a :class:`Case`.

    Attributes:
      status: of the command: 0 where it was read, 2 where it was refused.
      output: what was printed.
      seconds: of CPU.
      memory: bytes that were taken at most beyond those taken before; 0 where not known.
    """

    case: Case
    status: int
    output: str
    seconds: float
    memory: float

    @property
    def fault(self) -> str:
        """What is wrong with the outcome itself; empty where nothing is."""
        lines = self.output.splitlines()
        if "Traceback" in self.output:
            return "a traceback"
        if self.status not in (0, 2):
            return f"status {self.status}"
        if self.status == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
            return f"{len(lines)} lines"
        if not all(line.isprintable() for line in lines):
            return "characters that a terminal obeys"
        if self.seconds > LONGEST:
            return f"{self.seconds:.1f} s"
        if self.memory > MOST_MEMORY:
            return f"{self.memory / 1e6:.0f} MB"
        return ""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.hostile``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.hostile", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    measuring.require_counts(arguments, "every")
    console = measuring.make_console()
    command_line.start_backend()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = measure(Path(folder), arguments.every)
    table = Table(
        f"{len(outcomes)} hostile files and values, each read as the commands do",
        ("", "read", "refused on one line", "else", "most CPU seconds", "most MB"),
    )
    for kind in (*_PARTS, "all"):
        of_kind = [o for o in outcomes if kind in (o.case.kind, "all")]
        sound = [o for o in of_kind if not o.fault]
        table.add(
            kind,
            sum(o.status == 0 for o in sound),
            sum(o.status == 2 for o in sound),
            len(of_kind) - len(sound),
            f"{max(o.seconds for o in of_kind):.2f}",
            f"{max(o.memory for o in of_kind) / 1e6:.0f}",
        )
    table.print(console)
    faults = [o for o in outcomes if o.fault]
    for outcome in faults:
        text = f"{outcome.case.kind}, {outcome.case.name}: {outcome.fault}"
        console.print(text, markup=False, soft_wrap=True)
    console.print(measuring.machine(measuring.setting()), soft_wrap=True)
    if faults:
        raise UserError(f"{len(faults)} of {len(outcomes)} were neither read nor refused in order")


def measure(folder: Path, every: int = 1) -> list[Outcome]:
    """Return what becomes of every n-th case of each kind; `folder` is empty."""
    from benchmarks.blank_pictures import nothing_drawn

    outcomes = []
    counts = dict.fromkeys(_PARTS, 0)
    with nothing_drawn():
        for case in cases(folder / "corpus"):
            if counts[case.kind] % every == 0:
                outcomes.append(outcome_of(case, folder / "working"))
            counts[case.kind] += 1
    return outcomes


def outcome_of(case: Case, working: Path) -> Outcome:
    """Read one case in the folder `working` and measure it."""
    working.mkdir(exist_ok=True)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    hook, before = sys.unraisablehook, Path.cwd()
    memory = _resident(reset=True)
    status, start = 0, time.process_time()
    with tempfile.TemporaryFile() as printed, _redirected(printed.fileno()):
        os.chdir(working)
        signal.signal(signal.SIGALRM, _expired)
        signal.alarm(_DEADLINE)
        try:
            command_line.run(lambda: _ignored(case.read()))
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Exception as error:  # A command would end in a traceback.
            status = 1
            print(f"Traceback: {error!r}")
        finally:
            signal.alarm(0)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook
            os.chdir(before)
            sys.stdout.flush()
            sys.stderr.flush()
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    seconds = time.process_time() - start
    return Outcome(case, status, output, seconds, _resident() - memory)


def _ignored(_: object) -> None:
    pass


def _expired(*_: object) -> None:
    raise TimeoutError(f"not read after {_DEADLINE} s")


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    """Have all that the block prints, logs and warns go to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    file = open(descriptor, "w", closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    try:
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout = sys.stderr = file
        yield
    finally:
        file.flush()
        sys.stdout, sys.stderr = streams
        for number, copied in zip((1, 2), kept, strict=True):
            os.dup2(copied, number)
            os.close(copied)


def _resident(*, reset: bool = False) -> float:
    """Return the peak of resident bytes since the last reset; 0 where that is not known."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return 1024.0 * int(text.partition("VmHWM:")[2].split()[0])


def cases(folder: Path) -> Iterator[Case]:
    """Yield all cases; `folder`, which does not exist, is for their files."""
    folder.mkdir(parents=True)
    yield from _policies(folder / "policies")
    yield from _spaces(folder / "spaces")
    study = small_study(folder / "study")
    yield from _json(folder / "json", study)
    yield from _databases(folder / "databases", study)
    yield from _journals(folder / "journals")
    yield from _addresses(folder)
    yield from _names()


# Damage


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what can become of any file."""
    yield "empty", b""
    yield "a single line end", b"\n"
    yield "zeros", bytes(len(content))
    yield "the first half", content[: len(content) // 2]
    yield "without its last byte", content[:-1]
    yield "twice", content * 2
    yield "UTF-16", content.decode("latin-1").encode("utf-16")
    yield "with a byte order mark", b"\xef\xbb\xbf" + content
    yield "bytes that are not UTF-8", b"\xff\xfe\xfd" + content
    yield "of another kind", b"\x89PNG\r\n\x1a\n" + content[8:]
    yield "a shell script", b"#!/bin/sh\nexit 0\n"
    rng = random.Random(0)
    for number in range(4):
        flipped = bytearray(content)
        for _ in range(1 + len(flipped) // 200):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield f"with flipped bits {number}", bytes(flipped)


_DEEP = "[" * 100_000

_TEXTS = (
    ("nested without end", _DEEP),
    ("objects nested without end", '{"a":' * 50_000),
    ("a list", "[]"),
    ("a number", "7"),
    ("null", "null"),
    ("a number of many digits", "1" * 100_000),
    ("a key of a megabyte", json.dumps({"k" * 1_000_000: 1})),
    ("a hundred thousand keys", json.dumps({f"k{n}": n for n in range(100_000)})),
    ("not a number", '{"format": NaN, "settings": Infinity}'),
    ("the same key twice", '{"format": 1, "format": 2}'),
)
"""What JSON can be, whatever it is to say."""

_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, "", "x" * 10_000, "\u202etxt", [], {},
    [[]], {"a": {}},
)  # fmt: skip
"""What a value of JSON can become."""


def altered(document: Any, count: int) -> Iterator[tuple[str, Any]]:
    """Yield `document` with one value removed or replaced, `count` times, all over it."""
    rng = random.Random(0)
    places = list(_places(document))
    for _ in range(count):
        path = rng.choice(places)
        changed = copy.deepcopy(document)
        place = changed
        for key in path[:-1]:
            place = place[key]
        where = ".".join(map(str, path))
        if rng.random() < 0.15:
            del place[path[-1]]
            yield f"without {where}", changed
        else:
            value = rng.choice(_VALUES)
            place[path[-1]] = value
            yield f"{where} = {value!r:.20}", changed


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys: Any = (
        document
        if isinstance(document, dict)
        else range(min(3, len(document)))
        if isinstance(document, list)
        else ()
    )
    for key in keys:
        yield (*path, key)
        yield from _places(document[key], (*path, key))


# Kinds of files and values


def _policies(folder: Path) -> Iterator[Case]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ppo_jax import policy
    from ppo_jax.config import AgentConfig, TrainConfig
    from ppo_jax.environments import make
    from ppo_jax.networks import make_network
    from ppo_jax.programs import Weights

    config = TrainConfig(env="CartPole-v1", agent=AgentConfig(hidden_sizes=(4,)))
    network = make_network(config.agent, make(config.env).spaces)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros(4))
    policy.save(folder / "sound", config, Weights(params, None))
    description = (folder / "sound" / "policy.json").read_bytes()
    tensors = (folder / "sound" / "model.safetensors").read_bytes()

    def case(name: str, *files: bytes) -> Case:
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        for file, content in zip(("policy.json", "model.safetensors"), files, strict=False):
            (place / file).write_bytes(content)
        return Case("policies", name, lambda: policy.load(place).act(np.zeros(4)))

    for name, content in damaged(description):
        yield case(f"policy.json {name}", content, tensors)
    for name, content in damaged(tensors):
        yield case(f"model.safetensors {name}", description, content)
    for name, text in _TEXTS:
        yield case(f"policy.json {name}", text.encode(), tensors)
    for name, document in altered(json.loads(description), 70):
        yield case(f"policy.json {name}", json.dumps(document).encode(), tensors)
    for size in (2**20, 2**40, 2**63 - 1):
        yield case("a header of any length", description, size.to_bytes(8, "little") + b"{}")
    for header in (_DEEP, '{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}'):
        content = len(header).to_bytes(8, "little") + header.encode() + b"\0" * 4
        yield case("a header that lies", description, content)
    yield case("no tensors", description)
    yield case("nothing")
    yield Case("policies", "no folder", lambda: policy.load(folder / "nowhere"))
    yield Case("policies", "a file", lambda: policy.load(folder / "sound" / "policy.json"))


def _spaces(folder: Path) -> Iterator[Case]:
    from tune.protocol.settings import Settings
    from tune.protocol.space import SearchSpace

    folder.mkdir()

    def read(path: Path) -> None:
        space = SearchSpace.from_file(path)
        Settings(space=space)
        space.baseline_params()
        space.grid(3)
        space.distributions()

    def case(name: str, content: bytes) -> Case:
        path = folder / f"{len(list(folder.iterdir()))}.toml"
        path.write_bytes(content)
        return Case("spaces", name, lambda: read(path))

    sound = b"[learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n[n_epochs]\nvalue = 4\n"
    for name, content in damaged(sound):
        yield case(name, content)
    for line in (
        "low = 1e-2\nhigh = 1e-4", "low = nan\nhigh = 1", "low = -inf\nhigh = inf",
        "low = 0\nhigh = 1\nlog = true", "low = -1\nhigh = 1\nlog = true", "low = 1e400\nhigh = 2",
        "value = true", "value = []", "value = 1979-05-27", "value = '''\n1'''", "choices = []",
        "choices = [1, 1]", "choices = ['a']", "choices = [[1]]", "choices = [{a = 1}]",
        "drop = 1", "drop = 'yes'", "lo = 1", "low = 1", "high = 1", "low = 1\nhigh = 1",
        "value = 1\nlow = 1", "", "low = 1e-5\nhigh = 1e-3\nstep = 1e-5", "low = '1'\nhigh = 2",
    ):  # fmt: skip
        for name in ("learning_rate", "n_steps", "gamma"):
            yield case(f"{name}: {line!r}", f"[{name}]\n{line}\n".encode())
    for text in (
        "learning_rate = 1", "[[learning_rate]]\nlow = 1", "[learning_rate.low]\nx = 1",
        "[num_envs]\nchoices = [0]", "[num_envs]\nchoices = [99999999999]",
        "[hidden_sizes]\nchoices = [[], [64]]", "[hidden_sizes]\nchoices = [[-1]]",
        "[activation]\nchoices = ['tanh', 'tnah']", "[network]\nvalue = 'os.system'",
        "[\u202elearning_rate]\nlow = 1", "[unknown]\nvalue = 1", "[learning_rat]\nvalue = 1",
        "[batch_size]\nchoices = [8192]", "[n_steps]\nchoices = [1, 2, 3]",
        "[n_steps]\nchoices = [1073741824]", "a = [" + "[" * 5000, "x = " + "1" * 10_000,
        "\n".join(f"[k{n}]\nvalue = 1" for n in range(5000)), "'" * 100_000,
    ):  # fmt: skip
        yield case(f"{text[:40]!r}", text.encode("utf-8"))
    yield Case("spaces", "a folder", lambda: read(folder))
    yield Case("spaces", "no file", lambda: read(folder / "nowhere.toml"))
    yield Case("spaces", "a device", lambda: read(Path("/dev/null")))


def small_study(folder: Path) -> Path:
    """Return the folder of a study whose trainings were formulas."""
    from benchmarks.stand_in import StandIn
    from tune.protocol.settings import Settings
    from tune.session import run_study

    settings = Settings(
        seeds=2, total_steps=8192, eval_every=4096, eval_episodes=2, sampler="random", pruner="none"
    )
    run_study(
        3,
        settings,
        output=folder,
        finalists=1,
        validate_steps=16_384,
        validate_seeds=2,
        programs=StandIn(settings.config, settings.seeds),
    )
    return folder


def _report(*arguments: object) -> None:
    from tune.report.__main__ import main

    main([str(argument) for argument in arguments])


def _json(folder: Path, study: Path) -> Iterator[Case]:
    from tune.evidence.recommendation import read_recommended

    folder.mkdir()
    names = ("config.json", "finalists.json", "validation.json", "recommended.json")
    database = (study / "study.db").read_bytes()

    def case(file: str, name: str, content: bytes) -> Case:
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        for other in names:
            (place / other).write_bytes((study / other).read_bytes())
        (place / "study.db").write_bytes(database)
        (place / file).write_bytes(content)
        read = (lambda: read_recommended(place / file)) if file == names[-1] else None
        return Case("JSON", f"{file} {name}", read or (lambda: _report(place)))

    for file in names:
        content = (study / file).read_bytes()
        for number, (name, changed) in enumerate(damaged(content)):
            if file == names[-1] or number % 3 == 0:
                yield case(file, name, changed)
        for number, (name, text) in enumerate(_TEXTS):
            if file == names[-1] or number % 3 == 0:
                yield case(file, name, text.encode())
        for name, document in altered(json.loads(content), 40 if file == names[-1] else 8):
            yield case(file, name, json.dumps(document).encode())


def _databases(folder: Path, study: Path) -> Iterator[Case]:
    folder.mkdir()
    content = (study / "study.db").read_bytes()

    def case(name: str, changed: bytes | None, *statements: str) -> Case:
        path = folder / f"{len(list(folder.iterdir()))}.db"
        path.write_bytes(content if changed is None else changed)
        if statements:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
        return Case("databases", name, lambda: _report("out", "--storage", f"sqlite:///{path}"))

    for name, changed in damaged(content):
        yield case(name, changed)
    for statement in (
        "DROP TABLE trials", "DROP TABLE studies", "DROP TABLE version_info",
        "DROP TABLE study_user_attributes", "DELETE FROM studies", "DELETE FROM trials",
        "DELETE FROM study_user_attributes", "UPDATE version_info SET schema_version = 99",
        "UPDATE studies SET study_name = ''", "UPDATE studies SET study_name = 'x\ny\x1b[31m'",
        "UPDATE trials SET state = 'NONSENSE'", "UPDATE trials SET number = 0",
        "UPDATE trials SET state = 'RUNNING'", "UPDATE study_directions SET direction = 'MINIMIZE'",
        "UPDATE study_user_attributes SET value_json = '['",
        "UPDATE study_user_attributes SET value_json = '{}'",
        "UPDATE study_user_attributes SET value_json = 'null'",
        "UPDATE trial_user_attributes SET value_json = '['",
        "UPDATE trial_user_attributes SET value_json = '{}'",
        "UPDATE trial_user_attributes SET value_json = '1e999'",
        "UPDATE trial_user_attributes SET value_json = '\"x\"'",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trial_params SET param_value = 1e300",
        "UPDATE trial_values SET value = 'abc'", "DELETE FROM trial_values",
        "DELETE FROM trial_intermediate_values",
        "UPDATE trial_intermediate_values SET step = step - 100000",
        "ALTER TABLE trials RENAME COLUMN state TO stat",
    ):  # fmt: skip
        yield case(statement, None, statement)
    yield case("of somebody else", b"", "CREATE TABLE studies (x)", "CREATE TABLE people (name)")
    yield Case("databases", "a folder", lambda: _report("out", "--storage", f"sqlite:///{folder}"))


def _journals(folder: Path) -> Iterator[Case]:
    import optuna

    folder.mkdir()
    sound = folder / "sound"
    backend = optuna.storages.journal.JournalFileBackend(str(sound))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(study_name="CartPole-v1", storage=storage, direction="maximize")
    study.set_user_attr("ppo_jax_tune", True)
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=2)
    content = sound.read_bytes()
    lines = content.splitlines(keepends=True)

    def case(name: str, changed: bytes) -> Case:
        path = folder / str(len(list(folder.iterdir())))
        path.write_bytes(changed)
        return Case("journals", name, lambda: _report("out", "--storage", f"journal:{path}"))

    yield case("of somebody else", content)
    for name, changed in damaged(content):
        yield case(name, changed)
    for added in (
        b"{}\n", b"[]\n", b"null\n", b'{"op_code": 99}\n', b'{"op_code": "x", "worker_id": 1}\n',
        b'{"op_code": 0, "worker_id": "w"}\n',
        b'{"op_code": 5, "worker_id": "w", "trial_id": 99}\n',
        b'{"op_code": 4, "worker_id": "w", "study_id": 77}\n', _DEEP.encode() + b"\n",
        b'{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": 5}\n', b"\x00\x01\x02\n",
        b'{"op_code": 6, "worker_id": "w", "trial_id": 0, "state": 77, "values": null}\n',
        b"x" * 1_000_000 + b"\n",
    ):  # fmt: skip
        yield case(f"with a line {added[:30]!r} in it", lines[0] + added + b"".join(lines[1:]))
    for number in range(len(lines)):
        yield case(f"without line {number}", b"".join(lines[:number] + lines[number + 1 :]))


def _addresses(folder: Path) -> Iterator[Case]:
    for address in (
        "", " ", "x", ":", "://", "sqlite", "sqlite:", "sqlite:/", "sqlite://", "sqlite:///",
        "sqlite://x.db", "sqlite:////", "sqlite:///no/such/folder/x.db", "sqlite:///\x1b[31m.db",
        "sqlite:///a\nb.db", "sqlite:///\u202egnp.db", "sqlite:///x.db?mode=ro&y=\x07", "journal:",
        "journal://", "journal:///", "journal:/dev/null/x", f"journal:{folder}", "journal:a\tb",
        "postgresql:", "postgresql://", "postgresql://h", "postgresql://u:p@ss@127.0.0.1:1/d",
        "postgresql://u:s3cret@127.0.0.1:1/d", "postgresql://u:s3cret@[::1]:1/d",
        "postgresql://u:s3cret@127.0.0.1:99999/d", "postgresql://u:s3cret@127.0.0.1:x/d",
        "mysql://", "mysql://u:s3cret@127.0.0.1:1/d", "mongodb://h/d", "redis://h", "http://h",
        "grpc:", "grpc://", "grpc://h", "grpc://h:x", "file:///etc/passwd", "nosuchdb://h/d",
        "postgresql+nosuchdriver://h/d", "sqlite+nosuch:///x.db", "C:\\studies\\x.db", "x" * 5000,
        "sqlite:///" + "x" * 5000, "host=h password=s3cret", "\udcff", "sqlite:///\udcff.db",
    ):  # fmt: skip
        yield Case(
            "addresses",
            ascii(address)[:60],
            functools.partial(_opened, address),
        )


def _opened(address: str) -> None:
    """Open a storage, without waiting for one that does not answer."""
    from tune.search.storage import open_storage, storage_file

    file = storage_file(address)
    if file is not None and not file.is_file():
        raise UserError(f"{file} does not exist")
    open_storage(address, patience=0.0)


def _names() -> Iterator[Case]:
    from ppo_jax.environments import make

    names = (
        "", " ", ".", "..", "/", "a/b", "../../etc", "-", "--", "~", "$HOME", "%s", "%00", "#", "?",
        "*", "a b", "a\nb", "a\tb", "\x00", "\x1b[31mred", "\x07", "\u202egnp.exe", "\u200b",
        "\u2028", "\ufeff", "é", "日本語", "🎲", "e\u0301", "CON", "nul", "x" * 255, "x" * 256,
        "x" * 513, "x" * 100_000, "\udcff", "a:b", "a:", ":b", "os:system", "json:loads",
        "builtins:exit", "CartPole-v1\n", "cartpole-v1", "None", "True", "nan", "-1",
    )  # fmt: skip
    for name in names:
        shown = ascii(name)[:40]
        yield Case("names", f"environment {shown}", functools.partial(make, name))
        yield Case("names", f"study {shown}", functools.partial(_planned, study_name=name))
        yield Case("names", f"folder {shown}", functools.partial(_planned, output=Path(name)))


def _planned(**options: Any) -> None:
    """Read options as ``python -m tune.run`` does before anything is made."""
    from tune.options import Arguments as Options
    from tune.options import Place

    Options(place=Place(**options)).plan()


if __name__ == "__main__":
    main()
