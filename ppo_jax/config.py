"""What fixes the shapes of the compiled programs: environment, network and buffer sizes.

Everything here is static: two different configurations are two programs. What may
change between two calls of one program lives in :mod:`ppo_jax.hyperparameters`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypedDict

from ppo_jax.errors import UserError, is_number, nearest, require_choice, require_count
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.imports import name_of

ACTIVATIONS = ("tanh", "relu", "gelu", "silu")
RECURRENT = ("gru", "lstm")
NETWORKS = ("auto", "mlp", "cnn", *RECURRENT)
PRECISIONS = ("default", "high", "highest")

MOST_LAYERS = 100

EnvValue = bool | int | float | str
EnvKwargs = tuple[tuple[str, EnvValue], ...]


def sorted_env_kwargs(values: Mapping[str, EnvValue] | EnvKwargs) -> EnvKwargs:
    """Return environment parameters, given as a mapping or as pairs, as sorted pairs.

    Raises:
      UserError: unless they are names and plain values.

    >>> sorted_env_kwargs({"max_steps_in_episode": 1000, "gravity": 9.81})
    (('gravity', 9.81), ('max_steps_in_episode', 1000))
    """
    try:
        pairs = dict(values)
    except (TypeError, ValueError):
        raise UserError(
            f"env_kwargs must be a mapping of names to values, but got {values!r}"
        ) from None
    for name, value in pairs.items():
        if not isinstance(name, str) or not isinstance(value, EnvValue):
            raise UserError(
                "env_kwargs must be a mapping of names to numbers, texts, true or false, "
                f"but got {name!r}: {value!r}"
            )
    return tuple(sorted(pairs.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What the agent is made of, whatever it is trained on and with.

    Raises:
      UserError: naming the field, its value and what is allowed.
    """

    num_envs: int = 16
    """Parallel environments of one seed."""
    network: str = "auto"
    """mlp, cnn, or auto: cnn where observations are images, mlp elsewhere. gru and lstm remember
    what an episode has shown before. One of your own is module:Class, in Python also the class."""
    sequence_length: int = 16
    """Steps of an environment in a row that a gru or an lstm learns from."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor and of the critic."""
    conv_features: tuple[int, ...] = (16,)
    """Channels of the 3 × 3 convolutions of a cnn, before the hidden layers."""
    activation: str = "tanh"
    """Activation of all hidden layers: tanh, relu, gelu or silu."""
    initial_log_std: float = 0.0
    """Initial log standard deviation of continuous actions, whose range is [-1, 1]."""
    squash_actions: bool = False
    """Keep continuous actions inside their bounds by tanh. By clipping if not given."""
    normalize_observations: bool = False
    """Give observations mean 0 and variance 1 by running statistics."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of discounted returns."""

    def __post_init__(self) -> None:
        require_count("num_envs", self.num_envs)
        for name in ("hidden_sizes", "conv_features"):
            _require_sizes(name, getattr(self, name))
        require_count("sequence_length", self.sequence_length)
        self._require_network()
        if self.network == "cnn" and not self.conv_features:
            raise UserError("conv_features must name at least one size for a cnn, but got ()")
        require_choice("activation", self.activation, ACTIVATIONS)
        if not is_number(self.initial_log_std) or abs(self.initial_log_std) >= 20:
            raise UserError(
                f"initial_log_std must be a number between -20 and 20, "
                f"but got {self.initial_log_std!r}"
            )
        for name in ("squash_actions", "normalize_observations", "normalize_rewards"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, but got {getattr(self, name)!r}")

    def _require_network(self) -> None:
        if callable(self.network):
            object.__setattr__(self, "network", name_of(self.network))
        if isinstance(self.network, str) and ":" in self.network:
            if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.network):
                raise UserError(
                    f"a network of your own is named as module:Class, but got {self.network!r}"
                )
            _asked.add(self.network)
        else:
            require_choice("network", self.network, NETWORKS)
        if self.recurrent and not self.hidden_sizes:
            raise UserError(f"hidden_sizes must name at least one size for a {self.network}")

    @property
    def recurrent(self) -> bool:
        """Whether the network remembers; see :class:`ppo_jax.networks.RecurrentActorCritic`."""
        return self.network in RECURRENT

    @property
    def row_size(self) -> int:
        """Transitions that minibatches keep together: a sequence of a recurrent network, else 1."""
        return self.sequence_length if self.recurrent else 1

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes; strict JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def of(cls, value: "AgentConfig | Mapping[str, Any] | None") -> "AgentConfig":
        """Return an agent that is given as such or by its settings; the default for None.

        Raises:
          UserError: for anything else, an unknown name or a wrong value.
        """
        if value is None or isinstance(value, Mapping):
            return cls.from_dict(value or {}, asked=True)
        if not isinstance(value, AgentConfig):
            raise UserError(f"agent must be an AgentConfig or a mapping, but got {value!r:.80}")
        return value

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, asked: bool = False) -> "AgentConfig":
        """Restore :meth:`to_dict`; what is missing keeps its default.

        Args:
          values: setting -> value.
          asked: whether they are what a user asks for, and no data. The network may be the class
            itself then.

        Raises:
          UserError: for an unknown name or a wrong value; of data, for a network that is code to
            import, unless a user of this process has asked for it as well.
        """
        if not asked:
            require_asked(
                values.get("network"), "a file or a storage", "pass --network, or network=,"
            )
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UserError(
                    f"unknown agent setting {name!r}{nearest(name, known)} "
                    f"(known: {', '.join(known)})"
                )
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


class AgentOptions(TypedDict, total=False):
    """The fields of :class:`AgentConfig` as keyword arguments, for type checkers."""

    num_envs: int
    network: str | Callable[..., Any]
    sequence_length: int
    hidden_sizes: tuple[int, ...]
    conv_features: tuple[int, ...]
    activation: str
    initial_log_std: float
    squash_actions: bool
    normalize_observations: bool
    normalize_rewards: bool


def changed(value: Hyperparameters | AgentConfig) -> dict[str, Any]:
    """Return name -> value of what differs from the defaults.

    >>> changed(Hyperparameters(gamma=0.9))
    {'gamma': 0.9}
    """
    defaults = type(value)().to_dict()
    return {name: x for name, x in value.to_dict().items() if x != defaults[name]}


_asked: set[str] = set()
"""Networks of their own that users of this process have named."""


def require_asked(network: Any, source: str, remedy: str) -> None:
    """Raise a ``UserError`` if data name code that the user has not asked for.

    Args:
      network: of an agent.
      source: what names it.
      remedy: how to ask for it, but for the name.
    """
    if isinstance(network, str) and ":" in network and network not in _asked:
        raise UserError(
            f"{source} names the network {network!r}, whose code would be imported and run; "
            f"if you trust it, {remedy} {network}"
        )


def ask_for(network: str | Callable[..., Any] | None) -> None:
    """Let data that this process reads name `network`, if it is a user's own."""
    if network is not None:
        AgentConfig.of({"network": network})


def _require_sizes(name: str, sizes: Any) -> None:
    if not isinstance(sizes, tuple):
        raise UserError(f"{name} must be a tuple of integers, but got {sizes!r}")
    if len(sizes) > MOST_LAYERS:
        raise UserError(f"{name} must be at most {MOST_LAYERS} sizes, but got {len(sizes)}")
    for size in sizes:
        require_count(name, size)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The static half of a training run; frozen and hashable.

    Raises:
      UserError: when a size is not positive or the sizes do not fit together.
    """

    env: str = "CartPole-v1"
    """Environment name; see :func:`ppo_jax.environments.make`."""
    env_kwargs: EnvKwargs = ()
    """Overridden environment parameters, as sorted (name, value) pairs."""
    agent: AgentConfig = AgentConfig()
    """What is trained: network, parallel environments, normalisation."""
    n_steps_choices: tuple[int, ...] = (1024, 2048, 4096)
    """Rollout sizes the programs must be able to run."""
    batch_size_choices: tuple[int, ...] = (128, 256, 512)
    """Minibatch sizes the programs must be able to run."""
    eval_episodes: int = 32
    """Episodes of one evaluation of one seed."""
    matmul_precision: str = "default"
    """Precision of matrix products in JAX's words: default, high or highest. The default of an
    NVIDIA GPU is TF32 and of a TPU bfloat16; highest is float32 everywhere. A CPU has no other."""
    switched_normalization: bool = False
    """Whether each run says if its observations and rewards are normalised, so that one program
    serves runs with and without; see :class:`ppo_jax.programs.Programs`."""

    def __post_init__(self) -> None:
        require_count("eval_episodes", self.eval_episodes)
        require_choice("matmul_precision", self.matmul_precision, PRECISIONS)
        for name in ("n_steps_choices", "batch_size_choices"):
            sizes = getattr(self, name)
            _require_sizes(name, sizes)
            if not sizes:
                raise UserError(f"{name} must name at least one size, but got {sizes!r}")
        length = self.agent.row_size
        for n_steps in self.n_steps_choices:
            if n_steps % self.agent.num_envs:
                raise UserError(
                    f"n_steps must be a multiple of num_envs, but got n_steps={n_steps} "
                    f"with num_envs={self.agent.num_envs}"
                )
            if n_steps // self.agent.num_envs % length:
                raise UserError(
                    f"sequence_length must divide the steps of each environment in a rollout, "
                    f"n_steps / num_envs, but got sequence_length={length} with "
                    f"n_steps={n_steps} and num_envs={self.agent.num_envs}"
                )
            if not any(n_steps % batch_size == 0 for batch_size in self.batch_size_choices):
                _refuse_together(n_steps, self.batch_size_choices[0])
        for batch_size in self.batch_size_choices:
            if not any(n_steps % batch_size == 0 for n_steps in self.n_steps_choices):
                _refuse_together(self.n_steps_choices[0], batch_size)
            if batch_size % length:
                raise UserError(
                    f"sequence_length must divide batch_size, but got sequence_length={length} "
                    f"with batch_size={batch_size}"
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

    @property
    def micro_batch_size(self) -> int:
        """Rows of a micro-minibatch: the largest size that every minibatch is made of."""
        return math.gcd(*self.batch_size_choices)

    def minibatch_block(self, batch_size: int) -> int:
        """Return the largest block that every rollout for this minibatch is made of."""
        return math.gcd(*(n for n in self.n_steps_choices if n % batch_size == 0))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as strict JSON, for descriptions of runs."""
        return {
            "env": self.env,
            "env_kwargs": dict(self.env_kwargs),
            "agent": self.agent.to_dict(),
            "n_steps_choices": list(self.n_steps_choices),
            "batch_size_choices": list(self.batch_size_choices),
            "eval_episodes": self.eval_episodes,
            "matmul_precision": self.matmul_precision,
        }

    def check(self, hyperparameters: Hyperparameters) -> None:
        """Raise a ``UserError`` unless these programs can run `hyperparameters`."""
        for name in ("n_steps", "batch_size"):
            value, choices = getattr(hyperparameters, name), getattr(self, f"{name}_choices")
            if value not in choices:
                raise UserError(
                    f"{name} must be one of {', '.join(map(str, choices))} "
                    f"in this configuration, but got {value}"
                )
        if hyperparameters.n_steps % hyperparameters.batch_size:
            _refuse_together(hyperparameters.n_steps, hyperparameters.batch_size)


def _refuse_together(n_steps: int, batch_size: int) -> NoReturn:
    what = "be at most" if batch_size > n_steps else "divide"
    raise UserError(
        f"batch_size must {what} n_steps, but got batch_size={batch_size} with n_steps={n_steps}"
    )


def config_for(
    hyperparameters: Hyperparameters, agent: AgentConfig | None = None, **static: Any
) -> TrainConfig:
    """Return the configuration whose programs serve the sizes of `hyperparameters` alone.

    Args:
      hyperparameters: only `n_steps` and `batch_size` matter here.
      agent: the default agent if not given.
      static: the other fields of :class:`TrainConfig`.
    """
    return TrainConfig(
        agent=agent or AgentConfig(),
        n_steps_choices=(hyperparameters.n_steps,),
        batch_size_choices=(hyperparameters.batch_size,),
        **static,
    )


def iterations_for(steps: int, n_steps: int) -> int:
    """Return the iterations of `n_steps` transitions that reach `steps` at the least.

    Raises:
      UserError: when there are more than a compiled program can count.

    >>> iterations_for(50_000, 2048), iterations_for(50_000, 2048) * 2048
    (25, 51200)
    """
    if steps > n_steps * _MOST_ITERATIONS:
        raise UserError(
            f"there must be at most {n_steps * _MOST_ITERATIONS:,} environment steps with "
            f"n_steps={n_steps}, but got {steps:,}"
        )
    return -(-steps // n_steps)


_MOST_ITERATIONS = 2**31 - 2
"""Compiled programs count in int32."""


def checkpoint_steps(every: int, total: int) -> list[int]:
    """Return the nominal steps of a run's checkpoints; the last is the end of training.

    Raises:
      UserError: when there are more than 100,000 of them.

    >>> checkpoint_steps(50_000, 120_000)
    [50000, 100000, 120000]
    """
    if total // every >= 100_000:
        raise UserError(
            f"there must be at most 100,000 checkpoints, but got one every {every} of {total} steps"
        )
    return [*range(every, total, every), total]
