"""Configurations as other implementations take them, each with what it cannot carry.

Comments begin with ``#`` in all of these: YAML, Python, a shell and TOML.
"""

import dataclasses
import shlex
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import tomli_w
import yaml

from ppo_jax.environments.base import Continuous, Spaces
from ppo_jax.errors import UserError
from ppo_jax.export.correspondence import (
    CLEANRL_DIFFERENCES,
    SB3_DIFFERENCES,
    Name,
    Schedule,
    differences,
    gymnasium_name,
    ours_of,
    to_cleanrl,
    to_sb3,
)
from ppo_jax.files import plain
from ppo_jax.presets import Preset


@dataclasses.dataclass(frozen=True)
class Source:
    """What is written.

    Attributes:
      preset: the configuration.
      spaces: of its environment.
      gymnasium: what Gymnasium calls the environment.
      notes: what was lost on the way to the configuration.
    """

    preset: Preset
    spaces: Spaces
    gymnasium: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        preset: Preset,
        spaces: Spaces,
        gymnasium: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> "Source":
        """Return a configuration with the name of its environment in Gymnasium.

        Raises:
          UserError: where that is not known.
        """
        name = gymnasium or gymnasium_name(preset.env)
        if name is None:
            raise UserError(f"what does Gymnasium call {preset.env!r}? pass --gymnasium NAME")
        return cls(preset, spaces, name, notes)

    @property
    def ours(self) -> dict[str, Any]:
        """Our values."""
        return ours_of(self.preset.hyperparameters, self.preset.agent)

    @property
    def continuous(self) -> bool:
        """Whether actions are numbers."""
        return isinstance(self.spaces.action_space, Continuous)

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """What ``gymnasium.make`` takes."""
        limit = dict(self.preset.env_kwargs).get("max_steps_in_episode")
        return {} if limit is None else {"max_episode_steps": limit}

    @property
    def wrappers(self) -> dict[str, dict[str, float]]:
        """Wrappers of Gymnasium that make the environment ours -> their arguments."""
        found: dict[str, dict[str, float]] = {}
        if len(self.spaces.observation_shape) > 1:
            found["FlattenObservation"] = {}
        if self.continuous:
            found["RescaleAction"] = {"min_action": -1.0, "max_action": 1.0}
        return found

    def common_differences(self) -> list[str]:
        """Return what neither Stable-Baselines3 nor CleanRL does alike."""
        found = [*self.notes]
        found += [
            f"env_kwargs {name} = {value}: named otherwise in Gymnasium"
            for name, value in self.preset.env_kwargs
            if name != "max_steps_in_episode"
        ]
        if len(self.spaces.observation_shape) > 1 and self.preset.agent.network != "mlp":
            found.append("network: without convolutions there, for images as small as these")
        if self.preset.agent.recurrent:
            found.append(f"network = {self.preset.agent.network}: without memory there, an MLP")
        elif ":" in self.preset.agent.network:
            found.append(f"network = {self.preset.agent.network}: an MLP there")
        if self.spaces.mask_size:
            found.append("action masks: not heeded there")
        return found


def _sb3_differences(source: Source, written: Callable[[Schedule], bool]) -> list[str]:
    """Return the differences of Stable-Baselines3.

    Args:
      source: what is written.
      written: whether a schedule can be written as it is.
    """
    found = source.common_differences()
    found += differences(source.ours, lambda row: row.sb3, SB3_DIFFERENCES)
    found += [
        f"{name}: along a line to zero there, not {'along a cosine ' if v.cosine else ''}to {v.end}"
        for name, v in to_sb3(source.ours).items()
        if isinstance(v, Schedule) and not written(v)
    ]
    return found


def rl_zoo(source: Source) -> str:
    """Return a file for RL Zoo: ``python -m rl_zoo3.train --algo ppo --conf-file FILE``."""
    values = to_sb3(source.ours)
    entry: dict[str, Any] = {}
    if source.wrappers:
        entry["env_wrapper"] = [
            {f"gymnasium.wrappers.{name}": kwargs} if kwargs else f"gymnasium.wrappers.{name}"
            for name, kwargs in source.wrappers.items()
        ]
    if source.env_kwargs:
        entry["env_kwargs"] = source.env_kwargs
    entry["n_timesteps"] = source.preset.total_steps
    entry["policy"] = _policy(source)
    nested = _nested(values)
    for name, value in nested.items():
        if isinstance(value, Mapping):
            if name != "normalize" or any(value.values()):
                entry[name] = _expression(value)
        elif isinstance(value, Schedule):
            entry[name] = f"lin_{value.start!r}"
        elif value is not None:
            entry[name] = value
    notes = _sb3_differences(source, lambda schedule: schedule == Schedule(schedule.start))
    text: str = yaml.safe_dump({source.gymnasium: entry}, sort_keys=False, allow_unicode=True)
    return _comment(notes, "RL Baselines3 Zoo") + text


def sb3(source: Source) -> str:
    """Return a script that trains with Stable-Baselines3."""
    nested = _nested(to_sb3(source.ours))
    n_envs, normalize = nested.pop("n_envs"), nested.pop("normalize")
    imports = ["from stable_baselines3 import PPO"]
    imports.append("from stable_baselines3.common.env_util import make_vec_env")
    rates = [value for value in nested.values() if isinstance(value, Schedule)]
    if any(not rate.cosine for rate in rates):
        imports.append("from stable_baselines3.common.utils import LinearSchedule")
    make = [f'make_vec_env("{source.gymnasium}", {n_envs}, seed=seed']
    if source.wrappers:
        make.append(", wrapper_class=wrapped")
        names = sorted(source.wrappers)
        imports.insert(0, f"from gymnasium.wrappers import {', '.join(names)}")
    if source.env_kwargs:
        make.append(f", env_kwargs={_expression(source.env_kwargs)}")
    lines = ["".join(make) + ")"]
    if any(normalize.values()):
        imports.append("from stable_baselines3.common.vec_env import VecNormalize")
        lines.append(f"VecNormalize(env, gamma={nested['gamma']}, {_arguments(normalize)})")
    imports.append("from torch import nn")
    first: list[str] = []
    if source.gymnasium.startswith("MinAtar/"):
        imports.insert(0, "from minatar.gym import register_envs")
        first = ["register_envs()", ""]
    if source.wrappers:
        made = "env"
        for name, kwargs in source.wrappers.items():
            made = f"{name}({', '.join([made, *([_arguments(kwargs)] if kwargs else [])])})"
        first += ["", "def wrapped(env):", f"    return {made}", "", ""]
    if any(rate.cosine for rate in rates):
        imports.insert(0, "import math\n")
    rest = [f"        {name}={_expression(value)}," for name, value in nested.items()]
    notes = _sb3_differences(source, lambda _: True)
    body = [
        f'"""PPO on {source.gymnasium} with Stable-Baselines3."""',
        "",
        *imports,
        "",
        *first,
        f"TOTAL_TIMESTEPS = {source.preset.total_steps}",
        "",
        "",
        "def make_model(seed=0):",
        *(f"    env = {line}" for line in lines),
        "    return PPO(",
        f'        "{_policy(source)}",',
        "        env,",
        *rest,
        "        seed=seed,",
        '        device="cpu",',
        "    )",
        "",
        "",
        'if __name__ == "__main__":',
        "    model = make_model()",
        "    model.learn(TOTAL_TIMESTEPS)",
        '    model.save("ppo")',
        "",
    ]
    return _comment(notes, "Stable-Baselines3") + "\n".join(body)


def cleanrl(source: Source) -> str:
    """Return a command line of CleanRL."""
    script = "ppo_continuous_action.py" if source.continuous else "ppo.py"
    words = ["python", f"cleanrl/{script}", "--env-id", source.gymnasium]
    words += ["--total-timesteps", str(source.preset.total_steps)]
    for option, value in to_cleanrl(source.ours).items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    ours, notes = source.ours, source.common_differences()
    both = {"normalize_observations", "normalize_rewards"}
    notes += differences(
        {k: v for k, v in ours.items() if k not in both},
        lambda row: row.cleanrl,
        CLEANRL_DIFFERENCES,
    )
    notes += [
        f"{name} = {ours[name]}: {str(source.continuous).lower()} there, in {script}"
        for name in sorted(both)
        if ours[name] != source.continuous
    ]
    notes += [f"env_kwargs {k} = {v}: not an option there" for k, v in source.env_kwargs.items()]
    if source.continuous:
        notes.append("actions: in the environment's units there, from -1 to 1 here")
    if len(source.spaces.observation_shape) > 1:
        notes.append(f"observations: {script} takes vectors, and these have more dimensions")
    return _comment(notes, "CleanRL") + shlex.join(words) + "\n"


def preset(found: Preset, notes: tuple[str, ...]) -> str:
    """Return a preset as a TOML file."""
    return _comment(list(notes), "ppo_jax") + tomli_w.dumps(plain(found.to_table()))


def _policy(source: Source) -> str:
    return "MultiInputPolicy" if source.spaces.parts else "MlpPolicy"


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"a": {"b": 1}}`` of ``{"a.b": 1}``."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *tables, last = name.split(".")
        table = nested
        for key in tables:
            table = table.setdefault(key, {})
        table[last] = value
    return nested


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_expression(value)}" for key, value in values.items())


def _expression(value: Any) -> str:
    """Return a value as Python writes it."""
    match value:
        case Mapping():
            return f"dict({_arguments(value)})"
        case list():
            return f"[{', '.join(map(_expression, value))}]"
        case Name():
            return str(value)
        case Schedule(start, end, True):
            return (
                f"lambda left: {end!r} + ({start!r} - {end!r}) * (1 - math.cos(math.pi * left)) / 2"
            )
        case Schedule(start, end):
            return f"LinearSchedule({start!r}, {end!r}, 1.0)"
        case _:
            return repr(value)


def _comment(notes: list[str], name: str) -> str:
    if not notes:
        return ""
    lines = [f"# What {name} does not do as it was done where this comes from:"]
    for note in notes:
        lines += textwrap.wrap(note, 96, initial_indent="# - ", subsequent_indent="#   ")
    return "\n".join(lines) + "\n"
