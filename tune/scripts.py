"""The commands of this package, from the first moment of their process."""

from typing import NoReturn

from ppo_jax.scripts import start


def tune() -> NoReturn:
    """``ppo-jax-tune``."""
    start("tune.run")


def report() -> NoReturn:
    """``ppo-jax-report``."""
    start("tune.report.__main__")
