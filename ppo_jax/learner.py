"""Minibatch updates: epochs over a rollout, each in a fresh order."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ppo_jax.config import TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import LossMetrics, normalize, ppo_loss
from ppo_jax.networks import ActorCritic, JointActorCritic, outputs_and_value

Network = ActorCritic | JointActorCritic
"""The network of a configuration, or the form of it that updates run with."""

_Carry = tuple[Any, ...]
_Learned = tuple[Any, optax.OptState, LossMetrics]


class Experience(NamedTuple):
    """A rollout as the learner sees it, one row a transition: ``[N, ...]``.

    Of a recurrent network a row is a sequence, ``[N, sequence_length, ...]``.

    Attributes:
      memory: what the network remembered at the start of a sequence, ``[N, ...]``.
      starts: whether an episode begins with a step, bool.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array
    memory: Any = ()
    starts: Any = ()


def make_optimizer(
    hyperparameters: Hyperparameters, of_critic: jax.Array | bool = False
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) after clipping by global norm.

    Made inside the traced function, so that all hyperparameters stay arguments of the compiled
    program. The optimizer's state does not depend on them.

    It sees all parameters as one vector: a few wide operations in place of a few for
    every layer, which compile faster and are fewer kernels to launch.

    Args:
      hyperparameters: traced scalars.
      of_critic: which parameters are the critic's, bool ``[parameters]``.
    """
    h = hyperparameters
    step_size = jnp.where(of_critic, h.learning_rate * h.critic_learning_rate, h.learning_rate)
    adam = optax.chain(
        _scale_by_adam(h.adam_beta1, h.adam_beta2, h.adam_epsilon),
        optax.add_decayed_weights(h.weight_decay),
        optax.scale_by_learning_rate(step_size),
    )
    return optax.flatten(optax.chain(optax.clip_by_global_norm(h.max_grad_norm), adam))


def _scale_by_adam(
    beta1: jax.Array | float, beta2: jax.Array | float, epsilon: jax.Array | float
) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` of a vector, with decays that are traced.

    In float32, 1 - beta has lost digits that beta still had in decimals; optax takes it from
    Python's floats. Here it is rounded to the 7 decimals that float32 tells apart.
    """
    rest1, rest2 = (jnp.round((1.0 - beta) * 1e7) / 1e7 for beta in (beta1, beta2))

    def update(
        gradient: Any, state: optax.OptState, params: Any = None
    ) -> tuple[Any, optax.OptState]:
        del params
        assert isinstance(state, optax.ScaleByAdamState)
        count = optax.safe_increment(state.count)
        mean = rest1 * gradient + beta1 * state.mu
        square = rest2 * gradient**2 + beta2 * state.nu
        corrected = (m / (1 - b**count) for m, b in ((mean, beta1), (square, beta2)))
        mean_hat, square_hat = corrected
        scaled = mean_hat / (jnp.sqrt(square_hat) + epsilon)
        return scaled, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def update(
    config: TrainConfig,
    network: ActorCritic,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    hyperparameters: Hyperparameters,
    key: jax.Array,
    *,
    few_launches: bool = False,
) -> tuple[Any, optax.OptState, LossMetrics]:
    """Run ``n_epochs`` passes of minibatch updates over a rollout.

    With a ``target_kl`` above 0, an epoch is the last one when the mean of the approximate KL
    divergence over its minibatches exceeds it. Each seed stops by its own.

    Args:
      config: static.
      network: static.
      params: network parameters.
      optimizer_state: of :func:`make_optimizer`.
      experience: of :func:`ppo_jax.trainer.prepare`; its first ``n_steps`` transitions are used.
      hyperparameters: traced scalars; the rates as they are to be used in this update.
      key: of this update; it shuffles the epochs.
      few_launches: static; whether to spare launches at the cost of arithmetic and copies.

    Returns:
      New parameters and optimizer state, and the mean of the metrics over minibatches.
    """
    arguments = (params, optimizer_state, experience, hyperparameters, key)
    learn = partial(_update, config, few_launches)
    return joined(learn, network, *arguments) if few_launches else learn(network, *arguments)


def joined(
    learn: Callable[..., _Learned],
    network: ActorCritic,
    params: Any,
    optimizer_state: optax.OptState,
    *rest: Any,
    vmap: Callable[..., Any] = lambda function: function,
) -> _Learned:
    """Run an update with actor and critic as one network; see :class:`JointActorCritic`.

    Args:
      learn: takes a network, its parameters, the optimizer's state and `rest`.
      network: static.
      params: of `network`.
      optimizer_state: of :func:`make_optimizer`.
      *rest: further arguments.
      vmap: maps over what `params` and `optimizer_state` hold more than one of.
    """
    if not network.can_be_joined:
        return learn(network, params, optimizer_state, *rest)
    joint = JointActorCritic(network)

    def join(params: Any, optimizer_state: optax.OptState) -> tuple[Any, optax.OptState]:
        restore = ravel_pytree(params)[1]
        moved = _moments(lambda x: ravel_pytree(joint.join(restore(x)))[0], optimizer_state)
        return joint.join(params), moved

    def split(joined: Any, optimizer_state: optax.OptState) -> tuple[Any, optax.OptState]:
        restore = ravel_pytree(joined)[1]
        moved = _moments(lambda x: ravel_pytree(joint.split(restore(x)))[0], optimizer_state)
        return joint.split(joined), moved

    *learned, metrics = learn(joint, *vmap(join)(params, optimizer_state), *rest)
    return *vmap(split)(*learned), metrics


def _moments(
    function: Callable[[jax.Array], jax.Array], optimizer_state: optax.OptState
) -> optax.OptState:
    """Apply a function to the vectors in an optimizer's state: numbers of all parameters."""
    return jax.tree.map(lambda leaf: function(leaf) if leaf.ndim else leaf, optimizer_state)


def _update(
    config: TrainConfig,
    few_launches: bool,
    network: Network,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    hyperparameters: Hyperparameters,
    key: jax.Array,
) -> _Learned:
    branches = [
        partial(_run_epochs, config, few_launches, network, batch_size)
        for batch_size in config.batch_size_choices
    ]
    updated: _Learned = jax.lax.switch(
        index_of(hyperparameters.batch_size, config.batch_size_choices),
        branches,
        params,
        optimizer_state,
        experience,
        hyperparameters,
        key,
    )
    return updated


@jax.named_scope("epochs")
def _run_epochs(
    config: TrainConfig,
    few_launches: bool,
    network: Network,
    batch_size: int,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    hyperparameters: Hyperparameters,
    key: jax.Array,
) -> _Learned:
    block_size = config.minibatch_block(batch_size)
    batches_per_block = block_size // batch_size
    n_blocks = hyperparameters.n_steps // block_size
    rows_used = config.max_n_steps // block_size * block_size // config.agent.row_size

    def batch_of(rows: jax.Array) -> tuple[Experience, jax.Array]:
        batch = jax.tree.map(lambda x: x[rows], experience)
        return batch, minibatch_advantages(batch.advantage, hyperparameters)

    def minibatch(carry: _Carry, of_scan: Any) -> tuple[_Carry, None]:
        params, optimizer_state, sums = carry
        batch, advantages = of_scan if few_launches else batch_of(of_scan)
        gradient, metrics = minibatch_gradient(params, network, batch, advantages, hyperparameters)
        params, optimizer_state = optimizer_step(
            params, network, optimizer_state, gradient, hyperparameters
        )
        return (params, optimizer_state, jax.tree.map(jnp.add, sums, metrics)), None

    def wanted(loop: _Carry) -> jax.Array:
        epochs: jax.Array = loop[0]
        stopped: jax.Array = loop[1]
        return (epochs < hyperparameters.n_epochs) & ~stopped

    def epoch(loop: _Carry) -> _Carry:
        index, _, carry = loop
        order = shuffle_rollout(config, jax.random.fold_in(key, index), hyperparameters.n_steps)
        order = order[:rows_used].reshape(
            -1, batches_per_block, batch_size // config.agent.row_size
        )

        def block(index: jax.Array, carry: _Carry) -> _Carry:
            # A static scan inside the traced loop: a GPU pays for every traced iteration.
            rows = order[index]
            # Gathered at once, which costs the block a copy and spares each minibatch launches.
            batches = jax.vmap(batch_of)(rows) if few_launches else rows
            done: _Carry = jax.lax.scan(minibatch, carry, batches)[0]
            return done

        before = carry[-1].approx_kl
        carry = jax.lax.fori_loop(0, n_blocks, block, carry)
        kl = (carry[-1].approx_kl - before) / (n_blocks * batches_per_block)
        target = hyperparameters.target_kl
        return index + 1, (target > 0) & (kl > target), carry

    start = (params, optimizer_state, LossMetrics.zero())
    loop = (jnp.int32(0), jnp.array(False), start)
    epochs, _, (params, optimizer_state, sums) = jax.lax.while_loop(wanted, epoch, loop)
    n_updates = epochs * n_blocks * batches_per_block
    return params, optimizer_state, jax.tree.map(lambda total: total / n_updates, sums)


def shuffle_rollout(config: TrainConfig, key: jax.Array, n_steps: jax.Array | int) -> jax.Array:
    """Return all rows, of which those of the first `n_steps` transitions are a permutation.

    One branch a rollout size, so that a short rollout does not pay for sorting a long one.
    """
    all_rows = config.max_n_steps // config.agent.row_size

    def branch(size: int) -> Callable[[jax.Array], jax.Array]:
        return lambda key: jnp.pad(shuffle(key, size), (0, all_rows - size))

    branches = [branch(size // config.agent.row_size) for size in config.n_steps_choices]
    rows: jax.Array = jax.lax.switch(index_of(n_steps, config.n_steps_choices), branches, key)
    return rows


def shuffle(key: jax.Array, size: int) -> jax.Array:
    """Return a random permutation of ``range(size)``, int32.

    Sorts random bits. Up to 65,536 entries the index rides in the low bits of the
    sorted word, since sorting single words is several times faster on CPU than sorting
    pairs; at least 16 random bits remain, so fewer than 1 in 65,536 pairs tie and keep
    their order.
    """
    bits, index = jax.random.bits(key, (size,)), jnp.arange(size, dtype=jnp.uint32)
    if size > 2**16:
        order: jax.Array = jax.lax.sort((bits, index), num_keys=1)[1]
        return order.astype(jnp.int32)
    mask = jnp.uint32(2 ** (size - 1).bit_length() - 1)
    rows: jax.Array = (jnp.sort((bits & ~mask) | index) & mask).astype(jnp.int32)
    return rows


def index_of(value: jax.Array | int, choices: tuple[int, ...]) -> jax.Array:
    """Return where `value`, a traced scalar, stands among static `choices`."""
    return jnp.argmax(jnp.array(choices) == value)


def minibatch_gradient(
    params: Any,
    network: Network,
    batch: Experience,
    advantages: jax.Array,
    hyperparameters: Hyperparameters,
) -> tuple[Any, LossMetrics]:
    """Return the gradient of the loss of a minibatch, and its metrics.

    Args:
      params: network parameters.
      network: static.
      batch: ``[B, ...]``.
      advantages: of the batch; see :func:`minibatch_advantages`, ``[B]``.
      hyperparameters: traced scalars; the rates as they are to be used.
    """
    gradient, metrics = jax.grad(_loss, has_aux=True)(
        params, network, batch, advantages, hyperparameters
    )
    return gradient, metrics


def policy_advantages(
    advantages: jax.Array, used: jax.Array, hyperparameters: Hyperparameters
) -> jax.Array:
    """Normalise the advantages of a rollout where that is done for all of it at once.

    Args:
      advantages: any shape.
      used: which of them were collected, bool of that shape.
      hyperparameters: traced scalars.
    """
    h = hyperparameters
    at_once: jax.Array = jnp.asarray(h.normalize_advantages) & h.advantages_by_rollout
    return jnp.where(at_once, normalize(advantages, used), advantages)


def minibatch_advantages(advantages: jax.Array, hyperparameters: Hyperparameters) -> jax.Array:
    """Normalise the advantages of a minibatch, ``[B]``, where that is done for each of them."""
    h = hyperparameters
    each: jax.Array = jnp.asarray(h.normalize_advantages) & ~jnp.asarray(h.advantages_by_rollout)
    return jnp.where(each, normalize(advantages), advantages)


def optimizer_step(
    params: Any,
    network: Network,
    optimizer_state: optax.OptState,
    gradient: Any,
    hyperparameters: Hyperparameters,
) -> tuple[Any, optax.OptState]:
    """Return the parameters and the state of :func:`make_optimizer` after one step."""
    optimizer = make_optimizer(hyperparameters, ravel_pytree(network.of_critic(params))[0])
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state


def _loss(
    params: Any,
    network: Network,
    batch: Experience,
    advantages: jax.Array,
    hyperparameters: Hyperparameters,
) -> tuple[jax.Array, LossMetrics]:
    outputs, value = outputs_and_value(
        network, params, batch.observation, batch.memory, batch.starts
    )
    if batch.value.ndim == 2:  # Sequences, of which the loss knows nothing.
        flat = batch.action, batch.log_prob, batch.value, batch.returns, outputs, value, advantages
        action, log_prob, old, returns, outputs, value, advantages = (
            x.reshape(-1, *x.shape[2:]) for x in flat
        )
        batch = batch._replace(action=action, log_prob=log_prob, value=old, returns=returns)
    return ppo_loss(
        log_prob=network.distribution.log_prob(outputs, batch.action),
        old_log_prob=batch.log_prob,
        advantages=advantages,
        entropy=network.distribution.entropy(outputs),
        value=value,
        old_value=batch.value,
        returns=batch.returns,
        clip_epsilon=hyperparameters.clip_epsilon,
        value_coef=hyperparameters.value_coef,
        entropy_coef=hyperparameters.entropy_coef,
        clip_value_loss=hyperparameters.clip_value_loss,
        value_clip_epsilon=hyperparameters.value_clip_epsilon,
    )
