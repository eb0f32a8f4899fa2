"""Programs compiled for an accelerator that is not here, and the seconds that follow from them.

What a target's compiler writes says how many launches each trip of each loop takes. Seconds are
computed from these counts with :data:`ASSUMPTIONS`.
"""

import dataclasses
import importlib.metadata
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.hlo import Body
from benchmarks.measuring import ROOT
from benchmarks.processes import ProcessError, error_line, module_environment, output_of
from ppo_jax.config import TrainConfig, iterations_for
from ppo_jax.errors import require_choice
from ppo_jax.hyperparameters import Hyperparameters

TARGETS = ("h100", "v5e")
ENVIRONMENT = ROOT / ".venv-accelerator"
"""The virtual environment with the compilers; it sees the packages of this one."""

LAUNCH_SECONDS = 3e-6
ROUND_TRIP_SECONDS = 10e-6
BYTES_PER_SECOND = 2e12
CYCLES_PER_SECOND = 1.5e9
ASSUMPTIONS = (
    f"assumed: {LAUNCH_SECONDS * 1e6:g} µs a launch and {ROUND_TRIP_SECONDS * 1e6:g} µs for the "
    f"host to decide on a trip on an H100, {BYTES_PER_SECOND / 1e12:g} TB/s; "
    f"{CYCLES_PER_SECOND / 1e9:g} GHz on a v5e, whose cycles are its compiler's estimate"
)

STEPS = 200_000
"""Environment steps of each seed of a trial."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program as a target's compiler has made it.

    Attributes:
      program: its name.
      trace_seconds, compile_seconds: of this machine.
      bytes: memory on each device.
      body: what it launches.
    """

    program: str
    trace_seconds: float
    compile_seconds: float
    bytes: int
    body: Body

    @classmethod
    def from_json(cls, line: str) -> "Compiled":
        """Restore an answer of :mod:`benchmarks.accelerator_worker`."""
        values = json.loads(line)
        return cls(**{**values, "body": Body.from_dict(values["body"])})


def requirements() -> list[str]:
    """Return the packages that hold the compilers for this version of JAX, about 500 MB."""
    version = importlib.metadata.version("jax")
    declared = importlib.metadata.requires("jax") or []
    (libtpu,) = (r.partition(";")[0].strip() for r in declared if r.startswith("libtpu"))
    cuda = [f"jax-cuda13-plugin=={version}", f"jax-cuda13-pjrt=={version}"]
    nvidia = ["cuda-nvcc", "nvvm", "cuda-runtime", "cuda-cupti", "cuda-crt"]
    return [libtpu, *cuda, *(f"nvidia-{name}" for name in nvidia)]


def interpreter() -> Path | None:
    """Return the interpreter of the environment with the compilers, None before they are there."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "requirements.json"
    known = stamp.exists() and json.loads(stamp.read_text()) == requirements()
    return python if known else None


def install() -> Path:
    """Install the compilers, unless they are there.

    Raises:
      ProcessError: when something cannot be installed.
    """
    known = interpreter()
    if known is not None:
        return known
    output_of([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
    python = ENVIRONMENT / "bin" / "python"
    # Without what they require: JAX and all else is in this environment.
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    output_of([str(python), "-m", "pip", "install", *options, *requirements()])
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages,) = (ENVIRONMENT / "lib").glob("python*/site-packages")
    (packages / "_shared.pth").write_text("".join(f"{path}\n" for path in here))
    (ENVIRONMENT / "requirements.json").write_text(json.dumps(requirements()))
    return python


PROGRAMS = {
    False: ("initialisation", "training", "evaluation"),
    True: ("initialisation", "placement", "lanes", "lane_evaluation", "extraction"),
}
"""Whether several trials train side by side -> the programs of a study."""


def compile_for(
    target: str,
    env: str,
    *,
    chips: int = 1,
    lanes: int = 1,
    seeds: int = 4,
    programs: Sequence[str] | None = None,
) -> dict[str, Compiled]:
    """Return program -> how a target's compiler makes it.

    Raises:
      ProcessError: when it cannot be compiled.
    """
    require_choice("target", target, TARGETS)
    request = {
        "target": target,
        "env": env,
        "chips": chips,
        "lanes": lanes,
        "seeds": seeds,
        "programs": list(programs or PROGRAMS[lanes > 1]),
    }
    done = subprocess.run(
        [str(install()), "-m", "benchmarks.accelerator_worker"],
        input=json.dumps(request) + "\n",
        env=module_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ProcessError(f"{env} for {chips} × {target}: {error_line(done.stderr)}")
    found = [Compiled.from_json(line) for line in done.stdout.splitlines() if line[:1] == "{"]
    return {compiled.program: compiled for compiled in found}


# Loops by what they do

_ROLES = {
    "collect_block": ("environment step",),
    "epochs": ("epoch", "block of minibatches", "minibatch"),
    "chunk": ("tick",),
    "play": ("evaluation steps", "evaluation step"),
}
"""Function of the project -> what its nested loops do, from the outermost inwards."""

_TRAINING = {
    "training": ("iteration", "rollout block"),
    "lanes": ("block", "chunk"),
    "lane_evaluation": ("evaluation steps",),
}
"""Program -> what its other nested loops do."""


def role(program: str, name: str) -> str:
    """Return what a loop does, from where JAX says that it comes from.

    >>> role("training", "jit(training)/vmap()/while/body/vmap(collect_block)/while")
    'environment step'
    """
    parts = [re.sub(r".*\((\w*)\)$", r"\1", part) for part in name.split("/")]
    known = [place for place, part in enumerate(parts) if part in _ROLES]
    names = _ROLES[parts[known[-1]]] if known else _TRAINING.get(program, ())
    inner = parts[known[-1] :] if known else parts
    depth = inner.count("while")
    return names[depth - 1] if 0 < depth <= len(names) else "loop"


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of one trip of each loop of a schedule, without the loops inside.

    Attributes:
      by_role: what the loop does -> seconds of its trips, one for each loop that does it. The
        programs themselves and the branches of conditionals are ``branch``.
      round_trip: seconds of a trip that the host decides on; a TPU decides itself.
    """

    by_role: Mapping[str, Sequence[float]]
    round_trip: float = ROUND_TRIP_SECONDS

    @classmethod
    def of(cls, programs: Mapping[str, Compiled]) -> "Costs":
        """Return the costs of compiled programs."""
        found: dict[str, list[float]] = {}
        cycles = any(body.cycles for program in programs.values() for body in program.body.walk())
        for name, compiled in programs.items():
            for body in compiled.body.walk():
                is_loop = body.name.endswith("while")
                kind = role(name, body.name) if is_loop else "branch"
                found.setdefault(kind, []).append(seconds(body))
        return cls(found, 0.0 if cycles else ROUND_TRIP_SECONDS)

    def __getitem__(self, kind: str) -> float:
        """Return the seconds of the loop that does this; the mean where several do."""
        return statistics.mean(self.by_role[kind])


def seconds(body: Body) -> float:
    """Return the seconds of one trip of a body itself."""
    if body.cycles:
        return body.cycles / CYCLES_PER_SECOND
    return max(body.launches * LAUNCH_SECONDS, body.bytes / BYTES_PER_SECOND)


# Predicted seconds

CHECKPOINTS, EPISODE_STEPS = 4, 500
CONFIG = TrainConfig()
Sizes = tuple[int, int, int]
"""n_steps, batch_size and n_epochs of a trial."""
DEFAULT: Sizes = (Hyperparameters.n_steps, Hyperparameters.batch_size, Hyperparameters.n_epochs)


def rollout(costs: Costs, n_steps: int) -> float:
    """Return the predicted seconds of a rollout of a trial that trains alone."""
    block = CONFIG.block_size
    of_block = costs["rollout block"] + costs.round_trip
    steps = block // CONFIG.agent.num_envs * costs["environment step"]
    return n_steps // block * (of_block + steps)


def update(costs: Costs, trial: Sizes) -> float:
    """Return the predicted seconds of the epochs of a trial that trains alone."""
    n_steps, batch_size, n_epochs = trial
    block, wait = CONFIG.minibatch_block(batch_size), costs.round_trip
    of_block = costs["block of minibatches"] + wait + block // batch_size * costs["minibatch"]
    return n_epochs * (costs["epoch"] + wait + n_steps // block * of_block)


def iteration(costs: Costs, trial: Sizes) -> float:
    """Return the predicted seconds of an iteration of a trial that trains alone."""
    own = costs["iteration"] + costs["branch"] + 2 * costs.round_trip
    return own + rollout(costs, trial[0]) + update(costs, trial)


def one_after_another(costs: Costs, trial: Sizes) -> float:
    """Return the predicted seconds of a trial of 200,000 steps that trains alone."""
    iterations = iterations_for(STEPS, trial[0])
    return iterations * iteration(costs, trial) + CHECKPOINTS * _evaluation(costs)


def block_of_lanes(costs: Costs) -> float:
    """Return the predicted seconds in which lanes collect a block."""
    steps = CONFIG.block_size // CONFIG.agent.num_envs * costs["environment step"]
    return costs["block"] + steps + costs["branch"] + costs.round_trip


def chunk_of_lanes(costs: Costs) -> float:
    """Return the predicted seconds of the ticks of a block."""
    ticks = CONFIG.block_size // CONFIG.micro_batch_size
    return costs["chunk"] + ticks * costs["tick"] + costs.round_trip


def _evaluation(costs: Costs) -> float:
    checks = -(-EPISODE_STEPS // 32)
    inside = 32 * costs["evaluation step"]
    return checks * (costs["evaluation steps"] + inside + costs.round_trip)


def side_by_side(costs: Costs, trials: Sequence[Sizes], lanes: int) -> float:
    """Return the predicted seconds of a study without pruning, in lockstep."""
    block = CONFIG.block_size
    collecting, chunk = block_of_lanes(costs), chunk_of_lanes(costs)
    waiting, total = list(trials), 0.0
    under_way: list[tuple[Sizes, int]] = []
    while waiting or under_way:
        while waiting and len(under_way) < lanes:
            under_way.append((waiting.pop(0), 0))
        under_way = [(trial, blocks + 1) for trial, blocks in under_way]
        full = [trial for trial, blocks in under_way if blocks * block % trial[0] == 0]
        chunks = max((n_epochs * n_steps // block for n_steps, _, n_epochs in full), default=0)
        total += collecting + chunks * chunk
        steps = STEPS // CHECKPOINTS
        if any(_reaches(trial, blocks * block, steps) for trial, blocks in under_way):
            total += _evaluation(costs)
        under_way = [(t, b) for t, b in under_way if b * block < iterations_for(STEPS, t[0]) * t[0]]
    return total


def _reaches(trial: Sizes, steps: int, every: int) -> bool:
    """Return whether a trial passes a checkpoint with the iteration that ends at `steps`."""
    n_steps = trial[0]
    return steps % n_steps == 0 and steps // every > (steps - n_steps) // every


def draw_study(seed: int, trials: int = 20) -> list[Sizes]:
    """Return sizes of trials, drawn from the standard search space."""
    rng = random.Random(seed)
    return [
        (rng.choice((1024, 2048, 4096)), rng.choice((128, 256, 512)), rng.randint(3, 10))
        for _ in range(trials)
    ]


def predict(costs: Costs, lanes: int) -> tuple[float | None, float]:
    """Return the predicted seconds of a default trial alone and of a study of 20 trials."""
    studies = [draw_study(seed) for seed in range(10)]
    if lanes == 1:
        times = [sum(one_after_another(costs, trial) for trial in study) for study in studies]
        return one_after_another(costs, DEFAULT), statistics.mean(times)
    return None, statistics.mean(side_by_side(costs, study, lanes) for study in studies)


def predict_from_cpu(seeds: int) -> tuple[float, float]:
    """Return seconds of a default trial and of a study on this machine, from a short training."""
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import TRAINING, seed_keys

    programs, steps = Programs(CONFIG, seeds), 4 * 4096
    state = programs.init(seed_keys(0, TRAINING, seeds))
    state, _ = programs.train_until(state, Hyperparameters(), steps, 10**9)

    def measure(hyperparameters: Hyperparameters) -> float:
        nonlocal state
        # Iterations are counted, so that steps of other sizes go on where the last ones ended.
        first = int(state.iteration) * hyperparameters.n_steps
        start = time.perf_counter()
        state, _ = programs.train_until(state, hyperparameters, first + steps, 10**9)
        return (time.perf_counter() - start) * STEPS / steps

    def of(trial: Sizes) -> float:
        n_steps, batch_size, n_epochs = trial
        return measure(Hyperparameters(n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs))

    return of(DEFAULT), sum(map(of, draw_study(0)))
