"""A training run from hyperparameters to policies: what the command and :func:`train` share.

The command line is in :mod:`ppo_jax.train`, the algorithm in :mod:`ppo_jax.trainer`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np

from ppo_jax.config import (
    AgentConfig,
    AgentOptions,
    EnvKwargs,
    EnvValue,
    TrainConfig,
    checkpoint_steps,
    config_for,
    iterations_for,
    sorted_env_kwargs,
)
from ppo_jax.devices import set_up_process
from ppo_jax.environments import EnvironmentLike, name_of, require_no_code
from ppo_jax.errors import LARGEST_STEPS, UserError, nearest, require_count
from ppo_jax.files import held, make_folder, path_of, read_json, require_writable, write_json
from ppo_jax.hyperparameters import HyperparameterOptions, Hyperparameters
from ppo_jax.identity import first_difference
from ppo_jax.model_card import returns_of_seeds
from ppo_jax.notebook import card, changes
from ppo_jax.progress import PrintedProgress
from ppo_jax.text import fixed, plural
from ppo_jax.tracking import Tracker, TrackingConfig

if TYPE_CHECKING:  # What follows starts a backend, or may only be imported after it.
    from matplotlib.axes import Axes

    from ppo_jax.policy import Policy
    from ppo_jax.programs import Checkpoint, Programs, Weights

Callback = Callable[["Checkpoint"], bool | None]
"""Called with each checkpoint of a run; the run ends there if it returns true."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A run that is to be trained: everything that its numbers depend on.

    Raises:
      UserError: naming the field, its value and what is allowed.
    """

    env: str = TrainConfig.env
    env_kwargs: EnvKwargs = ()
    hyperparameters: Hyperparameters = Hyperparameters()
    agent: AgentConfig = AgentConfig()
    total_steps: int = 500_000
    seeds: int = 4
    seed: int = 0
    eval_every: int = 50_000
    eval_episodes: int = TrainConfig.eval_episodes
    matmul_precision: str = TrainConfig.matmul_precision

    def __post_init__(self) -> None:
        require_count("seeds", self.seeds)
        require_count("total_steps", self.total_steps, high=LARGEST_STEPS)
        require_count("eval_every", self.eval_every, high=LARGEST_STEPS)
        require_count("seed", self.seed, low=0, high=2**32 - 1)
        object.__setattr__(self, "hyperparameters", self.hyperparameters.validated())
        iterations_for(self.total_steps, self.hyperparameters.n_steps)
        _ = self.config, self.steps  # They check what they are made of.

    @property
    def config(self) -> TrainConfig:
        """What is compiled."""
        return config_for(
            self.hyperparameters,
            self.agent,
            env=self.env,
            env_kwargs=self.env_kwargs,
            eval_episodes=self.eval_episodes,
            matmul_precision=self.matmul_precision,
        )

    @property
    def steps(self) -> list[int]:
        """Nominal environment steps of each seed at the checkpoints."""
        return checkpoint_steps(self.eval_every, self.total_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the description of the run; strict JSON."""
        return {
            "hyperparameters": self.hyperparameters.to_dict(),
            "config": self.config.to_dict(),
            "seeds": {"root": self.seed, "count": self.seeds},
            "steps": self.steps,
        }

    def prepare(self, output: Path | None) -> "Programs":
        """Return the programs of the run, not yet compiled.

        Raises:
          UserError: when the environment or `output` cannot be used.
        """
        from ppo_jax.programs import Programs

        programs = Programs(self.config, self.seeds)
        if output is not None:
            require_writable(output)
            _require_no_other_run(output, self)
        return programs

    def run(
        self,
        programs: "Programs",
        output: Path | None = None,
        callback: Callback | None = None,
        *,
        progress: PrintedProgress | None = None,
        tracking: TrackingConfig | None = None,
    ) -> "TrainingResult":
        """Train, or go on where an earlier call with the same `output` was stopped.

        Args:
          programs: see :meth:`prepare`.
          output: folder for the training state and, at the end, the results.
          callback: called at each checkpoint.
          progress: prints how the run goes.
          tracking: where the run is logged besides; needs `output`.
        """
        from ppo_jax.programs import lane_weights
        from ppo_jax.seeds import TRAINING, seed_keys
        from ppo_jax.training_state import TrainingStates

        steps = self.steps
        keys = seed_keys(self.seed, TRAINING, self.seeds)
        rows: list[np.ndarray] = []
        seconds = 0.0
        if progress is not None:
            progress.started()
        programs.compile()
        state = programs.init(keys)
        with contextlib.ExitStack() as stack:
            states = None
            if output is not None:
                make_folder(output)
                in_use = f"another process is training in {output}"
                stack.enter_context(held(output / ".lock", in_use))
                states = TrainingStates(output / "training_state", self.to_dict())
                stack.enter_context(states)
            if states is not None and states.exists():
                state, passed = states.restore(state)
                rows = [np.array(row, float) for row in passed["returns"]]
                seconds = passed["training_seconds"]
            taken = int(state.iteration) * self.hyperparameters.n_steps
            if progress is not None and rows:
                progress.resumed(len(rows), taken)
            tracker = stack.enter_context(
                Tracker(
                    tracking or TrackingConfig(),
                    output or Path(),
                    name="",
                    group=self.env,
                    hyperparameters=self.hyperparameters.to_dict(),
                    environment_steps=taken,
                )
            )
            for checkpoint in programs.run(keys, self.hyperparameters, steps, len(rows), state):
                state, taken = checkpoint.state, checkpoint.environment_steps
                rows.append(checkpoint.returns)
                seconds += checkpoint.training_seconds
                if progress is not None:
                    progress.checkpoint(checkpoint)
                stop = callback is not None and bool(callback(checkpoint))
                if states is not None:
                    passed = {"returns": rows, "training_seconds": seconds}
                    states.save(state, passed, final=stop or checkpoint.step == steps[-1])
                tracker.checkpoint(checkpoint)
                if stop:
                    break
        result = TrainingResult(
            self,
            returns=np.stack(rows),
            weights=tuple(lane_weights(state, lane) for lane in range(self.seeds)),
            environment_steps=taken,
            training_seconds=seconds,
            compile_seconds=programs.compile_log.seconds,
        )
        if output is not None:
            result.save(output)
        return result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainingResult:
    """What a training run has come to.

    Attributes:
      training: the run.
      returns: learning curves: mean return of each seed's greedy episodes at each checkpoint,
        float ``[checkpoints, seeds]``; NaN from where a seed has diverged.
      weights: of each seed's network at the end.
      environment_steps: steps that each seed has taken.
      training_seconds: without evaluation and compilation.
      compile_seconds: that compilation took.
    """

    training: Training
    returns: np.ndarray
    weights: "tuple[Weights, ...]"
    environment_steps: int
    training_seconds: float
    compile_seconds: float

    @property
    def config(self) -> TrainConfig:
        """Environment, network and sizes."""
        return self.training.config

    @property
    def hyperparameters(self) -> Hyperparameters:
        """What it was trained with."""
        return self.training.hyperparameters

    @property
    def steps(self) -> np.ndarray:
        """Nominal environment steps of each seed at the checkpoints, int ``[checkpoints]``."""
        return np.array(self.training.steps[: len(self.returns)])

    @property
    def mean_returns(self) -> np.ndarray:
        """Mean over the seeds that had not diverged, ``[checkpoints]``; NaN where all had."""
        mean: np.ndarray = np.ma.masked_invalid(self.returns).mean(axis=1).filled(np.nan)
        return mean

    @property
    def diverged_seeds(self) -> list[int]:
        """Seeds that have diverged."""
        return np.flatnonzero(~np.isfinite(self.returns[-1])).tolist()

    @property
    def best_seed(self) -> int:
        """The seed with the highest return at the last checkpoint.

        Raises:
          UserError: when every seed has diverged.
        """
        if len(self.diverged_seeds) == self.training.seeds:
            raise UserError("every seed has diverged, so there is no policy")
        last = self.returns[-1]
        return int(np.argmax(np.where(np.isfinite(last), last, -np.inf)))

    @property
    def policies(self) -> "tuple[Policy, ...]":
        """A policy for each seed; that of a diverged one cannot be used."""
        return tuple(self._policy(seed) for seed in range(self.training.seeds))

    @property
    def policy(self) -> "Policy":
        """The policy of the best seed; see :attr:`best_seed`."""
        return self._policy(self.best_seed)

    def _policy(self, seed: int) -> "Policy":
        from ppo_jax import policy

        about = {"steps": int(self.steps[-1]), "seed": seed, "final_return": self.returns[-1, seed]}
        if len(self.returns) < len(self.training.steps):  # A callback has stopped it.
            about["total_steps"] = self.training.steps[-1]
        return policy.of(
            self.config,
            self.weights[seed],
            hyperparameters=self.hyperparameters.to_dict(),
            training=about,
            returns=returns_of_seeds(self.returns[-1], self.config.eval_episodes),
        )

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the learning curves of all seeds and their mean.

        Args:
          axes: of Matplotlib; a new figure's if not given.

        Returns:
          The axes; ``result.plot().figure.savefig("curve.png")`` writes them to a file.
        """
        from ppo_jax.plots import draw_learning_curve

        if axes is None:
            from matplotlib import pyplot

            _, axes = pyplot.subplots(layout="constrained")
        draw_learning_curve(axes, self._title, self.steps, self.returns)
        return axes

    def save(self, folder: str | Path) -> None:
        """Write what ``python -m ppo_jax.train`` writes.

        ``training.json``, ``learning_curve.png`` and, unless every seed has diverged, ``policy/``,
        the network of the best seed, for :func:`ppo_jax.policy.load` and
        ``python -m ppo_jax.evaluate``.

        Raises:
          UserError: when `folder` holds the results of another run.
        """
        from ppo_jax.plots import draw_learning_curve, picture
        from ppo_jax.versions import device_description, versions

        folder = path_of("folder", folder)
        require_writable(folder)
        _require_no_other_run(folder, self.training)
        make_folder(folder)
        results = self.training.to_dict() | {
            "environment_steps_per_seed": self.environment_steps,
            "returns": self.returns,
            "diverged_seeds": self.diverged_seeds,
            "training_seconds": self.training_seconds,
            "compile_seconds": self.compile_seconds,
            "versions": versions(),
            "device": device_description(),
        }
        write_json(folder / "training.json", results)
        with picture(folder / "learning_curve.png", 10, 5.5) as figure:
            draw_learning_curve(figure.subplots(), self._title, self.steps, self.returns)
        if len(self.diverged_seeds) < self.training.seeds:
            self.policy.save(folder / "policy")

    @property
    def _title(self) -> str:
        return f"{self.training.env}: {plural(self.training.seeds, 'seed')}"

    def _repr_html_(self) -> str:
        from ppo_jax.plots import draw_learning_curve

        run, diverged = self.training, self.diverged_seeds
        rows = {
            "final return": f"{fixed(self.mean_returns[-1])}, mean over seeds",
            "hyperparameters": changes(run.hyperparameters),
            "agent": changes(run.agent),
            "environment steps": f"{self.steps[-1]:,} for each seed",
            "training": f"{self.training_seconds:.1f} s",
            "compiling": f"{self.compile_seconds:.1f} s",
        }
        if diverged:
            rows["diverged seeds"] = ", ".join(map(str, diverged))
        return card(
            self._title,
            rows,
            draw=lambda axes: draw_learning_curve(axes, "", self.steps, self.returns),
        )

    def __repr__(self) -> str:
        return (
            f"<TrainingResult {self._title} × "
            f"{self.steps[-1]:,} steps, final return {fixed(self.mean_returns[-1])}>"
        )


def _require_no_other_run(folder: Path, training: Training) -> None:
    """Refuse to overwrite the results in `folder` unless they are of this run, or are torn."""
    run = training.to_dict()
    try:
        stored = read_json(folder / "training.json")
        before = {name: stored[name] for name in run}
    except (UserError, KeyError, TypeError):
        return
    difference = first_difference(before, run)
    if difference is not None:
        raise UserError(
            f"{folder} holds the results of a run with {difference.name} = "
            f"{difference.stored}, but got {difference.asked}; choose another folder"
        )


class _Options(HyperparameterOptions, AgentOptions, total=False):
    """Keyword arguments of :func:`train` that are fields of its two dataclasses."""


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _listing_options(function: _Function) -> _Function:
    """Have ``help`` and completion show each option of `function` with its default."""
    signature = inspect.signature(function)
    *parameters, _ = signature.parameters.values()  # The last one stands for the options.
    for kind in (Hyperparameters, AgentConfig):
        for field in dataclasses.fields(kind):
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
            )
    vars(function)["__signature__"] = signature.replace(parameters=parameters)
    return function


@_listing_options
def train(
    env: EnvironmentLike | None = None,
    *,
    total_steps: int = 500_000,
    seeds: int = 4,
    seed: int = 0,
    eval_every: int = 50_000,
    eval_episodes: int = 32,
    env_kwargs: Mapping[str, EnvValue] | EnvKwargs | None = None,
    preset: str | None = None,
    hyperparameters: Hyperparameters | Mapping[str, Any] | None = None,
    agent: AgentConfig | Mapping[str, Any] | None = None,
    matmul_precision: str = "default",
    output: str | Path | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    **options: Unpack[_Options],
) -> TrainingResult:
    """Train PPO on several seeds at once; ``python -m ppo_jax.train`` as a function.

    Every hyperparameter (:class:`~ppo_jax.hyperparameters.Hyperparameters`) and every setting of
    the agent (:class:`~ppo_jax.config.AgentConfig`) is a keyword argument::

        result = ppo_jax.train("CartPole-v1", learning_rate=1e-3, seeds=4)
        result.returns  # learning curves, [checkpoints, seeds]
        result.policy.act(observation)

    Args:
      env: a name, or an environment's class or object; see :func:`ppo_jax.environments.make`.
        That of the preset, or CartPole-v1, if not given.
      total_steps: environment steps of each seed.
      seeds: how many are trained.
      seed: root of all random numbers.
      eval_every: environment steps between checkpoints, where every seed is evaluated.
      eval_episodes: episodes of each seed at a checkpoint.
      env_kwargs: environment parameters to override.
      preset: name of a preset (:mod:`ppo_jax.presets`) to start from.
      hyperparameters: to start from, those that a study recommends for example.
      agent: likewise.
      matmul_precision: ``default``, ``high`` or ``highest``; see
        :class:`ppo_jax.config.TrainConfig`.
      output: folder for the results. If a call is stopped, the next one with the same arguments
        continues at the last checkpoint. Nothing is written if it is not given.
      callback: called with each :class:`~ppo_jax.programs.Checkpoint`: its step, the return of
        each seed and the metrics of training. Training ends there if it returns true.
      progress: print a line a checkpoint.
      options: hyperparameters and settings of the agent, over all others; `network` may also be
        a class of Flax, see docs/environments.md.

    Raises:
      UserError: before anything is trained, when the request cannot work.
    """
    if preset is not None:
        from ppo_jax import presets

        found = presets.load(preset)
        if env is None:
            require_no_code(found.env, preset, f"pass env={found.env!r}")
            env = found.env
        env_kwargs = found.env_kwargs if env_kwargs is None else env_kwargs
        hyperparameters = found.hyperparameters if hyperparameters is None else hyperparameters
        agent = found.agent if agent is None else agent
    known = inspect.signature(train).parameters
    for name in options:
        if name not in known:
            raise UserError(f"train has no argument {name!r}{nearest(name, known)}")
    given: Mapping[str, Any] = options
    numbers = Hyperparameters.of(hyperparameters).to_dict()
    parts = AgentConfig.of(agent).to_dict()
    training = Training(
        env=Training.env if env is None else name_of(env),
        env_kwargs=sorted_env_kwargs(env_kwargs or ()),
        hyperparameters=Hyperparameters.from_dict(
            numbers | {name: value for name, value in given.items() if name in numbers}
        ),
        agent=AgentConfig.from_dict(
            parts | {name: value for name, value in given.items() if name in parts}, asked=True
        ),
        total_steps=total_steps,
        seeds=seeds,
        seed=seed,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        matmul_precision=matmul_precision,
    )
    folder = None if output is None else path_of("output", output)
    if callback is not None and not callable(callback):
        raise UserError(f"callback must be a function of a checkpoint, but got {callback!r:.80}")
    set_up_process()
    lines = PrintedProgress(training.env, seeds, training.steps) if progress else None
    return training.run(training.prepare(folder), folder, callback, progress=lines)
