"""The commands of this package, from the first moment of their process.

A command imports for a second or two before it can do anything, so nothing heavy is imported here.
"""

import importlib
import os
import signal
from typing import NoReturn


def start(module: str) -> NoReturn:
    """Import `module` and run its ``main``; exit.

    SIGINT and SIGTERM are heeded from here on: until :func:`ppo_jax.command_line.run` takes them
    over, nothing needs to be cleaned up, and the process ends at once with a line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    importlib.import_module(module).main()
    raise SystemExit


def train() -> NoReturn:
    """``ppo-jax-train``."""
    start("ppo_jax.train")


def evaluate() -> NoReturn:
    """``ppo-jax-evaluate``."""
    start("ppo_jax.evaluate")


def _end(number: int, _: object) -> NoReturn:
    os.write(2, b"\ninterrupted\n")
    os._exit(128 + number)
