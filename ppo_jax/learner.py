"""Minibatch updates: epochs over a rollout, each in a fresh order."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppo_jax.config import TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import LossMetrics, normalize, ppo_loss
from ppo_jax.networks import ActorCritic, policy_outputs, state_value

ADAM_EPSILON = 1e-5

_Carry = tuple[Any, ...]


class Experience(NamedTuple):
    """A rollout as the learner sees it, one row a transition: ``[N, ...]``."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array


def make_optimizer(hyperparameters: Hyperparameters) -> optax.GradientTransformation:
    """Adam after clipping by global norm.

    Made inside the traced function, so that the learning rate and the largest norm stay
    arguments of the compiled program. The optimizer's state does not depend on them.

    It sees all parameters as one vector: a few wide operations in place of a few for
    every layer, which compile faster and are fewer kernels to launch.
    """
    adam = optax.chain(
        optax.clip_by_global_norm(hyperparameters.max_grad_norm),
        optax.adam(hyperparameters.learning_rate, eps=ADAM_EPSILON),
    )
    return optax.flatten(adam)


def update(
    config: TrainConfig,
    network: ActorCritic,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    hyperparameters: Hyperparameters,
    key: jax.Array,
) -> tuple[Any, optax.OptState, LossMetrics]:
    """Run ``n_epochs`` passes of minibatch updates over a rollout.

    With a ``target_kl`` above 0, an epoch is the last one when the mean of the approximate KL
    divergence over its minibatches exceeds it. Each seed stops by its own.

    Args:
      config: static.
      network: static.
      params: network parameters.
      optimizer_state: of :func:`make_optimizer`.
      experience: ``[config.max_n_steps, ...]``, of which the first ``n_steps`` are used.
      hyperparameters: traced scalars; the rates as they are to be used in this update.
      key: of this update; it shuffles the epochs.

    Returns:
      New parameters and optimizer state, and the mean of the metrics over minibatches.
    """
    branches = [
        partial(_run_epochs, config, network, batch_size)
        for batch_size in config.batch_size_choices
    ]
    updated: tuple[Any, optax.OptState, LossMetrics] = jax.lax.switch(
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
    network: ActorCritic,
    batch_size: int,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    hyperparameters: Hyperparameters,
    key: jax.Array,
) -> tuple[Any, optax.OptState, LossMetrics]:
    block_size = config.minibatch_block(batch_size)
    batches_per_block = block_size // batch_size
    n_blocks = hyperparameters.n_steps // block_size
    rows_used = config.max_n_steps // block_size * block_size

    def minibatch(carry: _Carry, rows: jax.Array) -> tuple[_Carry, None]:
        params, optimizer_state, sums = carry
        batch = jax.tree.map(lambda x: x[rows], experience)
        gradient, metrics = minibatch_gradient(
            params, network, batch, normalize(batch.advantage), hyperparameters
        )
        params, optimizer_state = optimizer_step(params, optimizer_state, gradient, hyperparameters)
        return (params, optimizer_state, jax.tree.map(jnp.add, sums, metrics)), None

    def wanted(loop: _Carry) -> jax.Array:
        epochs: jax.Array = loop[0]
        stopped: jax.Array = loop[1]
        return (epochs < hyperparameters.n_epochs) & ~stopped

    def epoch(loop: _Carry) -> _Carry:
        index, _, carry = loop
        order = shuffle_rollout(config, jax.random.fold_in(key, index), hyperparameters.n_steps)
        order = order[:rows_used].reshape(-1, batches_per_block, batch_size)

        def block(index: jax.Array, carry: _Carry) -> _Carry:
            # A static scan inside the traced loop: a GPU pays for every traced iteration.
            done: _Carry = jax.lax.scan(minibatch, carry, order[index])[0]
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
    """Return ``[config.max_n_steps]`` rows whose first `n_steps` are a permutation.

    One branch a rollout size, so that a short rollout does not pay for sorting a long one.
    """

    def branch(size: int) -> Callable[[jax.Array], jax.Array]:
        return lambda key: jnp.pad(shuffle(key, size), (0, config.max_n_steps - size))

    branches = [branch(size) for size in config.n_steps_choices]
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
    network: ActorCritic,
    batch: Experience,
    advantages: jax.Array,
    hyperparameters: Hyperparameters,
) -> tuple[Any, LossMetrics]:
    """Return the gradient of the loss of a minibatch, and its metrics.

    Args:
      params: network parameters.
      network: static.
      batch: ``[B, ...]``.
      advantages: of the batch, normalised, ``[B]``.
      hyperparameters: traced scalars; the rates as they are to be used.
    """
    gradient, metrics = jax.grad(_loss, has_aux=True)(
        params, network, batch, advantages, hyperparameters
    )
    return gradient, metrics


def optimizer_step(
    params: Any, optimizer_state: optax.OptState, gradient: Any, hyperparameters: Hyperparameters
) -> tuple[Any, optax.OptState]:
    """Return the parameters and the state of :func:`make_optimizer` after one step."""
    optimizer = make_optimizer(hyperparameters)
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state


def _loss(
    params: Any,
    network: ActorCritic,
    batch: Experience,
    advantages: jax.Array,
    hyperparameters: Hyperparameters,
) -> tuple[jax.Array, LossMetrics]:
    outputs = policy_outputs(network, params, batch.observation)
    return ppo_loss(
        log_prob=network.distribution.log_prob(outputs, batch.action),
        old_log_prob=batch.log_prob,
        advantages=advantages,
        entropy=network.distribution.entropy(outputs),
        value=state_value(network, params, batch.observation),
        old_value=batch.value,
        returns=batch.returns,
        clip_epsilon=hyperparameters.clip_epsilon,
        value_coef=hyperparameters.value_coef,
        entropy_coef=hyperparameters.entropy_coef,
        clip_value_loss=hyperparameters.clip_value_loss,
    )
