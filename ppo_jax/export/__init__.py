"""Configurations of other implementations of PPO: out of this project and into it.

:mod:`~ppo_jax.export.correspondence` is the table of what corresponds to what, and names what does
not. :mod:`~ppo_jax.export.reading` and :mod:`~ppo_jax.export.writing` know the files. What passes
between them is a :class:`ppo_jax.presets.Preset`. ``python -m ppo_jax.export`` is the command.
"""
