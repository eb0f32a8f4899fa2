"""What fixes the shapes of the compiled programs: environment, network and buffer sizes.

Everything here is static: two different configurations are two programs. What may
change between two calls of one program lives in :mod:`ppo_jax.hyperparameters`.
"""

import dataclasses
import math

from ppo_jax.errors import UserError, require_choice, require_count
from ppo_jax.hyperparameters import Hyperparameters

ACTIVATIONS = ("tanh", "relu", "gelu", "silu")

EnvKwargs = tuple[tuple[str, bool | int | float | str], ...]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The static half of a training run; frozen and hashable.

    Raises:
      UserError: when a size is not positive or the sizes do not fit together.
    """

    env: str = "CartPole-v1"
    """Environment name, as the suite registers it."""
    env_kwargs: EnvKwargs = ()
    """Overridden environment parameters, as sorted (name, value) pairs."""
    num_envs: int = 16
    """Parallel environments of one seed."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor and of the critic."""
    activation: str = "tanh"
    """Activation of the hidden layers."""
    n_steps_choices: tuple[int, ...] = (1024, 2048, 4096)
    """Rollout sizes the programs must be able to run."""
    batch_size_choices: tuple[int, ...] = (128, 256, 512)
    """Minibatch sizes the programs must be able to run."""
    eval_episodes: int = 32
    """Episodes of one evaluation of one seed."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "eval_episodes"):
            require_count(name, getattr(self, name))
        for name in ("hidden_sizes", "n_steps_choices", "batch_size_choices"):
            sizes = getattr(self, name)
            if not isinstance(sizes, tuple):
                raise UserError(f"{name} must be a tuple of integers, but got {sizes!r}")
            if not sizes and name != "hidden_sizes":
                raise UserError(f"{name} must name at least one size, but got {sizes!r}")
            for size in sizes:
                require_count(name, size)
        require_choice("activation", self.activation, ACTIVATIONS)
        for n_steps in self.n_steps_choices:
            if n_steps % self.num_envs:
                raise UserError(
                    f"n_steps must be a multiple of num_envs, but got n_steps={n_steps} "
                    f"with num_envs={self.num_envs}"
                )
            for batch_size in self.batch_size_choices:
                if batch_size > n_steps:
                    raise UserError(
                        f"batch_size must be at most n_steps, but got "
                        f"batch_size={batch_size} with n_steps={n_steps}"
                    )
                if n_steps % batch_size:
                    raise UserError(
                        f"batch_size must divide n_steps, but got "
                        f"batch_size={batch_size} with n_steps={n_steps}"
                    )

    @property
    def max_n_steps(self) -> int:
        """Transitions the rollout buffer of one seed can hold."""
        return max(self.n_steps_choices)

    @property
    def block_size(self) -> int:
        """Transitions of one block: the largest size that every rollout is made of.

        Loops inside a block have static trip counts, loops over blocks traced ones.
        """
        return math.gcd(*self.n_steps_choices)

    def check(self, hyperparameters: Hyperparameters) -> None:
        """Raise a ``UserError`` unless these programs can run `hyperparameters`."""
        for name in ("n_steps", "batch_size"):
            value, choices = getattr(hyperparameters, name), getattr(self, f"{name}_choices")
            if value not in choices:
                raise UserError(
                    f"{name} must be one of {', '.join(map(str, choices))} "
                    f"in this configuration, but got {value}"
                )


def config_for(hyperparameters: Hyperparameters, **static: object) -> TrainConfig:
    """Return the configuration whose programs are written for these shapes alone."""
    return TrainConfig(
        n_steps_choices=(hyperparameters.n_steps,),
        batch_size_choices=(hyperparameters.batch_size,),
        **static,  # type: ignore[arg-type]
    )


def checkpoint_steps(every: int, total: int) -> list[int]:
    """Return the nominal steps of a run's checkpoints; the last is the end of training.

    >>> checkpoint_steps(50_000, 120_000)
    [50000, 100000, 120000]
    """
    return [*range(every, total, every), total]
