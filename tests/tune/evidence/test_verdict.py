import warnings

import numpy as np
import pytest

from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.statistics import welch_test
from tune.evidence.candidate import Candidate
from tune.evidence.learning_curve import LearningCurve
from tune.evidence.looks import LEVEL_ERROR, error_levels, planned_looks, repeated
from tune.evidence.verdict import Verdict
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration

NAN = np.nan
STEPS = [50_000 * i for i in range(1, 9)]


def candidate(levels, *, is_baseline, early=None):
    """Return a configuration whose seeds have `levels`, and before the last three, `early`."""
    levels = np.array(levels, float)
    early = levels if early is None else np.array(early, float)
    returns = np.array([*[early] * (len(STEPS) - 3), *[levels] * 3])
    hyperparameters = Hyperparameters(gamma=0.99 if is_baseline else 0.98)
    curve = LearningCurve(hyperparameters, STEPS, returns, 1, 1.0)
    return Candidate(Settings(), Configuration(hyperparameters), is_baseline, validation=curve)


def verdict(winner, baseline, *, looks=None, early=(None, None), **known):
    return Verdict(
        candidate(winner, is_baseline=False, early=early[0]),
        candidate(baseline, is_baseline=True, early=early[1]),
        untrained=known.pop("untrained", 20.0),
        looks=planned_looks(len(winner)) if looks is None else looks,
        **known,
    )


@pytest.mark.parametrize(
    ("winner", "baseline", "outcome"),
    [
        ([500, 499, 500, 498], [400, 410, 390, 405], "improved"),
        ([400, 410, 390, 405], [500, 499, 500, 498], "worse"),
        ([500, 480, 490, 470], [495, 485, 475, 480], "inconclusive"),
        ([500, 500, 500, 500], [500, 500, 500, 500], "equivalent"),
        ([500, 500, 500, 500], [400, 400, 400, 400], "improved"),
        ([500] * 10, [500] * 9 + [436], "inconclusive"),
        ([500], [100], "inconclusive"),
        # Clear, but smaller than what matters: 1% of 480.
        ([500.0, 500.1] * 4, [499.0, 499.1] * 4, "equivalent"),
        ([499.0, 499.1] * 4, [500.0, 500.1] * 4, "equivalent"),
        ([500.0, 500.1] * 4, [494.0, 494.1] * 4, "improved"),
        # A configuration that breaks is no improvement.
        ([500, 499, 500, NAN], [400, 410, 390, 405], "inconclusive"),
        ([500, 499, 500, NAN], [400, 410, 390, NAN], "improved"),
        ([500, 500, 500, NAN], [500, 500, 500, 500], "inconclusive"),
        ([400, 410, 390, NAN], [500, 499, 500, 498], "worse"),
        ([NAN, NAN], [400, 410], "worse"),
        ([400, 410], [NAN, NAN], "improved"),
        ([NAN, NAN], [NAN, NAN], "inconclusive"),
    ],
)
def test_outcome(winner, baseline, outcome):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = verdict(winner, baseline)
        assert found.level_outcome == found.outcome == outcome
        assert found.sentence.startswith(f"{outcome.capitalize()}: ")
        assert (found.recommended is found.winner) == (outcome == "improved")
        assert found.to_dict()["outcome"] == outcome
    probability = found.level.probability_of_improvement
    assert np.isfinite([probability.value, *(probability.interval or ())]).all()


def test_the_outcome_is_the_one_of_the_interval_of_its_look():
    rng = np.random.default_rng(0)
    outcomes = set()
    for shift in np.linspace(-60, 60, 41):
        winner, baseline = rng.normal(400 + shift, 30, 12), rng.normal(400, 30, 12)
        for repetition in (1, 2):
            found = verdict(winner, baseline, looks=[8, 12, 20], repetition=repetition)
            error = repeated(LEVEL_ERROR, repetition)
            test = welch_test(winner, baseline, 1 - error_levels((8, 12, 20), error)[1])
            difference = found.level.difference
            assert difference.interval == pytest.approx((float(test.low), float(test.high)))
            assert difference.confidence == 1 - error
            expected = "improved" if test.low > 0 else "worse" if test.high < 0 else "inconclusive"
            assert found.outcome == expected
            outcomes.add((expected, repetition))
    assert len(outcomes) == 6


def test_further_validations_of_a_folder_ask_for_more():
    rng = np.random.default_rng(1)
    winner, baseline = rng.normal(400, 40, 20), rng.normal(365, 40, 20)
    assert verdict(winner, baseline).outcome == "improved"
    fourth = verdict(winner, baseline, repetition=4)
    assert fourth.outcome == "inconclusive"
    assert "validation 4 here" in fourth.sentence


def test_the_margin_is_a_share_of_what_training_gains():
    assert verdict([100.0] * 4, [80.0] * 4, untrained=20.0).margin == pytest.approx(0.8)
    assert verdict([-150.0] * 4, [-400.0] * 4, untrained=-1200.0).margin == pytest.approx(10.5)
    assert verdict([NAN] * 4, [80.0] * 4, untrained=20.0).margin == pytest.approx(0.6)
    assert verdict([NAN] * 4, [NAN] * 4).margin == 0.0


def test_a_winner_that_only_learns_faster_is_recommended():
    quick, slow = [450.0, 460, 455, 452, 458, 451, 449, 455], [300.0, 320, 310, 305] * 2
    found = verdict([500.0] * 8, [500.0] * 8, early=(quick, slow))
    assert (found.level_outcome, found.speed_outcome) == ("equivalent", "improved")
    assert found.is_faster_only
    assert found.recommended is found.winner
    assert found.sentence.startswith("Improved: the winner learns faster, 471.1 ")
    assert "99% interval" in found.sentence
    # What reaches less in the end is not recommended for its speed.
    worse = verdict([450.0] * 8, [500.0] * 8, early=(quick, slow))
    assert (worse.outcome, worse.speed_outcome) == ("worse", "improved")
    assert worse.recommended is worse.baseline


def test_a_faster_winner_is_recommended_unless_its_level_may_be_lower():
    fast, slow = [450.0, 460, 455, 452, 458, 451, 449, 455], [300.0, 320, 310, 305] * 2
    steady = [480.0] * 8  # The margin is 4.6.
    perhaps_higher = [479.0, 487, 485, 481, 480, 486, 482, 484]
    found = verdict(perhaps_higher, steady, looks=[8, 12, 20], early=(fast, slow))
    low, high = found.level.difference.interval
    assert -found.margin < low < found.margin < high
    assert (found.level_outcome, found.speed_outcome) == ("inconclusive", "improved")
    assert (found.outcome, found.recommended) == ("improved", found.winner)
    assert found.sentence.startswith("Improved: the winner learns faster, ")
    assert ", and ends no lower (+3.00, 97% interval -1.20 to +7.20; " in found.sentence
    assert not found.is_settled  # More seeds may show that it is better.
    perhaps_lower = [level - 5 for level in perhaps_higher]
    found = verdict(perhaps_lower, steady, looks=[8, 12, 20], early=(fast, slow))
    assert (found.level_outcome, found.speed_outcome) == ("inconclusive", "improved")
    assert (found.outcome, found.recommended) == ("inconclusive", found.baseline)
    # Nor is one of which more seeds diverge.
    found = verdict([*perhaps_higher[:7], NAN], steady, looks=[8, 12, 20], early=(fast, slow))
    assert found.recommended is found.baseline


def test_seeds_go_on_until_the_verdict_is_settled():
    looks = [8, 12, 20]
    assert verdict([500.0] * 8, [400.0] * 8, looks=looks).is_settled
    assert verdict([400.0] * 8, [500.0] * 8, looks=looks).is_settled
    assert verdict([500.0] * 8, [500.0] * 8, looks=looks).is_settled
    noisy = [500.0, 400.0] * 4
    assert not verdict(noisy, [490.0, 410.0] * 4, looks=looks).is_settled
    # Equally good, and perhaps faster.
    unclear = verdict([500.0] * 8, [500.0] * 8, looks=looks, early=(noisy, [400.0, 450.0] * 4))
    assert (unclear.level_outcome, unclear.speed_outcome) == ("equivalent", "inconclusive")
    assert not unclear.is_settled


def test_an_inconclusive_verdict_says_how_many_seeds_would_tell():
    rng = np.random.default_rng(0)
    winner, baseline = rng.normal(420, 40, 20), rng.normal(400, 40, 20)
    found = verdict(winner, baseline)
    assert found.outcome == "inconclusive"
    assert f"about {found.seeds_to_settle} seeds would tell" in found.sentence
    assert verdict([500.0] * 8, [400.0] * 8).seeds_to_settle is None


def of_difference(difference, seeds, repetition, spread=11.1):
    """Return the verdict where means and standard deviations are the same for all `seeds`.

    `spread` is that of the winner; the baseline's is 11.1.
    """
    place = np.linspace(-1, 1, seeds)
    place = (place - place.mean()) / place.std(ddof=1)
    winner, baseline = 400 + difference + spread * place, 400 + 11.1 * place
    return verdict(winner, baseline, repetition=repetition)


@pytest.mark.parametrize(
    ("difference", "outcome"), [(7.0, "improved"), (-7.0, "worse"), (1.0, "equivalent")]
)
def test_as_many_seeds_as_would_tell_do_tell(difference, outcome):
    """They are another validation in the folder, at a stricter level."""
    for repetition in (1, 2, 3):
        first = of_difference(difference, 20, repetition)
        assert first.outcome == "inconclusive"
        needed = first.seeds_to_settle
        assert of_difference(difference, needed, repetition + 1).outcome == outcome
        fewer = of_difference(difference, int(0.95 * needed), repetition + 1)
        assert fewer.outcome == "inconclusive"


@pytest.mark.parametrize("spread", [11.1, 100.0])
@pytest.mark.parametrize("repetition", [1, 2])
def test_a_few_seeds_more_tell_what_two_do_not(repetition, spread):
    """With two seeds the interval is wide for want of degrees of freedom, which come quickly."""
    first = of_difference(2.5 * spread, 2, repetition, spread)
    assert first.outcome == "inconclusive"
    assert 2 < first.seeds_to_settle < 20
    again = of_difference(2.5 * spread, first.seeds_to_settle, repetition + 1, spread)
    assert again.outcome == "improved"


def test_what_diverges_more_often_is_settled_by_no_seeds():
    rng = np.random.default_rng(0)
    winner, baseline = rng.normal(398, 8, 20), rng.normal(301, 8, 20)
    early = winner - 200, baseline - 200
    winner[3] = NAN
    found = verdict(winner, baseline, early=early)
    assert found.outcome == "inconclusive"
    assert found.level.difference.interval[0] > 80
    assert found.seeds_to_settle is None
    assert found.at_tuning_steps.difference.interval[0] > 80
    assert not found.misled, "the lead lasted"
    assert found.sentence.endswith(
        "diverged: 1 against 0); a winner of which more seeds diverge is no improvement. "
        "Keep the baseline."
    )
    # A baseline that diverges is equivalent to nothing, and may be worse than the winner.
    steady = [500.0, 500.1] * 4
    equal = verdict(steady, [*steady[:7], NAN])
    assert (equal.outcome, equal.seeds_to_settle) == ("inconclusive", None)
    assert "; the two are not equivalent, as more seeds of the baseline diverged." in equal.sentence
    ahead = verdict(rng.normal(420, 40, 20), [*rng.normal(400, 40, 19), NAN])
    assert ahead.seeds_to_settle > 20


def test_a_baseline_that_won_is_what_is_recommended():
    alone = candidate([400.0, 410.0], is_baseline=True)
    assert Verdict(alone, alone, 20.0, [2]).to_dict()["recommended"] == "baseline"


def test_all_figures_of_a_sentence_have_the_decimals_that_the_larger_level_needs():
    small = verdict([0.97, 0.98] * 4, [0.958, 0.968] * 4).sentence
    assert "reaches 0.975 against 0.963 for the baseline (+0.012, 97% interval +0.0" in small
    large = verdict([480.0, 490.0] * 4, [479.6, 489.6] * 4).sentence
    assert "reaches 485.0 against 484.6 for the baseline (+0.4, 97% interval -" in large


def test_short_training_that_misled_is_told():
    found = verdict([400.0] * 8, [400.0] * 8, early=([300.0, 301.0] * 4, [100.0, 101.0] * 4))
    assert not found.misled, "the winner is recommended for its speed"
    late = [410.0, 390.0] * 4
    found = verdict(late, [412.0, 388.0] * 4, early=([300.0, 301.0] * 4, [296.0, 297.0] * 4))
    assert found.misled
    assert "Short training misled the search: the lead" in found.sentence
    assert found.to_dict()["short_training_misled"] is True


def test_a_lead_that_does_not_matter_has_misled_nobody():
    found = verdict([500.0, 500.1] * 4, [499.0, 499.1] * 4)
    lead = found.at_tuning_steps.difference
    assert 0 < lead.interval[0] < lead.value < found.margin
    assert not found.misled
    # Nor has a larger one that is not clear.
    noisy = verdict(
        [500.0, 500.0] * 4, [500.0, 500.0] * 4, early=([300.0, 400] * 4, [280.0, 400] * 4)
    )
    lead = noisy.at_tuning_steps.difference
    assert lead.interval[0] < 0 < noisy.margin < lead.value
    assert not noisy.misled


def test_a_baseline_that_wins_is_not_compared_with_itself():
    alone = candidate([400.0, 410.0], is_baseline=True)
    found = Verdict(alone, alone, 20.0, [8, 12, 20])
    assert found.sentence == (
        "No trial beat the baseline, which reaches 405.0 (2 fresh seeds, 400,000 steps)."
    )
