"""Actor-critic networks. What the outputs mean lives in :mod:`ppo_jax.distributions`."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ppo_jax.config import TrainConfig
from ppo_jax.environments import Environment

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return ``x @ kernel``, ``[..., in]`` times ``[in, out]``.

    On CPU the product that gives the gradient of the kernel takes forms that XLA has fast
    kernels for: it reads a left side transposed on the fly at half the speed, and a
    result of few columns at a tenth.
    """
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return product(x, kernel), (x, kernel)


def _product_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    kernel_gradient = jax.lax.platform_dependent(
        rows, columns, cpu=_kernel_gradient_on_cpu, default=lambda x, y: x.T @ y
    )
    return gradient @ kernel.T, kernel_gradient


def _kernel_gradient_on_cpu(x: jax.Array, y: jax.Array) -> jax.Array:
    if y.shape[1] < 8:
        return jnp.stack([y[:, column] @ x for column in range(y.shape[1])], axis=1)
    return jax.lax.optimization_barrier(x.T) @ y


product.defvjp(_product_forward, _product_backward)


def _dense(width: int, gain: float) -> nn.Dense:
    def dot_general(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return product(x, kernel)

    initializer = nn.initializers.orthogonal(gain)
    return nn.Dense(width, kernel_init=initializer, dot_general=dot_general)


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
            x = _ACTIVATIONS[self.activation](_dense(width, math.sqrt(2.0))(x))
        return _dense(self.output_size, self.output_gain)(x)


class ActorCritic(nn.Module):
    """Separate networks for the policy and for the value function.

    Observations of any shape are flattened.
    """

    num_actions: int
    observation_ndim: int = 1
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    def setup(self) -> None:
        self.actor = MLP(self.hidden_sizes, self.num_actions, 0.01, self.activation)
        self.critic = MLP(self.hidden_sizes, 1, 1.0, self.activation)

    def logits(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[..., *shape]`` to action logits ``[..., num_actions]``."""
        return self.actor(self._features(observation))

    def value(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[..., *shape]`` to state values ``[...]``."""
        return self.critic(self._features(observation)).squeeze(-1)

    def _features(self, observation: jax.Array) -> jax.Array:
        batch = observation.shape[: observation.ndim - self.observation_ndim]
        return observation.reshape(*batch, -1).astype(jnp.float32)

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
    return ActorCritic(
        environment.num_actions,
        len(environment.observation_shape),
        config.hidden_sizes,
        config.activation,
    )
