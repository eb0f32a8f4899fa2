"""What all command lines share: parsing, one-line errors, exit codes, starting the backend.

The only module of the package, besides the command lines themselves, that prints and exits.
"""

import argparse
import contextlib
import dataclasses
import errno
import io
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ppo_jax import __version__
from ppo_jax.errors import UserError, nearest
from ppo_jax.text import printable

Arguments = TypeVar("Arguments")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command; :func:`parse` heeds them."""

    version: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = (
        False
    )
    """Print the version and exit."""


def parse(
    kind: type[Arguments],
    prog: str,
    args: Sequence[str] | None,
    elsewhere: Callable[[str], str | None] = lambda _: None,
) -> Arguments:
    """Parse the command line into `kind`, a dataclass.

    Fields that are dataclasses are groups of the help; their names are no prefix. If `kind` has
    an option ``--preset`` or ``--baseline``, its values replace the defaults, so the other options
    can still change them. A mistake prints one line and exits with status 2.

    Args:
      kind: the dataclass.
      prog: what the help calls the command, unless it was started by a console script.
      args: the words; those of the process by default.
      elsewhere: takes the name of an unknown option and says where the user finds what it asks
        for; None where it cannot say.
    """
    args = sys.argv[1:] if args is None else args
    _accept_any_terminal()
    if "--version" in args:
        print(_VERSION)
        sys.exit()
    script = Path(sys.argv[0]).name
    errors = io.StringIO()
    try:
        default = _preset_defaults(kind, args)
        with contextlib.redirect_stderr(errors), _registry():
            parsed: Arguments
            parsed, unknown = tyro.cli(
                kind,
                prog=script if script.startswith("ppo-jax-") else prog,
                args=args,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
            )
    except UserError as error:  # From a dataclass that checks itself.
        fail(str(error))
    except BrokenPipeError:
        _end_unread()
    except SystemExit as stop:
        if stop.code:
            fail(_first_paragraph(errors.getvalue()))
        raise
    for argument in unknown:
        name = argument.partition("=")[0].replace("_", "-")
        if not name.startswith("-"):
            fail(f"unrecognized argument {argument!r}")
        where = elsewhere(name) or nearest(name, _options(kind))
        fail(f"unrecognized option {argument.partition('=')[0]!r}{where}")
    return parsed


def list_commands(heading: str, commands: Mapping[str, str]) -> None:
    """Print the version and what each of `commands` does."""
    width = max(map(len, commands))
    print(
        "\n".join([_VERSION, "", heading, *(f"  {c:<{width}}  {w}" for c, w in commands.items())])
    )


_VERSION = f"ppo-jax-tune {__version__}"


def _registry() -> ConstructorRegistry:
    """Return how tyro reads the options of this project."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def integer(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        if kind.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: parse_integer(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def parse_integer(text: str) -> int:
    """Return the integer that `text` writes, in short or not.

    >>> [parse_integer(text) for text in ("2048", "200k", "1e6", "2.5M", "1B", "-1", "1_000")]
    [2048, 200000, 1000000, 2500000, 1000000000, -1, 1000]

    Raises:
      ValueError: for anything else.
    """
    found = re.fullmatch(r"([+-]?[\d_.]+(?:e\+?\d{1,2})?)([kmb]?)", text.strip().lower(), re.ASCII)
    try:
        value = Decimal(found[1]) * _MULTIPLES[found[2]] if found else Decimal("NaN")
        if value == value.to_integral_value():
            return int(value)
    except ArithmeticError:
        pass
    raise ValueError(f"{text!r} is not an integer, as 200000, 200k, 1e6 or 2M")


def _options(kind: Any) -> list[str]:
    """Return the long options of the dataclass `kind`; nested dataclasses add no prefix."""
    options = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            options += _options(field.default)
        elif field.default is not dataclasses.MISSING:
            name = field.name.replace("_", "-")
            options += [f"--{name}", f"--no-{name}"] if field.type is bool else [f"--{name}"]
    return options


def _first_paragraph(box: str) -> str:
    """Return the message in tyro's error box, without the frame and the help below it.

    Tyro has no public way to get the bare message: ``console_outputs=False`` drops it, and
    the hook that receives it (``tyro._errors``) is private and may change in any release.
    The frame is ASCII where standard output is not UTF-8.
    """
    rows = [row.strip("│ ") for row in box.splitlines()[1:]]  # The first one is the title.
    body = itertools.dropwhile(_is_rule, rows)
    return " ".join(itertools.takewhile(lambda row: not _is_rule(row), body))


def _is_rule(row: str) -> bool:
    return not row.strip("─-╰╯")


def _preset_defaults(kind: Any, args: Sequence[str]) -> Any:
    """Return `kind` with the configuration that `args` name in place of the default one.

    None if they name none. What a file of another implementation holds and this one lacks is
    printed.
    """
    options = _options(kind)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--preset", "--baseline", "--env"):
        parser.add_argument(option)
    try:
        named = parser.parse_known_args(args)[0]
    except argparse.ArgumentError:  # No name was given; tyro's message is better.
        return None
    name = named.preset if "--preset" in options else None
    file = named.baseline if "--baseline" in options else None
    if name is not None and file is not None:
        raise UserError(f"--preset and --baseline exclude each other, but got {name} and {file}")
    if name is not None:
        from ppo_jax import presets

        preset = presets.load(name)
    elif file is not None:
        from ppo_jax.export.reading import read

        preset, notes = read(Path(file), named.env)
        for note in notes:
            print(printable(f"not carried: {note}"), file=sys.stderr)
    else:
        return None
    if named.env is None:
        from ppo_jax.environments import require_no_code

        require_no_code(preset.env, str(name or file), f"pass --env {preset.env}")
    values = {
        "env": preset.env,
        "env_kwargs": tuple(f"{key}={value}" for key, value in preset.env_kwargs),
        "agent": preset.agent,
        "hyperparameters": preset.hyperparameters,
    }
    return _replaced(kind(), values)


def _replaced(arguments: Any, values: Mapping[str, Any]) -> Any:
    """Return a dataclass with `values` in place of its fields of these names, at any depth."""
    found = {}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name in values:
            found[field.name] = values[field.name]
        elif dataclasses.is_dataclass(value):
            found[field.name] = _replaced(value, values)
    return dataclasses.replace(arguments, **found)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received; `signal` is its number."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


def run(main: Callable[[], None], how_to_continue: str = "") -> None:
    """Run `main`; turn whatever stops it into one line and an exit status.

    The status is 2 for a :class:`UserError`, 1 for a failing disk or file and for too little
    memory, and 130 or 143 for SIGINT or SIGTERM. Signals raise :class:`Interrupted` so that
    `main` can clean up, which a line announces; a second SIGINT exits at once.

    Args:
      main: the program.
      how_to_continue: appended to the line that reports an interruption or a failing disk.
    """
    _accept_any_terminal()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _handle_unraisable
    try:
        main()
    except UserError as error:
        fail(str(error))
    except Interrupted as interruption:
        newline = "" if interruption.signal == signal.SIGINT else "\n"
        print(f"{newline}interrupted{how_to_continue}", file=sys.stderr)
        _exit_now(128 + interruption.signal)
    except BrokenPipeError:
        _end_unread()
    except OSError as error:
        if error.errno is None:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        if error.errno == errno.ENAMETOOLONG:  # Typed by the user; no disk has failed.
            fail(f"{place}{error.strerror}")
        fail(f"{place}{error.strerror}{how_to_continue}", status=1)
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        fail(
            f"not enough memory{reason}; fewer seeds, environments or steps of a rollout, or a "
            "smaller network, need less",
            status=1,
        )


def _accept_any_terminal() -> None:
    """Print a question mark for each character that the terminal's encoding lacks, as × in ASCII.

    Python would raise a ``UnicodeEncodeError``. Streams that a caller has put in place and that
    have no encoding are left alone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _interrupt(number: int, _: object) -> NoReturn:
    if number == signal.SIGINT:
        # Someone is looking on, and cleaning up takes seconds. A handler must not use the buffers
        # of a stream that it may have interrupted.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping; a second Ctrl-C ends at once\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `main` is already cleaning up.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    raise Interrupted(number)


def _handle_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt again shortly: a callback of the garbage collector swallowed the exception.

    Where one of the files of a training state cannot be written, Orbax gives up the loop to which
    the threads that write the others will report. Of that nothing is shown; all else is.
    """
    interruption = unraisable.exc_value
    if isinstance(interruption, RuntimeError) and str(interruption) == "Event loop is closed":
        return
    if not isinstance(interruption, Interrupted):
        sys.__unraisablehook__(unraisable)
        return

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted(interruption.signal)

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def _end_unread() -> NoReturn:
    """Exit because the reader of what is printed, for example `head`, has exited."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _exit_now(status: int) -> NoReturn:
    """Exit without waiting for a compiled program that still runs in a thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def fail(message: str, status: int = 2) -> NoReturn:
    """Print `message` as one line and exit."""
    print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(status)


def start_backend() -> None:
    """Start JAX: every CPU core a device, compiled programs cached, settings as they must be.

    Must be called before anything uses JAX. Settings that the environment brings and that would
    change results, such as ``JAX_ENABLE_X64``, are put back.

    Raises:
      UserError: where ``JAX_PLATFORMS`` names a platform that is not there.
    """
    import jax

    from ppo_jax.compilation_cache import enable_compilation_cache
    from ppo_jax.devices import JAX_SETTINGS, enable_all_cpu_cores

    for name, value in JAX_SETTINGS.items():
        jax.config.update(name, value)
    jax.config.update("jax_transfer_guard", "allow")
    enable_all_cpu_cores()
    enable_compilation_cache()
    platforms = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except RuntimeError as error:
        if not platforms:
            raise
        raise UserError(f"JAX_PLATFORMS={platforms} cannot be used: {error}") from error


def parse_env_kwargs(pairs: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Turn ``name=value`` strings into sorted pairs; numbers and booleans are converted.

    >>> parse_env_kwargs(["max_steps_in_episode=1000", "gravity=9.81"])
    (('gravity', 9.81), ('max_steps_in_episode', 1000))

    Raises:
      UserError: for a string without ``=`` or a name that appears twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--env-kwargs takes name=value pairs, but got {pair!r}")
        if name in values:
            raise UserError(f"--env-kwargs names {name} twice")
        values[name] = _value(text)
    return tuple(sorted(values.items()))


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
