"""The protocol of a study: everything that its results depend on but the number of trials."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ppo_jax.config import (
    AgentConfig,
    EnvKwargs,
    EnvValue,
    TrainConfig,
    checkpoint_steps,
    iterations_for,
    sorted_env_kwargs,
)
from ppo_jax.environments import EnvironmentLike, name_of
from ppo_jax.errors import (
    UserError,
    is_number,
    nearest,
    require_choice,
    require_count,
)
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.converted import Converted
from tune.protocol.space import Configuration, SearchSpace, SpaceLike
from tune.protocol.stored import table
from tune.protocol.warm_start import WarmStart

ADDRESS_VARIABLE = "PPO_JAX_TUNE_STORAGE"
"""Environment variable for a storage address with a password: everyone sees a command line."""

OBJECTIVES: Mapping[str, Callable[[int], int]] = {
    "mean": lambda checkpoints: checkpoints,
    "final": lambda _: 1,
    "tail": lambda checkpoints: math.ceil(checkpoints / 3),
}
"""Name -> how many of a run's last checkpoints its score is the mean of."""


_LARGEST_STORED_STEP = 2**31 - 1
"""Optuna stores the steps of reports in 32 bits where the storage is PostgreSQL or MySQL."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a study. Frozen and hashable; stored with the study.

    Raises:
      UserError: naming the setting, its value and what is allowed.
    """

    env: Converted[EnvironmentLike, str] = Converted(name_of, "CartPole-v1")
    """Environment: a name, a class or an object. Kept as the name."""
    env_kwargs: Converted[Mapping[str, EnvValue] | EnvKwargs, EnvKwargs] = Converted(
        sorted_env_kwargs, ()
    )
    """Overridden environment parameters. Kept as sorted (name, value) pairs."""
    agent: Converted[AgentConfig | Mapping[str, Any], AgentConfig] = Converted(
        AgentConfig.of, AgentConfig()
    )
    """What every trial's agent is made of: an agent, or its settings by name."""
    space: Converted[SpaceLike, SearchSpace] = Converted(SearchSpace.of, SearchSpace())
    """What is tuned: a search space, the name of one, a TOML file, or tables as in such a file."""
    seeds: int = 4
    """Tuning seeds of a trial."""
    total_steps: int = 200_000
    """Environment steps of each seed of a trial."""
    eval_every: int = 50_000
    """Environment steps between checkpoints."""
    eval_episodes: int = 32
    """Episodes of each seed at a checkpoint."""
    matmul_precision: str = TrainConfig.matmul_precision
    """See :class:`ppo_jax.config.TrainConfig`."""
    objective: str = "mean"
    """How checkpoints become a score: mean of all, final, or mean of the last third (tail)."""
    sampler: str = "gp"
    """A name in :data:`tune.search.samplers.SAMPLERS`, where a study looks it up."""
    sampler_startup_trials: int = 10
    """Trials spread over the space before a sampler begins to model."""
    grid_points: int = 3
    """Values of each range in a grid search."""
    pruner: str = "median"
    """A name in :data:`tune.search.pruners.PRUNERS`, where a study looks it up."""
    pruner_startup_trials: int = 4
    """Complete trials before the median or percentile pruner begins."""
    pruner_warmup_checkpoints: int = 1
    """First checkpoints of a trial at which it is never pruned."""
    pruner_percentile: float = 50.0
    """The percentile pruner keeps this upper share of trials, in percent."""
    seed: int = 0
    """Root of all random numbers of the study."""
    reference_score: float | None = None
    """An earlier result to draw and report beside the study's own."""
    warm_start: WarmStart | None = None
    """What earlier trials say, for the sampler."""

    def __post_init__(self) -> None:
        for name in ("seeds", "eval_episodes", "grid_points"):
            require_count(name, getattr(self, name))
        for name in ("total_steps", "eval_every"):
            require_count(name, getattr(self, name), high=_LARGEST_STORED_STEP)
        for name in (
            "sampler_startup_trials",
            "pruner_startup_trials",
            "pruner_warmup_checkpoints",
        ):
            require_count(name, getattr(self, name), low=0)
        require_count("seed", self.seed, low=0, high=2**32 - 1)
        if self.eval_every > self.total_steps:
            raise UserError(
                f"eval_every must be at most total_steps, but got eval_every={self.eval_every} "
                f"with total_steps={self.total_steps}"
            )
        if not (is_number(self.pruner_percentile) and 0 < self.pruner_percentile < 100):
            raise UserError(
                f"pruner_percentile must be between 0 and 100, but got {self.pruner_percentile!r}"
            )
        if self.reference_score is not None and not is_number(self.reference_score):
            raise UserError(f"reference_score must be a number, but got {self.reference_score!r}")
        for name in ("objective", "sampler", "pruner"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{name} must be a name, but got {getattr(self, name)!r}")
        require_choice("objective", self.objective, OBJECTIVES)
        if self.space.agent != self.agent:
            # The baseline of both: an agent is given with the settings alone.
            object.__setattr__(self, "space", dataclasses.replace(self.space, agent=self.agent))
        iterations_for(self.total_steps, min(self.config.n_steps_choices))
        self.checkpoints()

    @classmethod
    def of(cls, value: "Settings | None") -> "Settings":
        """Return `value`, or the defaults for None.

        Raises:
          UserError: for anything else.
        """
        if value is not None and not isinstance(value, Settings):
            raise UserError(f"settings must be tune.Settings, but got {value!r:.80}")
        return cls() if value is None else value

    @property
    def config(self) -> TrainConfig:
        """The configuration whose programs run the baseline, and all trials with its agent."""
        return self.config_of(self.baseline.agent)

    @property
    def baseline(self) -> Configuration:
        """The default configuration, or what comes nearest to it in the space."""
        return self.space.complete(self.space.baseline())

    def config_of(self, agent: AgentConfig, like: TrainConfig | None = None) -> TrainConfig:
        """Return the configuration whose programs run all trials with `agent`.

        Args:
          agent: in the space.
          like: for the sizes of rollouts and minibatches besides those of the space.
        """
        n_steps = self.space.choices("n_steps") if like is None else like.n_steps_choices
        batch_sizes = self.space.choices("batch_size") if like is None else like.batch_size_choices
        if "num_envs" in self.space.tuned_agent:  # Others are repaired by the space.
            together = agent.num_envs * agent.row_size
            n_steps = tuple(n for n in n_steps if n % together == 0) or n_steps
            rows = [b for b in batch_sizes if b % agent.row_size == 0]
            batch_sizes = tuple(b for b in rows if any(n % b == 0 for n in n_steps)) or batch_sizes
        return TrainConfig(
            env=self.env,
            env_kwargs=self.env_kwargs,
            agent=agent,
            n_steps_choices=n_steps,
            batch_size_choices=batch_sizes,
            eval_episodes=self.eval_episodes,
            matmul_precision=self.matmul_precision,
        )

    def checkpoints(self, total_steps: int | None = None) -> list[int]:
        """Return the nominal steps of the checkpoints; the last is the end of training."""
        return checkpoint_steps(self.eval_every, total_steps or self.total_steps)

    def score(self, checkpoint_means: list[float]) -> float:
        """Return the score of a run whose seeds had these mean returns at its checkpoints."""
        last = OBJECTIVES[self.objective](len(checkpoint_means))
        return sum(checkpoint_means[-last:]) / last

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes; strict JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {
            "env_kwargs": dict(self.env_kwargs),
            "agent": self.agent.to_dict(),
            "space": self.space.to_tables(),
            "defaults": self.space.defaults.to_dict(),
            "warm_start": None if self.warm_start is None else self.warm_start.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Restore settings from :meth:`to_dict`.

        Raises:
          UserError: naming the setting that is missing, unknown or has a wrong value.
        """
        values = dict(table(values, "settings"))
        defaults = Hyperparameters.from_dict(table(values.pop("defaults", {}), "defaults"))
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UserError(
                    f"unknown setting {name!r}{nearest(name, known)}; "
                    f"another version may have stored it"
                )
        for name in ("env_kwargs", "space"):
            if name not in values:
                raise UserError(f"the setting {name} is missing")
        env_kwargs = table(values["env_kwargs"], "env_kwargs")
        if values.get("warm_start") is not None:
            values["warm_start"] = WarmStart.from_dict(table(values["warm_start"], "warm_start"))
        space = table(values["space"], "space")
        return cls(
            **{
                **values,
                "env_kwargs": tuple(sorted(env_kwargs.items())),
                "agent": AgentConfig.from_dict(table(values.get("agent", {}), "agent")),
                "space": SearchSpace(defaults=defaults).changed_by(space),
            }
        )
