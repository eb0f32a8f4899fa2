"""What a study's trials say about its parameters. Pure functions of trials: no files, no drawing.

Scores are modelled by a surrogate over the search space scaled to the unit cube; its variance
is split exactly over parameters and pairs of them (fANOVA). A pruned trial counts with the
score that complete trials lead one to expect of its last report: without the pruned, a model
never sees most of what is bad.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from scipy import linalg, optimize, stats
from threadpoolctl import threadpool_limits

from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import DOMAINS
from tune.protocol.settings import Settings
from tune.protocol.trials import FINISHED

PAIRS = (
    ("learning_rate", "n_epochs"),
    ("clip_epsilon", "learning_rate"),
    ("n_steps", "batch_size"),
    ("entropy_coef", "clip_epsilon"),
)
"""Pairs that are known to depend on each other in PPO; reported in any case."""

STRONGEST_PAIRS = 4
"""Further pairs to report, the strongest of all others."""

BEST_SHARE = 0.25
"""The best trials are this share of the finished ones."""

TRIALS_PER_PARAMETER = 5
"""Trials with a score for each tuned parameter from which importances can be trusted."""

PREDICTED_SHARE = 0.25
"""Share of the variance that a surrogate worth reading predicts of trials left out."""

_MIN_TRIALS = 4
_RESAMPLES = 100
_TOLERANCE = 0.25
_EDGE = 0.2
_AT_BOUND = 0.01
_ALPHA = 0.05

Interval = tuple[float, float]
"""(low, high), 95%."""


@dataclasses.dataclass(frozen=True)
class Importance:
    """How much of the score depends on a parameter.

    Attributes:
      fanova: share of the score's variance over the search space that the parameter
        explains alone: functional ANOVA (Hutter et al., 2014) of the surrogate. What all of
        them leave of 1 lies in interactions and in noise.
      ped_anova: share in what tells the best quarter of the trials from all of
        them (Watanabe et al., 2023, arXiv:2304.10255); all shares sum to 1.
      fanova_interval, ped_anova_interval: 95% percentile bootstrap over trials.
    """

    fanova: float
    fanova_interval: Interval
    ped_anova: float
    ped_anova_interval: Interval


@dataclasses.dataclass(frozen=True)
class Interaction:
    """How much of the score depends on two parameters together, beyond each alone.

    Attributes:
      pair: their names.
      share: of the score's variance, by pairwise fANOVA (Hutter et al., 2014, section 4).
      interval: 95% percentile bootstrap over trials.
    """

    pair: tuple[str, str]
    share: float
    interval: Interval


@dataclasses.dataclass(frozen=True)
class GoodRange:
    """Where a parameter does well.

    Attributes:
      values: (low, high) of a range; the good choices of a list. These are the values whose
        expected score, over all settings of the other parameters, is within a quarter of the
        score's standard deviation over the search space of the best such value; of a range,
        the part around the best.
      best: the value with the highest expected score.
      everywhere: whether all of the search space is good: the parameter hardly matters.
    """

    values: tuple[Any, ...]
    best: Any
    everywhere: bool


@dataclasses.dataclass(frozen=True)
class BoundHit:
    """A bound of the search space against which the best trials press.

    Attributes:
      side: ``low`` or ``high``.
      bound: the bound, or the outermost choice.
      widen_to: a bound or choice to try next.
      count, best: so many of the best trials lie in the outer fifth of the range, or take the
        outermost value. Either these are more than of the other finished trials (one-sided
        Fisher test at 5%; a sampler that has settled in that fifth puts good and bad trials
        there alike), or most of the best lie within 1% of the bound of a real-valued range,
        where a sampler goes that expects more beyond it. The expected score is highest at the
        bound as well, and not everywhere as good.
    """

    side: str
    bound: float
    widen_to: float
    count: int
    best: int


@dataclasses.dataclass(frozen=True)
class Pruning:
    """What stopping trials early has saved.

    Attributes:
      trials: pruned ones.
      environment_steps, seconds: that they would have taken to the end, at their own speed,
        beyond what they took.
      share_of_steps: saved steps, of those of the study had nothing been pruned.
    """

    trials: int
    environment_steps: int
    seconds: float
    share_of_steps: float


@dataclasses.dataclass(frozen=True)
class Analysis:
    """All of it.

    Attributes:
      importances: parameter -> importance, largest fANOVA share first; empty where there are
        too few trials with a score, or all have the same.
      interactions: the pairs of :data:`PAIRS` that are tuned, and the strongest others;
        strongest first.
      good_ranges: parameter -> good range.
      bounds_hit: parameter -> bound, for those that are pressed against.
      pruning: savings.
      warning: why importances are missing or not to be trusted; None where they are sound.
      surrogate: the model behind; None where there is none.
    """

    importances: dict[str, Importance]
    interactions: list[Interaction]
    good_ranges: dict[str, GoodRange]
    bounds_hit: dict[str, BoundHit]
    pruning: Pruning
    warning: str | None
    surrogate: "Surrogate | None"

    def to_dict(self) -> dict[str, Any]:
        """Return all but the surrogate as plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["surrogate"]
        return {name: _plain(value) for name, value in values.items()}


def analyse(trials: Sequence[FrozenTrial], settings: Settings) -> Analysis:
    """Return what `trials` say; those that have not finished are left out."""
    # On matrices of this size threads only wait for each other.
    with threadpool_limits(1):
        return _analyse(trials, settings)


def _analyse(trials: Sequence[FrozenTrial], settings: Settings) -> Analysis:
    finished = [trial for trial in trials if trial.state in FINISHED]
    scored = with_expected_scores(finished)
    axes = _axes(scored)
    savings = pruning(finished, settings)
    distinct = len({trial.value for trial in scored})
    if not axes or len(scored) < _MIN_TRIALS or distinct < 2:
        warning = _nothing_to_tell(len(scored), distinct)
        return Analysis({}, [], {}, {}, savings, warning, None)

    surrogate = Surrogate.fit(axes, scored)
    names, study = [axis.name for axis in axes], _study_of(scored)
    shares, ped = surrogate.shares(), _ped_anova(study, names, range(len(scored)))
    rng = np.random.default_rng(settings.seed)
    resampled: list[np.ndarray] = []
    ped_resampled: list[np.ndarray] = []
    while len(resampled) < _RESAMPLES:
        # A trial that is drawn twice tells no more than once: its noise is the same.
        drawn = set(rng.integers(len(scored), size=len(scored)).tolist())
        once = [scored[i] for i in sorted(drawn)]
        if len({trial.value for trial in once}) > 1:
            resampled.append(Surrogate.fit(axes, once, surrogate.kernel).shares())
            ped_resampled.append(_ped_anova(study, names, drawn))
    intervals, ped_intervals = _percentiles(resampled), _percentiles(ped_resampled)

    def at(bounds: np.ndarray, *index: int) -> Interval:
        low, high = (bound[index] for bound in bounds)
        return float(low), float(high)

    importances = {
        axis.name: Importance(
            float(shares[i, i]), at(intervals, i, i), float(ped[i]), at(ped_intervals, i)
        )
        for i, axis in sorted(enumerate(axes), key=lambda item: -shares[item[0], item[0]])
    }
    interactions = [
        Interaction((axes[i].name, axes[j].name), float(shares[i, j]), at(intervals, i, j))
        for i, j in _reported_pairs(axes, shares)
    ]
    good = surrogate.good_ranges()
    pressed = _bounds_hit(axes, good, finished)
    doubt = _reliability_warning(len(scored), len(axes), surrogate.loo_r2)
    return Analysis(importances, interactions, good, pressed, savings, doubt, surrogate)


def with_expected_scores(finished: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials, and the pruned ones as if complete with an expected score.

    It is the linear regression of the scores of complete trials on their reports at the step
    of the pruned trial's last report. Left out are trials for which there is none.
    """
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    scored = list(complete)
    for trial in finished:
        if trial.state != TrialState.PRUNED or not trial.intermediate_values:
            continue
        step, report = max(trial.intermediate_values.items())
        known = [
            (t.intermediate_values[step], t.value)
            for t in complete
            if step in t.intermediate_values and t.value is not None
        ]
        if len(known) < _MIN_TRIALS or len({x for x, _ in known}) < 2:
            continue
        line = stats.linregress(*zip(*known, strict=True))
        if line.slope > 0:
            expected = optuna.trial.create_trial(
                value=line.intercept + line.slope * report,
                params=trial.params,
                distributions=trial.distributions,
            )
            expected.number = trial.number
            scored.append(expected)
    return scored


def pruning(finished: Sequence[FrozenTrial], settings: Settings) -> Pruning:
    """Return what pruning has saved against running every pruned trial to its end."""
    full = settings.seeds * settings.total_steps
    taken = sum(trial.user_attrs.get("environment_steps", 0) for trial in finished)
    pruned = [trial for trial in finished if trial.state == TrialState.PRUNED]
    steps, seconds = 0, 0.0
    for trial in pruned:
        own = trial.user_attrs.get("environment_steps", 0)
        saved = max(full - own, 0)
        spent = sum(
            trial.user_attrs.get(name) or 0.0 for name in ("training_seconds", "evaluation_seconds")
        )
        steps += saved
        seconds += spent * saved / own if own else 0.0
    return Pruning(len(pruned), steps, seconds, steps / (steps + taken) if steps else 0.0)


@dataclasses.dataclass(frozen=True)
class Axis:
    """A tuned parameter, scaled to [0, 1].

    Every value of an integer or a list of choices owns a cell of equal width (on the log
    scale, of its share), so that the middle of the cell stands for the value.
    """

    name: str
    distribution: BaseDistribution

    @property
    def is_list(self) -> bool:
        """Whether the parameter is a choice from a list."""
        return isinstance(self.distribution, CategoricalDistribution)

    @property
    def low(self) -> Any:
        """The lowest value, or the first choice."""
        return self.values[0] if self.values is not None else self.distribution.low  # type: ignore[attr-defined]

    @property
    def high(self) -> Any:
        """The highest value, or the last choice."""
        return self.values[-1] if self.values is not None else self.distribution.high  # type: ignore[attr-defined]

    @property
    def is_log(self) -> bool:
        """Whether the parameter's scale is logarithmic."""
        return bool(getattr(self.distribution, "log", False))

    @functools.cached_property
    def values(self) -> tuple[Any, ...] | None:
        """All values of an integer or a list of choices; None for real numbers.

        Choices that are numbers come in their order.
        """
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            numbers = all(type(choice) in (int, float) for choice in choices)
            return tuple(sorted(choices)) if numbers else tuple(choices)
        if isinstance(distribution, IntDistribution):
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        return None

    def to_unit(self, value: Any) -> float:
        """Return the place of `value` in [0, 1]."""
        if self.is_list:
            assert self.values is not None
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high = self._ends
        return (self._scale(value) - low) / (high - low)

    def from_unit(self, place: float) -> float:
        """Return the number at `place`, of the parameter's own kind."""
        if place in (0.0, 1.0):  # Without the rounding errors of the scale.
            return self.high if place else self.low
        low, high = self._ends
        scaled = low + place * (high - low)
        value = math.exp(scaled) if self.is_log else scaled
        return round(value) if self.values is not None else value

    def grid(self, points: int = 101) -> np.ndarray:
        """Return places in [0, 1]: the middles of all cells, or `points` of a range."""
        if self.values is None or len(self.values) > points:
            return np.linspace(0.0, 1.0, points)
        return np.array([self.to_unit(value) for value in self.values])

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Return places and weights whose sums are means over the axis."""
        if self.values is not None:
            cells = self.grid(len(self.values))
            edges = np.concatenate([[0.0], (cells[1:] + cells[:-1]) / 2, [1.0]])
            return cells, np.diff(edges)
        places, weights = np.polynomial.legendre.leggauss(24)
        return (places + 1) / 2, weights / 2

    @property
    def _ends(self) -> tuple[float, float]:
        distribution = self.distribution
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        half = distribution.step / 2 if isinstance(distribution, IntDistribution) else 0.0
        return self._scale(distribution.low - half), self._scale(distribution.high + half)

    def _scale(self, value: float) -> float:
        return math.log(value) if self.is_log else float(value)


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A Gaussian process of the score over the unit cube.

    Its kernel is a product over axes, so that means and variances over any of them are
    sums of one-dimensional integrals (Oakley and O'Hagan, 2004): nothing is sampled. Forests,
    the usual choice, fit steps to slopes and so take any two strong parameters for a pair.

    Attributes:
      axes: the parameters.
      places: of the trials, ``[trials, axes]``.
      weights: of the kernels of the trials, ``[trials]``.
      offset: the score where no trial is near.
      length_scales: of the kernels, ``[axes]``.
      noise: variance of the score that no parameter explains.
      loo_r2: share of the variance of the scores that is predicted when each trial is left
        out in turn (Rasmussen and Williams, 2006, equation 5.12); at most 1, below 0 for
        predictions that are worse than the mean.
      kernel: fitted, to begin another fit with.
    """

    axes: tuple[Axis, ...]
    places: np.ndarray
    weights: np.ndarray
    offset: float
    length_scales: np.ndarray
    noise: float
    loo_r2: float
    kernel: Any

    @classmethod
    def fit(
        cls, axes: Sequence[Axis], scored: Sequence[FrozenTrial], start: Any = None
    ) -> "Surrogate":
        """Fit the scores of trials, by their likelihood.

        Args:
          axes: the parameters.
          scored: at least two trials with different scores.
          start: the kernel of a fit of similar trials; a few steps from there are enough.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        places = np.array([[a.to_unit(t.params[a.name]) for a in axes] for t in scored])
        scores = np.array([trial.value for trial in scored], np.float64)
        # Narrower kernels than this would find a pattern in any noise.
        kernel = start or (
            ConstantKernel(1.0, (0.05, 20.0)) * RBF(np.ones(len(axes)), (0.4, 30.0))
            + WhiteKernel(0.3, (0.01, 1.0))
        )
        steps = 100 if start is None else 10
        process = GaussianProcessRegressor(
            kernel, normalize_y=True, optimizer=functools.partial(_minimize, steps=steps)
        )
        with warnings.catch_warnings():  # An axis without effect has an infinite length scale.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(places, scores)
        deviation, kernel = scores.std(), process.kernel_
        inverse = linalg.cho_solve((process.L_, True), np.eye(len(scores)))
        errors = deviation * process.alpha_ / np.diag(inverse)
        return cls(
            axes=tuple(axes),
            places=places,
            weights=deviation * kernel.k1.k1.constant_value * process.alpha_,
            offset=float(scores.mean()),
            length_scales=np.broadcast_to(kernel.k1.k2.length_scale, (len(axes),)),
            noise=float(deviation**2 * kernel.k2.noise_level),
            loo_r2=float(1 - np.mean(errors**2) / deviation**2),
            kernel=kernel,
        )

    def marginal(self, *names: str, points: int = 101) -> np.ndarray:
        """Return the expected score over one or two parameters' grids, a dimension for each.

        The mean is over all settings of the other parameters.
        """
        chosen = [next(i for i, a in enumerate(self.axes) if a.name == name) for name in names]
        others = [i for i in range(len(self.axes)) if i not in chosen]
        mass = self.weights * self._integrals[others].prod(axis=0)
        first, *second = (self._kernel(i, self.axes[i].grid(points)) for i in chosen)
        surface = (first * mass) @ second[0].T if second else first @ mass
        return self.offset + surface

    def shares(self) -> np.ndarray:
        """Return shares of the variance ``[axes, axes]``: alone on the diagonal, of pairs off.

        The variance is that of the score over the search space, noise included.
        """
        mass = self.weights * self._integrals.prod(axis=0)
        squares, flat = np.outer(mass, mass), self._overlaps.reshape(len(self.axes), -1)
        mean = mass.sum() ** 2
        alone = flat @ squares.ravel() - mean
        pairs = (flat * squares.ravel()) @ flat.T - mean - alone[:, None] - alone[None, :]
        np.fill_diagonal(pairs, alone)
        return np.maximum(pairs, 0.0) / (self._variance + self.noise)

    def good_ranges(self) -> dict[str, GoodRange]:
        """Return where the marginal of each parameter is near its best; see :class:`GoodRange`."""
        tolerance = _TOLERANCE * math.sqrt(self._variance)
        return {axis.name: self._good_range(axis, tolerance) for axis in self.axes}

    def _good_range(self, axis: Axis, tolerance: float) -> GoodRange:
        places, expected = axis.grid(), self.marginal(axis.name)
        good = expected >= expected.max() - tolerance
        if axis.is_list:
            assert axis.values is not None
            values = tuple(v for v, is_good in zip(axis.values, good, strict=True) if is_good)
            return GoodRange(values, axis.values[int(expected.argmax())], bool(good.all()))
        best = int(expected.argmax())
        outside = np.flatnonzero(~good)
        first = max((i + 1 for i in outside if i < best), default=0)
        last = min((i - 1 for i in outside if i > best), default=len(good) - 1)
        low, peak, high = (axis.from_unit(float(places[i])) for i in (first, best, last))
        return GoodRange((low, high), peak, bool(good.all()))

    @functools.cached_property
    def _variance(self) -> float:
        """The variance of the process's mean over the unit cube."""
        mass = self.weights * self._integrals.prod(axis=0)
        squares = (self._overlaps.prod(axis=0) * np.outer(mass, mass)).sum()
        return max(float(squares - mass.sum() ** 2), 0.0)

    @functools.cached_property
    def _integrals(self) -> np.ndarray:
        """Integrals of the kernels over each axis, ``[axes, trials]``."""
        return np.stack([w @ self._kernel(i, p) for i, (p, w) in enumerate(self._quadrature)])

    @functools.cached_property
    def _overlaps(self) -> np.ndarray:
        """Integrals of products of two kernels over each axis, ``[axes, trials, trials]``.

        Relative to the product of their integrals.
        """
        overlaps = []
        for i, (places, weights) in enumerate(self._quadrature):
            kernel = self._kernel(i, places) / self._integrals[i]
            overlaps.append(kernel.T @ (weights[:, None] * kernel))
        return np.stack(overlaps)

    @functools.cached_property
    def _quadrature(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [axis.quadrature() for axis in self.axes]

    def _kernel(self, axis: int, places: np.ndarray) -> np.ndarray:
        """Return the kernels of the trials at places of an axis, ``[places, trials]``."""
        distance = (places[:, None] - self.places[None, :, axis]) / self.length_scales[axis]
        return np.exp(-0.5 * distance**2)


def _minimize(
    objective: Any, start: np.ndarray, bounds: np.ndarray, *, steps: int
) -> tuple[np.ndarray, float]:
    found = optimize.minimize(
        objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": steps}
    )
    return found.x, found.fun


def find_axis(trials: Sequence[FrozenTrial], name: str) -> Axis | None:
    """Return the axis of a parameter; None where no trial has it."""
    spaces = (t.distributions[name] for t in trials if name in t.distributions)
    distribution = next(spaces, None)
    return None if distribution is None else Axis(name, distribution)


def _axes(scored: Sequence[FrozenTrial]) -> list[Axis]:
    """Return the parameters that all trials share and that can vary."""
    space = optuna.search_space.intersection_search_space(list(scored))
    names = scored[0].params if scored else {}
    return [Axis(name, space[name]) for name in names if name in space and not space[name].single()]


def _best(finished: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the best quarter of the finished trials.

    Pruned trials count, but are not among the best: others were better when they stopped.
    """
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    ranked = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    return ranked[: math.ceil(BEST_SHARE * len(finished))]


def _nothing_to_tell(scored: int, distinct: int) -> str:
    if scored < _MIN_TRIALS:
        return (
            f"{scored} trials with a score are too few to tell which parameters matter; "
            f"at least {_MIN_TRIALS} are needed."
        )
    if distinct < 2:
        return "All trials have the same score: nothing tells the parameters apart."
    return "No parameter varies over all trials."


def _reliability_warning(scored: int, parameters: int, loo_r2: float) -> str | None:
    enough = TRIALS_PER_PARAMETER * parameters
    if scored < enough:
        return (
            f"{scored} trials with a score are too few to trust importances, interactions and "
            f"good ranges of {parameters} parameters; from about {enough} on they settle."
        )
    if loo_r2 < PREDICTED_SHARE:
        return (
            f"The model behind importances, interactions and good ranges predicts only "
            f"{max(loo_r2, 0.0):.0%} of the variance of scores that it has not seen: they are "
            "mostly noise."
        )
    return None


def _reported_pairs(axes: Sequence[Axis], shares: np.ndarray) -> list[tuple[int, int]]:
    index = {axis.name: i for i, axis in enumerate(axes)}
    named = [(index[a], index[b]) for a, b in PAIRS if a in index and b in index]
    others = [
        (i, j)
        for i in range(len(axes))
        for j in range(i + 1, len(axes))
        if (i, j) not in named and (j, i) not in named
    ]
    others.sort(key=lambda pair: -shares[pair])
    return sorted([*named, *others[:STRONGEST_PAIRS]], key=lambda pair: -shares[pair])


def _ped_anova(study: optuna.Study, names: Sequence[str], numbers: Collection[int]) -> np.ndarray:
    """Return the PED-ANOVA share of each parameter; zeros where nothing tells trials apart.

    Args:
      study: of trials with a score.
      names: the parameters.
      numbers: of the trials that count.
    """

    def loss(trial: FrozenTrial) -> float:
        assert trial.value is not None
        return -trial.value if trial.number in numbers else math.nan

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    with warnings.catch_warnings():  # That it minimizes: so does a loss.
        warnings.simplefilter("ignore")
        found = evaluator.evaluate(study, list(names), target=loss)
    values = np.array([found[name] for name in names])
    return values / values.sum() if values.sum() > 0 else values


def _study_of(scored: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study in memory, numbered from 0, made without a line in the log."""
    storage = optuna.storages.InMemoryStorage()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=storage, direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(scored)
    return study


def _percentiles(resampled: Sequence[np.ndarray]) -> np.ndarray:
    return np.percentile(resampled, [2.5, 97.5], axis=0)


def _bounds_hit(
    axes: Sequence[Axis], good: dict[str, GoodRange], finished: Sequence[FrozenTrial]
) -> dict[str, BoundHit]:
    best = _best(finished)
    numbers = {trial.number for trial in best}
    others = [trial for trial in finished if trial.number not in numbers]
    return {
        axis.name: pressed
        for axis in axes
        for side in ("low", "high")
        if (pressed := _bound_hit(axis, side, good[axis.name], best, others)) is not None
    }


def _bound_hit(
    axis: Axis,
    side: str,
    good: GoodRange,
    best: Sequence[FrozenTrial],
    others: Sequence[FrozenTrial],
) -> BoundHit | None:
    """Return the bound on `side` if the best trials press against it and it can be widened."""
    bound = axis.low if side == "low" else axis.high
    if type(bound) not in (int, float):  # Names and switches have no bounds.
        return None
    if good.everywhere or bound != good.best:
        return None

    def within(edge: float, trials: Sequence[FrozenTrial]) -> int:
        places = (axis.to_unit(trial.params[axis.name]) for trial in trials)
        return sum((p <= edge) if side == "low" else (p >= 1 - edge) for p in places)

    edge = max(_EDGE, 1.0 / len(axis.values or range(10)))
    near, elsewhere = within(edge, best), within(edge, others)
    table = [[near, len(best) - near], [elsewhere, len(others) - elsewhere]]
    more_than_others = stats.fisher_exact(table, "greater").pvalue <= _ALPHA
    at_the_bound = axis.values is None and within(_AT_BOUND, best) > len(best) / 2
    if not (more_than_others or at_the_bound):
        return None
    widened = _widen(axis, side)
    return None if widened == bound else BoundHit(side, bound, widened, near, len(best))


def _widen(axis: Axis, side: str) -> float:
    """Return the bound to try next: threefold on a log scale, half the width further on a
    linear one, the double of a choice; never beyond what the hyperparameter can be at all.
    """
    sign = -1 if side == "low" else 1
    bound = axis.low if side == "low" else axis.high
    if axis.is_list:
        wider = bound * 2.0**sign
    elif axis.is_log:
        wider = bound * 3.0**sign
    else:
        wider = bound + sign * 0.5 * (axis.high - axis.low)
    domain = DOMAINS.get(axis.name)
    if domain is None:
        return wider
    wider = round(wider) if domain.kind is int else float(f"{wider:.3g}")
    try:
        return domain.check(axis.name, min(max(wider, domain.low), domain.high))
    except UserError:  # The open end of a domain.
        return bound


def _plain(value: Any) -> Any:
    """Return dataclasses inside containers as dictionaries."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
