"""Environments behind one small protocol; :func:`make` is the only way in.

The protocol is in :mod:`~ppo_jax.environments.base`, gymnax in
:mod:`~ppo_jax.environments.gymnax`, every other suite in a module of
:mod:`~ppo_jax.environments.suites`. A suite's package is imported when one of its
environments is asked for: importing gymnax takes seconds and starts the backend.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ppo_jax import imports
from ppo_jax.config import EnvKwargs, EnvValue, sorted_env_kwargs
from ppo_jax.environments import suites
from ppo_jax.environments.base import (
    ActionSpace,
    Continuous,
    Discrete,
    Environment,
    MultiDiscrete,
    Part,
    Spaces,
    Timestep,
)
from ppo_jax.environments.contract import check_contract
from ppo_jax.errors import UserError, nearest
from ppo_jax.imports import imported

__all__ = [
    "ActionSpace",
    "Continuous",
    "Discrete",
    "Environment",
    "EnvironmentLike",
    "MultiDiscrete",
    "Part",
    "Spaces",
    "Timestep",
    "make",
    "name_of",
    "require_no_code",
]

EnvironmentLike = str | Callable[..., Any] | Environment
"""A name, a class or function that makes an environment, or an environment."""


def name_of(environment: EnvironmentLike) -> str:
    """Return the name under which :func:`make` finds `environment` in this process.

    See :func:`ppo_jax.imports.name_of`.

    Raises:
      UserError: for what is neither a name nor an environment in any of the forms of :func:`make`.
    """
    if isinstance(environment, str):
        return environment
    if not callable(environment):
        made = environment[0] if isinstance(environment, tuple) and environment else environment
        if not any(hasattr(made, name) for name in ("spaces", "transition", "default_params")):
            raise UserError(
                "env must be a name, or a class or object of an environment written in JAX, "
                f"but got {environment!r:.80}"
            )
    return imports.name_of(environment)


def require_no_code(name: str, source: str, remedy: str) -> None:
    """Raise a ``UserError`` if `name`, found in a file or a storage, names code to import.

    :func:`make` imports and calls what ``module:attribute`` names. Only the user may ask for
    that, by typing it; data must not.

    Args:
      name: of an environment.
      source: what names it.
      remedy: how to ask for it.
    """
    if ":" in name:
        raise UserError(
            f"{source} names the environment {name!r}, whose code would be imported and run; "
            f"if you trust it, {remedy}"
        )


def make(
    environment: EnvironmentLike, kwargs: Mapping[str, EnvValue] | EnvKwargs = ()
) -> Environment:
    """Return an environment with its parameters overridden by `kwargs`.

    Args:
      environment: a name that gymnax registers (``CartPole-v1``), one of another suite
        (``brax/ant``, ``navix/...``, ``craftax/...``), or ``module:attribute`` for
        a user's own environment: a gymnax environment class, a function that returns
        such an environment (alone or with its parameters), a functional environment of
        Gymnasium (:mod:`~ppo_jax.environments.functional`), or anything that makes an
        :class:`Environment`. Such a class, function or object itself will do as well.
      kwargs: for example ``{"max_steps_in_episode": 1000}``, also as pairs.

    Raises:
      UserError: for an unknown name, an environment that is not supported, a parameter
        that the environment does not have, or a user's own environment that does not keep to
        the protocol; see :mod:`ppo_jax.environments.contract`.
    """
    name, values = name_of(environment), dict(sorted_env_kwargs(kwargs))
    # An environment may hold arrays; made inside a trace they would not outlive it.
    with jax.ensure_compile_time_eval():
        if ":" in name:
            custom = _custom(name, values)
            check_contract(custom)
            return custom
        if "/" in name:
            return _of_suite(name, values)
        from ppo_jax.environments.gymnax import GymnaxEnvironment

        return GymnaxEnvironment.registered(name, values)


def _of_suite(name: str, kwargs: dict[str, Any]) -> Environment:
    suite, _, short = name.partition("/")
    known = suites.names()
    if suite not in known:
        raise UserError(
            f"unknown suite {suite!r} in environment {name!r}{nearest(suite, known)} "
            f"(known: {', '.join(known)}; environments of gymnax have no suite in their name)"
        )
    try:
        load = suites.loader(suite)
    except ImportError as error:
        raise UserError(
            f"environment {name!r} needs the package {suite}: pip install 'ppo-jax-tune[{suite}]' "
            f"({error})"
        ) from error
    return load(short, kwargs)


def _custom(name: str, kwargs: dict[str, Any]) -> Environment:
    factory = imported("environment", name)
    from ppo_jax.environments.functional import FunctionalEnvironment
    from ppo_jax.environments.gymnax import GymnaxEnvironment

    try:
        if hasattr(made := factory(), "spaces"):  # It follows our own protocol.
            own: Environment = factory(**kwargs) if kwargs else made
            return own
        if hasattr(made, "transition"):
            return FunctionalEnvironment(name, made, kwargs)
        return GymnaxEnvironment.of(name, factory, kwargs)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"environment {name!r} cannot be made: {reason}") from error
