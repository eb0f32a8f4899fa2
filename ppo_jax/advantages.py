"""Generalized advantage estimation."""

import chex
import jax
import jax.numpy as jnp

_Decayed = tuple[jax.Array, jax.Array]
"""Decays and sums of a span of steps."""


def generalized_advantage_estimation(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
    valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Advantages and value targets of a rollout (Schulman et al., 2016, arXiv:1506.02438).

    .. math::
        \delta_t = r_t + \gamma (1 - \text{terminated}_t) V(s'_t) - V(s_t), \qquad
        A_t = \delta_t + \gamma \lambda (1 - \text{terminated}_t \vee
        \text{truncated}_t) A_{t+1}

    where :math:`s'_t` is the state that step *t* led to, before any reset. A truncated
    episode is bootstrapped, a terminated one is not, and no advantage leaks from one
    episode into the one before it (Pardo et al., 2018, arXiv:1712.00378).

    Args:
      rewards: float ``[T, ...]``.
      values: V(s_t), float ``[T, ...]``.
      next_values: V(s'_t), float ``[T, ...]``.
      terminated: bool ``[T, ...]``; wins where `truncated` is set as well.
      truncated: bool ``[T, ...]``.
      gamma: discount factor, scalar.
      gae_lambda: decay, scalar.
      valid: bool ``[T]``; False for the unused tail of a buffer. All of it by default.

    Returns:
      ``(advantages, returns)``, each ``[T, ...]``; zero advantage where not valid.
      The returns are the value targets, advantages + values.
    """
    chex.assert_equal_shape([rewards, values, next_values, terminated, truncated])
    deltas = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    decays = jnp.where(terminated | truncated, 0.0, gamma * gae_lambda)
    if valid is not None:
        valid = valid.reshape(valid.shape + (1,) * (rewards.ndim - 1))
        deltas, decays = jnp.where(valid, deltas, 0.0), jnp.where(valid, decays, 0.0)

    # A linear recurrence is associative: log2(T) wide steps in place of T narrow ones.
    def compose(later: _Decayed, earlier: _Decayed) -> _Decayed:
        (a, b), (c, d) = later, earlier
        return a * c, d + c * b

    _, advantages = jax.lax.associative_scan(compose, (decays, deltas), reverse=True)
    return advantages, advantages + values
