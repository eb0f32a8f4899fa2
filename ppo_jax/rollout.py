"""Collecting transitions with the current policy."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax import distributions
from ppo_jax.config import TrainConfig
from ppo_jax.environments import Environment
from ppo_jax.networks import ActorCritic, action_logits, state_value


class Transition(NamedTuple):
    """Transitions, stored as ``[T, num_envs, ...]``: T environment steps of each environment.

    `next_value` is V of the observation the step led to before any reset, so a
    truncated episode can be bootstrapped.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    value: jax.Array
    next_value: jax.Array


class Chance(NamedTuple):
    """All that is random about an environment step, ``[num_envs, ...]``.

    Drawn for a block of steps at once: a few wide draws in place of many narrow ones.

    Attributes:
      action_noise: see :func:`distributions.categorical_sample`.
      step_key: a key for each environment.
      start: state and observation of a new episode, for environments whose episode ends.
    """

    action_noise: jax.Array
    step_key: jax.Array
    start: tuple[Any, jax.Array]


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that ended; scalars, so memory does not grow."""

    episodes: jax.Array
    return_sum: jax.Array
    length_sum: jax.Array

    @classmethod
    def zero(cls) -> "EpisodeTotals":
        return cls(jnp.float32(0), jnp.float32(0), jnp.float32(0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Actors:
    """The parallel environments of a seed in the middle of their episodes, ``[num_envs, ...]``."""

    env_state: Any
    observation: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array


def reset_actors(config: TrainConfig, environment: Environment, key: jax.Array) -> Actors:
    """Return all environments of a seed at the start of an episode."""
    env_state, observation = _reset(config, environment, key)
    zeros = jnp.zeros(config.num_envs, jnp.float32)
    return Actors(env_state, observation, episode_return=zeros, episode_length=zeros)


def _reset(config: TrainConfig, environment: Environment, key: jax.Array) -> tuple[Any, jax.Array]:
    return jax.vmap(environment.reset)(jax.random.split(key, config.num_envs))


def collect(
    config: TrainConfig,
    environment: Environment,
    network: ActorCritic,
    params: Any,
    actors: Actors,
    key: jax.Array,
    n_steps: jax.Array | int,
) -> tuple[Actors, Transition, EpisodeTotals]:
    """Collect `n_steps` transitions over the parallel environments of a seed.

    Args:
      n_steps: int32 scalar, traced; one of ``config.n_steps_choices``.

    Returns:
      The actors after the rollout; a buffer of ``[config.max_n_steps / num_envs,
      num_envs]`` transitions whose first ``n_steps / num_envs`` rows are filled and the
      rest zero; totals of the episodes that ended.
    """
    steps_per_block = config.block_size // config.num_envs

    def draw(key: jax.Array) -> Chance:
        action_key, step_key, reset_key = jax.random.split(key, 3)
        shape = (config.num_envs, environment.num_actions)
        return Chance(
            distributions.categorical_noise(action_key, shape),
            jax.random.split(step_key, config.num_envs),
            _reset(config, environment, reset_key),
        )

    def step(carry: tuple[Actors, EpisodeTotals], chance: Chance) -> tuple[tuple, tuple]:
        actors, totals = carry
        logits = action_logits(network, params, actors.observation)
        action = distributions.categorical_sample(logits, chance.action_noise)
        timestep = jax.vmap(environment.step)(chance.step_key, actors.env_state, action)
        ended = timestep.terminated | timestep.truncated
        episode_return = actors.episode_return + timestep.reward
        episode_length = actors.episode_length + 1
        totals = EpisodeTotals(
            totals.episodes + ended.sum(),
            totals.return_sum + jnp.where(ended, episode_return, 0).sum(),
            totals.length_sum + jnp.where(ended, episode_length, 0).sum(),
        )
        acted = (
            actors.observation,
            action,
            distributions.categorical_log_prob(logits, action),
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
        )
        env_state, observation = jax.tree.map(
            lambda new, old: jax.vmap(jnp.where)(ended, new, old),
            chance.start,
            (timestep.state, timestep.observation),
        )
        actors = Actors(
            env_state,
            observation,
            jnp.where(ended, 0, episode_return),
            jnp.where(ended, 0, episode_length),
        )
        return (actors, totals), (acted, timestep.observation)

    def block(index: jax.Array, carry: tuple[Actors, EpisodeTotals, Transition]) -> tuple:
        actors, totals, buffer = carry
        first = index * steps_per_block
        # A key per step of the rollout, whatever the block size.
        keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(steps_per_block))
        (actors, totals), scanned = jax.lax.scan(step, (actors, totals), jax.vmap(draw)(keys))
        acted, final_observation = scanned
        # The critic sees the block at once: wide products in place of many narrow ones.
        value = state_value(network, params, acted[0])
        next_value = state_value(network, params, final_observation)
        collected = Transition._make((*acted, value, next_value))
        buffer = jax.tree.map(
            lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new, first, axis=0),
            buffer,
            collected,
        )
        return actors, totals, buffer

    n_blocks = n_steps // config.block_size
    start = (actors, EpisodeTotals.zero(), _empty_buffer(config, environment))
    actors, totals, buffer = jax.lax.fori_loop(0, n_blocks, block, start)
    return actors, buffer, totals


def _empty_buffer(config: TrainConfig, environment: Environment) -> Transition:
    shape = (config.max_n_steps // config.num_envs, config.num_envs)
    number, flag = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.bool_)
    return Transition(
        observation=jnp.zeros(shape + environment.observation_shape, environment.observation_dtype),
        action=jnp.zeros(shape, jnp.int32),
        log_prob=number,
        reward=number,
        terminated=flag,
        truncated=flag,
        value=number,
        next_value=number,
    )
