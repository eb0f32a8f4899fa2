"""``python -m benchmarks.peers``: the same training in other PPO implementations.

Every contender runs in a separate process, and every peer in a separate virtual environment,
which this script builds. The processes take turns, round after round, so that only one works
at a time. ``peer_workers/protocol.py`` defines the messages between them and this script.
"""

import collections
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks import measuring
from benchmarks.measuring import Report, Spread, Table
from benchmarks.processes import ProcessError, error_line, output_of
from ppo_jax import command_line
from ppo_jax.config import AgentConfig
from ppo_jax.errors import require_choice
from ppo_jax.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from rich.console import Console

WORKERS = Path(__file__).parent / "peer_workers"
OURS = "ppo_jax"


@dataclasses.dataclass(frozen=True)
class Peer:
    """An implementation of PPO, and how to run it.

    Attributes:
      worker: script in ``peer_workers``, and its arguments after the work.
      requirements: packages of its virtual environment, one tuple per installation; empty for
        this project, which runs in the benchmark's own environment.
      slow: whether it steps environments in Python, so that fewer steps are timed.
      envs: environments that it can train; None for all.
      why_not: why it cannot train the others.
    """

    worker: tuple[str, ...]
    requirements: tuple[tuple[str, ...], ...] = ()
    slow: bool = False
    envs: tuple[str, ...] | None = None
    why_not: str = ""


# Installed first and alone, so that no dependency pulls in the GPU build.
_TORCH = ("torch==2.13.0",)
PEERS = {
    OURS: Peer(("ours.py",)),
    "rejax": Peer(("rejax_ppo.py",), (("rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2"),)),
    "SBX": Peer(
        ("stable_baselines.py", "sbx"),
        (_TORCH, ("sbx-rl==0.28.0", "stable-baselines3==2.9.0", "minatar==1.0.15")),
        slow=True,
    ),
    "Stable-Baselines3": Peer(
        ("stable_baselines.py",),
        (_TORCH, ("stable-baselines3==2.9.0", "minatar==1.0.15")),
        slow=True,
    ),
    "ARLBench": Peer(
        ("arlbench_ppo.py",),
        (
            # It pins jax 0.4.26 and gymnax 0.0.6; the others are releases of that time.
            (
                *("arlbench==0.1.3", "numpy==1.26.4", "scipy==1.12.0", "gymnasium==0.29.1"),
                *("pandas==2.2.3", "ml-dtypes==0.4.1", "etils==1.7.0", "tensorstore==0.1.60"),
                *("mujoco==3.1.6", "mujoco-mjx==3.1.6"),
            ),
        ),
    ),
    "RL Zoo tuner": Peer(
        ("rl_zoo.py",),
        (_TORCH, ("rl_zoo3==2.9.2", "stable-baselines3==2.9.2", "pandas>=2,<3")),
        slow=True,
        envs=("CartPole-v1",),
        why_not="RL Zoo has no settings for it",
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure environment steps per second of training here and in other implementations.

    The first run builds a virtual environment for each peer, a few gigabytes in all.
    Prints a table and writes peers.json and peers.png.
    """

    peers: tuple[str, ...] = tuple(PEERS)
    """Contenders."""
    envs: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar")
    """Environments to train on."""
    seeds: tuple[int, ...] = (1, 4)
    """Numbers of seeds; a peer that cannot train them at once trains them one by one."""
    steps: int = 200_000
    """Environment steps of each seed in a timed call."""
    slow_steps: int = 20_480
    """The same for peers that step environments in Python, which need seconds for these."""
    rounds: int = 3
    """Timed calls per contender."""
    timeout: float = 900.0
    """Seconds to wait for a contender's answer before giving up on it."""
    environments: Path = Path("runs/benchmarks/environments")
    """Folder for the virtual environments, which are kept and reused."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Make these results the ones that the documentation shows."""


def build(name: str, peer: Peer, folder: Path) -> Path:
    """Return the interpreter for `peer`; builds its virtual environment if it is missing.

    Raises:
      ProcessError: when something cannot be installed.
    """
    if not peer.requirements:
        return Path(sys.executable)
    target = folder / name.replace(" ", "-")
    python, stamp = target / "bin" / "python", target / "requirements.json"
    wanted = json.dumps(peer.requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return python.absolute()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [[sys.executable, "-m", "venv", "--clear", str(target)]]
    steps += [[*pip, *requirements] for requirements in peer.requirements]
    for step in steps:
        try:
            output_of(step)
        except ProcessError as error:
            raise ProcessError(f"cannot be installed: {error}") from None
    stamp.write_text(wanted)
    return python.absolute()


class Contender:
    """A peer's process, warmed up and waiting for its turn.

    Attributes:
      rates: environment steps per second of each turn.
      steps: environment steps of the last turn, as the peer counts them.
      warmup_seconds: time to compile and to train once.
      versions: package -> version.

    Raises:
      ProcessError: when the process fails, or does not answer within `timeout` seconds.
    """

    def __init__(
        self, name: str, peer: Peer, python: Path, work: Mapping[str, Any], timeout: float
    ) -> None:
        self.name, self.work, self.timeout = name, work, timeout
        self.rates: list[float] = []
        self.steps = 0
        script, *arguments = peer.worker
        self._process = subprocess.Popen(
            [str(python), str(WORKERS / script), json.dumps(work), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A peer sees only the packages of its own virtual environment.
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: collections.deque[str] = collections.deque(maxlen=100)
        self._reader = self._listen(self._process.stderr, self._errors.append)
        self._listen(self._process.stdout, self._answers.put)
        try:
            ready = self._answer()
        except ProcessError:
            self.close()
            raise
        self.warmup_seconds: float = ready["warmup_seconds"]
        self.versions: dict[str, str] = ready["versions"]

    def take_turn(self) -> None:
        """Train once; the answer holds the number of steps that were taken.

        Raises:
          ProcessError: when the process fails or does not answer in time.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # The process has ended; `_answer` says why.
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.steps = answer["steps"]
        self.rates.append(answer["steps"] / answer["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # A message that was never read.
            self._process.stdin.close()

    @staticmethod
    def _listen(stream: IO[str] | None, keep: Callable[[str], None]) -> threading.Thread:
        """Pass every line of `stream` to `keep`, and an empty one at its end."""
        assert stream is not None

        def read() -> None:
            with stream:
                for line in stream:
                    keep(line)
            keep("")

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self.timeout)
        except queue.Empty:
            raise ProcessError(f"no answer within {self.timeout:g} s") from None
        if not line:
            self._process.wait()
            self._reader.join()
            raise ProcessError(f"stopped: {error_line(''.join(self._errors))}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclasses.dataclass(frozen=True)
class Result:
    """The speed of one contender on one piece of work.

    Attributes:
      steps_per_second: of all seeds together; None when the contender failed.
      timed_steps: environment steps of a timed call, all seeds together.
      ratio: our steps per second / its steps per second.
      warmup_seconds: time to compile and to train once.
      versions: package -> version.
      failure: why there is no measurement.
    """

    peer: str
    env: str
    seeds: int
    steps_per_second: Spread | None = None
    timed_steps: int = 0
    ratio: Spread | None = None
    warmup_seconds: float = 0.0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    failure: str = ""


def measure(arguments: Arguments, console: "Console") -> list[Result]:
    """Build all environments, then measure one piece of work after another."""
    pythons: dict[str, Path] = {}
    failures: dict[str, str] = {}
    for name in arguments.peers:
        with console.status(f"building the environment of {name}"):
            try:
                pythons[name] = build(name, PEERS[name], arguments.environments)
            except ProcessError as error:
                failures[name] = str(error)
    results = []
    for env in arguments.envs:
        for seeds in arguments.seeds:
            results += measure_work(arguments, env, seeds, pythons, failures, console)
    return results


def measure_work(
    arguments: Arguments,
    env: str,
    seeds: int,
    pythons: Mapping[str, Path],
    failures: Mapping[str, str],
    console: "Console",
) -> list[Result]:
    """Return the speed of all contenders on one piece of work; they take turns."""
    failures, contenders = dict(failures), list[Contender]()
    for name in arguments.peers:
        peer = PEERS[name]
        if peer.envs is not None and env not in peer.envs:
            failures[name] = peer.why_not
        if name in failures:
            continue
        with console.status(f"{env}, {seeds} seeds: starting {name}"):
            work = {
                "env": env,
                "seeds": seeds,
                "steps": arguments.slow_steps if peer.slow else arguments.steps,
                "num_envs": AgentConfig.num_envs,
                "n_steps": Hyperparameters.n_steps,
                "batch_size": Hyperparameters.batch_size,
                "n_epochs": Hyperparameters.n_epochs,
            }
            try:
                contender = Contender(name, peer, pythons[name], work, arguments.timeout)
            except ProcessError as error:
                failures[name] = str(error)
            else:
                contenders.append(contender)
    try:
        for number in range(arguments.rounds):
            # Every other round backwards, so that a steady drift cancels.
            for contender in contenders[:: -1 if number % 2 else 1]:
                if contender.name in failures:
                    continue
                with console.status(f"{env}, {seeds} seeds: round {number + 1}, {contender.name}"):
                    try:
                        contender.take_turn()
                    except ProcessError as error:
                        failures[contender.name] = str(error)
    finally:
        for contender in contenders:
            contender.close()
    spreads = {c.name: Spread.of(c.rates) for c in contenders if c.name not in failures}
    ours = spreads.get(OURS)
    found = {
        c.name: Result(
            peer=c.name,
            env=env,
            seeds=seeds,
            steps_per_second=spreads[c.name],
            timed_steps=c.steps,
            ratio=ours / spreads[c.name] if ours else None,
            warmup_seconds=c.warmup_seconds,
            versions=c.versions,
        )
        for c in contenders
        if c.name in spreads
    }
    missing = {name: Result(name, env, seeds, failure=why) for name, why in failures.items()}
    return [(found | missing)[name] for name in arguments.peers]


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.peers``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.peers", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    for name in arguments.peers:
        require_choice("--peers", name, tuple(PEERS))
    measuring.require_counts(arguments, "seeds", "steps", "slow_steps", "rounds")
    from ppo_jax.devices import enable_all_cpu_cores
    from ppo_jax.files import require_writable

    enable_all_cpu_cores()
    from ppo_jax.environments import make

    for env in arguments.envs:
        make(env)
    for folder in (arguments.output, arguments.environments):
        require_writable(folder)
    measured_with = measuring.setting(
        num_envs=AgentConfig.num_envs,
        n_steps=Hyperparameters.n_steps,
        batch_size=Hyperparameters.batch_size,
        n_epochs=Hyperparameters.n_epochs,
        hidden_sizes=AgentConfig.hidden_sizes,
        rounds=arguments.rounds,
    )
    console = measuring.make_console()
    measuring.print_setting(measured_with, console)
    results = measure(arguments, console)
    tables = [
        result_table(env, [result for result in results if result.env == env])
        for env in arguments.envs
    ]
    for table in tables:
        table.print(console)
    report = Report(
        "peers",
        f"`python -m benchmarks.peers`, {measuring.machine(measured_with)}: the same networks, "
        "environments, rollouts, minibatches and epochs; training alone, compiled and warm.",
        "Training throughput of PPO implementations",
        [table.markdown() for table in tables],
        {
            **measured_with,
            "requirements": {name: PEERS[name].requirements for name in arguments.peers},
            "results": [dataclasses.asdict(result) for result in results],
        },
        lambda path: plot(arguments, results, path),
    )
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def result_table(env: str, results: Sequence[Result]) -> Table:
    """Return a row per contender and number of seeds."""
    headers = ("", "seeds", "steps timed", "steps/s", "min … max", f"{OURS} / it", "warm-up, s")
    table = Table(f"{env}: environment steps per second, all seeds together", headers)
    for result in results:
        if result.steps_per_second is None:
            table.add(result.peer, result.seeds, "", "not measured", result.failure[:60], "", "")
            continue
        ratio = "" if result.ratio is None else f"{result.ratio.median:.2f}"
        speed = result.steps_per_second.cells(",.0f")
        warmup = f"{result.warmup_seconds:.1f}"
        table.add(result.peer, result.seeds, f"{result.timed_steps:,}", *speed, ratio, warmup)
    return table


def plot(arguments: Arguments, results: Sequence[Result], path: Path) -> None:
    """Draw a bar per contender, a panel per environment and number of seeds."""
    from matplotlib.ticker import FuncFormatter

    from ppo_jax.plots import BLUE, DARK, GREY, picture

    works = [(env, seeds) for env in arguments.envs for seeds in arguments.seeds]
    height = 0.6 + 0.45 * len(arguments.peers)
    with picture(path, 12, max(1.6, height) * -(-len(works) // 2)) as figure:
        panels = list(figure.subplots(-(-len(works) // 2), 2, squeeze=False).flat)
        for axes, (env, seeds) in zip(panels, works, strict=False):
            shown = [result for result in results if (result.env, result.seeds) == (env, seeds)]
            for place, result in enumerate(shown):
                speed = result.steps_per_second
                if speed is None:
                    axes.text(0, place, " not measured", va="center", color=GREY)
                    continue
                color = BLUE if result.peer == OURS else GREY
                axes.barh(place, speed.median, color=color)
                axes.scatter(speed.rounds, [place] * len(speed.rounds), color=DARK, s=8, zorder=3)
                axes.text(speed.max, place, f"  {speed.median:,.0f}", va="center", color=DARK)
            axes.set_yticks(range(len(shown)), [result.peer for result in shown])
            axes.margins(x=0.2)
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.set_title(f"{env}, {seeds} seed{'s' if seeds > 1 else ''}")
            axes.set(xlabel="environment steps / s")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e3:,.0f}k"))
            axes.grid(visible=False, axis="y")
        for axes in panels[len(works) :]:
            axes.remove()


if __name__ == "__main__":
    main()
