"""Collecting transitions with the current policy."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax import packing
from ppo_jax.config import TrainConfig
from ppo_jax.environments import Environment
from ppo_jax.networks import ActorCritic, forgotten, make_network, policy_step, state_value
from ppo_jax.normalization import RunningStatistics, normalized, scaled

_Carry = tuple[Any, ...]


_LAST = 2**32 - 1
"""Blocks count down from it where steps count up: both are folded into the rollout's key."""


class Transition(NamedTuple):
    """Transitions, stored as ``[T, num_envs, ...]``: T environment steps of each environment.

    Attributes:
      observation: as the network saw it, so normalised where the configuration says so.
      action: raw, as the distribution has it.
      next_value: V of the observation the step led to before any reset, so a truncated
        episode can be bootstrapped.
      memory: what a recurrent network remembered before every ``sequence_length``-th step,
        ``[T / sequence_length, num_envs, ...]``; () of others.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    value: jax.Array
    next_value: jax.Array
    memory: Any = ()


class StepRandomness(NamedTuple):
    """The random numbers of one environment step, ``[num_envs, ...]``.

    Drawn for a block of steps at once: a few wide draws instead of many narrow ones.

    Attributes:
      action_noise: see :meth:`ppo_jax.distributions.Distribution.sample`.
      step_key: a key for each environment.
      start: state and observation of a new episode, for environments whose episode ends;
        None where a block has one for all its steps.
    """

    action_noise: jax.Array
    step_key: jax.Array
    start: tuple[Any, jax.Array] | None


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that ended; scalars, so memory does not grow."""

    episodes: jax.Array
    return_sum: jax.Array
    length_sum: jax.Array

    @classmethod
    def zero(cls) -> "EpisodeTotals":
        """Return the totals of no episodes."""
        return cls(jnp.float32(0), jnp.float32(0), jnp.float32(0))

    def plus(self, ended: jax.Array, returns: jax.Array, lengths: jax.Array) -> "EpisodeTotals":
        """Return the totals with the episodes that ended in a block of steps.

        Args:
          ended: bool ``[T, num_envs]``.
          returns: of the episodes so far, ``[T, num_envs]``.
          lengths: likewise.
        """
        of_steps = EpisodeTotals(
            ended.sum(axis=1).astype(jnp.float32),
            jnp.where(ended, returns, 0).sum(axis=1),
            jnp.where(ended, lengths, 0).sum(axis=1),
        )
        summed: EpisodeTotals = jax.tree.map(
            lambda total, new: jnp.append(total, new).sum(), self, of_steps
        )
        return summed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Actors:
    """The parallel environments of a seed in the middle of their episodes, ``[num_envs, ...]``.

    Attributes:
      observation: as the environment gave it.
      discounted_return: of the rewards so far, for the scale of rewards; None where they
        are not normalised.
      observation_statistics: of all observations so far, these included; None where
        they are not normalised. Without an environment axis.
      return_statistics: of `discounted_return` likewise.
      memory: what a recurrent network remembers of each episode; () of others.
    """

    env_state: Any
    observation: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    discounted_return: jax.Array | None = None
    observation_statistics: RunningStatistics | None = None
    return_statistics: RunningStatistics | None = None
    memory: Any = ()


def reset_actors(config: TrainConfig, environment: Environment, key: jax.Array) -> Actors:
    """Return all environments of a seed at the start of an episode."""
    env_state, observation = _reset(config, environment, key)
    zeros = jnp.zeros(config.agent.num_envs, jnp.float32)
    memory = make_network(config.agent, environment.spaces).fresh_memory((config.agent.num_envs,))
    actors = Actors(env_state, observation, zeros, zeros, memory=memory)
    applied = jnp.array(True) if config.switched_normalization else None
    if config.agent.normalize_observations:
        statistics = RunningStatistics.empty(environment.spaces.measured_shape)
        statistics = statistics._replace(applied=applied).updated(observation)
        actors = dataclasses.replace(actors, observation_statistics=statistics)
    if config.agent.normalize_rewards:
        statistics = RunningStatistics.empty(())._replace(applied=applied)
        actors = dataclasses.replace(actors, discounted_return=zeros, return_statistics=statistics)
    return actors


def _reset(config: TrainConfig, environment: Environment, key: jax.Array) -> tuple[Any, jax.Array]:
    return jax.vmap(environment.reset)(jax.random.split(key, config.agent.num_envs))


def collect(
    config: TrainConfig,
    environment: Environment,
    network: ActorCritic,
    params: Any,
    actors: Actors,
    key: jax.Array,
    n_steps: jax.Array | int,
    gamma: jax.Array | float,
) -> tuple[Actors, Transition, EpisodeTotals]:
    """Collect `n_steps` transitions over the parallel environments of a seed.

    Args:
      config: static.
      environment: static.
      network: static.
      params: network parameters of the seed.
      actors: where the environments were left.
      key: of this rollout.
      n_steps: int32 scalar, traced; one of ``config.n_steps_choices``.
      gamma: discount of the returns by whose spread rewards are scaled.

    Returns:
      The actors after the rollout; a buffer of ``[config.max_n_steps / num_envs,
      num_envs]`` transitions whose first ``n_steps / num_envs`` rows are filled and the
      rest zero; totals of the episodes that ended.
    """

    def block(index: jax.Array, carry: _Carry) -> _Carry:
        actors, totals, buffer = carry
        actors, totals, collected = collect_block(
            config, environment, network, params, actors, totals, key, index, gamma
        )
        buffer = jax.tree.map(
            lambda rows, new: jax.lax.dynamic_update_slice_in_dim(
                rows, new, index * len(new), axis=0
            ),
            buffer,
            collected,
        )
        return actors, totals, buffer

    n_blocks = n_steps // config.block_size
    start = (actors, EpisodeTotals.zero(), empty_buffer(config, environment, network))
    actors, totals, buffer = jax.lax.fori_loop(0, n_blocks, block, start)
    return actors, buffer, totals


@jax.named_scope("collect_block")
def collect_block(
    config: TrainConfig,
    environment: Environment,
    network: ActorCritic,
    params: Any,
    actors: Actors,
    totals: EpisodeTotals,
    key: jax.Array,
    index: jax.Array,
    gamma: jax.Array | float,
) -> tuple[Actors, EpisodeTotals, Transition]:
    """Collect one block of a rollout: ``config.block_size`` transitions.

    Running statistics take in what a step brings before anything is normalised by them,
    as the wrappers of Gymnasium do.

    Args:
      config: static.
      environment: static.
      network: static.
      params: network parameters of the seed.
      actors: where the environments were left.
      totals: of the episodes that ended in the blocks before.
      key: of the rollout.
      index: number of the block in its rollout, int32 scalar.
      gamma: see :func:`collect`.

    Returns:
      The actors after the block, the totals with it, and its transitions, ``[block_size /
      num_envs, num_envs]``.
    """
    steps_per_block = config.block_size // config.agent.num_envs
    distribution = network.distribution

    def draw(key: jax.Array) -> StepRandomness:
        action_key, step_key, reset_key = jax.random.split(key, 3)
        return StepRandomness(
            distribution.noise(action_key, (config.agent.num_envs,)),
            jax.random.split(step_key, config.agent.num_envs),
            None if environment.costly_reset else _reset(config, environment, reset_key),
        )

    def step(
        block_start: tuple[Any, jax.Array] | None,
        actors: Actors,
        randomness: StepRandomness,
    ) -> tuple[Actors, _Carry]:
        seen = _seen(environment, actors.observation_statistics, actors.observation)
        outputs, memory = policy_step(network, params, seen, actors.memory)
        raw_action = distribution.sample(outputs, randomness.action_noise)
        timestep = jax.vmap(environment.step)(
            randomness.step_key, actors.env_state, distribution.action(raw_action)
        )
        ended = timestep.terminated | timestep.truncated
        episode_return = actors.episode_return + timestep.reward
        episode_length = actors.episode_length + 1
        env_state, observation = jax.tree.map(
            lambda new, old: jax.vmap(jnp.where)(ended, new, old),
            randomness.start if block_start is None else block_start,
            (timestep.state, timestep.observation),
        )
        reward, discounted_return, return_statistics = _scaled_reward(
            actors, timestep.reward, ended, gamma
        )
        observation_statistics = actors.observation_statistics
        if observation_statistics is not None:
            observation_statistics = observation_statistics.updated(observation)
        acted = (
            seen,
            raw_action,
            distribution.log_prob(outputs, raw_action),
            reward,
            timestep.terminated,
            timestep.truncated,
            episode_return,
            episode_length,
            _seen(environment, observation_statistics, timestep.observation),
            (actors.memory, memory),
        )
        actors = Actors(
            env_state,
            observation,
            jnp.where(ended, 0, episode_return),
            jnp.where(ended, 0, episode_length),
            discounted_return,
            observation_statistics,
            return_statistics,
            forgotten(ended, memory),
        )
        return actors, acted

    first = index * steps_per_block
    # A key per step of the rollout, whatever the block size.
    keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(steps_per_block))
    start = None
    if environment.costly_reset:
        start_key = jax.random.fold_in(key, jnp.uint32(_LAST) - index.astype(jnp.uint32))
        start = _reset(config, environment, start_key)
    actors, acted = packing.scan(partial(step, start), actors, jax.vmap(draw)(keys))
    *acted, (remembered, remembered_then) = acted
    seen, action, log_prob, reward, terminated, truncated, returns, lengths, final = acted
    # What no step needs is done for the block at once: wide operations in place of many narrow
    # ones, and on a GPU fewer launches.
    collected = Transition(
        seen,
        action,
        log_prob,
        reward,
        terminated,
        truncated,
        state_value(network, params, seen, remembered),
        state_value(network, params, final, remembered_then),
        jax.tree.map(lambda x: x[:: config.agent.row_size], remembered),
    )
    return actors, totals.plus(terminated | truncated, returns, lengths), collected


def _seen(
    environment: Environment, statistics: RunningStatistics | None, observation: jax.Array
) -> jax.Array:
    """Return what the network sees of an observation."""
    if statistics is None:
        return observation
    return normalized(statistics, observation, environment.spaces.scale)


def _scaled_reward(
    actors: Actors, reward: jax.Array, ended: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array | None, RunningStatistics | None]:
    """Return rewards to learn from, ``[num_envs]``, and what their scale rests on."""
    if actors.return_statistics is None or actors.discounted_return is None:
        return reward, None, None
    discounted_return = gamma * actors.discounted_return + reward
    statistics = actors.return_statistics.updated(discounted_return)
    return scaled(statistics, reward), jnp.where(ended, 0, discounted_return), statistics


def empty_buffer(config: TrainConfig, environment: Environment, network: ActorCritic) -> Transition:
    """Return the buffer of a rollout before its first block, all zeros."""
    shape = (config.max_n_steps // config.agent.num_envs, config.agent.num_envs)
    number, flag = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.bool_)
    distribution = network.distribution
    seen_dtype = (
        jnp.float32 if config.agent.normalize_observations else environment.observation_dtype
    )
    return Transition(
        observation=jnp.zeros(shape + environment.spaces.observation_shape, seen_dtype),
        action=jnp.zeros(shape + distribution.raw_shape, distribution.raw_dtype),
        log_prob=number,
        reward=number,
        terminated=flag,
        truncated=flag,
        value=number,
        next_value=number,
        memory=network.fresh_memory((shape[0] // config.agent.row_size, shape[1])),
    )
