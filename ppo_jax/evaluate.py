"""``python -m ppo_jax.evaluate``: returns of a saved policy, here and in Gymnasium."""

if __name__ == "__main__":  # Before what takes long to import.
    from ppo_jax.scripts import start

    start("ppo_jax.evaluate")


import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from ppo_jax import command_line
from ppo_jax.errors import UserError, require_count
from ppo_jax.files import require_writable, write_json
from ppo_jax.statistics import STUDENT, WELCH, t_interval, welch_interval
from ppo_jax.text import estimate_text, fixed, interval_text

if TYPE_CHECKING:
    from ppo_jax.environments import Environment
    from ppo_jax.policy import Policy


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Play full episodes with a saved policy and print their returns and lengths.

    Plays in the environment it was trained on, and with --gymnasium in the real Gymnasium too.
    """

    policy: tyro.conf.Positional[Path]
    """Folder of the policy: the one that holds policy.json."""
    episodes: int = 100
    """Episodes to play, all at once."""
    sample: bool = False
    """Sample actions from the policy's distribution. Greedy if not given."""
    seed: int = 0
    """Root of all random numbers."""
    env: str | None = None
    """Environment to play in; that of the policy if not given. One of your own has to be named
    here, as module:attribute: what a policy names is never imported."""
    network: str | None = None
    """Network of a policy whose network is your own, as module:Class."""
    env_kwargs: tuple[str, ...] = ()
    """Environment parameters to override, as name=value: max_steps_in_episode=1000."""
    gymnasium: str | None = None
    """Environment of Gymnasium to play in as well: CartPole-v1."""
    record: Path | None = None
    """Film of one episode, FILE.gif or FILE.mp4; of Gymnasium's with --gymnasium."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the results."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m ppo_jax.evaluate``."""
    arguments = command_line.parse(Arguments, "python -m ppo_jax.evaluate", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    require_count("--episodes", arguments.episodes)
    require_count("--seed", arguments.seed, low=0, high=2**32 - 1)
    overrides = dict(command_line.parse_env_kwargs(arguments.env_kwargs))

    command_line.start_backend()
    from ppo_jax import policy
    from ppo_jax.playback import drawing, film
    from ppo_jax.playback.gymnasium import Gymnasium
    from ppo_jax.versions import device_description, versions

    loaded = policy.load(arguments.policy, arguments.network)
    environment, kwargs = _environment(loaded, arguments.env, overrides)
    theirs = None
    if arguments.gymnasium is not None:
        theirs = Gymnasium(arguments.gymnasium, loaded)
    for path in (arguments.record, arguments.json):
        if path is not None:
            require_writable(path.parent)
            if path.is_dir():
                raise UserError(f"{path} is a folder; a file is needed there")
    if arguments.record is not None:
        film.require_format(arguments.record)
        if theirs is None:
            drawing.require_drawable(environment)

    played = _play(loaded, environment, arguments)
    results = {
        "policy": str(arguments.policy),
        "environment": {"name": environment.name, "kwargs": kwargs},
        "episodes": arguments.episodes,
        "actions": "sampled" if arguments.sample else "greedy",
        "seed": arguments.seed,
        **_summary(*played),
    }
    print(f"{environment.name}: {arguments.episodes} episodes, {results['actions']} actions")
    _print_summary(results)
    if theirs is not None:
        played_there = theirs.play(arguments.episodes, arguments.seed, arguments.sample)
        difference = _difference(played_there[0], played[0])
        results["gymnasium"] = {"name": arguments.gymnasium, **_summary(*played_there)}
        results["difference"] = difference
        print(f"\nGymnasium's {arguments.gymnasium}: the same")
        _print_summary(results["gymnasium"])
        print(
            f"\nGymnasium − {environment.name}  "
            f"{_estimate(difference['value'], difference['interval'], signed=True)} (Welch t)"
        )
    if arguments.record is not None:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        if theirs is not None:
            episode = theirs.frames(arguments.seed, arguments.sample)
        else:
            episode = drawing.frames(loaded, environment, arguments.seed, arguments.sample)
        steps = film.write(arguments.record, episode)
        print(f"\nfilm of {steps} steps in {arguments.record}")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        results |= {"versions": versions(), "device": device_description()}
        write_json(arguments.json, results)


def _environment(
    policy: "Policy", name: str | None, overrides: dict[str, Any]
) -> tuple["Environment", dict[str, Any]]:
    """Return the policy's environment and the parameters that differ from its defaults."""
    from ppo_jax.environments import make, require_no_code
    from ppo_jax.imports import name_elsewhere

    trained_on = policy.description["environment"]
    if name is None:
        name = str(trained_on["name"])
        require_no_code(name, "the policy", f"pass --env {name_elsewhere(name)}")
    known = trained_on["kwargs"] if name == trained_on["name"] else {}
    kwargs = {**known, **overrides}
    environment = make(name, tuple(sorted(kwargs.items())))
    if environment.spaces != policy.spaces:
        raise UserError(
            f"the policy is for {policy.spaces}, but {environment.name} has {environment.spaces}"
        )
    return environment, kwargs


def _play(
    policy: "Policy", environment: "Environment", arguments: Arguments
) -> tuple[np.ndarray, np.ndarray]:
    """Return returns and lengths, ``[episodes]``."""
    import jax

    from ppo_jax import decompositions, evaluation

    program = jax.jit(
        lambda weights, key: evaluation.play(
            environment,
            policy.network,
            weights.params,
            key,
            weights.observation_statistics,
            arguments.episodes,
            arguments.sample,
        )
    )
    given = policy.weights, jax.random.key(arguments.seed)
    lowered = decompositions.lower(program, *given, platform=jax.default_backend())
    returns, lengths = lowered.compile()(*given)
    return np.asarray(returns, np.float64), np.asarray(lengths)


def _summary(returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    return {
        "return": {
            "mean": returns.mean(),
            "interval": t_interval(returns),
            "method": STUDENT,
            "median": np.median(returns),
            "min": returns.min(),
            "max": returns.max(),
        },
        "length": {"mean": lengths.mean(), "min": lengths.min(), "max": lengths.max()},
        "returns": returns,
        "lengths": lengths,
    }


def _print_summary(results: dict[str, Any]) -> None:
    found, length = results["return"], results["length"]
    extremes = interval_text((found["min"], found["max"]))
    print(
        f"  return  {_estimate(found['mean'], found['interval'])} (Student t)\n"
        f"          median {fixed(found['median'])}, {extremes}\n"
        f"  length  {length['mean']:.1f} steps, {length['min']} to {length['max']}"
    )


def _estimate(value: float, interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    return estimate_text(value, interval, signed=signed, unit="episode")


def _difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Return mean of `a` minus mean of `b` with Welch's 95% interval."""
    value = float(a.mean() - b.mean())
    return {"value": value, "interval": welch_interval(a, b), "method": WELCH}
