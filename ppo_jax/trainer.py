"""PPO for one seed, as pure functions: ``init`` and ``train_until``.

Nothing here is jitted, sharded or vmapped over seeds; :mod:`ppo_jax.programs` does that.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppo_jax.advantages import generalized_advantage_estimation
from ppo_jax.compensated import CompensatedSum
from ppo_jax.config import TrainConfig
from ppo_jax.environments import make
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import Experience, make_optimizer, policy_advantages, update
from ppo_jax.losses import LossMetrics
from ppo_jax.networks import make_network
from ppo_jax.rollout import Actors, EpisodeTotals, Transition, collect, reset_actors
from ppo_jax.seeds import iteration_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training carries from one iteration to the next.

    Attributes:
      params: network parameters.
      optimizer_state: state of Adam.
      actors: environments in the middle of their episodes, and running statistics.
      key: the seed's key, from which those of all iterations follow; see
        :mod:`ppo_jax.seeds`.
      finite: False once a parameter, a loss or a return was not a finite number.
      iteration: iterations done, int32. It is the only leaf that all seeds share, so
        that loops over iterations have one trip count for all of them.
    """

    params: Any
    optimizer_state: optax.OptState
    actors: Actors
    key: jax.Array
    finite: jax.Array
    iteration: jax.Array


class TrainMetrics(NamedTuple):
    """Means over the iterations of one ``train_until``; float32 scalars.

    `episodic_return` and `episode_length` are means over the `episodes` that ended in
    these iterations, NaN where none did.
    """

    loss: LossMetrics
    explained_variance: jax.Array
    episodic_return: jax.Array
    episode_length: jax.Array
    episodes: jax.Array


def init(config: TrainConfig, key: jax.Array) -> TrainState:
    """Return the state of a seed before its first iteration."""
    environment = make(config.env, config.env_kwargs)
    params_key, reset_key, train_key = jax.random.split(key, 3)
    observation = jnp.zeros(environment.spaces.observation_shape, environment.observation_dtype)
    params = make_network(config.agent, environment.spaces).init(params_key, observation)
    return TrainState(
        params=params,
        optimizer_state=make_optimizer(Hyperparameters()).init(params),
        actors=reset_actors(config, environment, reset_key),
        key=train_key,
        finite=jnp.array(True),
        iteration=jnp.int32(0),
    )


def train_until(
    config: TrainConfig,
    state: TrainState,
    hyperparameters: Hyperparameters,
    target_iteration: jax.Array,
    total_iterations: jax.Array,
    *,
    few_launches: bool = False,
) -> tuple[TrainState, TrainMetrics]:
    """Train one seed until `target_iteration` iterations are done.

    Args:
      config: static.
      state: a seed's state; with fewer than `target_iteration` iterations done.
      hyperparameters: traced scalars.
      target_iteration: int32 scalar; see :func:`ppo_jax.config.iterations_for`.
      total_iterations: int32 scalar, the horizon of annealing.
      few_launches: static; see :func:`ppo_jax.learner.update`.

    Returns:
      The new state, and metrics of the iterations just done.
    """
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)

    def iteration(index: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        params, optimizer_state, actors, finite, sums = carry
        rollout_key, shuffle_key = jax.random.split(iteration_key(state.key, index))
        rates = annealed(hyperparameters, index / total_iterations)

        # Collect trajectories
        actors, rollout, totals = collect(
            config, environment, network, params, actors, rollout_key, rates.n_steps, rates.gamma
        )
        # Estimate advantages
        experience, explained_variance = prepare(config, rollout, rates)
        # Update the network
        params, optimizer_state, metrics = update(
            config,
            network,
            params,
            optimizer_state,
            experience,
            rates,
            shuffle_key,
            few_launches=few_launches,
        )

        found = (metrics, explained_variance, totals)
        finite &= all_finite(found)
        return params, optimizer_state, actors, finite, sums.plus(found)

    sums = no_sums()
    params, optimizer_state, actors, finite, sums = jax.lax.fori_loop(
        state.iteration,
        target_iteration,
        iteration,
        (state.params, state.optimizer_state, state.actors, state.finite, sums),
    )
    new_state = TrainState(
        params=params,
        optimizer_state=optimizer_state,
        actors=actors,
        key=state.key,
        finite=finite & all_finite(params),
        iteration=jnp.maximum(state.iteration, target_iteration),
    )
    done = (new_state.iteration - state.iteration).astype(jnp.float32)
    return new_state, means(sums, done)


def no_sums() -> CompensatedSum:
    """Return the sums of no iterations: of the losses, the explained variance, the episodes."""
    return CompensatedSum.zero((LossMetrics.zero(), jnp.float32(0), EpisodeTotals.zero()))


def means(sums: CompensatedSum, iterations: jax.Array) -> TrainMetrics:
    """Return the metrics of a number of iterations from their sums."""
    *losses, episodes = sums.value
    loss, explained_variance = jax.tree.map(lambda total: total / iterations, losses)
    return TrainMetrics(
        loss,
        explained_variance,
        episodic_return=episodes.return_sum / episodes.episodes,
        episode_length=episodes.length_sum / episodes.episodes,
        episodes=episodes.episodes,
    )


def annealed(hyperparameters: Hyperparameters, progress: jax.Array) -> Hyperparameters:
    """Return `hyperparameters` with the annealed rates as they are at `progress` in [0, 1].

    The rates hold for a whole iteration, as in CleanRL and Stable-Baselines3. The cosine is
    that of Loshchilov and Hutter (2017, arXiv:1608.03983, equation 5) without restarts.
    """
    h = hyperparameters
    cosine = 0.5 - 0.5 * jnp.cos(jnp.pi * progress)
    way = jnp.where(h.cosine_annealing, cosine, progress)

    def rate(value: Any, anneal: Any, end: Any) -> Any:
        return jnp.where(anneal, value * (1.0 - (1.0 - end) * way), value)

    return dataclasses.replace(
        h,
        learning_rate=rate(h.learning_rate, h.anneal_learning_rate, h.learning_rate_end),
        entropy_coef=rate(h.entropy_coef, h.anneal_entropy_coef, h.entropy_coef_end),
        clip_epsilon=rate(h.clip_epsilon, h.anneal_clip_epsilon, h.clip_epsilon_end),
    )


def prepare(
    config: TrainConfig, rollout: Transition, hyperparameters: Hyperparameters
) -> tuple[Experience, jax.Array]:
    """Turn a rollout buffer into experience, and say how well the critic predicted it.

    Returns:
      Experience of ``[config.max_n_steps]`` transitions, time-major, so that the first
      ``n_steps`` are the ones that were collected, of a recurrent network in sequences of an
      environment, ``[config.max_n_steps / length, length]``; and the explained variance
      1 - Var(returns - values) / Var(returns), 0 where the returns do not vary.
    """
    time = jnp.arange(rollout.reward.shape[0])
    valid = time < hyperparameters.n_steps // config.agent.num_envs
    advantages, returns = generalized_advantage_estimation(
        rollout.reward,
        rollout.value,
        rollout.next_value,
        rollout.terminated,
        rollout.truncated,
        hyperparameters.gamma,
        hyperparameters.gae_lambda,
        valid,
    )
    used = jnp.broadcast_to(valid[:, None], returns.shape)
    variance = returns.var(where=used)
    unexplained = advantages.var(where=used)
    explained_variance = jnp.where(
        variance > 0, 1.0 - unexplained / jnp.where(variance > 0, variance, 1.0), 0.0
    )
    experience = Experience(
        rollout.observation,
        rollout.action,
        rollout.log_prob,
        rollout.value,
        policy_advantages(advantages, used, hyperparameters),
        returns,
    )
    if not config.agent.recurrent:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience)
        return rows, explained_variance
    ended = rollout.terminated | rollout.truncated
    # What is remembered at the start of a rollout is fresh already where an episode begins.
    experience = experience._replace(starts=jnp.roll(ended, 1, axis=0).at[0].set(False))

    def sequences(x: jax.Array) -> jax.Array:
        by_sequence = x.reshape(-1, config.agent.row_size, *x.shape[1:]).swapaxes(1, 2)
        return by_sequence.reshape(-1, config.agent.row_size, *x.shape[2:])

    memory = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.memory)
    return jax.tree.map(sequences, experience)._replace(memory=memory), explained_variance


def all_finite(tree: Any) -> jax.Array:
    """Return whether every number in `tree` is finite; a bool scalar."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
