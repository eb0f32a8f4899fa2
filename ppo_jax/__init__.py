"""PPO as compiled programs on accelerator-native environments.

>>> import ppo_jax
>>> result = ppo_jax.train(
...     "CartPole-v1", learning_rate=1e-3, total_steps=500_000, seeds=4
... )  # doctest: +SKIP
>>> result.policy.act(observation)  # doctest: +SKIP

Importing this package starts no backend and imports nothing heavy: what it names is imported
when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_jax import devices as devices
    from ppo_jax import environments as environments
    from ppo_jax import policy as policy
    from ppo_jax import presets as presets
    from ppo_jax.config import AgentConfig, TrainConfig
    from ppo_jax.errors import UserError
    from ppo_jax.hyperparameters import Hyperparameters
    from ppo_jax.policy import Policy
    from ppo_jax.programs import Checkpoint
    from ppo_jax.training import TrainingResult, train

__version__ = "0.1.0"

_HOMES = {
    "AgentConfig": "ppo_jax.config",
    "Checkpoint": "ppo_jax.programs",
    "Hyperparameters": "ppo_jax.hyperparameters",
    "Policy": "ppo_jax.policy",
    "TrainConfig": "ppo_jax.config",
    "TrainingResult": "ppo_jax.training",
    "UserError": "ppo_jax.errors",
}
"""Name -> the module that has it. The other public names are modules; that of the command
``ppo_jax.train`` is a function as well."""

__all__ = [
    "AgentConfig",
    "Checkpoint",
    "Hyperparameters",
    "Policy",
    "TrainConfig",
    "TrainingResult",
    "UserError",
    "devices",
    "environments",
    "policy",
    "presets",
    "train",
]

if not TYPE_CHECKING:  # Else every name would be one.

    def __dir__() -> list[str]:
        return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        return importlib.import_module(f"{__name__}.{name}")
