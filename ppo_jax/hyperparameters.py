"""What a study tunes: the traced hyperparameters, their defaults and their domains.

Everything here may differ between two calls of one compiled program. What fixes
the shapes of that program lives in :mod:`ppo_jax.config`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypedDict

import jax
import numpy as np

from ppo_jax.errors import LARGEST_COUNT, UserError, is_number, nearest


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a hyperparameter can take in any study, and its short name.

    Attributes:
      label: for lines that hold many hyperparameters.
      kind: ``float``, ``int`` or ``bool``.
      low: smallest value; excluded when `open_low` is set.
      high: largest value, included.
      open_low: whether `low` itself is excluded.
    """

    label: str
    kind: type
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False

    def __str__(self) -> str:
        if self.kind is bool:
            return "true or false"
        noun = "an integer" if self.kind is int else "a number"
        lower = f"{'above' if self.open_low else 'of at least'} {self.low:,.9g}"
        upper = "" if math.isinf(self.high) else f" and at most {self.high:,.9g}"
        return f"{noun} {lower}{upper}"

    def check(self, name: str, value: Any) -> bool | int | float:
        """Return `value` as `kind`.

        Raises:
          UserError: when `value` is of another type or outside the domain.
        """
        value = value.item() if isinstance(value, np.generic) else value
        if not self._contains(value):
            raise UserError(f"{name} must be {self}, but got {value!r}")
        plain: bool | int | float = self.kind(value)
        return plain

    def _contains(self, value: Any) -> bool:
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if not is_number(value):
            return False
        if self.kind is int and value != int(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and value <= self.high)


DOMAINS: dict[str, Domain] = {
    "learning_rate": Domain("lr", float, open_low=True, high=1.0),
    "gamma": Domain("γ", float, high=1.0),
    "gae_lambda": Domain("λ", float, high=1.0),
    "clip_epsilon": Domain("ε", float, open_low=True, high=10.0),
    "value_coef": Domain("vf", float, high=1e6),
    "entropy_coef": Domain("ent", float, high=1e6),
    "max_grad_norm": Domain("norm", float, open_low=True, high=1e6),
    "n_steps": Domain("steps", int, low=1, high=LARGEST_COUNT),
    "batch_size": Domain("batch", int, low=1, high=LARGEST_COUNT),
    "n_epochs": Domain("epochs", int, low=1, high=10_000),
    "target_kl": Domain("kl", float, high=1e6),
    "anneal_learning_rate": Domain("anneal-lr", bool),
    "anneal_entropy_coef": Domain("anneal-ent", bool),
    "clip_value_loss": Domain("clip-vf", bool),
    "value_clip_epsilon": Domain("ε-vf", float, high=1e6),
    "anneal_clip_epsilon": Domain("anneal-ε", bool),
    "learning_rate_end": Domain("end-lr", float, high=100.0),
    "entropy_coef_end": Domain("end-ent", float, high=100.0),
    "clip_epsilon_end": Domain("end-ε", float, high=100.0),
    "cosine_annealing": Domain("cosine", bool),
    "normalize_advantages": Domain("norm-adv", bool),
    "advantages_by_rollout": Domain("adv-rollout", bool),
    "critic_learning_rate": Domain("lr-critic", float, high=1000.0),
    "adam_beta1": Domain("β1", float, high=0.999999),
    "adam_beta2": Domain("β2", float, high=0.999999),
    "adam_epsilon": Domain("adam-ε", float, open_low=True, high=1.0),
    "weight_decay": Domain("decay", float, high=100.0),
}
"""Hyperparameter -> its domain. With the fields of :class:`Hyperparameters` and of
:class:`HyperparameterOptions`, all that adding one needs besides the code that uses it: options,
space files, presets and reports follow."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The traced hyperparameters of PPO (Schulman et al., 2017, arXiv:1707.06347).

    A pytree with one scalar a field, so a compiled program takes it as an argument
    and ``vmap`` can batch it. The defaults are the baseline of every study.
    """

    learning_rate: float = 3e-4
    """Step size of Adam."""
    gamma: float = 0.99
    """Discount factor per environment step."""
    gae_lambda: float = 0.95
    """Decay of generalized advantage estimation."""
    clip_epsilon: float = 0.2
    """Half-width of the clipping interval of the probability ratio."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Largest global norm of a gradient."""
    n_steps: int = 2048
    """Transitions collected per iteration, over all environments of a seed."""
    batch_size: int = 256
    """Transitions in a minibatch."""
    n_epochs: int = 4
    """Passes over each rollout."""
    target_kl: float = 0.0
    """Skip the remaining passes once the mean approximate KL of one exceeds this; 0 for never."""
    anneal_learning_rate: bool = False
    """Move the learning rate to learning_rate_end over the training budget."""
    anneal_entropy_coef: bool = False
    """Move the entropy coefficient to entropy_coef_end over the training budget."""
    clip_value_loss: bool = True
    """Clip the change of the value estimate."""
    value_clip_epsilon: float = 0.0
    """Half-width of the value clip; 0 for clip_epsilon."""
    anneal_clip_epsilon: bool = False
    """Move clip_epsilon to clip_epsilon_end over the training budget."""
    learning_rate_end: float = 0.0
    """Where annealing of the learning rate ends, as a multiple of learning_rate."""
    entropy_coef_end: float = 0.0
    """Where annealing of the entropy coefficient ends, as a multiple of entropy_coef."""
    clip_epsilon_end: float = 0.0
    """Where annealing of clip_epsilon ends, as a multiple of clip_epsilon."""
    cosine_annealing: bool = False
    """Anneal along half a cosine, not along a line."""
    normalize_advantages: bool = True
    """Give the advantages that the policy loss uses mean 0 and deviation 1."""
    advantages_by_rollout: bool = False
    """Normalise advantages over the whole rollout, not over each minibatch."""
    critic_learning_rate: float = 1.0
    """Step size of the critic's parameters, as a multiple of learning_rate."""
    adam_beta1: float = 0.9
    """Decay of Adam's mean of gradients."""
    adam_beta2: float = 0.999
    """Decay of Adam's mean of squared gradients."""
    adam_epsilon: float = 1e-5
    """Added by Adam to the root of the mean of squared gradients."""
    weight_decay: float = 0.0
    """Share of each parameter that a step takes off, times the learning rate, as in AdamW."""

    @classmethod
    def of(cls, value: "Hyperparameters | Mapping[str, Any] | None") -> "Hyperparameters":
        """Return hyperparameters that are given as such or by name; the defaults for None.

        Raises:
          UserError: for anything else, an unknown name or a value outside its domain.
        """
        if value is None or isinstance(value, Mapping):
            return cls.from_dict(value or {})
        if not isinstance(value, Hyperparameters):
            raise UserError(
                f"hyperparameters must be Hyperparameters or a mapping, but got {value!r:.80}"
            )
        return value.validated()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Hyperparameters":
        """Return the defaults with `values` in their place, all of them checked.

        Raises:
          UserError: for an unknown name or a value outside its domain.
        """
        for name in values:
            require_hyperparameter(name)
        checked: dict[str, Any] = {n: DOMAINS[n].check(n, v) for n, v in values.items()}
        return cls(**checked)

    def to_dict(self) -> dict[str, bool | int | float]:
        """Return name -> plain Python number, in the order of the fields."""
        return dict(vars(self))

    def validated(self) -> "Hyperparameters":
        """Return the same hyperparameters as plain Python numbers of the right type.

        Raises:
          UserError: naming the first value that is outside its domain.
        """
        return self.from_dict(self.to_dict())

    def to_arrays(self) -> "Hyperparameters":
        """Return NumPy scalars of fixed dtypes, so that every call has one signature."""
        dtypes = {float: np.float32, int: np.int32, bool: np.bool_}
        return Hyperparameters(
            **{name: dtypes[DOMAINS[name].kind](v) for name, v in self.to_dict().items()}
        )


class HyperparameterOptions(TypedDict, total=False):
    """The fields of :class:`Hyperparameters` as keyword arguments, for type checkers."""

    learning_rate: float
    gamma: float
    gae_lambda: float
    clip_epsilon: float
    value_coef: float
    entropy_coef: float
    max_grad_norm: float
    n_steps: int
    batch_size: int
    n_epochs: int
    target_kl: float
    anneal_learning_rate: bool
    anneal_entropy_coef: bool
    clip_value_loss: bool
    value_clip_epsilon: float
    anneal_clip_epsilon: bool
    learning_rate_end: float
    entropy_coef_end: float
    clip_epsilon_end: float
    cosine_annealing: bool
    normalize_advantages: bool
    advantages_by_rollout: bool
    critic_learning_rate: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float


def require_hyperparameter(name: str) -> None:
    """Raise a ``UserError`` with the nearest match unless `name` is a hyperparameter."""
    if name not in DOMAINS:
        raise UserError(
            f"unknown hyperparameter {name!r}{nearest(name, DOMAINS)} (known: {', '.join(DOMAINS)})"
        )
