"""Random keys by purpose: which key every random number of a run comes from.

A run has one root seed. Its keys form a tree; every branch has a reason, and no two
reasons share one:

    root seed
    └─ purpose           what the seeds are for: training, tuning, validation, ...
       └─ seed number    one independent training run
          ├─ iteration   rollout and shuffling of one update of the network
          └─ EVALUATION
             └─ checkpoint   initial states of the evaluation episodes

So what a seed draws depends on root seed, purpose, seed number and iteration, and on
nothing else: not on how many seeds run beside it, on how often it is evaluated, or on
whether it was interrupted. Seeds of different purposes are disjoint by construction,
which is what makes a validation on fresh seeds one.

A purpose is a small integer, or a path of them. This package trains for a single one,
:data:`TRAINING`; who needs more numbers them.
"""

from functools import partial

import jax
import jax.numpy as jnp

TRAINING = 3
"""Purpose of the seeds of ``python -m ppo_jax.train``; :mod:`tune` numbers its own from 0."""

EVALUATION = 2**32 - 1
"""Stands where the iterations of a training stand, all of which are smaller."""


def seed_keys(root: int, purpose: int | tuple[int, ...], count: int) -> jax.Array:
    """Return the keys of the first `count` seeds for `purpose`, ``[count]``.

    Seed *i* has the same key however many there are.

    Args:
      root: root seed of the run, from 0 to 2**32 - 1.
      purpose: what the seeds are for; each purpose has keys that no other has. Several numbers
        are a purpose within a purpose.
      count: static.
    """
    path = jnp.asarray(purpose, jnp.uint32).reshape(-1)
    keys: jax.Array = _derived_keys(jax.random.key(root), path, count)
    return keys


@partial(jax.jit, static_argnames="count")
def _derived_keys(key: jax.Array, path: jax.Array, count: int) -> jax.Array:
    for depth in range(len(path)):
        key = jax.random.fold_in(key, path[depth])
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))


def iteration_key(key: jax.Array, iteration: jax.Array | int) -> jax.Array:
    """Return the key of one iteration of a training.

    Args:
      key: of the training of one seed.
      iteration: number of the iteration, int32 from 0 on.
    """
    return jax.random.fold_in(key, iteration)


def evaluation_key(key: jax.Array, checkpoint: jax.Array | int) -> jax.Array:
    """Return the key of the evaluation at a checkpoint.

    Args:
      key: of the training of one seed.
      checkpoint: number of the checkpoint in the run, int32 from 0 on.
    """
    return jax.random.fold_in(jax.random.fold_in(key, EVALUATION), checkpoint)
