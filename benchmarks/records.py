"""Recorded trials: the returns of quasi-random configurations, at every checkpoint, by seed.

:data:`TASKS` is the list of what can be recorded, each with the protocol of its trials. The
tables are kept in ``benchmarks/results``; :mod:`benchmarks.replays` runs studies over their rows,
:mod:`benchmarks.surrogate` fits a model to them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.config import AgentConfig
from ppo_jax.files import folder_name, replacing
from ppo_jax.hyperparameters import DOMAINS
from tune.protocol.settings import Settings
from tune.protocol.space import Choices, Configuration, Parameter, SearchSpace, Value

if TYPE_CHECKING:
    from rich.console import Console

    from ppo_jax.schedules import RunsSeeds
    from tune.search.pool import ProgramPool

_DEFAULT = Settings()
_NORMALIZED = AgentConfig(normalize_observations=True, normalize_rewards=True)
_MINATAR = AgentConfig(num_envs=64, network="mlp", activation="relu")
_ONE_PROGRAM = SearchSpace.named("wide").changed_by(
    {
        "hidden_sizes": {"drop": True},
        "activation": {"drop": True},
        "num_envs": {"drop": True},
        "batch_size": {"choices": [64, 128, 256, 512]},
        "n_epochs": {"low": 1, "high": 10},
    }
)
"""The wide space without what needs another program or many times the CPU time."""


def _short(
    env: str,
    agent: AgentConfig = _DEFAULT.agent,
    space: SearchSpace = _DEFAULT.space,
    total_steps: int = 24_576,
    eval_episodes: int = 8,
) -> Settings:
    """Return a protocol whose short trials tell configurations apart."""
    return Settings(
        env=env,
        agent=agent,
        space=space,
        total_steps=total_steps,
        eval_every=total_steps // 4,
        eval_episodes=eval_episodes,
    )


TASKS: Mapping[str, Settings] = {
    "CartPole-v1": Settings(env="CartPole-v1"),
    "Pendulum-v1": Settings(env="Pendulum-v1"),
    "Acrobot-v1": _short("Acrobot-v1", total_steps=49_152),
    "MountainCar-v0": _short("MountainCar-v0", _NORMALIZED, total_steps=50_000, eval_episodes=32),
    "MountainCarContinuous-v0": _short("MountainCarContinuous-v0", _NORMALIZED, eval_episodes=3),
    "Breakout-MinAtar": _short("Breakout-MinAtar", _MINATAR, total_steps=65_536),
    "SpaceInvaders-MinAtar": _short("SpaceInvaders-MinAtar", _MINATAR, total_steps=65_536),
    "Catch-bsuite": _short("Catch-bsuite", total_steps=16_384),
    "Pendulum-v1-wide": _short("Pendulum-v1", space=_ONE_PROGRAM, total_steps=49_152),
    "CartPole-v1-wide": _short("CartPole-v1", space=_ONE_PROGRAM),
}
"""Name of a table -> the protocol of its trials: that of a default study, or shorter trials where
these tell configurations apart."""


def records_path(folder: Path, task: str) -> Path:
    """Return where the table of `task` is kept."""
    return folder / f"trials_{folder_name(task)}.npz"


@dataclasses.dataclass(frozen=True)
class Records:
    """Recorded trials.

    Attributes:
      names: tuned parameters, ``[parameters]``.
      params: their values, float ``[configurations, parameters]``; the places of choices that are
        no numbers.
      steps: nominal steps of the checkpoints, int ``[checkpoints]``.
      returns: float ``[configurations, checkpoints, seeds]``; NaN after the end of a run and
        for a seed that has diverged.
      checkpoints: number of checkpoints of each configuration, int ``[configurations]``.
      protocol: the settings of the trials as strict JSON.
    """

    names: np.ndarray
    params: np.ndarray
    steps: np.ndarray
    returns: np.ndarray
    checkpoints: np.ndarray
    protocol: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Records":
        """Read a record."""
        with np.load(path) as found:
            return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})

    def save(self, path: Path) -> None:
        """Write the record, compressed."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **vars(self))

    @property
    def settings(self) -> Settings:
        """The protocol of the trials."""
        return Settings.from_dict(json.loads(str(self.protocol)))

    def configurations(self) -> list[Configuration]:
        """Return the recorded configurations, the baseline first."""
        space = self.settings.space
        tuned = dict(space.tuned)
        return [
            space.complete(
                {
                    name: _value(name, tuned[name], number)
                    for name, number in zip(map(str, self.names), row, strict=True)
                }
            )
            for row in self.params
        ]

    def returns_at(self, steps: Sequence[int], seeds: slice | Sequence[int]) -> np.ndarray:
        """Return the returns at `steps`, float64 ``[configurations, steps, seeds]``.

        A diverged seed gets the lowest return of the record.
        """
        rows = [list(self.steps).index(step) for step in steps]
        returns = self.returns[:, rows][:, :, seeds].astype(np.float64)
        return np.where(np.isnan(returns), np.nanmin(self.returns), returns)


def record(
    settings: Settings,
    programs: "ProgramPool | RunsSeeds",
    configurations: int,
    long: int,
    long_steps: int,
    path: Path,
    console: "Console",
) -> None:
    """Train quasi-random configurations and write their returns to `path`.

    Configurations that `path` already holds are not trained again, so the same call continues
    a recording that was stopped.

    Args:
      settings: environment, space, seeds and checkpoints of the trials.
      programs: of the settings, or a pool of them.
      configurations: their number; the default configuration comes first.
      long: number of configurations that are trained for `long_steps` instead of the steps of
        a trial.
      long_steps: environment steps of a seed.
      path: an ``.npz`` file.
      console: prints a line per configuration.
    """
    import optuna

    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import TUNING
    from tune.search.pool import ProgramPool
    from tune.search.samplers import make_sampler

    study = optuna.create_study(sampler=make_sampler(dataclasses.replace(settings, sampler="qmc")))
    study.enqueue_trial(settings.space.baseline_params())
    tuned = dict(settings.space.tuned)
    steps = np.array(settings.checkpoints(long_steps if long else None))
    known = Records.load(path) if path.exists() else None
    rows = [] if known is None else list(zip(known.params, known.returns, known.checkpoints))  # noqa: B905
    keys = seed_keys(settings.seed, TUNING, settings.seeds)
    pool = ProgramPool.of(programs, settings)
    for number in range(configurations):
        found = settings.space.suggest(study.ask())
        if number < len(rows):
            continue
        checkpoints = settings.checkpoints(long_steps if number < long else None)
        returns = np.full((len(steps), settings.seeds), np.nan, np.float32)
        run = pool.programs(found.agent).run(keys, found.hyperparameters, checkpoints)
        for row, checkpoint in enumerate(run):
            returns[row] = checkpoint.returns
        values = found.to_dict()
        place = np.array([_number(parameter, values[name]) for name, parameter in tuned.items()])
        rows.append((place, returns, np.int64(len(checkpoints))))
        params, all_returns, lengths = (np.array(column) for column in zip(*rows, strict=True))
        protocol = np.array(json.dumps(settings.to_dict(), allow_nan=False))
        Records(np.array(list(tuned)), params, steps, all_returns, lengths, protocol).save(path)
        end = returns[len(checkpoints) - 1]
        console.print(
            f"{number + 1} of {configurations}: {checkpoints[-1]:,} steps, {end.mean():.1f}"
        )


def studied(records: Records) -> Settings:
    """Return the protocol of a study whose trials are those of a table."""
    return dataclasses.replace(records.settings, seeds=Settings.seeds)


def halves(records: Records) -> tuple[slice, slice]:
    """Return the recorded seeds for tuning and those for judging the winner."""
    count = records.returns.shape[2]
    return slice(0, count // 2), slice(count // 2, count)


def _number(parameter: Parameter, value: Any) -> float:
    """Return the number that stands for a value in a table."""
    if isinstance(value, (str, tuple)):
        assert isinstance(parameter, Choices)
        return float(parameter.values.index(value))
    return float(value)


def _value(name: str, parameter: Parameter, number: float) -> Value:
    """Return the value that a number of a table stands for."""
    if not isinstance(parameter, Choices):
        return parameter.nearest(int(number) if DOMAINS[name].kind is int else float(number))
    if isinstance(parameter.values[0], (str, tuple)):
        return parameter.values[int(number)]
    return next(value for value in parameter.values if value == number)
