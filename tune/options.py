"""The options of ``python -m tune.run``, and the plan that they make. Starts no backend."""

import dataclasses
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ppo_jax import command_line, presets
from ppo_jax.config import PRECISIONS, AgentConfig, iterations_for
from ppo_jax.errors import LARGEST_STEPS, UserError, require_choice, require_count
from ppo_jax.export.reading import read
from ppo_jax.hyperparameters import DOMAINS, Hyperparameters
from ppo_jax.tracking import TrackingConfig
from tune.protocol.budget import parse_budget
from tune.protocol.plan import MAX_RETRIES, NO_LIMIT, WORKER_TIMEOUT, Plan
from tune.protocol.settings import ADDRESS_VARIABLE, OBJECTIVES, Settings
from tune.protocol.space import SPACES, Configuration, SearchSpace, space_file
from tune.protocol.study_folder import StudyFolder, require_study_name
from tune.search.pruners import PRUNERS
from tune.search.samplers import SAMPLERS


def _one_of(name: str, choices: Collection[str]) -> PrimitiveConstructorSpec[str]:
    """Return how tyro reads an option that takes one of `choices`; its help lists them."""

    def read(words: list[str]) -> str:
        require_choice(name, words[0], choices)
        return words[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=read,
        is_instance=lambda value: value in choices,
        str_from_instance=lambda value: [value],
    )


def _count_or_auto(name: str) -> PrimitiveConstructorSpec[int | None]:
    """Return how tyro reads an option that takes a count, or auto for None."""

    def read(words: list[str]) -> int | None:
        if words[0] == "auto":
            return None
        if not (words[0].isascii() and words[0].isdecimal() and int(words[0])):
            raise UserError(f"{name} must be a positive integer or auto, but got {words[0]!r}")
        return int(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{auto,INT}",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: ["auto" if value is None else str(value)],
    )


def where_it_is_tuned(option: str) -> str | None:
    """Return where a study takes what an `option` of ``ppo_jax.train`` asks for."""
    name = option.removeprefix("--no-").removeprefix("--").replace("-", "_")
    if name not in DOMAINS:
        return None
    return (
        f": {name} is tuned; a file of --space FILE.toml fixes it or changes its range "
        f"([{name}] and below it value = ..., or low = ... and high = ...)"
        if DOMAINS[name].kind is not bool
        else f": a file of --space FILE.toml fixes or tunes {name} "
        f"([{name}] and below it value = true, or choices = [true, false])"
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """What is tuned."""

    env: str = Settings.env
    """Environment to train on."""
    env_kwargs: tuple[str, ...] = ()
    """Environment parameters to override, as name=value: max_steps_in_episode=1000."""
    preset: str | None = None
    """Start from the preset of this environment, or in a file NAME.toml: it takes the place of the
    default configuration, and the search space is widened to hold it."""
    baseline: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The same with the configuration in a file: recommended.json of a study, training.json of a
    run, a preset FILE.toml, or RL Zoo's FILE.yml."""
    space: str | Path = "standard"
    """Hyperparameters and their ranges: standard; wide, what published tunings use, with
    normalisation, number of environments and network; or a TOML file that changes the standard
    space."""
    fix: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Hyperparameters and network settings of the space that are not tuned and keep the values
    they start from: --space wide --fix hidden_sizes."""


@dataclasses.dataclass(frozen=True)
class Search:
    """How the search goes."""

    trials: int | None = None
    """Trials in all, the default configuration included; fewer where the space has fewer
    configurations. 20 if neither this nor --budget is given."""
    budget: str | None = None
    """Wall clock for the whole command, as 90s, 10m or 2h: trials are run while they fit, and the
    proof is made as large as what is left allows."""
    quick: bool = False
    """Five trials, unless --trials says otherwise."""
    total_steps: int = Settings.total_steps
    """Environment steps of each seed."""
    seeds: int = Settings.seeds
    """Seeds of a trial, trained at once."""
    eval_every: int = Settings.eval_every
    """Environment steps between checkpoints, where a trial is scored and may be pruned."""
    eval_episodes: int = Settings.eval_episodes
    """Episodes of each seed at a checkpoint."""
    objective: Annotated[str, _one_of("objective", OBJECTIVES)] = Settings.objective
    """Score of a trial: mean over all checkpoints, the final one, or the last third."""
    sampler: Annotated[str, _one_of("sampler", SAMPLERS)] = Settings.sampler
    """How configurations are chosen: gp is this project's Gaussian process, all others are
    Optuna's; cmaes and optuna-gp need the extra of their name."""
    sampler_startup_trials: int = Settings.sampler_startup_trials
    """Trials spread over the space before a sampler begins to model."""
    from_study: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of an earlier study: its trials tell the sampler where to begin. With one of the same
    environment, lengths, objective and values that are not tuned, ten trials find what thirty find
    without; any other helps only short studies. Where it is in a --storage, this study has to be in
    the same. gp only."""
    grid_points: int = Settings.grid_points
    """Values of each range in a grid search, whose grid has at most a million points."""
    pruner: Annotated[str, _one_of("pruner", PRUNERS)] = Settings.pruner
    """How hopeless trials are stopped early."""
    pruner_startup_trials: int = Settings.pruner_startup_trials
    """Complete trials before the median or percentile pruner begins."""
    pruner_warmup_checkpoints: int = Settings.pruner_warmup_checkpoints
    """First checkpoints of a trial at which it is never pruned."""
    pruner_percentile: float = Settings.pruner_percentile
    """Share of trials that the percentile pruner keeps, in percent."""
    seed: int = Settings.seed
    """Root of all random numbers."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """How the winner is chosen and proved."""

    validate_steps: int = 1_000_000
    """Environment steps of each seed when winner and default are compared; 0 for no comparison."""
    validate_seeds: int = 20
    """Fresh seeds for that comparison, at most: it ends after 40 or 60% of them if the answer is
    clear by then. Each --seeds of them are trained at once."""
    finalists: int | None = None
    """Promising trials that are trained, with the default, for --validate-steps on the tuning
    seeds before one is named the winner; 0 to take the trial that the model expects most of. 3 if
    not given."""
    reference_score: float | None = None
    """An earlier result to draw and report beside the study's own."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the study runs and is kept."""

    output: Path | None = None
    """Folder for all results. runs/STUDY_NAME if not given."""
    study_name: str | None = None
    """Name of the study. The environment's name if not given."""
    workers: int = 1
    """Processes of this host that work on the study, each on its own share of the devices."""
    lanes: Annotated[int | None, _count_or_auto("--lanes")] = None
    """Trials that train side by side in one program, on a GPU or TPU faster than one after
    another. auto: 1 on CPU; elsewhere up to 8, one for five trials, as memory allows."""
    storage: str | None = None
    """Where the study is kept: sqlite:///FILE for one process, journal:FILE for one host,
    postgresql://..., mysql://... or grpc://HOST:PORT for many. SQLite in the output folder if not
    given. An address with a password belongs in the environment variable PPO_JAX_TUNE_STORAGE."""
    matmul_precision: Annotated[str, _one_of("matmul_precision", PRECISIONS)] = (
        Settings.matmul_precision
    )
    """Precision of matrix products: default (TF32 on an NVIDIA GPU, bfloat16 on a TPU), high, or
    highest (float32 everywhere, as on CPU)."""
    worker_timeout: float = WORKER_TIMEOUT
    """Seconds without a heartbeat after which a worker counts as dead."""
    max_retries: int = MAX_RETRIES
    """How often the configuration of a worker that died is run again by another."""


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Common):
    """Tune the hyperparameters of PPO with Optuna and prove the winner on fresh seeds.

    Every trial trains one configuration on several seeds at once; trial 0 is the default
    configuration. The same command continues a study that was stopped.
    """

    task: Task = Task()
    """What to tune."""
    search: Search = Search()
    """How to search."""
    evidence: Evidence = Evidence()
    """How the winner is chosen, and proved on fresh seeds."""
    place: Place = Place()
    """Where the study runs, and where it is kept."""
    tracking: TrackingConfig = TrackingConfig()
    """Where else the trials are shown."""
    agent: AgentConfig = AgentConfig()
    """What every trial's agent is made of, unless the space tunes it."""

    def settings(self) -> Settings:
        """Return the protocol of the study."""
        task, base = self.task, Hyperparameters()
        if task.preset is not None:
            base = presets.load(task.preset).hyperparameters
        elif task.baseline is not None:
            base = read(task.baseline, task.env)[0].hyperparameters
        name = str(task.space)
        if name == "standard" or name not in SPACES:
            space = SearchSpace()
            if task.preset is not None or task.baseline is not None:
                space = SearchSpace.around(base, self.agent.num_envs)
        else:
            space = SearchSpace.named(name).holding(Configuration(base, self.agent))
        if name not in SPACES:
            space = self._changed(space)
        space = space.without(task.fix)
        given = {**vars(task), **vars(self.search), **vars(self.evidence), **vars(self.place)}
        given |= {
            "agent": self.agent,
            "env_kwargs": command_line.parse_env_kwargs(task.env_kwargs),
            "space": space,
        }
        fields = [f.name for f in dataclasses.fields(Settings) if f.name != "warm_start"]
        settings = Settings(**{name: given[name] for name in fields})
        return self._warmed(settings)

    def _warmed(self, settings: Settings) -> Settings:
        """Return `settings` with what an earlier study says, or said when this one was begun."""
        if self.search.from_study is None:
            return settings
        from tune.protocol.trials import StudyRecord
        from tune.report.stored import load_study
        from tune.search.storage import storage_file
        from tune.search.warm_start import stored_warm_start, warm_start_from

        source, own = self.search.from_study.resolve(), self._folder()
        name, storage = self.place.study_name or settings.env, self._storage
        began = stored_warm_start(storage or own.default_storage(self.place.workers), name)
        if began is not None and began.is_of(source):
            return dataclasses.replace(settings, warm_start=began)
        folder, shared = StudyFolder(source), None
        address = folder.default_storage()
        file = storage_file(address)
        if file is None or not file.is_file():
            # The folder of a study that is kept elsewhere says what it is called there.
            shared = folder.study_name()
            if storage is None or shared is None:
                raise UserError(
                    f"{folder.database} does not exist; an earlier study in a --storage is found "
                    f"by its folder where this study has the same --storage"
                )
            address = storage
        if source == own.path.resolve() or shared == name:
            raise UserError(f"--from-study must be another study, but got {source} of this one")
        record = StudyRecord.of(load_study(address, folder, shared))
        return dataclasses.replace(settings, warm_start=warm_start_from(record, source, settings))

    @property
    def _storage(self) -> str | None:
        return self.place.storage or os.environ.get(ADDRESS_VARIABLE)

    def _folder(self) -> StudyFolder:
        return StudyFolder.of(self.place.output, self.place.study_name or self.task.env)

    def _changed(self, space: SearchSpace) -> SearchSpace:
        """Return `space` changed by the file of ``--space``."""
        path = space_file("--space", self.task.space)
        return dataclasses.replace(space, agent=self.agent).changed_by_file(path)

    def plan(self) -> Plan:
        """Return what the session is to do.

        Raises:
          UserError: before anything is started, for what can be seen to be wrong.
        """
        search, evidence, place = self.search, self.evidence, self.place
        budget = None if search.budget is None else parse_budget(search.budget)
        many = 20 if budget is None else NO_LIMIT
        n_trials = (5 if search.quick else many) if search.trials is None else search.trials
        require_count("--trials", n_trials)
        self.tracking.require_packages()
        finalists = min(3, n_trials) if evidence.finalists is None else evidence.finalists
        require_count("--finalists", finalists, low=0)
        if finalists > n_trials:
            raise UserError(
                f"--finalists must be at most the number of trials, "
                f"but got --finalists {finalists} with {n_trials} trials"
            )
        require_count("--validate-steps", evidence.validate_steps, low=0, high=LARGEST_STEPS)
        require_count("--validate-seeds", evidence.validate_seeds)
        require_count("--workers", place.workers)
        if budget is not None and place.workers > 1:
            raise UserError(
                f"--budget is for one process, but got --workers {place.workers}; use --trials"
            )
        storage = self._storage
        if place.workers > 1 and (storage or "").startswith("sqlite"):
            raise UserError(
                f"SQLite serves one process, but got --workers {place.workers}; "
                f"leave --storage out, or use journal:, postgresql: or mysql:"
            )
        require_count("--max-retries", place.max_retries, low=0)
        if not 1 <= place.worker_timeout < math.inf:
            raise UserError(
                f"--worker-timeout must be at least 1 second, but got {place.worker_timeout}"
            )
        settings = self.settings()
        if settings.space.tuned_agent and place.lanes not in (None, 1):
            raise UserError(
                f"trials of one agent alone can share lanes, but got --lanes {place.lanes} with a "
                f"space that tunes {', '.join(settings.space.tuned_agent)}"
            )
        settings.checkpoints(evidence.validate_steps)
        iterations_for(evidence.validate_steps, min(settings.config.n_steps_choices))
        study_name = place.study_name or settings.env
        require_study_name(study_name)
        return Plan(
            settings=settings,
            n_trials=n_trials,
            study_name=study_name,
            folder=self._folder(),
            storage=storage,
            finalists=finalists,
            validate_steps=evidence.validate_steps,
            validate_seeds=evidence.validate_seeds,
            lanes=place.lanes,
            budget=budget,
            worker_timeout=place.worker_timeout,
            max_retries=place.max_retries,
        )
