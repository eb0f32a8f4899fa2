"""Purposes of the seeds of a study; see :mod:`ppo_jax.seeds` for how keys follow from them."""

TUNING = 0
"""Seeds that trials are scored on, and finalists trained on."""
VALIDATION = 1
"""Fresh seeds that the winner is compared with the baseline on."""
