"""Classes, functions and objects of users, and the names under which configurations hold them."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from ppo_jax.errors import UserError, nearest

_GIVEN = "given"
_given: dict[str, Any] = {}
"""What was given and has no name in a module."""

_named: dict[str, Any] = {}
"""What was given and has one."""


def imported(kind: str, name: str) -> Callable[..., Any]:
    """Return the class or function that `name` names.

    Args:
      kind: of what it makes, for messages: "environment".
      name: ``module:attribute``, as a user has typed it, or of :func:`name_of`. Data must never
        decide it.

    Raises:
      UserError: when the module cannot be imported, or has nothing of this name to call.
    """
    module_name, _, attribute = name.partition(":")
    if module_name == _GIVEN:
        if attribute not in _given:
            raise UserError(
                f"{kind} {name!r} was given to another process; name it as module:attribute"
            )
        given: Any = _given[attribute]
        return given if callable(given) else lambda: given
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


def name_of(value: Any) -> str:
    """Return the name under which :func:`imported` finds `value` in this process.

    A class or function of a module is ``module:name``, as a user would type it. Anything else,
    such as an object, is kept as ``given:name`` until the process ends.
    """
    kind = type(value[0] if isinstance(value, tuple) else value)
    name = getattr(value, "__qualname__", kind.__name__)
    module = getattr(value, "__module__", "")
    full_name = f"{module}:{name}"
    if getattr(sys.modules.get(module), name, None) is value and (
        # A cell of a notebook that ran again has made another class, and programs may be compiled
        # for the one that had the name.
        _named.setdefault(full_name, value) is value
    ):
        return full_name
    short = unique = name.rpartition(".")[2]
    number = 1
    while _given.setdefault(unique, value) is not value:
        number += 1
        unique = f"{short}_{number}"
    return f"{_GIVEN}:{unique}"


def name_elsewhere(name: str) -> str:
    """Return `name` as another process may know it: what only this one has gets a placeholder.

    >>> name_elsewhere("__main__:Line"), name_elsewhere("CartPole-v1")
    ('MODULE:Line', 'CartPole-v1')
    """
    module, colon, attribute = name.partition(":")
    return f"MODULE:{attribute}" if colon and module in ("__main__", _GIVEN) else name
