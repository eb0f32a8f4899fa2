"""A configuration as options of the command lines: what differs from the defaults."""

from collections.abc import Mapping
from typing import Any

from ppo_jax.config import AgentConfig, changed
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.imports import name_elsewhere


def environment_words(env: str, env_kwargs: Mapping[str, Any]) -> list[str]:
    """Return the options that name an environment."""
    words = ["--env", name_elsewhere(env)]
    if env_kwargs:
        words += ["--env-kwargs", *(f"{name}={value}" for name, value in env_kwargs.items())]
    return words


def agent_words(agent: AgentConfig) -> list[str]:
    """Return the options that make an agent."""
    return _options(changed(agent))


def hyperparameter_words(hyperparameters: Hyperparameters) -> list[str]:
    """Return the options that set hyperparameters.

    >>> hyperparameter_words(Hyperparameters(gamma=0.9, anneal_learning_rate=True))
    ['--gamma', '0.9', '--anneal-learning-rate']
    """
    return _options(changed(hyperparameters))


def _options(chosen: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in chosen.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{option}", *(name_elsewhere(str(value)) for value in values)]
    return words
