"""PPO as one program of static shapes, made for one agent and vmapped over many.

This is how PureJaxRL trains many agents on one device, written anew on this project's environments
and networks, to be measured beside its own programs: the whole training is one function of a key,
with one ``scan`` for each time scale, and sizes are compiled in. It knows no checkpoints and no
other sizes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import ppo_loss
from ppo_jax.networks import make_network, outputs_and_value

_Carry = tuple[Any, ...]


class _Step(NamedTuple):
    """Transitions, ``[T, num_envs, ...]``."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    ended: jax.Array


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training ends with.

    Attributes:
      params: network parameters.
      episodes: that have ended.
      return_sum: of their returns.
    """

    params: Any
    episodes: jax.Array
    return_sum: jax.Array


jax.tree_util.register_dataclass(Trained)


def make_train(
    config: TrainConfig, hyperparameters: Hyperparameters, updates: int
) -> Callable[[jax.Array], Trained]:
    """Return a function that trains one agent, from a key.

    Args:
      config: only its environment and agent matter; without normalisation.
      hyperparameters: compiled in.
      updates: iterations of collecting and learning.
    """
    h = hyperparameters
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    num_envs = config.agent.num_envs
    optimizer = optax.chain(
        optax.clip_by_global_norm(h.max_grad_norm), optax.adam(h.learning_rate, eps=h.adam_epsilon)
    )
    reset = jax.vmap(environment.reset)
    # Orthogonal initialisation decomposes matrices, and with jaxlib 0.10 a batch of QR
    # decompositions can hang on CPU.
    init = jax.custom_batching.sequential_vmap(network.init)

    def train(key: jax.Array) -> Trained:
        key, network_key, reset_key = jax.random.split(key, 3)
        env_state, observation = reset(jax.random.split(reset_key, num_envs))
        params = init(network_key, observation[0])

        def update(carry: _Carry, _: None) -> tuple[_Carry, None]:
            # Collect trajectories
            def env_step(carry: _Carry, _: None) -> tuple[_Carry, _Step]:
                params, env_state, observation, running, totals, key = carry
                key, action_key, step_key, reset_key = jax.random.split(key, 4)
                outputs, value = outputs_and_value(network, params, observation)
                noise = network.distribution.noise(action_key, (num_envs,))
                action = network.distribution.sample(outputs, noise)
                timestep = jax.vmap(environment.step)(
                    jax.random.split(step_key, num_envs),
                    env_state,
                    network.distribution.action(action),
                )
                ended = timestep.terminated | timestep.truncated
                fresh = reset(jax.random.split(reset_key, num_envs))
                env_state, following = jax.tree.map(
                    lambda new, old: jax.vmap(jnp.where)(ended, new, old),
                    fresh,
                    (timestep.state, timestep.observation),
                )
                running = running + timestep.reward
                episodes, return_sum = totals
                totals = (episodes + ended.sum(), return_sum + jnp.where(ended, running, 0).sum())
                step = _Step(
                    observation,
                    action,
                    network.distribution.log_prob(outputs, action),
                    value,
                    timestep.reward,
                    ended,
                )
                running = jnp.where(ended, 0.0, running)
                return (params, env_state, following, running, totals, key), step

            params, optimizer_state, *rest = carry
            (_, *rest), rollout = jax.lax.scan(
                env_step, (params, *rest), None, h.n_steps // num_envs
            )
            env_state, observation, running, totals, key = rest

            # Estimate advantages: as PureJaxRL does, whatever ends an episode counts as its end
            def gae(carry: _Carry, step: _Step) -> tuple[_Carry, jax.Array]:
                advantage, next_value = carry
                alive = 1.0 - step.ended
                delta = step.reward + h.gamma * next_value * alive - step.value
                advantage = delta + h.gamma * h.gae_lambda * alive * advantage
                return (advantage, step.value), advantage

            last: _Carry = (
                jnp.zeros(num_envs),
                outputs_and_value(network, params, observation)[1],
            )
            advantages = jax.lax.scan(gae, last, rollout, reverse=True)[1]

            # Update the network
            def epoch(carry: _Carry, _: None) -> tuple[_Carry, None]:
                params, optimizer_state, key = carry
                key, shuffle_key = jax.random.split(key)
                order = jax.random.permutation(shuffle_key, h.n_steps)
                batches = jax.tree.map(
                    lambda x: x.reshape(h.n_steps, *x.shape[2:])[order].reshape(
                        -1, h.batch_size, *x.shape[2:]
                    ),
                    (rollout, advantages, advantages + rollout.value),
                )
                start = (params, optimizer_state)
                return (*jax.lax.scan(minibatch, start, batches)[0], key), None

            def minibatch(carry: _Carry, batch: _Carry) -> tuple[_Carry, None]:
                params, optimizer_state = carry
                gradient = jax.grad(partial(loss, batch))(params)
                updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
                return (optax.apply_updates(params, updates), optimizer_state), None

            def loss(batch: _Carry, params: Any) -> jax.Array:
                steps, advantages, returns = batch
                outputs, value = outputs_and_value(network, params, steps.observation)
                total, _ = ppo_loss(
                    log_prob=network.distribution.log_prob(outputs, steps.action),
                    old_log_prob=steps.log_prob,
                    advantages=(advantages - advantages.mean()) / (advantages.std() + 1e-8),
                    entropy=network.distribution.entropy(outputs),
                    value=value,
                    old_value=steps.value,
                    returns=returns,
                    clip_epsilon=h.clip_epsilon,
                    value_coef=h.value_coef,
                    entropy_coef=h.entropy_coef,
                    clip_value_loss=h.clip_value_loss,
                )
                return total

            (params, optimizer_state, key), _ = jax.lax.scan(
                epoch, (params, optimizer_state, key), None, h.n_epochs
            )
            return (params, optimizer_state, env_state, observation, running, totals, key), None

        totals = (jnp.int32(0), jnp.float32(0))
        start: _Carry = (
            *(params, optimizer.init(params), env_state, observation),
            *(jnp.zeros(num_envs), totals, key),
        )
        (params, *_, totals, _), _ = jax.lax.scan(update, start, None, updates)
        return Trained(params, *totals)

    return train
