"""The analysis as a whole: what it warns of, and that it is reproducible and JSON."""

import json

from ppo_jax.files import write_json
from tune.analysis.analysis import analyse
from tune.protocol.settings import Settings


def test_same_trials_give_the_same_analysis(make_trials, planted):
    one, other = (analyse(make_trials(planted, 20), Settings(), resamples=9) for _ in range(2))
    assert one.to_dict() == other.to_dict()


def test_is_strict_json(found, tmp_path):
    write_json(tmp_path / "analysis.json", found.to_dict())
    read = json.loads((tmp_path / "analysis.json").read_text())
    assert read["importances"].keys() == found.importances.keys()
    assert len(read["interactions"][0]["pair"]) == 2


def test_noise_is_called_noise(make_trials):
    found = analyse(make_trials(lambda params, rng: rng.standard_normal(), 60), Settings())
    assert "mostly noise" in found.warning
    for importance in found.importances.values():
        assert importance.fanova_interval[0] < 0.1


def test_few_trials_give_a_warning_and_no_importances(make_trials, planted):
    few = analyse(make_trials(planted, 3), Settings())
    assert few.warning.startswith("3 trials with a score are too few to estimate")
    assert not few.importances
    assert not few.interactions
    assert analyse([], Settings()).warning.startswith("0 trials")


def test_some_trials_give_a_warning_and_importances(make_trials, planted):
    some = analyse(make_trials(planted, 12), Settings(), resamples=3)
    assert "12 trials with a score are too few to trust" in some.warning
    assert "about 50" in some.warning
    assert len(some.importances) == 10


def test_equal_scores_give_no_importances(make_trials):
    flat = analyse(make_trials(lambda params, rng: 1.0, 20), Settings())
    assert "same score" in flat.warning
    assert not flat.importances
    assert not flat.bounds_hit


def test_running_trials_are_ignored(make_trials, planted):
    trials = make_trials(planted, 20, running=range(10, 20))
    assert analyse(trials, Settings(), resamples=3).warning.startswith("10 trials")
