"""Full episodes with the greedy policy, compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.networks import make_network, policy_outputs
from ppo_jax.normalization import RunningStatistics, normalized

_STEPS_PER_CHECK = 32
"""Environment steps between two looks at whether every episode has ended."""


def evaluate(
    config: TrainConfig,
    params: Any,
    key: jax.Array,
    observation_statistics: RunningStatistics | None = None,
) -> jax.Array:
    """Play ``config.eval_episodes`` episodes to their end with the most probable actions.

    Args:
      params: network parameters of one seed.
      key: the same key gives the same initial states, whatever the policy.
      observation_statistics: what observations are normalised by; they stay as they are.

    Returns:
      Undiscounted returns, float32 ``[eval_episodes]``. Episodes still running after the
      environment's time limit count with what they collected; the return of an episode
      with a reward or an observation that is not finite is not finite either.
    """
    environment = make(config.env, config.env_kwargs)
    network = make_network(config, environment.spaces)
    distribution = network.distribution
    reset_key, step_key = jax.random.split(key)
    episodes = config.eval_episodes

    def step(carry: tuple, chance: tuple) -> tuple[tuple, None]:
        env_state, observation, running, returns = carry
        index, keys = chance
        if observation_statistics is not None:
            observation = normalized(observation_statistics, observation)
        raw_action = distribution.mode(policy_outputs(network, params, observation))
        action = distribution.action(raw_action)
        timestep = jax.vmap(environment.step)(keys, env_state, action)
        # The most probable action on an observation that is no number still earns rewards.
        sound = jnp.isfinite(timestep.observation).reshape(episodes, -1).all(axis=1)
        returns += jnp.where(running, jnp.where(sound, timestep.reward, jnp.nan), 0.0)
        running &= ~(timestep.terminated | timestep.truncated)
        running &= index + 1 < environment.max_episode_steps
        return (timestep.state, timestep.observation, running, returns), None

    def unfinished(loop: tuple) -> jax.Array:
        _, (_, _, running, _) = loop
        return running.any()

    def chunk(loop: tuple) -> tuple:
        first, carry = loop
        index = first + jnp.arange(_STEPS_PER_CHECK)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(index)
        keys = jax.vmap(lambda key: jax.random.split(key, episodes))(keys)
        return first + _STEPS_PER_CHECK, jax.lax.scan(step, carry, (index, keys))[0]

    env_state, observation = jax.vmap(environment.reset)(jax.random.split(reset_key, episodes))
    start = (env_state, observation, jnp.ones(episodes, bool), jnp.zeros(episodes, jnp.float32))
    _, (_, _, _, returns) = jax.lax.while_loop(unfinished, chunk, (jnp.int32(0), start))
    return returns
