"""A trained network on disk: safetensors for the numbers, JSON for everything else.

A policy is what acts. What training needs to go on is a training state, not a policy.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ppo_jax import distributions
from ppo_jax.config import ACTIVATIONS, TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import UserError, require_choice, require_count
from ppo_jax.files import read_json, replacing, write_json
from ppo_jax.networks import ActorCritic, action_logits
from ppo_jax.versions import versions

FORMAT = 1
_TENSORS, _DESCRIPTION = "model.safetensors", "policy.json"


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained policy.

    Attributes:
      network: the module that `params` belongs to.
      params: network parameters, a nested dictionary of arrays.
      description: all that ``policy.json`` holds: environment, network, versions, and
        what the saver added.
    """

    network: ActorCritic
    params: Any
    description: Mapping[str, Any]

    def act(self, observation: np.ndarray, key: jax.Array | None = None) -> np.ndarray:
        """Return the actions for one observation or a batch of them.

        Args:
          observation: ``[..., *observation_shape]``, as the environment gives them.
          key: draws from the policy's distribution; without it the most probable action.

        Returns:
          Actions, int32 ``[...]``.

        Raises:
          UserError: when the observation has another shape.
        """
        observation = np.asarray(observation, np.float32)
        shape = tuple(self.description["environment"]["observation_shape"])
        if observation.shape[-len(shape) :] != shape:
            raise UserError(
                f"observation must have shape [..., {', '.join(map(str, shape))}], "
                f"but got {observation.shape}"
            )
        logits = action_logits(self.network, self.params, jnp.asarray(observation))
        if key is None:
            return np.asarray(distributions.categorical_mode(logits))
        noise = distributions.categorical_noise(key, logits.shape)
        return np.asarray(distributions.categorical_sample(logits, noise))


def save(folder: Path, config: TrainConfig, params: Any, **extra: Any) -> None:
    """Save the network of one seed into `folder`, which is made if it is missing.

    Args:
      config: the configuration the parameters were trained with.
      params: parameters of one seed, without a seed axis.
      extra: more to keep in the JSON, for example hyperparameters and scores.
    """
    environment = make(config.env, config.env_kwargs)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _TENSORS) as temporary:
        save_file(
            {name: np.ascontiguousarray(leaf) for name, leaf in _flatten(params).items()}, temporary
        )
    description = {
        "format": FORMAT,
        "environment": {
            "name": config.env,
            "kwargs": dict(config.env_kwargs),
            "observation_shape": environment.observation_shape,
            "num_actions": environment.num_actions,
        },
        "network": {"hidden_sizes": config.hidden_sizes, "activation": config.activation},
        "observation_statistics": None,
        "versions": versions(),
    }
    write_json(folder / _DESCRIPTION, description | extra)


def load(folder: str | Path) -> Policy:
    """Load a policy that :func:`save` wrote. Nothing in the files is executed.

    Raises:
      UserError: when a file is missing, damaged, or does not fit the other.
    """
    folder = Path(folder)
    description = read_json(folder / _DESCRIPTION)
    try:
        network, shape = _network_of(description)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / _DESCRIPTION} is not a policy: {error!r}") from error
    except UserError as error:
        raise UserError(f"{folder / _DESCRIPTION}: {error}") from error
    try:
        tensors = load_file(folder / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / _TENSORS}: {error}") from error
    expected = _flatten(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape)))
    if _signature(tensors) != _signature(expected):
        raise UserError(f"{folder / _TENSORS} does not hold the network of {_DESCRIPTION}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{folder / _TENSORS} holds numbers that are not finite")
    return Policy(network, _unflatten(tensors), description)


def _network_of(description: Mapping[str, Any]) -> tuple[ActorCritic, tuple[int, ...]]:
    """Return the network that a ``policy.json`` describes and its observation shape."""
    if description["format"] != FORMAT:
        raise UserError(f"format must be {FORMAT}, but got {description['format']!r}")
    if description["observation_statistics"] is not None:
        raise UserError("it normalises observations, which is not supported yet")
    environment, network = description["environment"], description["network"]
    shape, sizes = environment["observation_shape"], network["hidden_sizes"]
    require_count("num_actions", environment["num_actions"])
    for name, counts in (("observation_shape", shape), ("hidden_sizes", sizes)):
        if not isinstance(counts, list):
            raise UserError(f"{name} must be a list, but got {counts!r}")
        for count in counts:
            require_count(name, count)
    if not shape:
        raise UserError(f"observation_shape must have at least one dimension, but got {shape!r}")
    require_choice("activation", network["activation"], ACTIVATIONS)
    return (
        ActorCritic(environment["num_actions"], len(shape), tuple(sizes), network["activation"]),
        tuple(shape),
    )


def _signature(tensors: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}


def _flatten(tree: Any) -> dict[str, Any]:
    """Return ``params/actor/Dense_0/kernel`` -> leaf."""
    return {
        "/".join(str(part.key) for part in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unflatten(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = tensor
    return tree
