"""Files that hold a configuration: ``recommended.json``, ``training.json``, presets, RL Zoo's YAML.

Nothing in a file is executed: RL Zoo's expressions, ``dict(net_arch=[64, 64])``, are parsed.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ppo_jax import presets
from ppo_jax.config import AgentConfig, sorted_env_kwargs
from ppo_jax.errors import UserError, is_number, nearest, require_count
from ppo_jax.export.correspondence import (
    SB3_DEFAULTS,
    Name,
    Schedule,
    from_sb3,
    has_choices,
    our_name,
)
from ppo_jax.files import read_json, read_text
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.presets import Preset

FORMATS = {".json": "recommended", ".toml": "preset", ".yml": "rl-zoo", ".yaml": "rl-zoo"}
"""Suffix of a file -> what it holds."""

_LARGEST_YAML = 100_000

_RATES = ("learning_rate", "clip_range", "clip_range_vf")
_WRAPPERS = ("RescaleAction", "FlattenObservation")


def read(
    path: Path, env: str | None = None, kind: str | None = None
) -> tuple[Preset, tuple[str, ...]]:
    """Return the configuration in a file, and what of it could not be carried.

    Args:
      path: of a ``recommended.json`` or ``training.json``, of a preset, or of RL Zoo's YAML.
      env: which of the environments of a YAML file; not needed where there is one.
      kind: a value of :data:`FORMATS`; by the file's suffix if not given.

    Raises:
      UserError: when the file holds no such configuration.
    """
    kind = kind or FORMATS.get(path.suffix)
    if kind is None:
        raise UserError(
            f"{path} must be a recommended.json or training.json, a preset FILE.toml or RL Zoo's "
            f"FILE.yml"
        )
    try:
        match kind:
            case "rl-zoo":
                return _rl_zoo(path, env)
            case "preset":
                return presets.read(path), ()
            case _:
                return _recommended(path), ()
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from error


def _recommended(path: Path) -> Preset:
    """Return the configuration of a study's ``recommended.json``, or of a ``training.json``."""
    found = read_json(path)
    try:
        if "config" in found:
            config = found["config"]
            environment = {"name": config["env"], "kwargs": config["env_kwargs"]}
            found |= {
                "environment": environment,
                "agent": config["agent"],
                "total_steps": found["steps"][-1],
            }
        environment = found["environment"]
        return Preset(
            env=environment["name"],
            env_kwargs=sorted_env_kwargs(environment["kwargs"]),
            total_steps=found.get("total_steps", 0),
            hyperparameters=Hyperparameters.from_dict(found["hyperparameters"]),
            agent=AgentConfig.from_dict(found["agent"]),
            evidence={"source": str(path), "why": found.get("why", "")},
        )
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"it is not a recommended configuration: {error!r}") from error


def _rl_zoo(path: Path, env: str | None) -> tuple[Preset, tuple[str, ...]]:
    try:
        text = read_text(path, 2**20)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _expanded_size(node, {}) > _LARGEST_YAML:
            raise UserError(
                f"it must hold at most {_LARGEST_YAML:,} values, aliases written out, but has more"
            )
        entries = yaml.safe_load(text)
    except UserError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"it is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise UserError("it must hold a table of settings for each environment")
    entries = {str(key): entry for key, entry in entries.items()}
    name = _entry(entries, env)
    notes: list[str] = []
    theirs = _flattened(dict(entries[name]), our_name(name), notes)
    total_steps = theirs.pop("n_timesteps", 0)
    if not is_number(total_steps) or total_steps < 0:
        raise UserError(f"n_timesteps must be a number of steps, but got {total_steps!r}")
    env_kwargs = {}
    for key, value in _table("env_kwargs", theirs.pop("env_kwargs", {})).items():
        if key == "max_episode_steps":
            env_kwargs["max_steps_in_episode"] = value
        else:
            notes.append(f"env_kwargs.{key} = {value}: no counterpart")
    for key in [key for key in theirs if key not in SB3_DEFAULTS]:
        notes.append(f"{key} = {theirs.pop(key)}: no counterpart")
    for key in ("n_envs", "n_steps", "batch_size"):
        require_count(key, theirs.get(key, SB3_DEFAULTS[key]))
    try:
        hyperparameters, agent = from_sb3(theirs)
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(f"{name} has a value of a wrong type: {error}") from error
    asked = theirs.get("batch_size", SB3_DEFAULTS["batch_size"])
    if hyperparameters.batch_size != asked:
        notes.append(
            f"batch_size = {asked}: a rollout of {hyperparameters.n_steps} is divided into "
            f"minibatches of {hyperparameters.batch_size}"
        )
    preset = Preset(
        env=our_name(name),
        env_kwargs=sorted_env_kwargs(env_kwargs),
        total_steps=int(total_steps),
        hyperparameters=hyperparameters,
        agent=agent,
        evidence={"source": f"{name} in {path.name}"},
    )
    return preset, tuple(notes)


def _expanded_size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node of YAML stands for; a few aliases can stand for billions."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[id(node)]


def _entry(entries: Mapping[str, Any], env: str | None) -> str:
    """Return which entry of a file is meant."""
    by_name = {our_name(key): key for key in entries} | {key: key for key in entries}
    if len(entries) == 1:
        return next(iter(entries))
    if env is None:
        raise UserError(f"--env must name one of {', '.join(entries)}")
    if env not in by_name:
        raise UserError(f"there are no settings for {env!r}{nearest(env, by_name)}")
    return by_name[env]


def _flattened(entry: dict[str, Any], env: str, notes: list[str]) -> dict[str, Any]:
    """Return an entry with the names of :data:`SB3_DEFAULTS`."""
    policy = entry.pop("policy", "MlpPolicy")
    if policy not in ("MlpPolicy", "MultiInputPolicy"):
        notes.append(f"policy = {policy}: the network of this project's default")
    wrappers = entry.pop("env_wrapper", None) or []
    rescaled = False
    for wrapper in wrappers if isinstance(wrappers, list) else [wrappers]:
        full = str(next(iter(wrapper)) if isinstance(wrapper, dict) and wrapper else wrapper)
        short = full.rpartition(".")[2]
        rescaled |= short == "RescaleAction"
        if short not in _WRAPPERS:
            notes.append(f"env_wrapper = {full}: no counterpart")
    normalize = _value(entry.pop("normalize", False))
    if isinstance(normalize, dict):
        for key in normalize.keys() - {"norm_obs", "norm_reward", "gamma"}:
            notes.append(f"normalize.{key} = {normalize[key]}: no counterpart")
    switches = normalize if isinstance(normalize, dict) else {}
    for key in ("norm_obs", "norm_reward"):
        entry[f"normalize.{key}"] = switches.get(key, bool(normalize))
    arguments = _table("policy_kwargs", _value(entry.pop("policy_kwargs", {})))
    optimizer = _table("optimizer_kwargs", arguments.pop("optimizer_kwargs", {}))
    if arguments.pop("ortho_init", True) is not True:
        notes.append("ortho_init = False: the initialisation is orthogonal here")
    if not rescaled and not has_choices(env):
        notes.append(
            "actions and log_std_init, where actions are continuous: in the environment's units "
            "there, from -1 to 1 between the bounds here"
        )
    if "net_arch" in arguments:
        arguments["net_arch"] = _net_arch(arguments["net_arch"], notes)
    if optimizer:  # Given anything at all, PyTorch's default is in the place of theirs.
        optimizer.setdefault("eps", 1e-8)
    entry |= {f"policy_kwargs.{key}": value for key, value in arguments.items()}
    entry |= {f"policy_kwargs.optimizer_kwargs.{key}": v for key, v in optimizer.items()}
    for key in _RATES:
        if key in entry:
            entry[key] = _schedule(key, entry[key])
    if isinstance(entry.get("clip_range_vf"), float | int) and entry["clip_range_vf"] < 0:
        entry["clip_range_vf"] = None
    return entry


def _net_arch(value: Any, notes: list[str]) -> dict[str, Any]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]  # As before Stable-Baselines3 2.
    if isinstance(value, list):
        return {"pi": value, "vf": value}
    table = _table("net_arch", value)
    sizes = {"pi": table.get("pi", []), "vf": table.get("vf", [])}
    if sizes["pi"] != sizes["vf"]:
        notes.append(f"net_arch vf = {sizes['vf']}: the critic is as large as the actor here")
    return sizes


def _schedule(name: str, value: Any) -> Any:
    """Return what RL Zoo makes of a rate: ``lin_0.001`` is a line to zero."""
    if not isinstance(value, str):
        return value
    shape, _, start = value.partition("_")
    try:
        if shape == "lin":
            return Schedule(float(start))
    except ValueError:
        pass
    raise UserError(f"{name} must be a number or lin_ and a number, but got {value!r}")


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} must be a table, but got {value!r}")
    return dict(value)


def _value(value: Any) -> Any:
    """Return what an expression of RL Zoo says: names of Python as :class:`Name`."""
    if not isinstance(value, str):
        return value
    try:
        return _parsed(ast.parse(value.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"expected an expression like dict(a=1), but got {value!r:.80}") from None


def _parsed(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {word.arg: _parsed(word.value) for word in keywords if word.arg}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {str(_parsed(key)): _parsed(value) for key, value in pairs if key}
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_parsed(item) for item in items]
        case ast.Attribute() | ast.Name():
            return Name(ast.unparse(node))
        case _:
            return ast.literal_eval(node)
