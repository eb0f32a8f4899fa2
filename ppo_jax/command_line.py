"""What every command line shares: parsing, one-line errors, devices. Prints and exits."""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from ppo_jax.errors import UserError

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], prog: str, args: Sequence[str] | None) -> Arguments:
    """Parse the command line into `kind`, a dataclass.

    Where it has a field ``preset``, what that preset holds takes the place of the
    defaults, so that the other options still change it. A mistake prints one line and
    exits with status 2.
    """
    import tyro

    errors = io.StringIO()
    try:
        default = _preset_defaults(kind, args)
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=prog, args=args, default=default)
    except UserError as error:  # Of a dataclass that checks itself.
        fail(str(error))
    except SystemExit as stop:
        if stop.code:
            fail(_one_line(errors.getvalue()))
        raise


def _preset_defaults(kind: Any, args: Sequence[str] | None) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        name = parser.parse_known_args(args)[0].preset if "preset" in fields else None
    except argparse.ArgumentError:  # Without a name; tyro says it better.
        name = None
    if name is None:
        return None
    from ppo_jax import presets

    preset = presets.load(name)
    held = {
        "env": preset.env,
        "env_kwargs": tuple(f"{key}={value}" for key, value in preset.env_kwargs),
        "agent": preset.agent,
        "hyperparameters": preset.hyperparameters,
    }
    return kind(**{key: value for key, value in held.items() if key in fields})


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM has come; `signal` says which."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


def run(main: Callable[[], None], how_to_continue: str = "") -> None:
    """Run `main`; what stops it becomes one line and an exit status.

    Users' mistakes: 2. A disk or file that fails, and too little memory: 1. SIGINT and SIGTERM:
    130 and 143, after `main` has cleaned up behind an :class:`Interrupted`; a second SIGINT
    does not wait for that.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _interrupt_again
    try:
        main()
    except UserError as error:
        fail(str(error))
    except Interrupted as interruption:
        print(f"\ninterrupted{how_to_continue}", file=sys.stderr)
        _exit_now(128 + interruption.signal)
    except BrokenPipeError:  # The reader, `head` for example, has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno is None:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
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


def _interrupt(number: int, _: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # One is enough, and `main` is ending.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    raise Interrupted(number)


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt in a moment where a callback of the garbage collector has caught it."""
    interruption = unraisable.exc_value
    if not isinstance(interruption, Interrupted):
        sys.__unraisablehook__(unraisable)
        return

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted(interruption.signal)

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def _exit_now(status: int) -> NoReturn:
    """Exit without waiting for a program that is still computing in a thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def fail(message: str, status: int = 2) -> NoReturn:
    """Print `message` as one line and exit."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def start_backend() -> None:
    """Make CPU cores devices and keep compiled programs; before anything uses JAX."""
    from ppo_jax.compilation_cache import enable_compilation_cache
    from ppo_jax.devices import enable_all_cpu_cores

    enable_all_cpu_cores()
    enable_compilation_cache()


def parse_env_kwargs(pairs: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Turn ``name=value`` strings into sorted pairs with numbers and switches as such.

    >>> parse_env_kwargs(["max_steps_in_episode=1000", "gravity=9.81"])
    (('gravity', 9.81), ('max_steps_in_episode', 1000))

    Raises:
      UserError: for a string without ``=`` or a name that comes twice.
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


def _one_line(box: str) -> str:
    """Return the message of tyro's error box, without its frame and its help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    paragraphs = re.split(r"\n{2,}", "\n".join(lines[1:]).strip())
    message = " ".join(paragraphs[0].split())
    suggestion = re.search(r"Perhaps you meant:\s+(--\S+)", box.replace("│", " "))
    return message + (f"; did you mean {suggestion[1]}?" if suggestion else "")
