"""PPO as compiled programs on accelerator-native environments.

Importing this package starts no backend and imports nothing heavy: the
modules are imported where they are needed (``ppo_jax.programs``,
``ppo_jax.policy``, ...).
"""

__version__ = "0.1.0"
