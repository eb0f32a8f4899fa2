"""The comparison of samplers, on records that a formula makes."""

import dataclasses
import json
import math

import numpy as np
import pytest
from rich.console import Console

from benchmarks import samplers, surrogate
from benchmarks.equal_steps import WINNERS
from benchmarks.records import Records, halves, record
from benchmarks.surrogate import Surrogate, quality, regressors
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Checkpoint
from tune.protocol.settings import Settings
from tune.search.samplers import SAMPLERS

SETTINGS = Settings(seeds=4)
SEEDS = np.array([-6.0, 6.0, -2.0, 2.0])


def height(hyperparameters):
    """Return how good a configuration is: best at a learning rate of 3e-4."""
    return 100 - 30 * abs(math.log10(hyperparameters.learning_rate / 3e-4))


class Programs:
    """Returns rise to the height of a configuration; seeds differ by `SEEDS`."""

    def __init__(self):
        self.trained = []

    def run(self, keys, hyperparameters, checkpoints):
        self.trained.append((hyperparameters, checkpoints))
        for step in checkpoints:
            returns = height(hyperparameters) * min(1.0, step / 200_000) + SEEDS[: len(keys)]
            yield Checkpoint(step, step, returns, None, None, 0.0, 0.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "trials_CartPole-v1.npz"
    record(SETTINGS, Programs(), 40, 5, 400_000, path, Console(quiet=True))
    return path


def test_recording_covers_the_space_and_goes_on_where_it_stopped(tmp_path):
    path, quiet, programs = tmp_path / "trials.npz", Console(quiet=True), Programs()
    record(SETTINGS, programs, 8, 3, 400_000, path, quiet)
    assert len(programs.trained) == 8
    record(SETTINGS, programs, 12, 3, 400_000, path, quiet)
    assert len(programs.trained) == 12
    record(SETTINGS, programs, 12, 3, 400_000, tmp_path / "at once.npz", quiet)
    records, at_once = Records.load(path), Records.load(tmp_path / "at once.npz")
    np.testing.assert_array_equal(records.params, at_once.params)
    np.testing.assert_array_equal(records.returns, at_once.returns)
    assert records.checkpoints.tolist() == [8] * 3 + [4] * 9
    assert records.returns.shape == (12, 8, 4)
    default = dict(zip(records.names, records.params[0], strict=True))
    assert default["learning_rate"] == Hyperparameters().learning_rate
    assert len(np.unique(records.params, axis=0)) == 12


def test_surrogate_answers_with_the_mean_and_the_noise_of_its_seeds(path):
    records = Records.load(path)
    for seeds in halves(records):
        model = Surrogate(records, SETTINGS, seeds, regressors(0)["Gaussian process"])
        for learning_rate in (5e-5, 1e-4, 3e-4):
            hyperparameters = dataclasses.replace(Hyperparameters(), learning_rate=learning_rate)
            expected = height(hyperparameters) * np.arange(1, 5) / 4
            np.testing.assert_allclose(model.mean_curve(hyperparameters), expected, atol=4)
        low = dataclasses.replace(Hyperparameters(), learning_rate=5e-5)
        noise = model.draw(low, 2_000) - model.mean_curve(low)[:, None]
        assert noise[-1].std() == pytest.approx(SEEDS[seeds].std(ddof=1), rel=0.1)
        model.reseed(3)
        first = model.draw(low, 5)
        model.reseed(3)
        np.testing.assert_array_equal(model.draw(low, 5), first)


def test_quality_is_measured_on_configurations_held_out(path, monkeypatch):
    models = regressors(0)
    trees = models.pop("randomised trees").set_params(n_estimators=20)
    monkeypatch.setattr(surrogate, "regressors", lambda _: models)
    found = quality(Records.load(path), SETTINGS)
    assert found["Gaussian process"]["r2"] > 0.9
    assert found["the other seeds themselves"]["rank_correlation"] == pytest.approx(1.0)
    records = Records.load(path)
    shuffled = dataclasses.replace(
        records, params=np.random.default_rng(0).permutation(records.params)
    )
    monkeypatch.setattr(surrogate, "regressors", lambda _: {"randomised trees": trees})
    assert quality(shuffled, SETTINGS)["randomised trees"]["r2"] < 0.5


@pytest.fixture(scope="module")
def surrogates(path):
    """Return surrogates of the seeds for tuning and for judging."""
    records = Records.load(path)
    return [
        Surrogate(
            records,
            Settings(sampler="random"),
            seeds,
            regressors(0)["randomised trees"].set_params(n_estimators=20),
        )
        for seeds in halves(records)
    ]


@pytest.mark.parametrize("winner", WINNERS)
def test_studies_spend_what_they_may_and_no_more(surrogates, winner, monkeypatch):
    settings, spent = Settings(sampler="random"), []
    model, judge = surrogates
    draw = model.draw

    def counted(hyperparameters, seeds):
        spent.append(seeds)
        return draw(hyperparameters, seeds)

    monkeypatch.setattr(model, "draw", counted)
    outcome = samplers.run_study(settings, model, judge, 20_000_000, winner)
    trials = (20_000_000 - (8_000_000 if winner == "rerun" else 0)) // 800_000
    assert outcome.trials >= trials - 1
    assert spent.count(4) == outcome.trials
    assert spent.count(10) == (4 if winner == "rerun" else 0)
    unpruned = dataclasses.replace(settings, pruner="none")
    fewer = samplers.run_study(unpruned, model, judge, 20_000_000, winner)
    assert fewer.trials in (trials - 1, trials)
    assert fewer.trials < outcome.trials


def test_a_sampler_without_its_package_is_reported(path, monkeypatch):
    gp = dataclasses.replace(SAMPLERS["optuna-gp"], package="no_such_package")
    monkeypatch.setitem(SAMPLERS, "optuna-gp", gp)
    setup = samplers.Setup("CartPole-v1", Records.load(path), {}, trials=5, studies=5)
    strategy = samplers.measure(setup, "optuna-gp", sampler="optuna-gp")
    assert "no_such_package" in strategy.failure
    assert "no_such_package" in samplers.strategy_table("t", [strategy]).rows[0][1]
    assert np.isnan(samplers.outcome_array([strategy], 5)).all()


def test_objectives_predict_long_training_where_curves_keep_their_order(path):
    rows = samplers.objectives_and_long_training(Records.load(path), SETTINGS, draws=50)
    assert [row["objective"] for row in rows] == ["mean", "final", "tail"]
    for row in rows:
        assert row["configurations"] == 5
        assert row["end"]["rank_correlation"] == pytest.approx(1.0)
        assert row["end"]["best_of_20"] == pytest.approx(row["end"]["best_there_is"])


def test_long_training_of_too_few_is_not_judged(tmp_path):
    record(SETTINGS, Programs(), 4, 2, 400_000, tmp_path / "trials.npz", Console(quiet=True))
    records = Records.load(tmp_path / "trials.npz")
    assert samplers.objectives_and_long_training(records, SETTINGS) == []


@pytest.mark.slow
def test_command(path, tmp_path, in_process):
    for env in ("CartPole-v1", "Acrobot-v1"):
        (tmp_path / f"trials_{env}.npz").write_bytes(path.read_bytes())
    done = in_process(
        *("benchmarks.samplers", "--records", tmp_path, "--studies", 5, "--trials", 6),
        *("--env", "CartPole-v1", "Acrobot-v1", "--samplers", "random", "grid", "--no-changes"),
        *("--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "samplers.json").read_text())
    *axes, fields = results["outcomes"]["axes"]
    assert axes == ["strategy", "study"]
    outcomes = np.load(tmp_path / "out" / results["outcomes"]["file"])
    assert list(results["environments"]) == ["CartPole-v1", "Acrobot-v1"]
    for env, found in results["environments"].items():
        assert f"{env}: samplers" in done.stdout
        assert [strategy["name"] for strategy in found["samplers"]] == [
            *("random, pruned", "random, not pruned", "grid, pruned", "grid, not pruned")
        ]
        assert outcomes[env].shape == (4, 5, len(fields))
        for mean in outcomes[env][..., fields.index("score")].mean(axis=1):
            assert f"{mean:.1f}" in done.stdout
        assert "one change from the defaults" not in found
    assert (tmp_path / "out" / "samplers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--studies", 4), "--studies must be an integer of at least 5, but got 4"),
        (("--samplers", "tpee"), "did you mean 'tpe'?"),
        (("--env", "Acrobot-v0"), "did you mean 'Acrobot-v1'?"),
        (("--env", "Acrobot-v1", "--records", "nowhere"), "no trials are recorded in"),
        (("--env", "Pendulum-v1-wide"), "the models are of the standard space: give --replays"),
        (("--replays", "--records", "nowhere"), "no trials are recorded in nowhere"),
        (("--replays", "--finalists"), "--replays and --finalists are different comparisons"),
        (("--finalists", "--earlier"), "--finalists and --earlier are different comparisons"),
        (("--earlier", "--env", "Pendulum-v1"), "--earlier needs two tables at least"),
        (
            ("--earlier", "--env", "CartPole-v1-wide"),
            "trials of one agent, but got CartPole-v1-wide",
        ),
        (("--real", "--finalists"), "--real trains every trial and does not go with --finalists"),
        (("--real", "--earlier"), "--real trains every trial and does not go with --earlier"),
        (("--record", -1), "--record must be an integer of at least 0"),
    ],
)
def test_mistakes_are_one_line(refusal, tmp_path, arguments, message):
    found = refusal("benchmarks.samplers", *arguments, "--output", tmp_path / "results")
    assert message in found
    assert not (tmp_path / "results").exists()
