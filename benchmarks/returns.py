"""``python -m benchmarks.returns``: returns of the presets beside published ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Report, Table, mean_of, with_interval
from ppo_jax import command_line, presets
from ppo_jax.errors import UserError, nearest
from ppo_jax.files import read_json, require_writable
from ppo_jax.text import decimals, fixed

if TYPE_CHECKING:
    from tune.evidence.statistics import Estimate


class Reference(NamedTuple):
    """A published return, of PPO where the source does not say otherwise.

    Attributes:
      value: mean return; None where no source gives one.
      text: the source's own figure, with its environment steps.
      source: who published it.
      steps: environment steps after which it was reached; None where that is not said.
      tolerance: half a unit of the last digit that a rounded figure gives.
    """

    value: float | None
    text: str
    source: str
    steps: int | None = None
    tolerance: float = 0.0


REFERENCES = {
    "CartPole-v1": Reference(490.0, "490.0 ± 6.1 at 500k", "CleanRL", 500_000),
    "Acrobot-v1": Reference(-78.9, "−78.9 at 500k", "gymnax-blines", 500_000),
    "Pendulum-v1": Reference(-195.0, "−195 at 1M", "gymnax-blines", 1_000_000),
    "MountainCar-v0": Reference(-118.3, "−118.3 at 240k", "gymnax-blines", 240_000),
    "MountainCarContinuous-v0": Reference(88.3, "88.3 ± 2.6 at 20k, with gSDE", "RL Zoo", 20_000),
    "Asterix-MinAtar": Reference(15.0, "15–17.8 at 10M", "gymnax-blines", 10_000_000),
    "Breakout-MinAtar": Reference(23.0, "23–43 at 10M", "gymnax-blines", 10_000_000),
    "Freeway-MinAtar": Reference(57.0, "57–59 at 10M", "gymnax-blines", 10_000_000),
    "SpaceInvaders-MinAtar": Reference(128.0, "128–132 at 10M", "gymnax-blines", 10_000_000),
    "Catch-bsuite": Reference(1.0, "1", "gymnax", tolerance=0.5),
    "DeepSea-bsuite": Reference(0.0, "0", "gymnax", tolerance=0.5),
    "DiscountingChain-bsuite": Reference(1.1, "1.1", "gymnax", tolerance=0.05),
    "MemoryChain-bsuite": Reference(0.1, "0.1", "gymnax", tolerance=0.05),
    "UmbrellaChain-bsuite": Reference(1.0, "1", "gymnax", tolerance=0.5),
    "BernoulliBandit-misc": Reference(90.0, "90", "gymnax, by evolution", tolerance=0.5),
    "FourRooms-misc": Reference(1.0, "1", "gymnax", tolerance=0.5),
    "GaussianBandit-misc": Reference(0.0, "0", "gymnax, by evolution", tolerance=0.5),
    "MetaMaze-misc": Reference(32.0, "32", "gymnax, by evolution", tolerance=0.5),
    "PointRobot-misc": Reference(10.0, "10", "gymnax, by evolution", tolerance=0.5),
}
"""Environment -> its published return."""

_CLASSIC_CONTROL = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
)

QUICK = (
    *_CLASSIC_CONTROL,
    *(name for name in presets.names() if name.endswith(("-bsuite", "-misc"))),
)
"""The presets that a CPU trains in minutes: all of gymnax but MinAtar's."""

_ORDER = list(dict.fromkeys((*_CLASSIC_CONTROL, *presets.names())))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train presets on fresh seeds and print their returns beside published ones.

    Prints a table and writes returns.json and returns.png.
    """

    envs: tuple[str, ...] = QUICK
    """Environments with a preset; those of a suite need its extra."""
    seeds: int = 10
    """Seeds of each environment."""
    total_steps: int | None = None
    """Environment steps of each seed, the preset's own by default. With fewer steps the result
    is called reduced and not compared with a published return."""
    eval_episodes: int = 100
    """Episodes of each seed at a checkpoint."""
    seed: int = 1
    """Root of all random numbers; the presets were tuned with 0."""
    output: Path = Path("runs/benchmarks")
    """Folder for the results."""
    publish: bool = False
    """Show these results in the documentation, beside the published ones of other presets."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Returns of one environment.

    Attributes:
      steps: nominal steps of the checkpoints, ``[checkpoints]``.
      returns: float ``[checkpoints, seeds]``.
      eval_episodes: of each seed at a checkpoint.
      untrained: mean return of the untrained greedy policies.
      random: mean return of uniformly random actions.
      reduced: whether the budget is smaller than the preset's own.
      seconds: of training, without evaluation and compiling.
    """

    env: str
    steps: list[int]
    returns: np.ndarray
    eval_episodes: int
    untrained: float
    random: float
    reduced: bool
    seconds: float

    @property
    def final(self) -> "Estimate":
        """Mean return at the end of training over seeds, with its 95% interval."""
        return mean_of(self.returns[-1])

    def at(self, steps: int) -> "Estimate | None":
        """Return the mean at the first checkpoint after so many steps.

        None where training ends before, or has its first checkpoint later.
        """
        if not self.steps[0] <= steps <= self.steps[-1]:
            return None
        return mean_of(self.returns[np.searchsorted(self.steps, steps)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, returns with three decimals."""
        return {**dataclasses.asdict(self), "returns": np.round(self.returns.astype(float), 3)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """Return what :meth:`to_dict` has stored."""
        return cls(**{**values, "returns": np.array(values["returns"], float)})


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.returns``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.returns", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    counts = ("seeds", "eval_episodes", "total_steps")
    given = [name for name in counts if getattr(arguments, name) is not None]
    measuring.require_counts(arguments, *given)
    known = presets.names()
    for env in arguments.envs:
        if env not in known:
            raise UserError(
                f"--envs: there is no preset for {env!r}{nearest(env, known)} "
                f"(presets: {', '.join(known)})"
            )
    require_writable(arguments.output)
    command_line.start_backend()
    console = measuring.make_console()
    measured_with = measuring.setting(seeds=arguments.seeds, eval_episodes=arguments.eval_episodes)
    measuring.print_setting(measured_with, console)
    kept = others_published(arguments.envs, measured_with) if arguments.publish else []
    results = []
    for env in arguments.envs:
        results.append(measure(env, arguments))
        result = results[-1]
        console.print(
            f"{env}: {with_interval(result.final)} after {result.steps[-1]:,} steps, "
            f"{result.seconds:.0f} s of training",
            markup=False,
        )
    results = sorted([*results, *kept], key=lambda result: _ORDER.index(result.env))
    table = returns_table(results)
    table.print(console)
    episodes = sorted({result.eval_episodes for result in results})
    report = Report(
        "returns",
        f"`python -m benchmarks.returns`, {measuring.machine(measured_with)}: each preset on seeds "
        f"that its study has not seen, greedy policies, {' or '.join(map(str, episodes))} episodes "
        "of each.",
        "Returns of the presets; published ones are dashed, with a dot at their environment steps",
        [table.markdown()],
        {**measured_with, "results": [result.to_dict() for result in results]},
        lambda path: plot(results, path),
    )
    paths = report.write(arguments.output, console)
    if arguments.publish:
        report.publish(paths)


def others_published(envs: Sequence[str], setting: Mapping[str, Any]) -> list[Result]:
    """Return the published results of the presets besides those of `envs`.

    Raises:
      UserError: when they were measured with other versions, which one table does not mix.
    """
    published = read_json(measuring.PUBLISHED / "returns.json")
    results = [Result.from_dict(values) for values in published["results"]]
    others = [result for result in results if result.env not in envs]
    if others:
        again = " ".join(["measure all: --envs", *envs, *(result.env for result in others)])
        measuring.require_same_setting(published, setting, (), again)
    return others


def measure(env: str, arguments: Arguments) -> Result:
    """Train the preset of `env` and return its returns at every checkpoint."""
    import jax

    from ppo_jax.config import checkpoint_steps, config_for
    from ppo_jax.programs import Programs
    from ppo_jax.seeds import seed_keys
    from tune.protocol.purposes import VALIDATION

    preset = presets.load(env)
    total = arguments.total_steps or preset.total_steps
    config = config_for(
        preset.hyperparameters,
        preset.agent,
        env=preset.env,
        env_kwargs=preset.env_kwargs,
        eval_episodes=arguments.eval_episodes,
    )
    programs = Programs(config, arguments.seeds)
    keys = seed_keys(arguments.seed, VALIDATION, arguments.seeds)
    steps = checkpoint_steps(-(-total // 20), total)
    untrained = float(programs.evaluate(programs.init(keys), 0).mean())
    checkpoints = list(programs.run(keys, preset.hyperparameters, steps))
    return Result(
        env,
        steps,
        np.stack([checkpoint.returns for checkpoint in checkpoints]),
        arguments.eval_episodes,
        untrained,
        float(random_returns(config, jax.random.key(arguments.seed)).mean()),
        reduced=total < preset.total_steps,
        seconds=sum(checkpoint.training_seconds for checkpoint in checkpoints),
    )


def random_returns(config: Any, key: Any) -> np.ndarray:
    """Return the returns of episodes with uniformly random actions, ``[eval_episodes]``."""
    import jax
    import jax.numpy as jnp

    from ppo_jax.environments import Discrete, MultiDiscrete, make

    environment = make(config.env, config.env_kwargs)
    space = environment.spaces.action_space

    def action(key: jax.Array) -> jax.Array:
        if isinstance(space, Discrete):
            return jax.random.randint(key, (), 0, space.n)
        if isinstance(space, MultiDiscrete):
            return jax.random.randint(key, (len(space.sizes),), 0, np.array(space.sizes))
        low, high = (np.clip(bound, -10, 10) for bound in (space.low, space.high))
        return jax.random.uniform(key, low.shape, minval=low, maxval=high)

    def episode(key: jax.Array) -> jax.Array:
        state, _ = environment.reset(key)

        def step(carry: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], None]:
            state, running, total = carry
            action_key, step_key = jax.random.split(key)
            timestep = environment.step(step_key, state, action(action_key))
            total += jnp.where(running, timestep.reward, 0.0)
            running &= ~(timestep.terminated | timestep.truncated)
            return (timestep.state, running, total), None

        keys = jax.random.split(jax.random.fold_in(key, 1), environment.max_episode_steps)
        start = (state, jnp.array(True), jnp.float32(0))
        (_, _, total), _ = jax.lax.scan(step, start, keys)
        return jnp.asarray(total)

    return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(key, config.eval_episodes)))


def returns_table(results: Sequence[Result]) -> Table:
    """Return our means, with their intervals, beside the published ones."""
    headers = ("", "steps", "seeds", "ours", "95% interval", "published", "at its steps", "source")
    table = Table("Mean return at the end of training", (*headers, "", "untrained", "random"))
    for result in results:
        reference = REFERENCES.get(result.env, Reference(None, "", ""))
        steps = f"{result.steps[-1]:,}" + (" (reduced)" if result.reduced else "")
        final = result.final
        digits = decimals(final.value, result.untrained, result.random)
        there = result.at(reference.steps) if reference.steps else None
        table.add(
            result.env,
            steps,
            result.returns.shape[1],
            fixed(final.value, digits),
            " … ".join(fixed(end, digits) for end in final.interval or ()),
            reference.text,
            "" if there is None else fixed(there.value, digits),
            reference.source,
            "" if result.reduced else standing(result, reference),
            fixed(result.untrained, digits),
            fixed(result.random, digits),
        )
    return table


def standing(result: Result, reference: Reference) -> str:
    """Return how a preset stands beside a published return.

    ``above`` or ``below`` when ours differs, ``equal`` when its interval holds the published one,
    and an empty string when there is nothing to compare. After as many steps where both have them,
    and else at the end of our training, which is said.
    """
    there = result.at(reference.steps) if reference.steps else result.final
    ours = there or result.final
    if reference.value is None or ours.interval is None:
        return ""
    low, high = ours.interval
    outcome = "equal"
    if low > reference.value + reference.tolerance:
        outcome = "above"
    if high < reference.value - reference.tolerance:
        outcome = "below"
    if there is None and reference.steps:
        return f"{outcome}, {'fewer' if result.steps[-1] < reference.steps else 'more'} steps"
    return outcome


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the learning curves, with the published returns as lines, dotted at their steps."""
    from ppo_jax.plots import BLUE, GREY, picture

    columns = min(5, len(results))
    rows = -(-len(results) // columns)
    with picture(path, 3.2 * columns, 2.9 * rows) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in grid:
            axes.set_visible(False)
        for axes, result in zip(grid, results, strict=False):
            axes.set_visible(True)
            axes.plot(result.steps, result.returns, color=BLUE, alpha=0.25, linewidth=0.8)
            axes.plot(result.steps, np.ma.masked_invalid(result.returns).mean(axis=1), color=BLUE)
            reference = REFERENCES.get(result.env)
            if reference is not None and reference.value is not None and not result.reduced:
                axes.axhline(reference.value, color=GREY, linestyle="--")
                if reference.steps is not None and reference.steps <= result.steps[-1]:
                    axes.plot(reference.steps, reference.value, "o", color=GREY)
            axes.set(xlabel="environment steps")
            axes.set_title(result.env, fontsize=10)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))


if __name__ == "__main__":
    main()
