"""Earlier studies tell the sampler where to begin, and no more than they know."""

import dataclasses
import json
import shutil

import numpy as np
import optuna
import pytest

from ppo_jax import command_line
from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from tune.options import Arguments
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, TrialRecord
from tune.protocol.warm_start import EarlierTrial, WarmStart
from tune.report.summary import describe_protocol
from tune.search.model import FEWEST_TRIALS, ScoreModel, axes_of, transferred, unit_point
from tune.search.samplers import make_sampler
from tune.search.study import open_study
from tune.search.warm_start import warm_start_from

SETTINGS = Settings(sampler_startup_trials=10, pruner="none")


def planted(hyperparameters):
    """Return a score with its best inside of the space; most parameters do not matter."""
    rate = np.log10(hyperparameters.learning_rate)
    return -((rate + 3.6) ** 2) * 40 - 500 * (hyperparameters.gamma - 0.98) ** 2


def run(settings, trials, score=planted, **where):
    """Return a study whose trials have scores of a formula."""
    study = optuna.create_study(direction="maximize", sampler=make_sampler(settings), **where)
    study.set_user_attr("settings", settings.to_dict())
    for _ in range(trials):
        trial = study.ask()
        hyperparameters = settings.space.suggest(trial).hyperparameters
        value = score(hyperparameters)
        trial.set_user_attr("hyperparameters", hyperparameters.to_dict())
        steps = settings.checkpoints()
        trial.set_user_attr("returns", {str(s): [value - 1, value + 1] for s in steps})
        for step in steps:
            trial.report(value, step)
        study.tell(trial, value)
    return study


@pytest.fixture(scope="module")
def earlier():
    """An earlier study of CartPole-v1."""
    return StudyRecord.of(run(SETTINGS, 16))


def warmed(earlier, tmp_path, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return dataclasses.replace(settings, warm_start=warm_start_from(earlier, tmp_path, settings))


def records(study):
    return [TrialRecord.of(trial) for trial in study.trials]


def test_the_same_task_begins_where_the_earlier_study_ended(earlier, tmp_path):
    settings = warmed(earlier, tmp_path)
    assert settings.warm_start.same_task
    cold, warm = run(SETTINGS, 4), run(settings, 4)
    assert warm.trials[0].params == cold.trials[0].params  # The start of the sequence.
    best = max(trial.score for trial in earlier.trials)
    assert max(t.value for t in warm.trials[1:]) > best - 2
    assert warm.best_value > cold.best_value


def test_another_task_is_put_on_the_scale_of_this_one(earlier, tmp_path):
    settings = warmed(earlier, tmp_path, env="Acrobot-v1")
    assert not settings.warm_start.same_task

    def stretched(hyperparameters):
        return 3 * planted(hyperparameters) - 200

    study = run(settings, FEWEST_TRIALS + 3, stretched)
    own = records(study)
    axes = axes_of(settings)
    points = np.array([unit_point(axes, trial.params) for trial in own])
    found = transferred(axes, settings, points, np.array([t.score for t in own]))
    expected = [stretched(t.configuration(settings).hyperparameters) for t in earlier.trials]
    spread = np.std(expected)
    assert np.abs(found.values - expected).mean() < 0.4 * spread
    own_noise = np.array([trial.variance for trial in settings.warm_start.trials])
    assert (found.variances > own_noise).all()
    assert max(trial.value for trial in study.trials[FEWEST_TRIALS:]) > -200 - 10


def test_the_noise_is_what_lies_off_the_line(earlier, tmp_path):
    """An independent regression, by :func:`numpy.polyfit`."""
    settings = warmed(earlier, tmp_path, env="Acrobot-v1")
    axes, warm = axes_of(settings), settings.warm_start.trials
    points = np.random.default_rng(0).random((12, len(axes)))
    same = dataclasses.replace(settings.warm_start, same_task=True)
    given = transferred(axes, dataclasses.replace(settings, warm_start=same), points, points[:, 0])
    from tune.search.gaussian_process import GaussianProcess
    from tune.search.model import coordinates

    process = GaussianProcess.fit(coordinates(axes, given.points), given.values, given.variances)
    predicted, _ = process.predict(coordinates(axes, points))
    values = 2 * predicted + np.random.default_rng(1).normal(0, 5, 12)
    slope, level = np.polyfit(predicted, values, 1)
    residuals = values - slope * predicted - level
    found = transferred(axes, settings, points, values)
    np.testing.assert_allclose(found.values, level + slope * np.array([t.value for t in warm]))
    np.testing.assert_allclose(
        found.variances,
        slope**2 * np.array([t.variance for t in warm]) + (residuals**2).sum() / 10,
    )


@pytest.mark.parametrize(
    ("now", "changes"),
    [
        ("gamma fixed", {"space": SearchSpace().without(["gamma"])}),
        ("another network", {"agent": AgentConfig(hidden_sizes=(32, 32))}),
        ("other defaults", {"space": SearchSpace(defaults=Hyperparameters(clip_value_loss=False))}),
    ],
)
def test_what_is_not_tuned_has_to_be_the_same(earlier, tmp_path, now, changes):
    settings = warmed(earlier, tmp_path, **changes)
    assert not settings.warm_start.same_task, now
    axes = axes_of(settings)
    none = np.zeros((0, len(axes))), np.zeros(0)
    assert len(transferred(axes, settings, *none).points) == 0


def test_a_larger_space_holds_trials_of_the_same_task(earlier, tmp_path):
    assert warmed(earlier, tmp_path, space=SearchSpace.named("wide")).warm_start.same_task


def test_a_study_that_says_the_opposite_is_not_listened_to(earlier, tmp_path):
    settings = warmed(earlier, tmp_path, env="Acrobot-v1")
    axes = axes_of(settings)
    own = records(run(SETTINGS, 8))
    points = np.array([unit_point(axes, trial.params) for trial in own])
    scores = np.array([trial.score for trial in own])
    assert len(transferred(axes, settings, points, scores).points) == 16
    assert len(transferred(axes, settings, points, -scores).points) == 0
    assert len(transferred(axes, settings, points[:3], scores[:3]).points) == 0
    # The model is then that of the study alone.
    upside_down = [dataclasses.replace(t, score=-t.score, means={}, returns={}) for t in own]
    warm, cold = (
        ScoreModel.fit(upside_down, dataclasses.replace(s, env="Acrobot-v1"))
        for s in (settings, SETTINGS)
    )
    assert warm.expected_scores() == cold.expected_scores()


def test_earlier_trials_are_no_trials_of_the_study(earlier, tmp_path):
    settings = warmed(earlier, tmp_path)
    own = records(run(settings, 5))
    model = ScoreModel.fit(own, settings)
    assert list(model.expected_scores()) == [0, 1, 2, 3, 4]
    assert len(model.earlier) == 16
    assert str(tmp_path) in describe_protocol(settings)["warm_start"]
    assert "warm_start" not in describe_protocol(SETTINGS)


def test_what_is_stored_is_what_was_given(earlier, tmp_path):
    settings = warmed(earlier, tmp_path)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    trial = EarlierTrial(settings.baseline, 1.0, 2.0)
    warm = WarmStart("x", "y", False, (trial,))
    assert WarmStart.from_dict(json.loads(json.dumps(warm.to_dict()))) == warm


def test_a_study_is_continued_with_what_the_earlier_one_said_then(earlier, tmp_path):
    first, folder = warmed(earlier, tmp_path), StudyFolder(tmp_path / "study")
    less = dataclasses.replace(earlier, trials=earlier.trials[:5])
    again = dataclasses.replace(first, warm_start=warm_start_from(less, tmp_path, SETTINGS))
    with open_study(first, folder):
        pass
    with open_study(again, folder) as study:
        assert Settings.from_dict(study.user_attrs["settings"]) == first
    with (
        pytest.raises(UserError, match="was started with --from-study"),
        open_study(SETTINGS, folder),
    ):
        pass


def test_the_command_reads_a_folder(tmp_path, capsys):
    where = {"storage": f"sqlite:///{tmp_path}/study.db", "study_name": "CartPole-v1"}
    run(SETTINGS, 4, **where)
    options = ["--from-study", str(tmp_path), "--env", "Acrobot-v1"]
    settings = command_line.parse(Arguments, "tune", options).settings()
    assert (settings.warm_start.env, settings.warm_start.same_task) == ("CartPole-v1", False)
    assert len(settings.warm_start.trials) == 4
    for more, message in (
        (["--sampler", "tpe"], "--from-study needs --sampler gp"),
        (["--output", str(tmp_path)], "must be another study"),
    ):
        with pytest.raises(UserError, match=message):
            command_line.parse(Arguments, "tune", [*options, *more]).settings()
    no = ["--output", str(tmp_path / "new")]
    with pytest.raises(UserError, match=r"study\.db does not exist"):
        command_line.parse(
            Arguments, "tune", [*no, "--from-study", str(tmp_path / "no")]
        ).settings()


def asked(*options):
    """Return the settings of a command, and the place of its study."""
    arguments = command_line.parse(Arguments, "tune", list(map(str, options)))
    plan = arguments.plan()
    return plan.settings, plan.folder, plan.storage


@pytest.mark.parametrize("own", ["folder", "storage"])
def test_the_command_continues_whatever_became_of_the_folder(tmp_path, monkeypatch, own):
    before, kept = tmp_path / "before", tmp_path / "kept.db"
    before.mkdir()
    run(SETTINGS, 4, storage=f"sqlite:///{before}/study.db", study_name="CartPole-v1")
    options = ["--output", tmp_path / "new", "--from-study"]
    if own == "storage":
        options = ["--storage", f"sqlite:///{kept}", *options]
    settings, folder, storage = asked(*options, before)
    with open_study(settings, folder, storage=storage):
        pass
    shutil.rmtree(before)
    monkeypatch.chdir(tmp_path)
    for spelt in (before, "before", "new/../before"):
        again, folder, storage = asked(*options, spelt)
        assert again == settings
        with open_study(again, folder, storage=storage):
            pass
    with pytest.raises(UserError, match=r"another/study\.db does not exist"):
        asked(*options, "another")


def test_an_earlier_study_may_be_in_the_storage_of_this_one(tmp_path, monkeypatch):
    storage, own = f"sqlite:///{tmp_path}/kept.db", tmp_path / "own"
    run(SETTINGS, 4, storage=storage, study_name="there")
    own.mkdir()
    run(SETTINGS, 5, storage=f"sqlite:///{own}/study.db", study_name="here")
    for name, folder in (("there", tmp_path / "elsewhere"), ("here", own)):
        folder.mkdir(exist_ok=True)
        StudyFolder(folder).write_config(name, SETTINGS)
    monkeypatch.setenv("PPO_JAX_TUNE_STORAGE", storage)
    for folder, trials in ((tmp_path / "elsewhere", 4), (own, 5)):  # Its own comes first.
        settings, *_ = asked("--output", tmp_path / "new", "--from-study", folder)
        assert len(settings.warm_start.trials) == trials
    with pytest.raises(UserError, match="must be another study"):
        asked("--study-name", "there", "--from-study", tmp_path / "elsewhere")
    monkeypatch.delenv("PPO_JAX_TUNE_STORAGE")
    with pytest.raises(UserError, match="has the same --storage"):
        asked("--output", tmp_path / "new", "--from-study", tmp_path / "elsewhere")
