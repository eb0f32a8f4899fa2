"""The commands of this package, from the first moment of their process.

A command imports for a second or two before it can do anything, so nothing heavy is imported here.
"""

import gc
import importlib
import os
import resource
import signal
import sys
from typing import NoReturn

LEAST_ADDRESS_SPACE = 3 * 2**30
"""Bytes; with less, the compiler's threads abort the process, or an import never ends."""

LEAST_OPEN_FILES = 64
"""With fewer, libraries fail in the middle of a study."""


def start(module: str) -> NoReturn:
    """Import `module` and run its ``main``; exit, at once where the system leaves no room for it.

    SIGINT and SIGTERM are heeded from here on: until :func:`ppo_jax.command_line.run` takes them
    over, nothing needs to be cleaned up, and the process ends at once with a line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    _require_room()
    collect_seldom()
    importlib.import_module(module).main()
    raise SystemExit


def collect_seldom() -> None:
    """Have Python look for unreachable objects less often than by default.

    Tracing makes hundreds of thousands of objects that stay. Looking through them takes a tenth of
    the CPU time of a short study, and finds nothing.
    """
    gc.set_threshold(100_000, 20, 20)


def train() -> NoReturn:
    """``ppo-jax-train``."""
    start("ppo_jax.train")


def evaluate() -> NoReturn:
    """``ppo-jax-evaluate``."""
    start("ppo_jax.evaluate")


def _require_room() -> None:
    for kind, least, message in (
        (
            resource.RLIMIT_AS,
            LEAST_ADDRESS_SPACE,
            "the address space of this process is limited to {} bytes, but JAX needs at least "
            "{}: ulimit -v unlimited",
        ),
        (
            resource.RLIMIT_NOFILE,
            LEAST_OPEN_FILES,
            "this process may open {} files, but needs at least {}: ulimit -n 1024",
        ),
    ):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY and limit < least:
            print("error:", message.format(f"{limit:,}", f"{least:,}"), file=sys.stderr)
            raise SystemExit(2)


def _end(number: int, _: object) -> NoReturn:
    os.write(2, b"\ninterrupted\n")
    os._exit(128 + number)
