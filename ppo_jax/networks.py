"""Actor-critic networks. What the outputs mean lives in :mod:`ppo_jax.distributions`."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from ppo_jax.config import TrainConfig
from ppo_jax.environments import Environment

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


class MLP(nn.Module):
    """A multi-layer perceptron with orthogonal initialisation and zero biases.

    Hidden layers have gain sqrt(2), the output layer `output_gain` (Andrychowicz et
    al., 2021, arXiv:2006.05990; Huang et al., 2022, "The 37 Implementation Details
    of Proximal Policy Optimization", detail 2).
    """

    hidden_sizes: tuple[int, ...]
    output_size: int
    output_gain: float
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., features]`` to ``[..., output_size]``."""
        for width in self.hidden_sizes:
            x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(math.sqrt(2.0)))(x)
            x = _ACTIVATIONS[self.activation](x)
        return nn.Dense(self.output_size, kernel_init=nn.initializers.orthogonal(self.output_gain))(
            x
        )


class ActorCritic(nn.Module):
    """Separate networks for the policy and for the value function."""

    num_actions: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    def setup(self) -> None:
        self.actor = MLP(self.hidden_sizes, self.num_actions, 0.01, self.activation)
        self.critic = MLP(self.hidden_sizes, 1, 1.0, self.activation)

    def logits(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[..., features]`` to action logits ``[..., num_actions]``."""
        return self.actor(observation)

    def value(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[..., features]`` to state values ``[...]``."""
        return self.critic(observation).squeeze(-1)

    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (logits, value) of `observation`."""
        return self.logits(observation), self.value(observation)


def action_logits(network: ActorCritic, params: Any, observation: jax.Array) -> jax.Array:
    """Run the actor alone; see :meth:`ActorCritic.logits`."""
    return network.apply(params, observation, method="logits")  # type: ignore[return-value]


def state_value(network: ActorCritic, params: Any, observation: jax.Array) -> jax.Array:
    """Run the critic alone; see :meth:`ActorCritic.value`."""
    return network.apply(params, observation, method="value")  # type: ignore[return-value]


def make_network(config: TrainConfig, environment: Environment) -> ActorCritic:
    """Return the network of `config` for the spaces of `environment`."""
    return ActorCritic(environment.num_actions, config.hidden_sizes, config.activation)
