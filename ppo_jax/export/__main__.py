"""``python -m ppo_jax.export``: a configuration for another implementation of PPO, or from one."""

if __name__ == "__main__":  # Before what takes long to import.
    from ppo_jax.scripts import start

    start("ppo_jax.export.__main__")


import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ppo_jax import command_line
from ppo_jax.config import ask_for
from ppo_jax.errors import UserError, require_choice, require_count, require_package
from ppo_jax.export.reading import FORMATS, read
from ppo_jax.files import make_folder, replacing, require_writable

TARGETS = ("rl-zoo", "sb3", "cleanrl", "preset", "onnx")


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Write a configuration as another implementation of PPO takes it, or a policy as ONNX.

    Comments above a configuration name every difference that it cannot carry.
    """

    file: tyro.conf.Positional[Path]
    """Configuration: recommended.json of a study, training.json of a run, a preset FILE.toml, or
    RL Zoo's FILE.yml. For --to onnx the folder of a policy."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """What the file is: recommended, preset or rl-zoo. By its suffix if not given."""
    to: str = "preset"
    """What is written: rl-zoo (YAML), sb3 (a script), cleanrl (a command), preset (TOML)
    or onnx."""
    env: str | None = None
    """Environment: which one of RL Zoo's file, or another than the file names."""
    gymnasium: str | None = None
    """What Gymnasium calls the environment, where that is not known."""
    network: str | None = None
    """Network that the file or the policy names, where it is your own, as module:Class."""
    total_steps: int | None = None
    """Environment steps of the training. Those of the file if not given."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write. Printed if not given; policy.onnx in the folder of a policy."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m ppo_jax.export``."""
    arguments = command_line.parse(Arguments, "python -m ppo_jax.export", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    require_choice("--to", arguments.to, TARGETS)
    ask_for(arguments.network)
    if arguments.source is not None:
        require_choice("--from", arguments.source, tuple(dict.fromkeys(FORMATS.values())))
    if arguments.total_steps is not None:
        require_count("--total-steps", arguments.total_steps, high=10**12)
    if arguments.to == "onnx":
        _write_onnx(arguments)
        return
    found, notes = read(arguments.file, arguments.env, arguments.source)
    found = dataclasses.replace(
        found,
        env=arguments.env or found.env,
        total_steps=arguments.total_steps or found.total_steps,
    )
    if arguments.to != "preset" and not found.total_steps:
        raise UserError(f"{arguments.file} does not say how long to train; pass --total-steps")
    if arguments.output is not None:
        require_writable(arguments.output.parent)
    from ppo_jax.export import writing

    if arguments.to == "preset":
        text = writing.preset(found, notes)
    else:
        command_line.start_backend()
        from ppo_jax.environments import make, require_no_code

        if arguments.env is None:
            require_no_code(found.env, str(arguments.file), f"pass --env {found.env}")
        spaces = make(found.env, found.env_kwargs).spaces
        source = writing.Source.of(found, spaces, arguments.gymnasium, notes)
        write = {"rl-zoo": writing.rl_zoo, "sb3": writing.sb3, "cleanrl": writing.cleanrl}
        text = write[arguments.to](source)
    if arguments.output is None:
        print(text, end="")
        return
    make_folder(arguments.output.parent)
    with replacing(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{arguments.to} in {arguments.output}")


def _write_onnx(arguments: Arguments) -> None:
    for package in ("onnx", "onnxruntime"):
        require_package(package, extra="onnx", option="--to onnx")
    output = arguments.output or arguments.file / "policy.onnx"
    require_writable(output.parent)
    command_line.start_backend()
    from ppo_jax import policy
    from ppo_jax.export import onnx

    loaded = policy.load(arguments.file, arguments.network)
    make_folder(output.parent)
    difference = onnx.write(loaded, output)
    print(f"{output}: outputs of ONNX Runtime within {difference:.1g} of ours, relatively")
