"""``python -m benchmarks.preset runs/STUDY``: turn the result of a study into a preset."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.measuring import ROOT
from ppo_jax import command_line
from ppo_jax.config import AgentConfig, changed
from ppo_jax.errors import UserError
from ppo_jax.files import folder_name, read_json, replacing
from ppo_jax.hyperparameters import Hyperparameters


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write ppo_jax/presets/ENV.toml from the recommended configuration of a study."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of a validated study."""
    command: str
    """Command that ran the study."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.preset``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.preset", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    import tomli_w

    table = preset_table(arguments.study, arguments.command)
    path = ROOT / "ppo_jax" / "presets" / f"{folder_name(table['env'])}.toml"
    with replacing(path) as temporary:
        temporary.write_text(tomli_w.dumps(table), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {table['evidence']['verdict']}")


def preset_table(study: Path, command: str) -> dict[str, Any]:
    """Return the content of a preset's file.

    Raises:
      UserError: when the folder holds no validated study.
    """
    recommended, validation, results = (
        read_json(study / f"{name}.json")
        for name in ("recommended", "validation", "optimization_results")
    )
    try:
        if results["verdict"] is None:
            raise UserError(f"{study} has no verdict on its winner: run its command again")
        chosen = validation[validation["recommended"]]
        mean = chosen["summary"]["mean"]
        environment = recommended["environment"]
        return {
            "env": environment["name"],
            "env_kwargs": environment["kwargs"],
            "total_steps": validation["steps"][-1],
            "hyperparameters": changed(Hyperparameters.from_dict(recommended["hyperparameters"])),
            "agent": changed(AgentConfig.from_dict(recommended["agent"])),
            "evidence": {
                "score": mean["value"],
                "interval": list(mean["interval"] or []),
                "method": mean["method"] or "",
                "seeds": validation["seeds_trained"],
                "steps": validation["steps"][-1],
                "trials": results["n_trials"]["total"],
                "verdict": results["verdict"],
                "command": command,
                "versions": {k: results["versions"][k] for k in ("jax", "optuna", "ppo_jax")},
            },
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{study} holds no validated study: {error!r} is missing") from error


if __name__ == "__main__":
    main()
