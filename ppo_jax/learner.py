"""Minibatch updates: epochs over a rollout, each in a fresh order."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppo_jax import distributions
from ppo_jax.config import TrainConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import LossMetrics, normalize, ppo_loss
from ppo_jax.networks import ActorCritic

ADAM_EPSILON = 1e-5


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
    """
    return optax.chain(
        optax.clip_by_global_norm(hyperparameters.max_grad_norm),
        optax.adam(hyperparameters.learning_rate, eps=ADAM_EPSILON),
    )


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

    Args:
      experience: ``[config.max_n_steps, ...]``, of which the first ``n_steps`` are used.
      hyperparameters: traced scalars; the rates as they are to be used in this update.

    Returns:
      New parameters and optimizer state, and the mean of the metrics over minibatches.
    """
    branches = [
        partial(_run_epochs, config, network, batch_size)
        for batch_size in config.batch_size_choices
    ]
    chosen = jnp.argmax(jnp.array(config.batch_size_choices) == hyperparameters.batch_size)
    return jax.lax.switch(
        chosen, branches, params, optimizer_state, experience, hyperparameters, key
    )


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
    optimizer = make_optimizer(hyperparameters)
    batches_per_block = config.block_size // batch_size
    n_blocks = hyperparameters.n_steps // config.block_size

    def minibatch(carry: tuple, rows: jax.Array) -> tuple[tuple, None]:
        params, optimizer_state, sums = carry
        batch = jax.tree.map(lambda x: x[rows], experience)
        gradient, metrics = jax.grad(_loss, has_aux=True)(params, network, batch, hyperparameters)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        params = optax.apply_updates(params, updates)
        return (params, optimizer_state, jax.tree.map(jnp.add, sums, metrics)), None

    def epoch(index: jax.Array, carry: tuple) -> tuple:
        order = shuffle(jax.random.fold_in(key, index), config.max_n_steps, hyperparameters.n_steps)
        order = order.reshape(-1, batches_per_block, batch_size)

        def block(index: jax.Array, carry: tuple) -> tuple:
            # A static scan inside the traced loop: a GPU pays for every traced iteration.
            return jax.lax.scan(minibatch, carry, order[index])[0]

        return jax.lax.fori_loop(0, n_blocks, block, carry)

    zeros = LossMetrics(*(jnp.float32(0) for _ in LossMetrics._fields))
    start = (params, optimizer_state, zeros)
    params, optimizer_state, sums = jax.lax.fori_loop(0, hyperparameters.n_epochs, epoch, start)
    n_updates = hyperparameters.n_epochs * n_blocks * batches_per_block
    return params, optimizer_state, jax.tree.map(lambda total: total / n_updates, sums)


def shuffle(key: jax.Array, size: int, used: jax.Array) -> jax.Array:
    """Return a permutation of ``range(size)`` that begins with one of ``range(used)``.

    The order of the first `used` entries does not depend on `size`.
    """
    index = jnp.arange(size, dtype=jnp.int32)
    unused = index >= used
    # The flag sorts before the random number, so the unused tail stays behind.
    return jax.lax.sort((unused, jax.random.bits(key, (size,)), index), num_keys=2)[2]


def _loss(
    params: Any,
    network: ActorCritic,
    batch: Experience,
    hyperparameters: Hyperparameters,
) -> tuple[jax.Array, LossMetrics]:
    logits, value = network.apply(params, batch.observation)
    return ppo_loss(
        log_prob=distributions.categorical_log_prob(logits, batch.action),
        old_log_prob=batch.log_prob,
        advantages=normalize(batch.advantage),
        entropy=distributions.categorical_entropy(logits),
        value=value,
        old_value=batch.value,
        returns=batch.returns,
        clip_epsilon=hyperparameters.clip_epsilon,
        value_coef=hyperparameters.value_coef,
        entropy_coef=hyperparameters.entropy_coef,
        clip_value_loss=hyperparameters.clip_value_loss,
    )
