"""The surrogate against functions whose integrals are known."""

import itertools

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from tune.analysis.analysis import analyse
from tune.analysis.surrogate import Surrogate, with_expected_scores
from tune.protocol.axes import Axis
from tune.protocol.settings import Settings


def test_marginal_of_the_planted_pair_shows_its_ridge(found):
    surface = found.surrogate.marginal("learning_rate", "n_epochs", points=21)
    assert surface.shape == (21, 8)
    ridge = surface[[0, 20], [7, 0]]
    valley = surface[[0, 20], [0, 7]]
    assert ridge.min() > valley.max() + 10


def test_good_ranges_hold_the_planted_best(found, irrelevant):
    low, high = found.good_ranges["gamma"].values
    assert low < 0.985 < high
    assert high - low < 0.6 * 0.049
    low, high = found.good_ranges["clip_epsilon"].values
    assert low > 0.15
    assert high == 0.3
    everywhere = {name for name, good in found.good_ranges.items() if good.everywhere}
    assert everywhere == irrelevant
    assert found.good_ranges["n_steps"].values == (1024, 2048, 4096)


def test_variance_of_a_known_function_is_split_exactly(make_record):
    """The interaction holds 1/55 of the variance of (x + 1)(y + 1) on the unit square."""
    trials = []
    for number, (x, y) in enumerate(itertools.product(np.linspace(0, 1, 7), repeat=2)):
        space = dict.fromkeys("xyz", FloatDistribution(0.0, 1.0))
        params = {"x": x, "y": y, "z": (number * 0.618) % 1}
        trials.append(make_record(number, (x + 1) * (y + 1), params, space))
    axes = [Axis(name, FloatDistribution(0.0, 1.0)) for name in "xyz"]
    surrogate = Surrogate.fit(axes, trials)
    alone, pair = 27 / 55, 1 / 55
    expected = np.array([[alone, pair, 0], [pair, alone, 0], [0, 0, 0]])
    np.testing.assert_allclose(surrogate.shares(), expected, atol=0.012)
    np.testing.assert_allclose(surrogate.marginal("x", points=3), [1.5, 2.25, 3.0], atol=0.01)
    np.testing.assert_allclose(surrogate.marginal("y", "x", points=2), [[1, 2], [2, 4]], atol=0.05)
    assert surrogate.loo_r2 > 0.99


def test_shares_are_those_of_a_sampled_model(make_trials, planted):
    """The integrals against a Monte Carlo estimate of the same model (Saltelli, 2010)."""
    trials = make_trials(planted, 40)
    axes = [Axis(name, d) for name, d in trials[0].distributions.items()]
    surrogate = Surrogate.fit(axes, trials)
    rng = np.random.default_rng(0)

    def sample(n):
        drawn = [rng.choice(len(p), n, p=w) for p, w in surrogate._quadrature]
        return np.stack([p[i] for i, (p, _) in zip(drawn, surrogate._quadrature, strict=True)], 1)

    def predict(x):
        distance = (x[:, None] - surrogate.unit_points[None]) / surrogate.length_scales
        return np.exp(-0.5 * (distance**2).sum(axis=2)) @ surrogate.weights

    a, b = sample(20_000), sample(20_000)
    gamma = [axis.name for axis in axes].index("gamma")
    mixed = b.copy()
    mixed[:, gamma] = a[:, gamma]
    first = np.cov(predict(a), predict(mixed))[0, 1]
    total = predict(np.concatenate([a, b])).var() + surrogate.noise
    assert surrogate.shares()[gamma, gamma] == pytest.approx(first / total, abs=0.02)


def test_single_parameter(make_record):
    distribution = FloatDistribution(0.0, 1.0)
    trials = []
    for number in range(20):
        x = number / 19
        trials.append(make_record(number, -((x - 0.5) ** 2), {"x": x}, {"x": distribution}))
    found = analyse(trials, Settings())
    assert found.importances["x"].fanova == pytest.approx(1.0, abs=0.02)
    assert found.interactions == []
    low, high = found.good_ranges["x"].values
    assert low < 0.5 < high


def test_pruned_trials_have_the_score_that_their_last_checkpoint_predicts(make_trials, planted):
    trials = make_trials(planted, 20, pruned=range(10, 20))
    whole = make_trials(planted, 20)
    scored = with_expected_scores(trials)
    assert [t.number for t in scored] == list(range(20))
    assert [t.score for t in scored] == pytest.approx([t.score for t in whole])
    assert [t.state for t in scored] == [t.state for t in trials]
    few = make_trials(planted, 5, pruned=(3, 4))
    assert with_expected_scores(few) == few[:3]
