"""A trained network on disk: safetensors for the numbers, JSON for everything else.

A policy is what acts. What training needs to go on is a training state, not a policy.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from ppo_jax import model_card, normalization
from ppo_jax.config import AgentConfig, TrainConfig, require_asked, sorted_env_kwargs
from ppo_jax.environments import (
    ActionSpace,
    Continuous,
    Discrete,
    MultiDiscrete,
    Part,
    Spaces,
    make,
)
from ppo_jax.environments.base import CHOICES, IMAGE, MASK, NUMBERS, number_of_logits
from ppo_jax.errors import (
    LARGEST_COUNT,
    UserError,
    is_number,
    require_choice,
    require_count,
)
from ppo_jax.files import (
    disk_errors,
    make_folder,
    path_of,
    read_json,
    read_text,
    replacing,
    write_json,
)
from ppo_jax.imports import name_elsewhere, name_of
from ppo_jax.networks import ActorCritic, make_network, policy_step
from ppo_jax.normalization import RunningStatistics, normalized
from ppo_jax.notebook import card, changes
from ppo_jax.programs import Weights
from ppo_jax.versions import versions

FORMAT = 2
_TENSORS, _DESCRIPTION = "model.safetensors", "policy.json"
_STATISTICS = "observation_statistics"
_LARGEST_HEADER = 2**20


@dataclasses.dataclass(frozen=True, repr=False)
class Policy:
    """A trained policy.

    Attributes:
      agent: what it is made of.
      spaces: what it sees and gives.
      weights: network parameters and observation statistics, arrays.
      description: all that ``policy.json`` holds: environment, agent, versions, and
        what the saver added.
    """

    agent: AgentConfig
    spaces: Spaces
    weights: Weights
    description: Mapping[str, Any]

    @property
    def network(self) -> ActorCritic:
        """The module that the parameters belong to."""
        return make_network(self.agent, self.spaces)

    def memory(self, batch: tuple[int, ...] = ()) -> Any:
        """Return what is remembered at the start of episodes, arrays ``[*batch, width]`` of zeros.

        Where one of a batch of episodes ends, put zeros in its place. () of networks that remember
        nothing.
        """
        return jax.tree.map(np.asarray, self.network.fresh_memory(batch))

    def act(self, observation: np.ndarray, key: jax.Array | None = None) -> np.ndarray:
        """Return the actions for one observation or a batch of them.

        A policy that remembers needs :meth:`step`.

        Args:
          observation: ``[..., *observation_shape]``, as the environment gives them;
            integers ``[...]`` where the environment's observations are integers; the
            dictionary or tuple itself where they consist of parts.
          key: draws from the policy's distribution; without it the greedy action: the
            most probable one, or the mean.

        Returns:
          Actions as the environment takes them: int32 ``[...]``, int32 ``[..., actions]`` of
          several at once, or float32 ``[..., size]`` within the bounds.

        Raises:
          UserError: when the observation has another shape, or the policy remembers.
        """
        if self.agent.recurrent:
            raise UserError(
                f"this policy remembers ({self.agent.network}): action, memory = "
                "policy.step(observation, memory), which begins with policy.memory()"
            )
        return self.step(observation, (), key)[0]

    def step(
        self, observation: np.ndarray, memory: Any, key: jax.Array | None = None
    ) -> tuple[np.ndarray, Any]:
        """Return the actions for the next observations of episodes, and what to remember of them.

        Args:
          observation: see :meth:`act`.
          memory: of the step before, or :meth:`memory`; arrays ``[..., width]``.
          key: see :meth:`act`.

        Raises:
          UserError: when the observation or the memory has another shape, or `key` is no key.
        """
        if key is not None and not isinstance(key, jax.Array):
            raise UserError(f"key must be one that jax.random.key makes, but got {key!r:.60}")
        if self.spaces.parts and isinstance(observation, Mapping | tuple):
            observation = self._flat(observation)
        observation = self._numbers(observation)
        n = self.spaces.discrete_observations
        if n is not None and np.issubdtype(observation.dtype, np.integer):
            if observation.size and not (observation.min() >= 0 and observation.max() < n):
                raise UserError(f"observation must be from 0 to {n - 1}, but got {observation}")
            observation = np.eye(n)[observation]
        shape = self.spaces.observation_shape
        if observation.shape[max(0, observation.ndim - len(shape)) :] != shape:
            raise UserError(
                f"observation must have shape [..., {', '.join(map(str, shape))}], "
                f"but got {observation.shape}"
            )
        batch = observation.shape[: observation.ndim - len(shape)]
        fresh = jax.eval_shape(lambda: self.network.fresh_memory(batch))
        if jax.tree.map(np.shape, memory) != jax.tree.map(np.shape, fresh):
            raise UserError(
                f"memory must be that of policy.memory({batch}), with the shapes "
                f"{jax.tree.leaves(jax.tree.map(np.shape, fresh))}, but got {memory!r:.60}"
            )
        if 0 in batch:  # Nothing to multiply.
            action, _ = self.step(np.zeros(shape), self.memory())
            return np.zeros((*batch, *action.shape), action.dtype), memory
        acted = _act(self.network, self.weights, np.float32(observation), memory, key)
        action, memory = jax.tree.map(np.asarray, acted)
        return action, memory

    def save(self, folder: str | Path) -> None:
        """Save into `folder`, which is made if it is missing.

        Its two files replace those of an earlier policy there, and so does its model card,
        ``README.md``, unless there is another text of that name.
        """
        folder = path_of("folder", folder)
        make_folder(folder)
        with replacing(folder / _TENSORS) as temporary, disk_errors(folder / _TENSORS):
            # `order`, since `ascontiguousarray` would give a number a dimension.
            flat = _flatten_weights(self.weights)
            # Not `save_file`: it prepares a file of its own, which a kill would leave behind.
            content = safetensors_numpy.save({k: np.array(x, order="C") for k, x in flat.items()})
            temporary.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        write_json(folder / _DESCRIPTION, {**self.description, "sha256": digest})
        self.write_card(folder)

    def write_card(self, folder: Path) -> None:
        """Write the model card of the policy, unless `folder` holds it or a text of another."""
        path, card = folder / model_card.FILE, model_card.render(self.description)
        try:
            found = read_text(path, 2**20) if path.exists() else ""
        except UserError:
            return
        if found != card and model_card.may_be_replaced(found):
            with replacing(path) as temporary, disk_errors(path):
                temporary.write_text(card, encoding="utf-8")

    def _repr_html_(self) -> str:
        about = self.description
        training = about.get("training", {})
        rows = {
            "observations": self.spaces.observation_shape,
            "actions": self.spaces.action_space,
            "agent": changes(self.agent),
            **{name.replace("_", " "): training[name] for name in training},
        }
        return card(f"Policy for {about['environment']['name']}", rows)

    def __repr__(self) -> str:
        return f"<Policy for {self.description['environment']['name']}, {self.spaces}>"

    def _flat(self, observation: Any) -> np.ndarray:
        """Return the vector of an observation of parts."""
        try:
            return np.asarray(self.spaces.flat(observation))
        except UserError:
            raise
        except (KeyError, IndexError, TypeError, ValueError) as error:
            paths = ", ".join("".join(f"[{k!r}]" for k in p.path) for p in self.spaces.parts)
            raise UserError(
                f"observation must have the parts {paths}, but got {observation!r:.60}"
            ) from error

    def _numbers(self, observation: Any) -> np.ndarray:
        """Return `observation` as an array of numbers."""
        sizes = ", ".join(map(str, self.spaces.observation_shape))
        needed = f"observation must have shape [..., {sizes}]"
        if isinstance(observation, tuple) and any(isinstance(x, Mapping) for x in observation):
            raise UserError(
                f"{needed}, but got a tuple; Gymnasium's reset returns (observation, info): "
                "pass the first of them"
            )
        try:
            array = np.asarray(observation)
        except ValueError:  # Lists of different lengths.
            raise UserError(f"{needed}, but got {observation!r:.60}") from None
        if array.dtype.kind not in "biuf":
            raise UserError(f"{needed} and hold numbers, but got {observation!r:.60}")
        return array


@functools.partial(jax.jit, static_argnames="network")
def _act(
    network: ActorCritic,
    weights: Weights,
    observation: jax.Array,
    memory: Any,
    key: jax.Array | None,
) -> tuple[jax.Array, Any]:
    if weights.observation_statistics is not None:
        observation = normalized(weights.observation_statistics, observation)
    outputs, memory = policy_step(network, weights.params, observation, memory)
    distribution = network.distribution
    if key is None:
        return distribution.action(distribution.mode(outputs)), memory
    noise = distribution.noise(key, outputs.shape[:-1])
    return distribution.action(distribution.sample(outputs, noise)), memory


def of(config: TrainConfig, weights: Weights, **extra: Any) -> Policy:
    """Return the policy of one seed.

    Args:
      config: the configuration the weights were trained with.
      weights: of one seed, without a seed axis.
      extra: more for the description, for example hyperparameters and scores.
    """
    spaces = make(config.env, config.env_kwargs).spaces
    statistics = {"clip": normalization.CLIP, "epsilon": normalization.EPSILON}
    description = {
        "format": FORMAT,
        "environment": {
            "name": config.env,
            "kwargs": dict(config.env_kwargs),
            "observation_shape": spaces.observation_shape,
            "discrete_observations": spaces.discrete_observations,
            "action_space": _describe_actions(spaces.action_space),
            **({} if spaces.scale == 1.0 else {"scale": spaces.scale}),
            **({"parts": [dataclasses.asdict(p) for p in spaces.parts]} if spaces.parts else {}),
        },
        "agent": config.agent.to_dict(),
        **_needs(config.agent.network),
        _STATISTICS: statistics if config.agent.normalize_observations else None,
        "versions": versions(),
    }
    return Policy(config.agent, spaces, weights, description | extra)


def save(folder: Path, config: TrainConfig, weights: Weights, **extra: Any) -> None:
    """Save the policy of one seed; see :func:`of` and :meth:`Policy.save`."""
    of(config, weights, **extra).save(folder)


def _needs(network: str) -> dict[str, Any]:
    """Return what a policy says of what it needs: the code of a network of one's own."""
    if ":" not in network:
        return {}
    network = name_elsewhere(network)
    load = f"ppo_jax.policy.load(FOLDER, network={network!r})"
    return {"needs": {"network": network, "load": load, "command": f"--network {network}"}}


def load(folder: str | Path, network: str | Callable[..., Any] | None = None) -> Policy:
    """Load a policy that was saved. Nothing in the files is executed, nor what they name.

    Args:
      folder: of the policy.
      network: the class of the network, or module:Class, which is imported, where it is the
        user's own.

    Raises:
      UserError: when a file is missing, damaged, or does not fit the other.
    """
    folder = path_of("folder", folder)
    network = name_of(network) if callable(network) else network
    description = read_json(folder / _DESCRIPTION, largest=2**20)
    try:
        description = _renamed(description, network)
        agent, spaces = _described(description)
        module = make_network(agent, spaces)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / _DESCRIPTION} is not a policy: {error!r}") from error
    except UserError as error:
        raise UserError(f"{folder / _DESCRIPTION}: {error}") from error
    expected = _flatten_weights(_expected_weights(module, agent, spaces))
    try:
        content = _read_tensors(folder / _TENSORS, expected)
        tensors = safetensors_numpy.load(content)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / _TENSORS}: {error}") from error
    except KeyError as error:  # BF16, for example, which NumPy does not have.
        raise UserError(f"{folder / _TENSORS} holds numbers of the type {error}") from error
    digest = description.get("sha256")  # None where an earlier version has written it.
    if digest is not None and digest != hashlib.sha256(content).hexdigest():
        raise UserError(f"{folder / _TENSORS} is damaged, or is not of this {_DESCRIPTION}")
    if _signature(tensors) != _signature(expected):
        raise UserError(f"{folder / _TENSORS} does not hold the network of {_DESCRIPTION}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{folder / _TENSORS} holds numbers that are not finite")
    tree = _unflatten(tensors)
    statistics = tree.pop(_STATISTICS, None)
    weights = Weights(tree, None if statistics is None else RunningStatistics(**statistics))
    return Policy(agent, spaces, weights, description)


def _read_tensors(path: Path, expected: Mapping[str, Any]) -> bytes:
    """Return the content of a file of tensors, unless it is larger than the expected ones."""
    needed = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in expected.values())
    size = path.stat().st_size
    if size > needed + _LARGEST_HEADER:
        raise UserError(
            f"{path} does not hold the network of {_DESCRIPTION}: that takes {needed:,} bytes "
            f"and a header, but the file has {size:,}"
        )
    return path.read_bytes()


def _expected_weights(network: ActorCritic, agent: AgentConfig, spaces: Spaces) -> Any:
    """Return the shapes of the weights; nothing is allocated, however large they are."""
    shape = spaces.observation_shape
    observation = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), observation)
    measured = spaces.measured_shape
    statistics = jax.eval_shape(lambda: RunningStatistics.empty(measured).completed())
    return Weights(params, statistics if agent.normalize_observations else None)


def _renamed(description: Mapping[str, Any], network: str | None) -> Mapping[str, Any]:
    """Return the content of a ``policy.json`` with the user's name of a network of their own."""
    agent = description["agent"]
    if network is None or ":" not in str(agent.get("network")):
        return description
    named = AgentConfig(network=network).network
    return {**description, "agent": {**agent, "network": named}, **_needs(named)}


def _described(description: Mapping[str, Any]) -> tuple[AgentConfig, Spaces]:
    """Return what a ``policy.json`` describes."""
    environment = description["environment"]
    if description["format"] != FORMAT:
        raise UserError(f"format must be {FORMAT}, but got {description['format']!r}")
    for table in (description["versions"], description.get("training", {})):
        if not isinstance(table, Mapping):
            raise UserError(f"versions and training must be tables, but got {table!r:.60}")
    if not isinstance(environment["name"], str):
        raise UserError(
            f"name must be the name of an environment, but got {environment['name']!r:.60}"
        )
    sorted_env_kwargs(environment["kwargs"])
    values = description["agent"]
    require_asked(values.get("network"), "the policy", "pass --network, or network=,")
    agent = AgentConfig.from_dict(values)
    shape = environment["observation_shape"]
    if not isinstance(shape, list) or not shape:
        raise UserError(f"observation_shape must be a list of sizes, but got {shape!r}")
    for size in shape:
        require_count("observation_shape", size)
    if math.prod(shape) > LARGEST_COUNT:
        raise UserError(
            f"observation_shape must be of at most {LARGEST_COUNT:,} numbers, but got {shape}"
        )
    n = environment.get("discrete_observations")
    if n is not None and [n] != shape:
        raise UserError(f"discrete_observations must be the observation_shape, but got {n!r}")
    actions = _described_actions(environment["action_space"])
    scale = environment.get("scale", 1.0)
    if not is_number(scale) or not 0 < scale < math.inf:
        raise UserError(f"scale must be a number above 0, but got {scale!r}")
    if "parts" not in environment:
        return agent, Spaces(tuple(shape), actions, n, scale=float(scale))
    spaces = Spaces.of_parts([_described_part(part) for part in environment["parts"]], actions)
    if list(spaces.observation_shape) != shape:
        raise UserError(f"observation_shape must be that of the parts, but got {shape}")
    if spaces.mask_size not in (0, number_of_logits(actions)):
        raise UserError(f"parts must hold a mask of all actions, but got {spaces.mask_size}")
    return agent, spaces


def _described_part(description: Mapping[str, Any]) -> Part:
    """Return one of the parts of an observation."""
    path, shape = description["path"], description["shape"]
    if not isinstance(path, list) or not all(isinstance(key, str | int) for key in path):
        raise UserError(f"path must be a list of keys and indices, but got {path!r}")
    if not isinstance(shape, list):
        raise UserError(f"shape must be a list of sizes, but got {shape!r}")
    for size in (*shape, description["choices"]):
        require_count("shape and choices", size)
    kind, scale = description["kind"], description["scale"]
    require_choice("kind", kind, (IMAGE, NUMBERS, CHOICES, MASK))
    if not is_number(scale) or not scale > 0 or (kind == IMAGE and len(shape) != 3):
        raise UserError(f"a part must be an image of three dimensions or numbers, but got {kind}")
    return Part(tuple(path), tuple(shape), kind, description["choices"], float(scale))


def _describe_actions(space: ActionSpace) -> dict[str, Any]:
    match space:
        case Discrete(n):
            return {"kind": "discrete", "n": n}
        case MultiDiscrete(sizes):
            return {"kind": "multi_discrete", "sizes": sizes}
        case Continuous(low, high):
            return {"kind": "continuous", "low": _finite(low), "high": _finite(high)}
    raise TypeError(space)


def _finite(bounds: tuple[float, ...]) -> list[float | None]:
    return [bound if np.isfinite(bound) else None for bound in bounds]


def _described_actions(description: Mapping[str, Any]) -> ActionSpace:
    match description["kind"]:
        case "discrete":
            require_count("actions", description["n"])
            return Discrete(description["n"])
        case "multi_discrete":
            sizes = description["sizes"]
            if not isinstance(sizes, list) or not sizes:
                raise UserError(f"sizes must be a list of numbers of actions, but got {sizes!r}")
            for size in sizes:
                require_count("sizes", size)
            return MultiDiscrete(tuple(sizes))
        case "continuous":
            low = _bounds("low", description["low"], -np.inf)
            high = _bounds("high", description["high"], np.inf)
            if len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
                raise UserError(f"low must be below high, but got {low} and {high}")
            return Continuous(low, high)
        case other:
            raise UserError(
                f"action_space must be discrete, multi_discrete or continuous, but got {other!r}"
            )


def _bounds(name: str, values: Any, none: float) -> tuple[float, ...]:
    numbers = isinstance(values, list) and all(
        value is None or is_number(value) for value in values
    )
    if not numbers or not values:
        raise UserError(f"{name} must be a list of numbers, but got {values!r}")
    return tuple(none if value is None else float(value) for value in values)


def _flatten_weights(weights: Weights) -> dict[str, Any]:
    """Return ``params/actor/Dense_0/kernel`` or ``observation_statistics/mean`` -> leaf."""
    statistics = weights.observation_statistics
    named = {} if statistics is None else {_STATISTICS: statistics.completed()._asdict()}
    return _flatten({**weights.params, **named})


def _signature(tensors: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}


def _flatten(tree: Any) -> dict[str, Any]:
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
