"""Full episodes with a fixed policy, compiled."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppo_jax.config import TrainConfig
from ppo_jax.environments import Environment, make
from ppo_jax.networks import ActorCritic, make_network, policy_step
from ppo_jax.normalization import RunningStatistics, normalized

_STEPS_PER_CHECK = 32
"""Environment steps between two checks whether an episode is still running."""

_NOISE = 2**32 - 1
"""Folded into the key of the steps for the noise of actions; steps fold in their number."""

_Carry = tuple[Any, ...]


class Episodes(NamedTuple):
    """Results of full episodes, ``[episodes]``.

    Attributes:
      returns: undiscounted, float32. An episode still running after the environment's
        time limit counts with what it collected; the return of one with a reward or an
        observation that is not finite is not finite either.
      lengths: environment steps, int32.
    """

    returns: jax.Array
    lengths: jax.Array


def evaluate(
    config: TrainConfig,
    params: Any,
    key: jax.Array,
    observation_statistics: RunningStatistics | None = None,
    wanted: jax.Array | bool = True,
) -> jax.Array:
    """Play ``config.eval_episodes`` episodes to their end with the most probable actions.

    Returns:
      Returns, float32 ``[eval_episodes]``; see :func:`play` for this and the arguments.
    """
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    return play(
        environment,
        network,
        params,
        key,
        observation_statistics,
        config.eval_episodes,
        wanted=wanted,
    ).returns


@jax.named_scope("play")
def play(
    environment: Environment,
    network: ActorCritic,
    params: Any,
    key: jax.Array,
    observation_statistics: RunningStatistics | None,
    episodes: int,
    sample: bool = False,
    wanted: jax.Array | bool = True,
) -> Episodes:
    """Play `episodes` episodes to their end, all at once.

    Args:
      environment: static.
      network: static.
      params: network parameters of one seed.
      key: the same key gives the same initial states, whatever the policy.
      observation_statistics: what observations are normalised by; they stay as they are.
        None where they are not normalised.
      episodes: static.
      sample: draw actions from the policy's distribution in place of the most probable
        one or the mean; static.
      wanted: bool scalar; where it is False nothing is played, and the results are undefined.
        For lanes beside those that are to be evaluated.
    """
    distribution = network.distribution
    reset_key, step_key = jax.random.split(key)
    noise_key = jax.random.fold_in(step_key, jnp.uint32(_NOISE))

    def step(carry: _Carry, randomness: _Carry) -> tuple[_Carry, None]:
        env_state, observation, memory, running, totals = carry
        index, keys = randomness
        if observation_statistics is not None:
            observation = normalized(observation_statistics, observation, environment.spaces.scale)
        outputs, memory = policy_step(network, params, observation, memory)
        if sample:
            noise = distribution.noise(jax.random.fold_in(noise_key, index), (episodes,))
            raw_action = distribution.sample(outputs, noise)
        else:
            raw_action = distribution.mode(outputs)
        timestep = jax.vmap(environment.step)(keys, env_state, distribution.action(raw_action))
        # The greedy action on an observation that is not a number would still earn rewards.
        finite = jnp.isfinite(timestep.observation).reshape(episodes, -1).all(axis=1)
        reward = jnp.where(finite, timestep.reward, jnp.nan)
        totals = Episodes(
            totals.returns + jnp.where(running, reward, 0.0),
            totals.lengths + running,
        )
        running &= ~(timestep.terminated | timestep.truncated)
        running &= index + 1 < environment.max_episode_steps
        return (timestep.state, timestep.observation, memory, running, totals), None

    def unfinished(loop: _Carry) -> jax.Array:
        running: jax.Array = loop[1][3]
        return running.any()

    def chunk(loop: _Carry) -> _Carry:
        first, carry = loop
        index = first + jnp.arange(_STEPS_PER_CHECK)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(index)
        keys = jax.vmap(lambda key: jax.random.split(key, episodes))(keys)
        return first + _STEPS_PER_CHECK, jax.lax.scan(step, carry, (index, keys))[0]

    env_state, observation = jax.vmap(environment.reset)(jax.random.split(reset_key, episodes))
    nothing = Episodes(jnp.zeros(episodes, jnp.float32), jnp.zeros(episodes, jnp.int32))
    running = jnp.full(episodes, wanted, bool)
    start = (env_state, observation, network.fresh_memory((episodes,)), running, nothing)
    _, (*_, totals) = jax.lax.while_loop(unfinished, chunk, (jnp.int32(0), start))
    played: Episodes = totals
    return played
