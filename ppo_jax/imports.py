"""Importing what a user has named as ``module:attribute``."""

import importlib
from collections.abc import Callable
from typing import Any

from ppo_jax.errors import UserError, nearest


def imported(kind: str, name: str) -> Callable[..., Any]:
    """Return the class or function that `name` names.

    Args:
      kind: of what it makes, for messages: "environment".
      name: ``module:attribute``, as a user has typed it. Data must never decide it.

    Raises:
      UserError: when the module cannot be imported, or has nothing of this name to call.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # Whatever the user's module raises.
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} {name!r} cannot be imported: {reason}") from error
    found: Any = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(
            f"{kind} {name!r}: module {module_name} has no class or function "
            f"{attribute!r}{nearest(attribute, known)}"
        )
    made: Callable[..., Any] = found
    return made
