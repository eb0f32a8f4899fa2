"""Synthetic studies whose truth is known: no training."""

import itertools
import json

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from ppo_jax.files import write_json
from tune.analysis.analysis import Axis, Surrogate, analyse, with_expected_scores
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace


def make_trials(score, n, *, space=None, seed=0, pruned=(), running=(), settled=None):
    """Return random trials of `space` with `score(params, rng)`; those numbered `pruned` stop
    after the first of four checkpoints. From the seventh on, they take the values `settled`."""
    space = space or SearchSpace()
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = []
    for number in range(n):
        if settled is not None and number >= 6:
            study.enqueue_trial(settled)
        asked = study.ask()
        space.suggest(asked)
        state = (
            TrialState.RUNNING
            if number in running
            else TrialState.PRUNED
            if number in pruned
            else TrialState.COMPLETE
        )
        done = 1 if state == TrialState.PRUNED else 4
        value = float(score(asked.params, rng))
        trial = create_trial(
            state=state,
            value=None if state == TrialState.RUNNING else value,
            params=asked.params,
            distributions=asked.distributions,
            intermediate_values={50_000 * (i + 1): value * (i + 1) / 4 for i in range(done)},
            user_attrs={
                "environment_steps": 200_000 * done,
                "training_seconds": 2.0 * done,
                "evaluation_seconds": 0.5 * done,
                "baseline": number == 0,
                "returns": {str(50_000 * (i + 1)): [value] * 4 for i in range(done)},
            },
        )
        trial.number = number
        trials.append(trial)
    return trials


def planted(params, rng):
    """A best region of gamma around 0.985, an interaction of learning rate and epochs, a best
    clip epsilon beyond its upper bound, and six parameters without any effect."""
    rate = (np.log10(params["learning_rate"]) + 5) / 2
    epochs = (params["n_epochs"] - 3) / 7
    gamma = (params["gamma"] - 0.985) / 0.05
    clip = (params["clip_epsilon"] - 0.1) / 0.2
    return (
        100
        - 120 * (rate + epochs - 1) ** 2
        - 150 * gamma**2
        + 60 * clip
        + 2 * rng.standard_normal()
    )


@pytest.fixture(scope="module")
def found():
    return analyse(make_trials(planted, 60), Settings())


IRRELEVANT = {"gae_lambda", "value_coef", "entropy_coef", "max_grad_norm", "n_steps", "batch_size"}


def test_planted_parameters_are_the_important_ones(found):
    assert found.warning is None
    names = list(found.importances)
    assert set(names[:2]) == {"gamma", "clip_epsilon"}
    ped = sorted(names, key=lambda name: -found.importances[name].ped_anova)
    assert set(ped[:2]) == {"gamma", "clip_epsilon"}
    for name in ("gamma", "clip_epsilon"):
        assert found.importances[name].fanova_interval[0] > 0.05
    for name in IRRELEVANT:
        assert found.importances[name].fanova < 0.05
    assert sum(i.ped_anova for i in found.importances.values()) == pytest.approx(1.0)


def test_planted_interaction_is_the_strongest(found):
    first, second, *_ = found.interactions
    assert set(first.pair) == {"learning_rate", "n_epochs"}
    assert first.share > 0.3
    assert first.share > 20 * second.share
    low, high = first.interval
    assert 0.2 < low < first.share < high
    named = {frozenset(i.pair) for i in found.interactions}
    assert {
        frozenset(p) for p in (("n_steps", "batch_size"), ("entropy_coef", "clip_epsilon"))
    } < named
    assert len(found.interactions) == 8


def test_marginal_of_the_planted_pair_shows_its_ridge(found):
    surface = found.surrogate.marginal("learning_rate", "n_epochs", points=21)
    assert surface.shape == (21, 8)
    ridge = surface[[0, 20], [7, 0]]
    valley = surface[[0, 20], [0, 7]]
    assert ridge.min() > valley.max() + 10


def test_good_ranges_hold_the_planted_best(found):
    low, high = found.good_ranges["gamma"].values
    assert low < 0.985 < high
    assert high - low < 0.6 * 0.049
    low, high = found.good_ranges["clip_epsilon"].values
    assert low > 0.15
    assert high == 0.3
    everywhere = {name for name, good in found.good_ranges.items() if good.everywhere}
    assert everywhere == IRRELEVANT
    assert found.good_ranges["n_steps"].values == (1024, 2048, 4096)


def test_only_the_planted_bound_is_pressed_against(found):
    assert found.bounds_hit.keys() == {"clip_epsilon"}
    pressed = found.bounds_hit["clip_epsilon"]
    assert (pressed.side, pressed.bound, pressed.widen_to) == ("high", 0.3, 0.4)
    assert pressed.best == 15
    assert pressed.count >= 5


def test_same_trials_give_the_same_analysis(found):
    assert analyse(make_trials(planted, 60), Settings()).to_dict() == found.to_dict()


def test_is_strict_json(found, tmp_path):
    write_json(tmp_path / "analysis.json", found.to_dict())
    read = json.loads((tmp_path / "analysis.json").read_text())
    assert read["importances"].keys() == found.importances.keys()
    assert len(read["interactions"][0]["pair"]) == 2


def test_ranking_is_the_one_of_optunas_fanova(found):
    study = optuna.create_study(direction="maximize")
    study.add_trials(make_trials(planted, 60))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert set(list(theirs)[:2]) == set(list(found.importances)[:2])


def test_variance_of_a_known_function_is_split_as_it_is():
    """Of (x + 1)(y + 1) on the unit square a part of 1/55 lies in the interaction."""
    trials = []
    for number, (x, y) in enumerate(itertools.product(np.linspace(0, 1, 7), repeat=2)):
        space = dict.fromkeys("xyz", FloatDistribution(0.0, 1.0))
        params = {"x": x, "y": y, "z": (number * 0.618) % 1}
        trials.append(create_trial(value=(x + 1) * (y + 1), params=params, distributions=space))
    axes = [Axis(name, FloatDistribution(0.0, 1.0)) for name in "xyz"]
    surrogate = Surrogate.fit(axes, trials)
    alone, pair = 27 / 55, 1 / 55
    expected = np.array([[alone, pair, 0], [pair, alone, 0], [0, 0, 0]])
    np.testing.assert_allclose(surrogate.shares(), expected, atol=0.012)
    np.testing.assert_allclose(surrogate.marginal("x", points=3), [1.5, 2.25, 3.0], atol=0.01)
    np.testing.assert_allclose(surrogate.marginal("y", "x", points=2), [[1, 2], [2, 4]], atol=0.05)
    assert surrogate.loo_r2 > 0.99


def test_shares_are_those_of_a_sampled_model():
    """The integrals against a Monte Carlo estimate of the same model (Saltelli, 2010)."""
    trials = make_trials(planted, 40)
    axes = [Axis(name, d) for name, d in trials[0].distributions.items()]
    surrogate = Surrogate.fit(axes, trials)
    rng = np.random.default_rng(0)

    def sample(n):
        drawn = [rng.choice(len(p), n, p=w) for p, w in surrogate._quadrature]
        return np.stack([p[i] for i, (p, _) in zip(drawn, surrogate._quadrature, strict=True)], 1)

    def predict(x):
        distance = (x[:, None] - surrogate.places[None]) / surrogate.length_scales
        return np.exp(-0.5 * (distance**2).sum(axis=2)) @ surrogate.weights

    a, b = sample(20_000), sample(20_000)
    gamma = [axis.name for axis in axes].index("gamma")
    mixed = b.copy()
    mixed[:, gamma] = a[:, gamma]
    first = np.cov(predict(a), predict(mixed))[0, 1]
    total = predict(np.concatenate([a, b])).var() + surrogate.noise
    assert surrogate.shares()[gamma, gamma] == pytest.approx(first / total, abs=0.02)


def test_noise_is_called_noise():
    found = analyse(make_trials(lambda params, rng: rng.standard_normal(), 60), Settings())
    assert "mostly noise" in found.warning
    for importance in found.importances.values():
        assert importance.fanova_interval[0] < 0.1


def test_few_trials_warn_and_tell_nothing():
    few = analyse(make_trials(planted, 3), Settings())
    assert few.warning.startswith("3 trials with a score are too few to tell")
    assert not few.importances
    assert not few.interactions
    assert analyse([], Settings()).warning.startswith("0 trials")


def test_some_trials_warn_and_tell_what_they_can():
    some = analyse(make_trials(planted, 12), Settings())
    assert "12 trials with a score are too few to trust" in some.warning
    assert "about 50" in some.warning
    assert len(some.importances) == 10


def test_equal_scores_tell_nothing():
    flat = analyse(make_trials(lambda params, rng: 1.0, 20), Settings())
    assert "same score" in flat.warning
    assert not flat.importances
    assert not flat.bounds_hit


def test_fixed_parameters_and_switches():
    space = SearchSpace.from_tables(
        {
            **{name: {"drop": True} for name in (IRRELEVANT - {"n_steps"})},
            "gamma": {"value": 0.99},
            "anneal_learning_rate": {"choices": [True, False]},
        }
    )

    def score(params, rng):
        return 10 * params["anneal_learning_rate"] + params["n_epochs"] * 0.01

    found = analyse(make_trials(score, 30, space=space), Settings(space=space))
    assert "gamma" not in found.importances
    assert next(iter(found.importances)) == "anneal_learning_rate"
    assert found.importances["anneal_learning_rate"].fanova > 0.7
    assert found.good_ranges["anneal_learning_rate"].values == (True,)
    assert "anneal_learning_rate" not in found.bounds_hit
    pairs = {frozenset(i.pair) for i in found.interactions}
    assert frozenset(("learning_rate", "n_epochs")) in pairs


@pytest.mark.parametrize(("rate", "is_told"), [(1e-3, True), (8e-4, False)])
def test_sampler_that_has_settled_at_a_bound_is_told(rate, is_told):
    def score(params, rng):
        return 100 * np.log10(params["learning_rate"]) + rng.standard_normal()

    found = analyse(make_trials(score, 24, settled={"learning_rate": rate}), Settings())
    assert ("learning_rate" in found.bounds_hit) == is_told
    if is_told:
        assert found.bounds_hit["learning_rate"].widen_to == 0.003


def test_largest_choice_is_a_bound():
    def score(params, rng):
        return params["batch_size"] + rng.standard_normal()

    found = analyse(make_trials(score, 40), Settings())
    assert found.good_ranges["batch_size"].values == (512,)
    assert found.bounds_hit["batch_size"].widen_to == 1024


def test_bound_of_what_a_parameter_can_be_is_not_to_be_widened():
    space = SearchSpace.from_tables({"gae_lambda": {"low": 0.5, "high": 1.0}})
    found = analyse(make_trials(lambda p, rng: p["gae_lambda"], 40, space=space), Settings())
    assert found.good_ranges["gae_lambda"].values[1] == 1.0
    assert not found.bounds_hit


def test_single_parameter():
    distribution = FloatDistribution(0.0, 1.0)
    trials = []
    for number in range(20):
        x = number / 19
        trials.append(
            create_trial(
                value=-((x - 0.5) ** 2), params={"x": x}, distributions={"x": distribution}
            )
        )
        trials[-1].number = number
    found = analyse(trials, Settings())
    assert found.importances["x"].fanova == pytest.approx(1.0, abs=0.02)
    assert found.interactions == []
    low, high = found.good_ranges["x"].values
    assert low < 0.5 < high


def test_pruning_saves_the_rest_of_each_pruned_trial():
    trials = make_trials(planted, 6, pruned=(2, 4), running=(5,))
    saved = analyse(trials, Settings()).pruning
    assert saved.trials == 2
    assert saved.environment_steps == 2 * 600_000
    assert saved.seconds == pytest.approx(2 * 7.5)
    assert saved.share_of_steps == pytest.approx(1_200_000 / (5 * 800_000))
    nothing = analyse(trials[:2], Settings()).pruning
    assert (nothing.trials, nothing.environment_steps, nothing.share_of_steps) == (0, 0, 0.0)


def test_running_trials_are_no_scores():
    trials = make_trials(planted, 20, running=range(10, 20))
    assert analyse(trials, Settings()).warning.startswith("10 trials")


def test_pruned_trials_count_with_the_score_their_last_report_leads_to():
    trials = make_trials(planted, 20, pruned=range(10, 20))
    whole = make_trials(planted, 20)
    scored = with_expected_scores(trials)
    assert [t.number for t in scored] == list(range(20))
    assert [t.value for t in scored] == pytest.approx([t.value for t in whole])
    assert {t.state for t in scored} == {TrialState.COMPLETE}
    few = make_trials(planted, 5, pruned=(3, 4))
    assert with_expected_scores(few) == few[:3]
