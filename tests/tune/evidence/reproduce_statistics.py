"""Every statistic of a validation.json once more, from its per-seed values alone.

Uses json, NumPy and SciPy and nothing of this project::

    python tests/tune/reproduce_statistics.py runs/CartPole-v1/validation.json

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
    same = ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-9, atol=1e-9)
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


def interval(samples, statistic, method):
    """Return the interval of a statistic of samples by a method that the file names."""
    if method == "Welch t":
        if not any(np.ptp(sample) for sample in samples):
            return [difference(*samples)] * 2  # No spread at all, which SciPy gives NaN for.
        return stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    return stats.bootstrap(
        samples,
        statistic,
        n_resamples=data["statistics"]["resamples"],
        confidence_level=data["statistics"]["confidence"],
        method={"BCa bootstrap": "BCa", "percentile bootstrap": "percentile"}[method],
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval


def check_estimate(name, found, samples, statistic):
    check(name, statistic(*samples, axis=-1), found["value"])
    if found["interval"] is not None:
        again = interval(samples, statistic, found["method"])
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


def check_comparison(name, found, winner, baseline):
    """Check everything in a comparison, the verdict included."""
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
    check_estimate(f"{name}: difference", found["difference"], [a, b], difference)
    check_estimate(f"{name}: difference", found["difference_bootstrap"], [a, b], difference)
    verdict = "no clear difference"
    if found["p_value"] is not None:
        if np.ptp(a) or np.ptp(b):
            p_value = stats.ttest_ind(a, b, equal_var=False).pvalue
            check(f"{name}: Welch test, p", p_value, found["p_value"])
        low, high = found["difference"]["interval"]
        broken = np.mean(~np.isfinite(winner)) > np.mean(~np.isfinite(baseline))
        verdict = "worse" if high < 0 else "improved" if low > 0 and not broken else verdict
    check(f"{name}: verdict is {verdict!r}", verdict == found["verdict"], True)


def objective(returns):
    """Return the score of each seed over the checkpoints of a trial."""
    rows = returns[[data["steps"].index(step) for step in data["tuning_checkpoints"]]]
    last = {"mean": len(rows), "final": 1, "tail": math.ceil(len(rows) / 3)}[data["objective"]]
    return rows[-last:].mean(axis=0)


returns = {name: per_seed(data[name]["returns"]) for name in ("winner", "baseline")}
for name, values in returns.items():
    found = data[name]
    check_summary(f"{name}, final return", found["summary"], values[-1])
    groups = {group: per_seed(known["seeds"]) for group, known in found["scores"].items()}
    for group, scores in groups.items():
        if group == "validation":
            check(f"{name}, score on validation seeds", finite(objective(values)), finite(scores))
        check_summary(f"{name}, score on {group} seeds", found["scores"][group]["summary"], scores)
    if found["optimism"] is not None:
        pair = [finite(groups["tuning"]), finite(groups["validation"])]
        check_estimate(f"{name}, optimism", found["optimism"], pair, difference)
finals = [values[-1] for values in returns.values()]
check_comparison("final return", data["comparison"], *finals)
over_training = [values.mean(axis=0) for values in returns.values()]
check_comparison("mean over training", data["over_training"], *over_training)
if data["at_tuning_steps"] is not None:
    scores = [objective(values) for values in returns.values()]
    check_comparison("score at tuning steps", data["at_tuning_steps"], *scores)
profile = data["performance_profile"]
for name, values in zip(returns, finals, strict=True):
    above = [np.mean(values > threshold) for threshold in profile["thresholds"]]
    check(f"{name}, performance profile", above, profile[name])
print(f"{differences} figures differ" if differences else "every figure is reproduced")
sys.exit(differences > 0)
