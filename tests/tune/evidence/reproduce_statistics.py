"""Every statistic of a validation.json once more, from its per-seed values alone.

Uses json, NumPy and SciPy and nothing of this project::

    python tests/tune/evidence/reproduce_statistics.py runs/CartPole-v1/validation.json

Prints a line a figure and exits with status 1 if one differs.
"""

import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy import stats

warnings.simplefilter("ignore")  # Of nearly equal values.

data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
differences = 0


def check(name, ours, theirs):
    """Compare a figure, or a list of them, with the one in the file."""
    global differences
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    # The bounds of looks come from numerical integration, here another one than there.
    same = ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    differences += not same
    if ours.size > 5:
        print(f"{name:55} {'reproduced' if same else 'DIFFERS'}, {ours.size} values")
    else:
        print(f"{name:55} {'reproduced' if same else f'DIFFERS from {theirs}'}: {ours}")


def per_seed(values):
    """Return values as an array; null, a diverged seed, as NaN."""
    return np.array(values, float)


def finite(values):
    return values[np.isfinite(values)]


def interval(samples, statistic, method, error=0.05):
    """Return the interval of a statistic of samples by a method that the file names."""
    if method in ("Welch t", "Student t") and not any(np.ptp(sample) for sample in samples):
        return [statistic(*samples)] * 2  # No spread at all, which SciPy gives NaN for.
    if method == "Welch t":
        return stats.ttest_ind(*samples, equal_var=False).confidence_interval(1 - error)
    if method == "Newcombe score":
        return newcombe(statistic(*samples), *map(len, samples), error)
    if method == "Student t":
        return stats.ttest_1samp(*samples, 0.0).confidence_interval(1 - error)
    return stats.bootstrap(
        samples,
        statistic,
        n_resamples=data["statistics"]["resamples"],
        confidence_level=data["statistics"]["confidence"],
        method={"BCa bootstrap": "BCa", "percentile bootstrap": "percentile"}[method],
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval


def newcombe(value, n, m, error):
    """Return the ends of method 5 of Newcombe, 2006, the outer zeros of a polynomial.

    (value - p)² is to be z² times the variance at p, here both times n m (2 - p) (1 + p).
    """
    p, more = np.polynomial.Polynomial([0, 1]), (n + m) / 2 - 1
    terms = (2 - p) * (1 + p) + more * ((1 - p) * (1 + p) + p * (2 - p))
    variance = stats.norm.ppf(1 - error / 2) ** 2 * p * (1 - p) * terms
    zeros = ((value - p) ** 2 * n * m * (2 - p) * (1 + p) - variance).roots()
    inside = zeros.real[(abs(zeros.imag) < 1e-6) & (abs(zeros.real - 0.5) < 0.5 + 1e-6)]
    return [inside.min(), inside.max()]


def check_estimate(name, found, samples, statistic, error=0.05):
    check(name, statistic(*samples, axis=-1), found["value"])
    if found["interval"] is not None:
        again = interval(samples, statistic, found["method"], error)
        check(f"{name}, {found['method']}", list(again), found["interval"])


def difference(a, b, axis=-1):
    return a.mean(axis=axis) - b.mean(axis=axis)


def improvement(a, b, axis=-1):
    """Return the share of pairs that the first wins, ties counting half."""
    above = np.sign(np.expand_dims(a, -1) - np.expand_dims(b, -2))
    return above.mean(axis=(-1, -2)) / 2 + 0.5


def trimmed(values, axis=-1):
    return stats.trim_mean(values, 0.25, axis=axis)


def check_summary(name, found, values):
    values = finite(values)
    if found is None:
        check(f"{name}: seeds", len(values), 0)
        return
    check(f"{name}: seeds", len(values), found["seeds"])
    for part, statistic in (("mean", np.mean), ("median", np.median), ("iqm", trimmed)):
        check_estimate(f"{name}: {part}", found[part], [values], statistic)


def error_of_look(error):
    """Return the two-sided error level of the last look at the seeds, from the multivariate normal.

    A share t of the seeds may spend t² of the error.
    """
    if data["repetition"] > 1:
        error *= 2.0 ** -(data["repetition"] + 1)
    looks = np.array(data["looks"], float)
    bounds = []
    for seeds in looks[looks <= data["seeds_trained"]]:
        share = error / 2 * (seeds / looks[-1]) ** 2
        known = np.array([*looks[: len(bounds)], seeds])
        correlation = np.sqrt(np.minimum.outer(known, known) / np.maximum.outer(known, known))
        low, high = 0.0, 10.0
        for _ in range(60):
            bound = (low + high) / 2
            crossed = 1 - stats.multivariate_normal.cdf(
                [*bounds, bound],
                np.zeros(len(known)),
                correlation,
                allow_singular=True,
                abseps=1e-9,
                maxpts=10**6,
            )
            low, high = (bound, high) if crossed > share else (low, bound)
        bounds.append(bound)
    return 2 * stats.norm.sf(bounds[-1])


def check_comparison(name, found, winner, baseline, error=0.05):
    """Check everything in a comparison; return the interval of the difference."""
    if found is None:
        return
    a, b = finite(winner), finite(baseline)
    # A diverged seed is worse than all others: a number below them ranks as it should.
    lowest = min([*a, *b], default=0.0) - 1.0
    ranked = [np.where(np.isfinite(values), values, lowest) for values in (winner, baseline)]
    check_estimate(
        f"{name}: P(improvement)", found["probability_of_improvement"], ranked, improvement
    )
    if found["difference"] is None:
        return
    check_estimate(f"{name}: difference", found["difference"], [a, b], difference, error)
    check_estimate(f"{name}: difference", found["difference_bootstrap"], [a, b], difference)
    if found["p_value"] is not None and (np.ptp(a) or np.ptp(b)):
        p_value = stats.ttest_ind(a, b, equal_var=False).pvalue
        check(f"{name}: Welch test, p", p_value, found["p_value"])


def check_outcome(name, found, winner, baseline):
    """Check what follows from a comparison whose figures have been checked."""
    shares = [np.mean(~np.isfinite(values)) for values in (winner, baseline)]
    outcome = "inconclusive"
    if data[name]["difference"] is None:
        if shares[0] != shares[1]:
            outcome = "worse" if shares[0] == 1 else "improved"
    elif data[name]["difference"]["interval"] is not None:
        value, margin = data[name]["difference"]["value"], data["margin"]
        low, high = data[name]["difference"]["interval"]
        if low > 0 and value >= margin and shares[0] <= shares[1]:
            outcome = "improved"
        elif high < 0 and value <= -margin:
            outcome = "worse"
        elif -margin <= low and high <= margin and shares[0] == shares[1]:
            outcome = "equivalent"
    check(f"{name}: outcome is {outcome!r}", outcome == found, True)


def objective(returns):
    """Return the score of each seed over the checkpoints of a trial."""
    rows = returns[[data["steps"].index(step) for step in data["tuning_checkpoints"]]]
    last = {"mean": len(rows), "final": 1, "tail": math.ceil(len(rows) / 3)}[data["objective"]]
    return rows[-last:].mean(axis=0)


returns = {name: per_seed(data[name]["returns"]) for name in ("winner", "baseline")}
levels = {name: values[-3:].mean(axis=0) for name, values in returns.items()}
speeds = {name: values.mean(axis=0) for name, values in returns.items()}
for name, values in returns.items():
    found = data[name]
    check_summary(f"{name}, level", found["summary"], levels[name])
    groups = {group: per_seed(known["seeds"]) for group, known in found["scores"].items()}
    for group, scores in groups.items():
        if group == "validation":
            check(f"{name}, score on validation seeds", finite(objective(values)), finite(scores))
        check_summary(f"{name}, score on {group} seeds", found["scores"][group]["summary"], scores)
    if found["optimism"] is not None:
        pair = [finite(groups["tuning"]), finite(groups["validation"])]
        check_estimate(f"{name}, optimism", found["optimism"], pair, difference)
gains = [abs(finite(v).mean() - data["untrained"]) for v in levels.values() if len(finite(v))]
check("margin", 0.01 * max(gains, default=0.0), data["margin"])
if not data["winner_is_baseline"]:
    for name, values, error in (("level", levels, 0.03), ("speed", speeds, 0.01)):
        check_comparison(name, data[name], *values.values(), error_of_look(error))
        check_outcome(name, data[f"{name}_outcome"], *values.values())
if data["at_tuning_steps"] is not None:
    scores = [objective(values) for values in returns.values()]
    check_comparison("score at tuning steps", data["at_tuning_steps"], *scores)
profile = data["performance_profile"]
for name, values in levels.items():
    above = [np.mean(values > threshold) for threshold in profile["thresholds"]]
    check(f"{name}, performance profile", above, profile[name])
print(f"{differences} figures differ" if differences else "every figure is reproduced")
sys.exit(differences > 0)
