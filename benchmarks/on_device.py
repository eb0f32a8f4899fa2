"""``python -m benchmarks.accelerator --on-device``: what a device does, beside what was predicted.

Everything runs in this process on one device, so that all contenders have the same card.
Compilation is timed apart.
"""

import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from benchmarks import hlo, measuring, prediction
from benchmarks.measuring import Report, Spread, Table
from benchmarks.prediction import DEFAULT, Compiled, Costs
from ppo_jax import command_line
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from ppo_jax.schedules import LanePrograms

SEEDS = 4
"""Of a trial, in studies and predictions."""
LONG = 10**9
"""Environment steps that no measurement reaches."""

SIZES: Mapping[str, tuple[int, Hyperparameters]] = {
    "CartPole-v1": (4, Hyperparameters(n_steps=4 * 128, batch_size=128, n_epochs=4)),
    "Breakout-MinAtar": (64, Hyperparameters(n_steps=64 * 128, batch_size=1024, n_epochs=4)),
    "brax/ant": (2048, Hyperparameters(n_steps=2048 * 10, batch_size=1024, n_epochs=4)),
}
"""Environment -> parallel environments of an agent and its hyperparameters, about PureJaxRL's."""


def sizes_of(env: str) -> tuple[int, Hyperparameters]:
    """Return parallel environments of an agent and its hyperparameters; CartPole's by default."""
    return SIZES.get(env, SIZES["CartPole-v1"])


@dataclasses.dataclass(frozen=True)
class Job:
    """Agents to be trained at once.

    Attributes:
      env: environment.
      agents: how many.
      steps: environment steps of each in a timed call, at least.
      device: to train on.
    """

    env: str
    agents: int
    steps: int
    device: jax.Device

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Of all agents."""
        return sizes_of(self.env)[1]

    @property
    def updates(self) -> int:
        """Iterations of a timed call."""
        return -(-self.steps // self.hyperparameters.n_steps)

    @property
    def config(self) -> TrainConfig:
        """What is compiled: three sizes of each kind, as in a study."""
        n_steps, batch_size = self.hyperparameters.n_steps, self.hyperparameters.batch_size
        return TrainConfig(
            self.env,
            agent=AgentConfig(num_envs=sizes_of(self.env)[0], network="mlp"),
            n_steps_choices=(n_steps, 2 * n_steps, 4 * n_steps),
            batch_size_choices=(batch_size // 2, batch_size, 2 * batch_size),
        )


Train = Callable[[], int]
"""Trains on for one timed call; returns the environment steps that all agents took."""


def _one_configuration(job: Job) -> Train:
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import TRAINING, seed_keys

    programs = Programs(job.config, job.agents, [job.device])
    state = programs.init(seed_keys(0, TRAINING, job.agents))
    steps = job.updates * job.hyperparameters.n_steps
    trained = 0

    def train() -> int:
        nonlocal state, trained
        trained += steps
        state, _ = programs.train_until(state, job.hyperparameters, trained, LONG)
        return job.agents * steps

    return train


def _lanes(job: Job) -> Train:
    from ppo_jax.schedules import LanePrograms

    programs = LanePrograms(job.config, 1, job.agents, [job.device])
    everywhere = _filled(programs, job.hyperparameters)
    blocks = job.updates * job.hyperparameters.n_steps // job.config.block_size

    def train() -> int:
        everywhere(blocks)
        return job.agents * blocks * job.config.block_size

    return train


def _filled(programs: "LanePrograms", hyperparameters: Hyperparameters) -> Callable[[int], None]:
    """Return a function that trains full lanes for a number of blocks."""
    from ppo_jax.seeds import TRAINING, seed_keys

    every = np.ones(programs.lane_mesh.lanes, np.bool_)
    state = programs.init(seed_keys(0, TRAINING, programs.seeds))
    lanes = programs.place(programs.empty(), state, hyperparameters, LONG, every)

    def train(blocks: int) -> None:
        nonlocal lanes
        lanes = programs.advance(lanes, every, ~every, blocks)

    return train


def _static(job: Job) -> Train:
    from benchmarks.static_ppo import make_train

    function = make_train(job.config, job.hyperparameters, job.updates)
    keys = jax.device_put(jax.random.split(jax.random.key(0), job.agents), job.device)
    program = jax.jit(jax.vmap(function)).lower(keys).compile()

    def train() -> int:
        jax.block_until_ready(program(keys))
        return job.agents * job.updates * job.hyperparameters.n_steps

    return train


def _rejax(job: Job) -> Train:
    from rejax import PPO

    h, num_envs = job.hyperparameters, sizes_of(job.env)[0]
    steps = job.updates * h.n_steps
    # A single empty evaluation at the end, since ours is timed without evaluation too.
    algorithm = PPO.create(
        env=job.env,
        num_envs=num_envs,
        num_steps=h.n_steps // num_envs,
        num_minibatches=h.n_steps // h.batch_size,
        num_epochs=h.n_epochs,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        max_grad_norm=h.max_grad_norm,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    ).replace(eval_callback=lambda *_: 0)
    keys = jax.device_put(jax.random.split(jax.random.PRNGKey(0), job.agents), job.device)
    program = jax.jit(jax.vmap(algorithm.train))

    def train() -> int:
        state, _ = jax.block_until_ready(program(keys))
        return int(state.global_step.sum())

    return train


CONTENDERS: Mapping[str, Callable[[Job], Train]] = {
    "one configuration": _one_configuration,
    "lanes": _lanes,
    "static, vmapped": _static,
    "rejax": _rejax,
}
"""Name -> how it prepares to train. The first two are ours: one configuration for all agents, or
one for each."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a contender trains.

    Attributes:
      env, contender, agents: what was measured.
      compile_seconds: to prepare and to train once, less what training once takes.
      steps_per_second: of all agents together; None where they do not fit the device.
    """

    env: str
    contender: str
    agents: int
    compile_seconds: float
    steps_per_second: Spread | None


def speed(job: Job, contender: str, rounds: int) -> Speed:
    """Measure one contender."""
    start = time.perf_counter()
    try:
        train = CONTENDERS[contender](job)
        train()
        first = time.perf_counter() - start
        seconds, steps = [], 0
        for _ in range(rounds):
            start = time.perf_counter()
            steps = train()
            seconds.append(time.perf_counter() - start)
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        return Speed(job.env, contender, job.agents, time.perf_counter() - start, None)
    rates = Spread.of([steps / second for second in seconds])
    return Speed(job.env, contender, job.agents, max(0.0, first - min(seconds)), rates)


@dataclasses.dataclass(frozen=True)
class StudySeconds:
    """What a study took.

    Attributes:
      trials: in all.
      lanes: trials side by side; 0 for auto.
      seconds: wall clock, compilation apart.
      training_seconds: of these, training and evaluation.
      compile_seconds: beside these.
      best: score of the best trial.
    """

    trials: int
    lanes: int
    seconds: float
    training_seconds: float
    compile_seconds: float
    best: float


def study(trials: int, lanes: int, steps: int) -> StudySeconds:
    """Run a study of CartPole-v1, without finalists and validation."""
    import optuna

    from tune.protocol.settings import Settings
    from tune.search.objective import make_programs
    from tune.search.study import run_optimization

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = Settings(seeds=SEEDS, total_steps=steps, eval_every=-(-steps // 4))
    programs = make_programs(settings, trials, lanes or None)
    before = programs.compile_log.seconds
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = run_optimization(trials, settings, output=folder, programs=programs)
        seconds = time.perf_counter() - start
    compiling = programs.compile_log.seconds - before
    training = sum(
        trial.user_attrs[name]
        for trial in done.trials
        for name in ("training_seconds", "evaluation_seconds")
    )
    return StudySeconds(trials, lanes, seconds - compiling, training, compiling, done.best_value)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A part of training as it was predicted from its launches, and measured.

    Attributes:
      part: what it does.
      predicted: seconds; None where the compiled program lacks one of its loops.
      measured: seconds.
    """

    part: str
    predicted: float | None
    measured: float


LANES = 8
"""Trials side by side where predictions are measured."""


def predictions(device: jax.Device, rounds: int) -> list[Prediction]:
    """Compare the seconds of each part with those that follow from its launches.

    The launches are those of the programs that run, so that they may differ from programs
    compiled without a device by what is chosen by trying.
    """
    from benchmarks.parts import Parts
    from ppo_jax.schedules import LanePrograms

    config = prediction.CONFIG
    parts = Parts(config, SEEDS, Hyperparameters(), [device])
    measured = {}
    for name in ("rollout", "updates", "iteration"):
        parts.time(name)
        measured[name] = min(parts.time(name) for _ in range(rounds))
    alone = Costs.of({"training": _body(parts.programs, "training")})
    found = [
        Prediction("rollout", _maybe(prediction.rollout, alone, DEFAULT[0]), measured["rollout"]),
        Prediction("epochs", _maybe(prediction.update, alone, DEFAULT), measured["updates"]),
        Prediction(
            "iteration", _maybe(prediction.iteration, alone, DEFAULT), measured["iteration"]
        ),
    ]

    programs = LanePrograms(config, SEEDS, LANES, [device])
    blocks = config.max_n_steps // config.block_size
    learning: dict[int, float] = {}
    collecting: list[float] = []
    for n_epochs in (2, 6):
        train = _filled(
            programs,
            Hyperparameters(
                n_steps=config.max_n_steps,
                batch_size=max(config.batch_size_choices),
                n_epochs=n_epochs,
            ),
        )
        seconds = []
        for _ in range(rounds + 1):
            for blocks_now in (blocks - 1, 1):
                start = time.perf_counter()
                train(blocks_now)
                seconds.append(time.perf_counter() - start)
        collecting += [second / (blocks - 1) for second in seconds[2::2]]
        learning[n_epochs] = min(seconds[3::2])
    chunk = (learning[6] - learning[2]) / (4 * blocks)
    together = Costs.of({"lanes": _body(programs, "lanes")})
    found += [
        Prediction(
            f"a block of {LANES} lanes",
            _maybe(prediction.block_of_lanes, together),
            min(collecting),
        ),
        Prediction(
            f"ticks of a block of {LANES} lanes",
            _maybe(prediction.chunk_of_lanes, together),
            chunk,
        ),
    ]
    return found


def _body(programs: Any, name: str) -> Compiled:
    return Compiled(name, 0.0, 0.0, 0, hlo.parse(programs.text(name)))


def _maybe(predict: Callable[..., float], *arguments: Any) -> float | None:
    """Return a prediction; None where a loop is missing, which a CPU's compiler may unroll."""
    try:
        return predict(*arguments)
    except KeyError:
        return None


def measure(
    *,
    envs: Sequence[str],
    agents: Sequence[int],
    steps: int,
    rounds: int,
    study_trials: Sequence[int],
    study_lanes: Sequence[int],
    study_steps: int,
    output: Path,
) -> None:
    """Measure everything, print tables and write results.

    Args:
      envs: to train many agents on.
      agents: numbers of agents that train at once.
      steps: of each agent in a timed call.
      rounds: timed calls.
      study_trials: trials of the studies.
      study_lanes: lanes of the studies; 0 for auto.
      study_steps: environment steps of each seed of a trial.
      output: folder for the results.
    """
    command_line.start_backend()
    console = measuring.make_console()
    device = jax.local_devices()[0]
    setting = measuring.setting(steps=steps, rounds=rounds)
    measuring.print_setting(setting, console)
    if device.platform == "cpu":
        console.print("no accelerator here: these are the times of a CPU core", soft_wrap=True)

    speeds: list[Speed] = []
    jobs = [(env, count) for env in envs for count in agents]
    if importlib.util.find_spec("brax") is None:
        console.print("brax is not installed: its ant is left out")
    else:
        jobs += [("brax/ant", count) for count in agents if count <= SEEDS]
    contenders = list(CONTENDERS)
    if importlib.util.find_spec("rejax") is None:
        console.print("rejax is not installed: it is left out")
        contenders.remove("rejax")
    for env, count in jobs:
        for contender in contenders:
            job = Job(env, count, steps, device)
            with console.status(f"{env}: {count} agents, {contender}"):
                speeds.append(speed(job, contender, rounds))
    studies = []
    for trials in study_trials:
        for lanes in study_lanes:
            with console.status(f"a study of {trials} trials, {lanes or 'auto'} lanes"):
                studies.append(study(trials, lanes, study_steps))
    with console.status("predictions"):
        compared = predictions(device, rounds)

    tables = [
        speed_table(speeds),
        study_table(studies, study_steps),
        prediction_table(compared),
    ]
    for table in tables:
        table.print(console)
    console.print(prediction.ASSUMPTIONS, soft_wrap=True)
    results = {
        **setting,
        "assumptions": prediction.ASSUMPTIONS,
        "speeds": [dataclasses.asdict(s) for s in speeds],
        "studies": [dataclasses.asdict(s) for s in studies],
        "predictions": [dataclasses.asdict(p) for p in compared],
    }
    Report(
        name="on_device",
        introduction=measuring.machine(setting),
        caption="Environment steps per second of many agents on one device",
        sections=[table.markdown() for table in tables],
        results=results,
        draw=lambda path: draw(speeds, path),
    ).write(output, console)


def speed_table(speeds: Sequence[Speed]) -> Table:
    """Return steps per second, and what the static program is exceeded by."""
    table = Table(
        "Environment steps per second of all agents",
        ("environment", "agents", "contender", "steps/s", "range", "static = 1", "s to compile"),
    )
    for each in speeds:
        static = next(
            s.steps_per_second
            for s in speeds
            if (s.env, s.agents, s.contender) == (each.env, each.agents, "static, vmapped")
        )
        rate = each.steps_per_second
        cells = ("does not fit", "") if rate is None else rate.cells(",.0f")
        ratio = "" if rate is None or static is None else f"{rate.median / static.median:.2f}"
        table.add(
            *(each.env, f"{each.agents:,}", each.contender, *cells, ratio),
            f"{each.compile_seconds:.1f}",
        )
    return table


def study_table(studies: Sequence[StudySeconds], steps: int) -> Table:
    """Return the seconds of studies."""
    table = Table(
        f"Studies of CartPole-v1, {SEEDS} seeds × {steps:,} steps, compilation apart",
        ("trials", "lanes", "seconds", "of these training", "s to compile", "best score"),
    )
    for each in studies:
        seconds = (each.seconds, each.training_seconds, each.compile_seconds, each.best)
        table.add(each.trials, each.lanes or "auto", *(f"{x:.1f}" for x in seconds))
    return table


def prediction_table(compared: Sequence[Prediction]) -> Table:
    """Return predictions beside measurements, in milliseconds."""
    table = Table(
        f"Predicted from launches and measured, CartPole-v1, {SEEDS} seeds",
        ("part", "predicted ms", "measured ms", "measured / predicted"),
    )
    for each in compared:
        cells = ("", "")
        if each.predicted is not None:
            cells = (f"{each.predicted * 1e3:.2f}", f"{each.measured / each.predicted:.2f}")
        table.add(each.part, cells[0], f"{each.measured * 1e3:.2f}", cells[1])
    return table


def draw(speeds: Sequence[Speed], path: Path) -> None:
    """Draw steps per second against the number of agents, a panel an environment."""
    from ppo_jax.plots import picture

    envs = list(dict.fromkeys(each.env for each in speeds))
    with picture(path, 5.0 * len(envs), 3.8) as figure:
        for axes, env in zip(np.atleast_1d(figure.subplots(1, len(envs))), envs, strict=True):
            for contender in CONTENDERS:
                points = [
                    (each.agents, each.steps_per_second.median)
                    for each in speeds
                    if (each.env, each.contender) == (env, contender)
                    and each.steps_per_second is not None
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", label=contender)
            axes.set(title=env, xlabel="agents", xscale="log", yscale="log")
        axes = figure.axes[0]
        axes.set(ylabel="environment steps per second")
        axes.legend()
