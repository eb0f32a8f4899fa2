"""The clipped PPO objective, as pure functions of arrays (arXiv:1707.06347)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class LossMetrics(NamedTuple):
    """Means over a minibatch (or over many of them); float32 scalars."""

    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    approx_kl: jax.Array
    clip_fraction: jax.Array

    @classmethod
    def zero(cls) -> "LossMetrics":
        """Return zeros, to sum from."""
        return cls(*(jnp.float32(0) for _ in cls._fields))


def normalize(advantages: jax.Array, used: jax.Array | None = None) -> jax.Array:
    """Shift and scale advantages to mean 0 and deviation 1, all those in an array together.

    A single one stays as it is, as in Stable-Baselines3: less its mean it would say nothing.

    Args:
      advantages: any shape.
      used: which of them mean and deviation are of, bool of that shape; all if None.
    """
    mean, deviation = jnp.mean(advantages, where=used), jnp.std(advantages, where=used)
    single = advantages.size == 1 if used is None else used.sum() == 1
    return jnp.where(single, advantages, (advantages - mean) / (deviation + 1e-8))


def policy_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    clip_epsilon: jax.Array | float,
) -> jax.Array:
    """Return the negative clipped surrogate (equation 7), a scalar, of arrays ``[B]``."""
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -jnp.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(
    value: jax.Array,
    old_value: jax.Array,
    returns: jax.Array,
    clip_epsilon: jax.Array | float,
    clip: jax.Array | bool,
) -> jax.Array:
    """Return half the mean squared error of the value estimate, a scalar, of arrays ``[B]``.

    With `clip`, the larger of the errors of the new estimate and of one that moved by
    at most `clip_epsilon`, as in OpenAI's PPO ("37 Implementation Details", detail 9).
    """
    error = jnp.square(value - returns)
    moved = old_value + jnp.clip(value - old_value, -clip_epsilon, clip_epsilon)
    clipped_error = jnp.maximum(error, jnp.square(moved - returns))
    return 0.5 * jnp.where(clip, clipped_error, error).mean()


def ppo_loss(
    *,
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    entropy: jax.Array,
    value: jax.Array,
    old_value: jax.Array,
    returns: jax.Array,
    clip_epsilon: jax.Array | float,
    value_coef: jax.Array | float,
    entropy_coef: jax.Array | float,
    clip_value_loss: jax.Array | bool,
    value_clip_epsilon: jax.Array | float = 0.0,
) -> tuple[jax.Array, LossMetrics]:
    """Return the loss that PPO minimises (equation 9) and its parts.

    Args:
      log_prob: log-probabilities of the taken actions under the new policy, ``[B]``.
      old_log_prob: the same under the policy that took them, ``[B]``.
      advantages: as the policy loss is to use them (normalised or not), ``[B]``.
      entropy: entropies of the new policy, ``[B]``.
      value: value estimates of the new critic, ``[B]``.
      old_value: value estimates at the time of the rollout, ``[B]``.
      returns: value targets, ``[B]``.
      clip_epsilon: half-width of the clip of the probability ratio, scalar.
      value_coef: weight of the value loss, scalar.
      entropy_coef: weight of the entropy bonus, scalar.
      clip_value_loss: whether to clip the value loss, scalar.
      value_clip_epsilon: half-width of that clip, scalar; `clip_epsilon` where it is 0.

    Returns:
      ``(loss, metrics)``; `approx_kl` is the estimator k3 of Schulman
      (http://joschu.net/blog/kl-approx.html), always at least zero.
    """
    # A [B, 1] among the [B] would broadcast to [B, B] and train without a word.
    chex.assert_equal_shape(
        [log_prob, old_log_prob, advantages, entropy, value, old_value, returns]
    )
    chex.assert_rank(log_prob, 1)
    surrogate = policy_loss(log_prob, old_log_prob, advantages, clip_epsilon)
    value_clip = jnp.where(value_clip_epsilon > 0, value_clip_epsilon, clip_epsilon)
    error = value_loss(value, old_value, returns, value_clip, clip_value_loss)
    mean_entropy = entropy.mean()
    log_ratio = log_prob - old_log_prob
    metrics = LossMetrics(
        policy_loss=surrogate,
        value_loss=error,
        entropy=mean_entropy,
        approx_kl=jnp.mean(jnp.expm1(log_ratio) - log_ratio),
        clip_fraction=jnp.mean(jnp.abs(jnp.expm1(log_ratio)) > clip_epsilon),
    )
    return surrogate + value_coef * error - entropy_coef * mean_entropy, metrics
