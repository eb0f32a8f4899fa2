"""``python -m benchmarks.verdicts``: how often equal configurations are called improved.

Seeds of winner and baseline are drawn from one distribution, so every *improved* is false. Each
study ends as studies do, at its first look that settles the answer, and is continued as a
stubborn user would: until a validation says *improved*, or there have been five.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Table
from ppo_jax import command_line
from ppo_jax.errors import require_count
from ppo_jax.hyperparameters import Hyperparameters
from tune.evidence.candidate import Candidate
from tune.evidence.learning_curve import LearningCurve
from tune.evidence.looks import planned_looks
from tune.evidence.verdict import Outcome, Verdict
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration

VALIDATIONS = 5
CHECKPOINTS = tuple(range(50_000, 450_000, 50_000))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Print how often a study of two equal configurations ends improved."""

    studies: int = 10_000
    """Studies of each distribution."""
    seeds: int = 20
    """Validation seeds, at most."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.verdicts``."""
    arguments = command_line.parse(Arguments, "python -m benchmarks.verdicts", args)
    command_line.run(lambda: _run(arguments))


def _run(arguments: Arguments) -> None:
    require_count("--studies", arguments.studies)
    require_count("--seeds", arguments.seeds, low=2)
    console = measuring.make_console()
    looks = planned_looks(arguments.seeds)
    table = Table(
        f"False improvements, % of {arguments.studies:,} studies of two equal configurations",
        (
            "returns",
            *(f"≤ {seeds} seeds" for seeds in looks),
            *(f"{count} times" for count in range(2, VALIDATIONS + 1)),
            "± error",
            "seeds",
        ),
    )
    for name in DISTRIBUTIONS:
        found = measure(name, arguments.studies, looks)
        table.add(
            name,
            *(f"{100 * share:.2f}" for share in (*found.by_look, *found.by_validation[1:])),
            f"{100 * np.sqrt(0.025 * 0.975 / arguments.studies):.2f}",
            f"{found.mean_seeds:.1f}",
        )
    table.print(console)
    console.print(measuring.machine(measuring.setting()), soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Shares of the studies that have falsely ended *improved*.

    Attributes:
      by_look: by each look of the first validation.
      by_validation: within the first k validations.
      mean_seeds: of each configuration in a first validation.
    """

    by_look: Sequence[float]
    by_validation: Sequence[float]
    mean_seeds: float


def measure(distribution: str, studies: int, looks: Sequence[int]) -> Rates:
    """Return how often equal configurations are called improved; seeded."""
    rng = np.random.default_rng(0)
    by_look, by_validation = np.zeros(len(looks)), np.zeros(VALIDATIONS)
    seeds = 0
    for _ in range(studies):
        for repetition in range(1, VALIDATIONS + 1):
            *_, verdict = validations(distribution, looks, repetition, rng)
            if repetition == 1:
                seeds += verdict.seeds
            if verdict.outcome == Outcome.IMPROVED:
                by_validation[repetition - 1 :] += 1
                if repetition == 1:
                    by_look[looks.index(verdict.seeds) :] += 1
                break
    shares = by_look / studies, by_validation / studies
    return Rates(shares[0].tolist(), shares[1].tolist(), seeds / studies)


def validations(
    distribution: str, looks: Sequence[int], repetition: int, rng: np.random.Generator
) -> Iterator[Verdict]:
    """Yield the verdict at each look, up to the one that settles the answer."""
    draw, untrained = DISTRIBUTIONS[distribution]
    returns = [draw(rng, looks[-1]) for _ in range(2)]
    for seeds in looks:
        winner, baseline = (
            Candidate(
                _SETTINGS,
                Configuration(hyperparameters),
                validation=LearningCurve(hyperparameters, CHECKPOINTS, known[:, :seeds], 0, 0.0),
            )
            for hyperparameters, known in zip(_CONFIGURATIONS, returns, strict=True)
        )
        verdict = Verdict(winner, baseline, untrained, looks, repetition)
        yield verdict
        if verdict.is_settled:
            return


def _curves(early: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Return learning curves, ``[checkpoints, seeds]``, of early and of late returns."""
    return np.array([early] * (len(CHECKPOINTS) - 3) + [late] * 3)


def _normal(rng: np.random.Generator, seeds: int) -> np.ndarray:
    return _curves(rng.normal(300, 50, seeds), rng.normal(400, 50, seeds))


def _skewed(rng: np.random.Generator, seeds: int) -> np.ndarray:
    return _curves(500 - rng.exponential(90, seeds), 500 - rng.exponential(60, seeds))


def _rare_falls(rng: np.random.Generator, seeds: int) -> np.ndarray:
    falls = rng.random(seeds) < 0.15
    return _curves(rng.normal(300, 50, seeds), np.where(falls, rng.uniform(100, 480, seeds), 500.0))


def _heavy_tail(rng: np.random.Generator, seeds: int) -> np.ndarray:
    return _curves(rng.lognormal(0, 1, seeds), rng.lognormal(0, 1, seeds))


def _same_level(rng: np.random.Generator, seeds: int) -> np.ndarray:
    return _curves(rng.normal(300, 50, seeds), np.full(seeds, 500.0))


DISTRIBUTIONS = {
    "normal": (_normal, 400.0),
    "skewed, to 500": (_skewed, 440.0),
    "500, rare falls": (_rare_falls, 470.0),
    "heavy tail": (_heavy_tail, 1.6),
    "500, in other time": (_same_level, 500.0),
}
"""Name -> a function that draws learning curves of a number of seeds, and what untrained policies
return: nearly as much, so that no margin keeps an improvement away."""

_SETTINGS = Settings()
_CONFIGURATIONS = (Hyperparameters(gamma=0.98), Hyperparameters())


if __name__ == "__main__":
    main()
