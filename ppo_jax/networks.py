"""Actor-critic networks. What the outputs mean lives in :mod:`ppo_jax.distributions`."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config import AgentConfig
from ppo_jax.distributions import (
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
)
from ppo_jax.environments import ActionSpace, Discrete, MultiDiscrete, Spaces
from ppo_jax.errors import UserError
from ppo_jax.imports import imported

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


FORBIDDEN = -1e9
"""Logit of an action that the mask forbids: its probability is exactly 0, and so is its part of
an entropy, while all gradients stay finite."""


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return ``x @ kernel``, ``[..., in]`` times ``[in, out]``.

    On CPU the product that gives the gradient of the kernel takes forms that XLA has fast
    kernels for: it reads a left side transposed on the fly at half the speed, and a
    result of few columns at a tenth.
    """
    return x @ kernel


_Factors = tuple[jax.Array, jax.Array]


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, _Factors]:
    return product(x, kernel), (x, kernel)


def _product_backward(saved: _Factors, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    kernel_gradient = jax.lax.platform_dependent(
        rows, columns, cpu=_kernel_gradient_on_cpu, default=lambda x, y: x.T @ y
    )
    return gradient @ kernel.T, kernel_gradient


def _kernel_gradient_on_cpu(x: jax.Array, y: jax.Array) -> jax.Array:
    if y.shape[1] < 8:
        return jnp.stack([y[:, column] @ x for column in range(y.shape[1])], axis=1)
    transposed: jax.Array = jax.lax.optimization_barrier(x.T)
    return transposed @ y


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


class Convolutions(nn.Module):
    """3 × 3 convolutions of stride 1 without padding; channels last.

    Each is a product of patches and a kernel ``[9 * channels, features]``: with the
    parameters of several seeds XLA's own convolution is a grouped one, for which it has
    no fast kernel on CPU.
    """

    features: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., height, width, channels]`` to ``[..., everything]``."""
        for features in self.features:
            height, width = x.shape[-3] - 2, x.shape[-2] - 2
            patches = jnp.concatenate(
                [x[..., i : i + height, j : j + width, :] for i in range(3) for j in range(3)],
                axis=-1,
            )
            x = _ACTIVATIONS[self.activation](_dense(features, math.sqrt(2.0))(patches))
        return x.reshape(*x.shape[:-3], -1)


class ActorCritic(nn.Module):
    """Separate networks for the policy and for the value function.

    Attributes:
      distribution: of the actions; says what the policy's outputs mean.
      observation_ndim: dimensions of an observation. Without convolutions observations
        are flattened.
      conv_features: channels of the convolutions; none for an MLP.
      image_shapes: of the images that a vector of observations begins with; they pass the
        convolutions, the rest of the vector stands beside what comes out. Empty where the whole
        observation is the image.
      mask_size: length of the action mask at the end of a vector of observations.
      scale: observations are divided by it.
    """

    distribution: Distribution
    observation_ndim: int = 1
    conv_features: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initial_log_std: float = 0.0
    image_shapes: tuple[tuple[int, ...], ...] = ()
    mask_size: int = 0
    scale: float = 1.0

    def setup(self) -> None:
        """Create the parts; called by Flax."""
        width = self._create_scale()
        self.actor = MLP(self.hidden_sizes, width, 0.01, self.activation)
        self.critic = MLP(self.hidden_sizes, 1, 1.0, self.activation)
        if self.conv_features:
            self.actor_convolutions = Convolutions(self.conv_features, self.activation)
            self.critic_convolutions = Convolutions(self.conv_features, self.activation)

    @property
    def can_be_joined(self) -> bool:
        """Whether there is a :class:`JointActorCritic` of it."""
        return not self.conv_features

    def _create_scale(self) -> int:
        """Create the scale of a Gaussian, and return the number of the actor's own outputs."""
        width = self.distribution.width
        if self.distribution.state_independent_scale:
            width //= 2
            initializer = nn.initializers.constant(self.initial_log_std)
            self.log_std = self.param("log_std", initializer, (width,))
        return width

    def policy(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[..., *shape]`` to outputs ``[..., distribution.width]``."""
        x, mask = _unmasked(self._batched(observation), self.mask_size)
        features = self._features(self.actor_convolutions, x) if self.conv_features else _flat(x)
        return self._outputs(self.actor(features), mask, observation)

    def value(self, observation: jax.Array, memory: Any = ()) -> jax.Array:
        """Map observations ``[..., *shape]`` to state values ``[...]``.

        Args:
          observation: see above.
          memory: that the observations are met with; see :meth:`step`.
        """
        del memory
        x, _ = _unmasked(self._batched(observation), self.mask_size)
        features = self._features(self.critic_convolutions, x) if self.conv_features else _flat(x)
        values = self.critic(features)
        return values.reshape(self._batch_shape(observation))

    def fresh_memory(self, batch: tuple[int, ...]) -> Any:
        """Return the memory at the start of an episode, arrays ``[*batch, width]``; here none."""
        del batch
        return ()

    def step(self, observation: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """Return outputs, see :meth:`policy`, and the memory with these observations in it."""
        return self.policy(observation), memory

    def unroll(
        self, observation: jax.Array, memory: Any, starts: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Return outputs and values of the rows of a minibatch."""
        del memory, starts
        return self(observation)

    def _outputs(
        self, outputs: jax.Array, mask: jax.Array | None, observation: jax.Array
    ) -> jax.Array:
        """Return what the distribution needs, ``[..., width]``, from outputs of the actor."""
        outputs = _masked(outputs, mask)
        if self.distribution.state_independent_scale:
            log_std = jnp.broadcast_to(self.log_std, outputs.shape)
            outputs = jnp.concatenate([outputs, log_std], axis=-1)
        return outputs.reshape(*self._batch_shape(observation), -1)

    def of_critic(self, params: Any) -> Any:
        """Return which numbers in `params` are the critic's alone; a tree of bools like it."""

        def of_part(path: Any, leaf: jax.Array) -> jax.Array:
            return jnp.full(leaf.shape, any(key.key.startswith("critic") for key in path))

        return jax.tree_util.tree_map_with_path(of_part, params)

    def _batch_shape(self, observation: jax.Array) -> tuple[int, ...]:
        return observation.shape[: observation.ndim - self.observation_ndim]

    def _batched(self, observation: jax.Array) -> jax.Array:
        shape = observation.shape[observation.ndim - self.observation_ndim :]
        return _scaled(observation.reshape(-1, *shape), self.scale)

    def _features(self, convolutions: Convolutions, x: jax.Array) -> jax.Array:
        """Return what comes out of the convolutions, with all that is no image, ``[N, ...]``."""
        if not self.image_shapes:
            return convolutions(x)
        sizes = [math.prod(shape) for shape in self.image_shapes]
        *images, rest = jnp.split(x, np.cumsum(sizes).tolist(), axis=1)
        shaped = [y.reshape(-1, *s) for y, s in zip(images, self.image_shapes, strict=True)]
        return jnp.concatenate([convolutions(jnp.concatenate(shaped, axis=-1)), rest], axis=1)

    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (policy outputs, value) of `observation`."""
        return self.policy(observation), self.value(observation)


_CELLS: dict[str, Any] = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class RecurrentActorCritic(ActorCritic):
    """An actor and a critic that share what they remember of an episode.

    Observations pass the hidden layers but the last, or convolutions and those, then a cell of
    the last one's width, and a hidden layer more of either. The memory is the cell's state; at the
    start of an episode it is zero.

    Attributes:
      cell: gru (Cho et al., 2014, arXiv:1406.1078) or lstm (Hochreiter and Schmidhuber, 1997).
    """

    cell: str = "gru"

    def setup(self) -> None:
        """Create the parts; called by Flax."""
        outputs = self._create_scale()
        *encoder, width = self.hidden_sizes
        if self.conv_features:
            self.convolutions = Convolutions(self.conv_features, self.activation)
        self.encoder = [_dense(size, math.sqrt(2.0)) for size in encoder]
        self.core = _CELLS[self.cell](width)
        self.actor = MLP((width,), outputs, 0.01, self.activation)
        self.critic = MLP((width,), 1, 1.0, self.activation)

    @property
    def can_be_joined(self) -> bool:
        """See :class:`ActorCritic`."""
        return False

    def fresh_memory(self, batch: tuple[int, ...]) -> Any:
        """See :class:`ActorCritic`."""
        zeros = jnp.zeros((*batch, self.hidden_sizes[-1]))
        return (zeros, zeros) if self.cell == "lstm" else zeros

    def step(self, observation: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """See :class:`ActorCritic`."""
        features, mask = self._encoded(observation)
        after, remembered = self.core(_rows(memory), features)
        batch = self._batch_shape(observation)
        after = jax.tree.map(lambda x: x.reshape(*batch, x.shape[-1]), after)
        return self._outputs(self.actor(remembered), mask, observation), after

    def policy(self, observation: jax.Array) -> jax.Array:
        """Return the outputs for the first observations of episodes."""
        return self.step(observation, self.fresh_memory(self._batch_shape(observation)))[0]

    def value(self, observation: jax.Array, memory: Any = ()) -> jax.Array:
        """See :class:`ActorCritic`; without a memory, of the first observations of episodes."""
        batch = self._batch_shape(observation)
        memory = memory if jax.tree.leaves(memory) else self.fresh_memory(batch)
        features, _ = self._encoded(observation)
        return self.critic(self.core(_rows(memory), features)[1]).reshape(batch)

    def unroll(
        self, observation: jax.Array, memory: Any, starts: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Go through sequences from the memories at their starts.

        Args:
          observation: ``[sequences, length, *shape]``.
          memory: ``[sequences, width]``.
          starts: whether an episode begins with a step, bool ``[sequences, length]``.

        Returns:
          Outputs ``[sequences, length, distribution.width]``, values ``[sequences, length]``.
        """
        features, mask = self._encoded(observation)
        count, length = starts.shape
        cell = _CELLS[self.cell](self.hidden_sizes[-1], parent=None)
        variables = {"params": self.core.variables["params"]}

        def step(memory: Any, now: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            features, start = now
            memory, remembered = cell.apply(variables, forgotten(start, memory), features)
            return memory, remembered

        by_time = features.reshape(count, length, -1).swapaxes(0, 1), starts.T
        _, remembered = jax.lax.scan(step, memory, by_time)
        rows = remembered.swapaxes(0, 1).reshape(count * length, -1)
        outputs = self._outputs(self.actor(rows), mask, observation)
        return outputs, self.critic(rows).reshape(count, length)

    def _encoded(self, observation: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Return what the cell sees of observations, ``[N, features]``, and their masks."""
        x, mask = _unmasked(self._batched(observation), self.mask_size)
        x = self._features(self.convolutions, x) if self.conv_features else _flat(x)
        for layer in self.encoder:
            x = _ACTIVATIONS[self.activation](layer(x))
        return x, mask


def _rows(memory: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), memory)


class OwnActorCritic(ActorCritic):
    """A user's own network, between our observations and our distributions.

    Attributes:
      body: maps observations ``[N, *shape]``, float32, by ``policy`` to outputs ``[N, width]``,
        logits or means, and by ``value`` to state values ``[N]``.
    """

    body: Any = None

    def setup(self) -> None:
        """Create the parts; called by Flax."""
        self._create_scale()

    @property
    def can_be_joined(self) -> bool:
        """See :class:`ActorCritic`."""
        return False

    def policy(self, observation: jax.Array) -> jax.Array:
        """See :class:`ActorCritic`."""
        x, mask = _unmasked(self._batched(observation), self.mask_size)
        return self._outputs(self.body.policy(x), mask, observation)

    def value(self, observation: jax.Array, memory: Any = ()) -> jax.Array:
        """See :class:`ActorCritic`."""
        del memory
        x, _ = _unmasked(self._batched(observation), self.mask_size)
        values: jax.Array = self.body.value(x)
        return values.reshape(self._batch_shape(observation))


def _own(name: str, common: dict[str, Any], shape: tuple[int, ...]) -> OwnActorCritic:
    """Return the network that a user has named, checked against what is asked of it."""
    width = common["distribution"].width
    width //= 2 if common["distribution"].state_independent_scale else 1
    x = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    try:
        body = imported("network", name)(width)
        network = OwnActorCritic(body=body, **common)
        both = jax.eval_shape(
            lambda x: body.init_with_output(
                jax.random.key(0), x, method=lambda body, x: (body.policy(x), body.value(x))
            )[0],
            x,
        )
        found = tuple(part.shape for part in both)
    except UserError:
        raise
    except Exception as error:  # Whatever the user's module raises.
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(f"network {name!r} cannot be made: {reason}") from error
    if found != ((3, width), (3,)):
        raise UserError(
            f"network {name!r}: of 3 observations, policy must have the shape (3, {width}) and "
            f"value (3,), but they have {found[0]} and {found[1]}"
        )
    return network


def _scaled(observation: jax.Array, scale: float) -> jax.Array:
    x = observation.astype(jnp.float32)
    return x if scale == 1.0 else x / scale


def _unmasked(x: jax.Array, mask_size: int) -> tuple[jax.Array, jax.Array | None]:
    """Return observations ``[N, ...]`` without their masks, and these, ``[N, mask_size]``."""
    return (x[:, :-mask_size], x[:, -mask_size:]) if mask_size else (x, None)


def _masked(logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    return logits if mask is None else jnp.where(mask > 0, logits, FORBIDDEN)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class JointActorCritic:
    """Actor and critic of an :class:`ActorCritic` without convolutions, layer beside layer.

    Each layer of both is one batched product, where a GPU or a TPU would need a launch for
    either. The products of a CPU are slower batched than apart.

    Attributes:
      network: whose parts they are.
    """

    network: ActorCritic

    @property
    def distribution(self) -> Distribution:
        """Distribution of the actions."""
        return self.network.distribution

    def join(self, params: Any) -> Any:
        """Stack the parameters of actor and critic: ``[2, ...]`` in place of two of each.

        The critic's last layer has columns of zeros more, as many as the actor has outputs.
        They get no gradient, and so stay zero.
        """
        parts = dict(params["params"])

        def stack(actor: jax.Array, critic: jax.Array) -> jax.Array:
            more = [(0, n - m) for n, m in zip(actor.shape, critic.shape, strict=True)]
            return jnp.stack([actor, jnp.pad(critic, more)])

        layers = jax.tree.map(stack, parts.pop("actor"), parts.pop("critic"))
        return {"layers": layers, **parts}

    def split(self, joined: Any) -> Any:
        """Return what :meth:`join` was given."""
        parts = dict(joined)
        layers = parts.pop("layers")
        last = layers[f"Dense_{len(layers) - 1}"]
        critic = layers | {f"Dense_{len(layers) - 1}": jax.tree.map(lambda x: x[..., :1], last)}
        halves = {
            "actor": jax.tree.map(lambda x: x[0], layers),
            "critic": jax.tree.map(lambda x: x[1], critic),
        }
        return {"params": {**parts, **halves}}

    def of_critic(self, joined: Any) -> Any:
        """Return which numbers in `joined` are the critic's alone; a tree of bools like it."""
        second = jnp.array([False, True])
        parts: Any = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), joined)
        layers = jax.tree.map(
            lambda x: jnp.broadcast_to(second.reshape(2, *(1,) * (x.ndim - 1)), x.shape),
            joined["layers"],
        )
        return parts | {"layers": layers}

    def apply(self, joined: Any, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return policy outputs ``[B, width]`` and values ``[B]`` of ``[B, ...]``."""
        network, layers = self.network, joined["layers"]
        x, mask = _unmasked(_scaled(_flat(observation), network.scale), network.mask_size)
        x = jnp.broadcast_to(x, (2, *x.shape))  # Both see the same.
        for number in range(len(layers)):
            kernel, bias = (layers[f"Dense_{number}"][name] for name in ("kernel", "bias"))
            x = jnp.einsum("nbi,nio->nbo", x, kernel) + bias[:, None]
            if number + 1 < len(layers):
                x = _ACTIVATIONS[network.activation](x)
        outputs, values = _masked(x[0], mask), x[1, :, 0]
        if self.distribution.state_independent_scale:
            log_std = jnp.broadcast_to(joined["log_std"], outputs.shape)
            outputs = jnp.concatenate([outputs, log_std], axis=-1)
        return outputs, values


def policy_outputs(network: ActorCritic, params: Any, observation: jax.Array) -> jax.Array:
    """Run the actor alone; see :meth:`ActorCritic.policy`."""
    return network.apply(params, observation, method="policy")  # type: ignore[return-value]


def policy_step(
    network: ActorCritic, params: Any, observation: jax.Array, memory: Any
) -> tuple[jax.Array, Any]:
    """Run the actor alone, with its memory; see :meth:`ActorCritic.step`."""
    acted: Any = network.apply(params, observation, memory, method="step")
    outputs, memory = acted
    return outputs, memory


def state_value(
    network: ActorCritic, params: Any, observation: jax.Array, memory: Any = ()
) -> jax.Array:
    """Run the critic alone; see :meth:`ActorCritic.value`."""
    return network.apply(params, observation, memory, method="value")  # type: ignore[return-value]


def outputs_and_value(
    network: "ActorCritic | JointActorCritic",
    params: Any,
    observation: jax.Array,
    memory: Any = (),
    starts: Any = (),
) -> tuple[jax.Array, jax.Array]:
    """Run both; see :meth:`ActorCritic.unroll`."""
    if isinstance(network, JointActorCritic):
        return network.apply(params, observation)
    unrolled: Any = network.apply(params, observation, memory, starts, method="unroll")
    outputs, value = unrolled
    return outputs, value


def forgotten(where: jax.Array, memory: Any) -> Any:
    """Return a memory, ``[..., width]``, that is fresh again where bool ``[...]`` says so."""
    return jax.tree.map(lambda x: jnp.where(where[..., None], 0.0, x), memory)


def make_network(config: AgentConfig, spaces: Spaces) -> ActorCritic:
    """Return the network of `config` for `spaces`.

    Raises:
      UserError: when the configuration asks for what the spaces do not allow.
    """
    shape = spaces.observation_shape
    smallest = 1 + 2 * len(config.conv_features)
    seen = (*spaces.image_shapes, shape)[0]
    image = len(seen) == 3 and min(seen[:2]) >= smallest
    if config.network == "cnn" and not image:
        raise UserError(
            f"network 'cnn' needs images of at least {smallest} × {smallest} × channels, "
            f"but the observations have shape {seen}"
        )
    common: dict[str, Any] = {
        "distribution": _distribution(spaces.action_space, config.squash_actions),
        "observation_ndim": len(shape),
        "initial_log_std": config.initial_log_std,
        "image_shapes": spaces.image_shapes,
        "mask_size": spaces.mask_size,
        "scale": 1.0 if config.normalize_observations else spaces.scale,
    }
    if ":" in config.network:
        return _own(config.network, common, spaces.measured_shape)
    layers: dict[str, Any] = {
        "conv_features": config.conv_features if image and config.network != "mlp" else (),
        "hidden_sizes": config.hidden_sizes,
        "activation": config.activation,
    }
    if config.recurrent:
        return RecurrentActorCritic(cell=config.network, **layers, **common)
    return ActorCritic(**layers, **common)


def _distribution(space: ActionSpace, squash: bool) -> Distribution:
    if isinstance(space, Discrete | MultiDiscrete):
        if squash:
            raise UserError("squash_actions is for continuous actions, but these are discrete")
        return (
            Categorical(space.n) if isinstance(space, Discrete) else MultiCategorical(space.sizes)
        )
    if not squash:
        return Gaussian(space.low, space.high)
    if not all(map(math.isfinite, space.low + space.high)):
        raise UserError(
            f"squash_actions needs actions with finite bounds, but got {space.low} to {space.high}"
        )
    return SquashedGaussian(space.low, space.high)
