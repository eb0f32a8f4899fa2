"""Action distributions as pure functions of a network's outputs."""

import jax
import jax.numpy as jnp


def categorical_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw what :func:`categorical_sample` needs for logits of `shape`, ``[..., actions]``."""
    return jax.random.gumbel(key, shape)


def categorical_sample(logits: jax.Array, noise: jax.Array) -> jax.Array:
    """Turn logits and Gumbel noise, ``[..., actions]``, into actions, int32 ``[...]``.

    The largest of logits + noise is a sample of the distribution (Gumbel, 1954; see
    Maddison et al., 2014, arXiv:1411.0030).
    """
    return categorical_mode(logits + noise)


def categorical_mode(logits: jax.Array) -> jax.Array:
    """Return the most probable actions, int32 ``[...]``, of logits ``[..., actions]``."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Return log-probabilities ``[...]`` in nats of actions ``[...]``.

    >>> categorical_log_prob(jnp.log(jnp.array([0.25, 0.75])), jnp.array(1)).round(4)
    Array(-0.2877, dtype=float32)
    """
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1).squeeze(-1)


def categorical_entropy(logits: jax.Array) -> jax.Array:
    """Return entropies ``[...]`` in nats of logits ``[..., actions]``.

    >>> categorical_entropy(jnp.zeros(2)).round(4)
    Array(0.6931, dtype=float32)
    """
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
