"""Seeds of different runs side by side, as lanes of one program: the schedule for accelerators.

A launch costs an accelerator more than the arithmetic of a few thousand rows, so what trains
one run after another leaves it idle. Here every lane has hyperparameters of its own, sizes
included, and all lanes move in lockstep:

- Every lane collects one block of transitions, the largest size that all rollouts are made of.
- Lanes whose rollout is full learn from it, in ticks. A tick takes one micro-minibatch a lane,
  the largest size that all minibatches are made of; gradients add up, and a lane whose
  minibatch is complete takes a step of the optimizer. Advantages are normalised over the true
  minibatch.

The mathematics is that of :mod:`ppo_jax.trainer`, from the same pieces; results differ by the
order of floating-point sums. Everything here is pure; all arrays have a leading axis of lanes.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ppo_jax.compensated import CompensatedSum
from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import (
    Experience,
    Network,
    index_of,
    joined,
    minibatch_advantages,
    minibatch_gradient,
    optimizer_step,
    shuffle_rollout,
)
from ppo_jax.losses import LossMetrics
from ppo_jax.networks import ActorCritic, make_network
from ppo_jax.rollout import EpisodeTotals, Transition, collect_block, empty_buffer
from ppo_jax.seeds import iteration_key
from ppo_jax.trainer import TrainState, all_finite, annealed, no_sums, prepare


class Lanes(NamedTuple):
    """All that lanes carry from one block to the next; every leaf is ``[lanes, ...]``.

    Attributes:
      train: the training states, of which also the iterations differ.
      rollout: of the iteration under way, ``[lanes, T, num_envs, ...]``.
      totals: of the episodes that ended in it.
      blocks: collected of it so far, int32.
      sums: over the iterations since the last checkpoint; see :func:`trainer.means`.
      hyperparameters: traced.
      total_iterations: int32, the horizon of annealing.
    """

    train: TrainState
    rollout: Transition
    totals: EpisodeTotals
    blocks: jax.Array
    sums: CompensatedSum
    hyperparameters: Hyperparameters
    total_iterations: jax.Array


def begin(
    config: TrainConfig,
    train: TrainState,
    hyperparameters: Hyperparameters,
    total_iterations: jax.Array,
) -> Lanes:
    """Return one lane, without the axis of lanes, before its next iteration.

    Args:
      config: static.
      train: of one seed, between two iterations.
      hyperparameters: traced scalars.
      total_iterations: int32 scalar.
    """
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    return Lanes(
        train,
        empty_buffer(config, environment, network),
        EpisodeTotals.zero(),
        jnp.int32(0),
        no_sums(),
        hyperparameters,
        total_iterations,
    )


def advance(
    config: TrainConfig,
    lanes: Lanes,
    active: jax.Array,
    passed: jax.Array,
    blocks: jax.Array,
    *,
    few_launches: bool = False,
) -> Lanes:
    """Have every active lane collect `blocks` blocks, and learn whenever its rollout is full.

    Args:
      config: static.
      lanes: as :func:`begin` makes them.
      active: bool ``[lanes]``; the others stay as they are, but for their environments.
      passed: bool ``[lanes]``, whether a lane stands at a checkpoint, from which its sums begin
        anew.
      blocks: int32 scalar.
      few_launches: static; see :func:`update`.
    """
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    lanes = lanes._replace(sums=_where(passed, _zeros(lanes.sums), lanes.sums))

    def block(_: jax.Array, lanes: Lanes) -> Lanes:
        # Collect trajectories
        lanes = jax.vmap(partial(_collected, config, environment, network))(lanes, active)
        full = active & (lanes.blocks * config.block_size == lanes.hyperparameters.n_steps)

        # Estimate advantages and update the networks
        def learn(lanes: Lanes) -> _Learned:
            return _learned(config, network, lanes, full, few_launches)

        def wait(lanes: Lanes) -> _Learned:
            train = lanes.train
            return _Learned(
                train.params, train.optimizer_state, train.finite, train.iteration, lanes.sums
            )

        learned = jax.lax.cond(full.any(), learn, wait, lanes)
        return lanes._replace(
            train=dataclasses.replace(
                lanes.train,
                params=learned.params,
                optimizer_state=learned.optimizer_state,
                finite=learned.finite,
                iteration=learned.iteration,
            ),
            sums=learned.sums,
            totals=_where(full, _zeros(lanes.totals), lanes.totals),
            blocks=jnp.where(full, 0, lanes.blocks),
        )

    lanes = jax.lax.fori_loop(0, blocks, block, lanes)
    finite = lanes.train.finite & jax.vmap(all_finite)(lanes.train.params)
    return lanes._replace(train=dataclasses.replace(lanes.train, finite=finite))


def _keys(train: TrainState) -> jax.Array:
    """Return the keys of rollout and shuffling of a seed's iteration under way, ``[2]``."""
    keys: jax.Array = jax.random.split(iteration_key(train.key, train.iteration))
    return keys


def _collected(
    config: TrainConfig, environment: Any, network: ActorCritic, lane: Lanes, active: jax.Array
) -> Lanes:
    """Return one lane after its next block."""
    train = lane.train
    actors, totals, collected = collect_block(
        config,
        environment,
        network,
        train.params,
        train.actors,
        lane.totals,
        _keys(train)[0],
        lane.blocks,
        lane.hyperparameters.gamma,
    )

    def written(rows: jax.Array, new: jax.Array) -> jax.Array:
        # A choice among all blocks: for a place that differs between lanes, a slice becomes a
        # scatter, and on a TPU a serial loop.
        blocks = rows.reshape(-1, *new.shape)
        here = jnp.arange(len(blocks)) == lane.blocks
        here = here.reshape(-1, *(1,) * new.ndim)
        return jnp.where(here, new, blocks).reshape(rows.shape)

    return lane._replace(
        train=dataclasses.replace(train, actors=actors),
        rollout=jax.tree.map(written, lane.rollout, collected),
        totals=totals,
        blocks=lane.blocks + active,
    )


class _Learned(NamedTuple):
    """What an iteration changes when its rollout is full; see :class:`Lanes`.

    No more than that: a GPU copies whatever leaves a condition.
    """

    params: Any
    optimizer_state: optax.OptState
    finite: jax.Array
    iteration: jax.Array
    sums: CompensatedSum


def _learned(
    config: TrainConfig, network: ActorCritic, lanes: Lanes, full: jax.Array, few_launches: bool
) -> _Learned:
    """Return what the iteration of the lanes whose rollout is full has led to."""
    train = lanes.train
    rates = jax.vmap(annealed)(lanes.hyperparameters, train.iteration / lanes.total_iterations)
    experience, explained_variance = jax.vmap(partial(prepare, config))(lanes.rollout, rates)
    params, optimizer_state, metrics = update(
        config,
        network,
        train.params,
        train.optimizer_state,
        experience,
        rates,
        jax.vmap(_keys)(train)[:, 1],
        full,
        few_launches=few_launches,
    )
    found = (metrics, explained_variance, lanes.totals)
    return _Learned(
        params,
        optimizer_state,
        finite=train.finite & (jax.vmap(all_finite)(found) | ~full),
        iteration=train.iteration + full,
        sums=_where(full, lanes.sums.plus(found), lanes.sums),
    )


class _Learning(NamedTuple):
    """Lanes in the middle of an update; every leaf is ``[lanes, ...]``.

    Attributes:
      params, optimizer_state: as they are now.
      gradient: of the micro-minibatches of a minibatch so far, as one vector.
      sums: of the metrics of the minibatches so far.
      kl: approximate KL divergence in `sums` before the epoch under way.
      chunk: of the epoch under way, int32.
      epoch: its number, int32.
      active: whether the lane has more to learn.
    """

    params: Any
    optimizer_state: optax.OptState
    gradient: Any
    sums: LossMetrics
    kl: jax.Array
    chunk: jax.Array
    epoch: jax.Array
    active: jax.Array


def update(
    config: TrainConfig,
    network: ActorCritic,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    rates: Hyperparameters,
    key: jax.Array,
    full: jax.Array,
    *,
    few_launches: bool = False,
) -> tuple[Any, optax.OptState, LossMetrics]:
    """Run the epochs of every lane in `full` in lockstep; see :func:`ppo_jax.learner.update`.

    Args:
      config: static.
      network: static.
      params: network parameters.
      optimizer_state: of :func:`ppo_jax.learner.make_optimizer`.
      experience: of :func:`ppo_jax.trainer.prepare`, ``[lanes, ...]``.
      rates: hyperparameters as they are to be used in this update.
      key: of this update.
      full: bool ``[lanes]``; the other lanes stay as they are.
      few_launches: static; whether to spare launches at the cost of arithmetic and copies.

    Returns:
      New parameters and optimizer state, and the mean of the metrics over minibatches, which
      means nothing for other lanes.
    """
    arguments = (params, optimizer_state, experience, rates, key, full)
    learn = partial(_update, config)
    if few_launches:
        return joined(learn, network, *arguments, vmap=jax.vmap)
    return learn(network, *arguments)


def _update(
    config: TrainConfig,
    network: Network,
    params: Any,
    optimizer_state: optax.OptState,
    experience: Experience,
    rates: Hyperparameters,
    key: jax.Array,
    full: jax.Array,
) -> tuple[Any, optax.OptState, LossMetrics]:
    count = jnp.zeros(full.shape, jnp.int32)
    number = jnp.zeros(full.shape, jnp.float32)
    start = _Learning(
        params,
        optimizer_state,
        gradient=jax.vmap(lambda tree: jnp.zeros_like(ravel_pytree(tree)[0]))(params),
        sums=LossMetrics(*(number for _ in LossMetrics._fields)),
        kl=number,
        chunk=count,
        epoch=count,
        active=full,
    )
    chunk = jax.vmap(partial(_chunk, config, network))
    done = jax.lax.while_loop(
        lambda lanes: lanes.active.any(),
        lambda lanes: chunk(lanes, experience, rates, key),
        start,
    )
    minibatches = done.epoch * (rates.n_steps // rates.batch_size)
    metrics = jax.tree.map(lambda total: total / minibatches, done.sums)
    return done.params, done.optimizer_state, metrics


@jax.named_scope("chunk")
def _chunk(
    config: TrainConfig,
    network: Network,
    lane: _Learning,
    experience: Experience,
    rates: Hyperparameters,
    key: jax.Array,
) -> _Learning:
    """Return one lane after as many ticks as there are in a block of transitions."""
    micro = config.micro_batch_size
    ticks = config.block_size // micro
    ticks_per_minibatch = rates.batch_size // micro
    chunks_per_epoch = rates.n_steps // config.block_size
    batch_size = jnp.asarray(rates.batch_size)
    share = micro / batch_size.astype(jnp.float32)

    order = shuffle_rollout(config, jax.random.fold_in(key, lane.epoch), rates.n_steps)
    rows = _row(order.reshape(-1, config.block_size // config.agent.row_size), lane.chunk)
    batches = jax.tree.map(lambda x: x[rows].reshape(ticks, -1, *x.shape[1:]), experience)
    # Of the whole epoch, since a minibatch may begin in one chunk and end in another.
    normalized = _normalized(config, experience.advantage[order].ravel(), rates)
    advantages = _row(normalized.reshape(-1, config.block_size), lane.chunk)
    advantages = advantages.reshape(batches.advantage.shape)

    def tick(carry: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        params, optimizer_state, gradient, sums = carry
        index, batch, advantages = now
        new, metrics = minibatch_gradient(params, network, batch, advantages, rates)
        begins = index % ticks_per_minibatch == 0
        vector, restore = ravel_pytree(new)
        gradient = jnp.where(begins, 0.0, gradient) + share * vector
        sums = jax.tree.map(
            lambda total, new: total + jnp.where(lane.active, share * new, 0.0), sums, metrics
        )
        stepped = optimizer_step(params, network, optimizer_state, restore(gradient), rates)
        complete = lane.active & ((index + 1) % ticks_per_minibatch == 0)
        params, optimizer_state = _where(complete, stepped, (params, optimizer_state))
        return (params, optimizer_state, gradient, sums), None

    carry = (lane.params, lane.optimizer_state, lane.gradient, lane.sums)
    of_epoch = lane.chunk * ticks + jnp.arange(ticks)
    carry, _ = jax.lax.scan(tick, carry, (of_epoch, batches, advantages))
    params, optimizer_state, gradient, sums = carry

    ends = lane.active & (lane.chunk + 1 == chunks_per_epoch)
    kl = (sums.approx_kl - lane.kl) / (rates.n_steps // rates.batch_size)
    too_far = (rates.target_kl > 0) & (kl > rates.target_kl)
    epoch = lane.epoch + ends
    return _Learning(
        params,
        optimizer_state,
        gradient,
        sums,
        kl=jnp.where(ends, sums.approx_kl, lane.kl),
        chunk=jnp.where(ends, 0, lane.chunk + lane.active),
        epoch=epoch,
        active=lane.active & (epoch < rates.n_epochs) & ~(ends & too_far),
    )


def _normalized(config: TrainConfig, advantages: jax.Array, rates: Hyperparameters) -> jax.Array:
    """Normalise the shuffled advantages of a rollout, ``[n]``, each by its true minibatch."""
    normalized, count = partial(minibatch_advantages, hyperparameters=rates), len(advantages)

    def by(size: int) -> jax.Array:
        # The longest rollout need not be made of minibatches that others are made of.
        whole = jnp.pad(advantages, (0, -count % size))
        return jax.vmap(normalized)(whole.reshape(-1, size)).ravel()[:count]

    choices = [by(size) for size in config.batch_size_choices]
    index = index_of(rates.batch_size, config.batch_size_choices)
    chosen: jax.Array = jax.lax.select_n(index, *choices)
    return chosen


def _row(table: jax.Array, index: jax.Array) -> jax.Array:
    """Return ``table[index]``, a row of numbers, without a slice; see :func:`_collected`."""
    here = jnp.arange(len(table)) == index
    return jnp.where(here[:, None], table, 0).sum(axis=0, dtype=table.dtype)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return `new` where the condition holds, else `old`; trees of ``[*condition.shape, ...]``."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        here = condition.reshape(condition.shape + (1,) * (new.ndim - condition.ndim))
        return jnp.where(here, new, old)

    return jax.tree.map(choose, new, old)
