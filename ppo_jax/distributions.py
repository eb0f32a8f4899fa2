"""Action distributions as pure functions of a network's outputs."""

import jax
import jax.numpy as jnp


def categorical_sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draw actions, int32 ``[...]``, from logits ``[..., actions]``."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


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
