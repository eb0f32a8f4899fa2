"""Watching a policy play: films, drawings of environments, episodes in the real Gymnasium.

What a policy is lives in :mod:`ppo_jax.policy`; how episodes are counted in a compiled
program, in :mod:`ppo_jax.evaluation`.
"""
