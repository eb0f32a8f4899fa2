"""What an environment must keep to, checked by tracing it: nothing is run or compiled."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from ppo_jax.environments.base import (
    BYTE,
    Continuous,
    Discrete,
    Environment,
    MultiDiscrete,
    Spaces,
    Timestep,
    number_of_logits,
)
from ppo_jax.errors import UserError

_ATTRIBUTES = (*Environment.__annotations__, "reset", "step")


def check_contract(environment: Environment) -> None:
    """Raise a ``UserError`` unless `environment` keeps to the protocol.

    The error names the environment, the place, what was found and what was expected. Without
    the check a misfit is an error deep inside of a compiled loop, or none at all.
    """
    missing = [name for name in _ATTRIBUTES if not hasattr(environment, name)]
    if missing:
        raise UserError(f"environment {type(environment).__name__!r} has no {missing[0]!r}")
    contract = _Contract(environment.name)
    spaces = environment.spaces
    contract.require_spaces(spaces)
    limit = environment.max_episode_steps
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit < 2**31:
        contract.fail("max_episode_steps", limit, "an integer from 1 to 2147483647")

    key = jax.random.key(0)
    started = contract.trace("reset", environment.reset, key)
    if not isinstance(started, tuple) or len(started) != 2:
        contract.fail("reset", f"{type(started).__name__}", "(state, observation)")
    state, observation = started
    expected = jax.ShapeDtypeStruct(spaces.observation_shape, environment.observation_dtype)
    if spaces.scale == BYTE and expected.dtype != jnp.uint8:
        contract.fail("its observation_dtype", expected.dtype, "uint8, as its scale is 255")
    contract.require("the observation of reset", observation, expected)

    match spaces.action_space:
        case Discrete():
            action = jax.ShapeDtypeStruct((), jnp.int32)
        case MultiDiscrete(sizes):
            action = jax.ShapeDtypeStruct((len(sizes),), jnp.int32)
        case Continuous():
            action = jax.ShapeDtypeStruct((spaces.action_space.size,), jnp.float32)
    step = contract.trace("step", environment.step, key, state, action)
    if not isinstance(step, Timestep):
        contract.fail("step", f"{type(step).__name__}", "a Timestep")
    contract.require_same_state(state, step.state)
    contract.require("the observation of step", step.observation, expected)
    contract.require("the reward of step", step.reward, jax.ShapeDtypeStruct((), jnp.float32))
    for name in ("terminated", "truncated"):
        flag = jax.ShapeDtypeStruct((), jnp.bool_)
        contract.require(f"{name} of step", getattr(step, name), flag)


class _Contract:
    """Requirements on the environment called `name`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fail(self, place: str, found: Any, expected: str) -> NoReturn:
        raise UserError(f"environment {self._name!r}: {place} must be {expected}, but got {found}")

    def trace(self, place: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return jax.eval_shape(function, *arguments)
        except UserError:
            raise
        except Exception as error:  # Whatever the environment raises.
            reason = str(error).partition("\n")[0]
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"environment {self._name!r}: {place} fails in {last.name} "
                f"({Path(last.filename).name}, line {last.lineno}): "
                f"{type(error).__name__}{f': {reason}' if reason else ''}"
            ) from error

    def require(self, place: str, found: Any, expected: jax.ShapeDtypeStruct) -> None:
        if _described(found) != _described(expected):
            self.fail(place, _described(found), _described(expected))

    def require_same_state(self, before: Any, after: Any) -> None:
        old, new = (
            {jax.tree_util.keystr(p): _described(leaf) for p, leaf in _leaves(state)}
            for state in (before, after)
        )
        for path in [*old, *new]:
            known, got = old.get(path, "nothing"), new.get(path, "nothing")
            if known != got:
                raise UserError(
                    f"environment {self._name!r}: step turns state{path} from {known} into {got}, "
                    "but a state must keep its shapes and types"
                )
        structures: list[Any] = [jax.tree_util.tree_structure(state) for state in (before, after)]
        if structures[0] != structures[1]:
            self.fail("the state of step", type(after).__name__, f"a {type(before).__name__}")

    def require_spaces(self, spaces: Spaces) -> None:
        shape, actions = spaces.observation_shape, spaces.action_space
        sizes = [s for s in shape if isinstance(s, int) and s > 0]
        if not shape or len(sizes) < len(shape):
            self.fail("its observation_shape", shape, "a tuple of positive sizes")
        match actions:
            case Discrete(n):
                if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                    self.fail("its number of actions", n, "a positive integer")
            case MultiDiscrete(numbers):
                if not numbers or not all(isinstance(n, int) and n >= 1 for n in numbers):
                    self.fail("its numbers of actions", numbers, "a tuple of positive integers")
            case Continuous(low, high):
                ordered = all(a < b for a, b in zip(low, high, strict=False))  # Also not NaN.
                if len(low) != len(high) or not low or not ordered:
                    self.fail("its action bounds", f"{low} and {high}", "low below high")
            case other:
                self.fail("its action space", other, "Discrete, MultiDiscrete or Continuous")
        if spaces.parts and shape != (size := sum(part.size for part in spaces.parts),):
            self.fail("its observation_shape", shape, f"({size},), as its parts say")
        if spaces.mask_size not in (0, needed := number_of_logits(actions)):
            self.fail("its action mask", f"{spaces.mask_size} entries", f"{needed} entries")


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return list(jax.tree_util.tree_leaves_with_path(tree))


def _described(leaf: Any) -> str:
    """Return type and shape, as in ``float32[3, 2]``."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return type(leaf).__name__
    return f"{dtype}[{', '.join(map(str, shape))}]"
