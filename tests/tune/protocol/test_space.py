import dataclasses
import json

import optuna
import pytest

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.settings import Settings
from tune.protocol.space import Choices, Configuration, Range, SearchSpace
from tune.search.samplers import make_sampler


def space(**tables):
    return SearchSpace.from_tables(tables)


def test_default_space_tunes_the_ten_hyperparameters():
    tuned = dict(SearchSpace().tuned)
    assert len(tuned) == 10
    assert tuned["learning_rate"] == Range(1e-5, 1e-3, log=True)
    assert tuned["n_steps"] == Choices((1024, 2048, 4096))
    assert SearchSpace().baseline() == {
        name: value for name, value in Hyperparameters().to_dict().items() if name in tuned
    }


def test_file_narrows_widens_fixes_drops_and_adds(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        """
        [learning_rate]
        low = 1e-4
        high = 1e-2
        log = true
        [batch_size]
        choices = [64, 256]
        [gamma]
        value = 0.995
        [value_coef]
        drop = true
        [anneal_learning_rate]
        choices = [true, false]
        [num_envs]
        value = 8
        """
    )
    changed = SearchSpace.from_file(file)
    tuned = dict(changed.tuned)
    assert tuned["learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert tuned["batch_size"] == Choices((64, 256))
    assert tuned["anneal_learning_rate"] == Choices((True, False))
    assert "gamma" not in tuned
    assert "value_coef" not in tuned
    assert tuned["n_epochs"] == Range(3, 10)
    assert changed.num_envs == 8
    hyperparameters = changed.complete(changed.baseline()).hyperparameters
    assert hyperparameters.gamma == 0.995
    assert hyperparameters.value_coef == 0.5


@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
@pytest.mark.parametrize(
    ("tables", "baseline"),
    [
        ({"gae_lambda": {"choices": [0.0, 0.8, 1.0]}}, 1.0),
        ({"gamma": {"choices": [0, 1]}}, 1.0),
        ({"value_coef": {"choices": [0.0, 0.25]}}, 0.25),
        ({"target_kl": {"choices": [0.02, 0.01]}}, 0.01),
        ({"entropy_coef": {"choices": [0.001, 0.05]}}, 0.001),
        ({"entropy_coef": {"choices": [0.0, 0.001]}}, 0.0),
        ({"entropy_coef": {"low": 0.001, "high": 0.05, "log": True}}, 0.001),
    ],
)
@pytest.mark.parametrize("sampler", ["grid", "qmc", "random", "tpe"])
def test_studies_with_a_zero_among_choices_or_as_default_start(
    entropy_coef, tables, baseline, sampler
):
    preset = dataclasses.replace(Hyperparameters(), entropy_coef=entropy_coef)
    space = SearchSpace.around(preset, num_envs=16).changed_by(tables)
    (name,) = tables
    if entropy_coef == 0.0 or name != "entropy_coef":
        assert space.baseline()[name] == baseline
    settings = Settings(space=space, sampler=sampler, sampler_startup_trials=1)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(settings))
    study.enqueue_trial(space.baseline())
    for _ in range(3):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 1.0)


def test_a_default_moves_to_the_nearest_choice_also_from_zero():
    assert Choices((0.0, 0.02, 0.1)).nearest(0.05) == 0.02
    assert Choices((0.02, 0.1)).nearest(0.05) == 0.1
    assert Choices((0.02, 0.1)).nearest(0.0) == 0.02


def test_tables_restore_the_space():
    changed = space(gamma={"value": 0.9}, value_coef={"drop": True}, n_epochs={"low": 1, "high": 4})
    restored = SearchSpace.from_tables(changed.to_tables())
    assert dict(restored.tuned) == dict(changed.tuned)
    assert restored.fixed == changed.fixed


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"learning_rat": {"value": 1}}, r"\[learning_rat\]; did you mean 'learning_rate'"),
        ({"gamma": {"low": 0.99, "high": 0.9}}, r"\[gamma\] low must be below high.*0.99.*0.9"),
        ({"gamma": {"low": 0.9}}, r"\[gamma\] has low = 0.9 but no high"),
        ({"gamma": {"low": 0.9, "high": 1.5}}, r"\[gamma\] high must be .*at most 1, but got 1.5"),
        ({"gamma": {"low": "a", "high": 1}}, r"\[gamma\] low must be a number.*but got 'a'"),
        ({"gamma": {"lo": 0.9, "high": 1}}, r"unknown key 'lo'; did you mean 'low'"),
        ({"gamma": {}}, r"\[gamma\] must have either .* but got nothing"),
        ({"gamma": {"value": 0.9, "drop": True}}, r"must have either"),
        ({"gamma": {"drop": False}}, r"drop must be true, but got False"),
        ({"gamma": 0.9}, r"\[gamma\] must be a table"),
        ({"n_steps": {"low": 128, "high": 512}}, r"\[n_steps\] must have choices or a value"),
        ({"clip_value_loss": {"low": 0, "high": 1}}, r"must have choices or a value"),
        ({"n_epochs": {"low": 1.5, "high": 4}}, r"\[n_epochs\] low must be an integer"),
        ({"n_epochs": {"choices": []}}, r"choices must be a list of values, but got \[\]"),
        ({"n_epochs": {"choices": [4, 4]}}, r"choices must differ"),
        ({"batch_size": {"choices": [0]}}, r"must be an integer of at least 1"),
        ({"entropy_coef": {"low": 0, "high": 1, "log": True}}, r"above 0 on a log scale"),
        ({"entropy_coef": {"low": 0, "high": 1, "log": 1}}, r"log must be true or false"),
        ({"num_envs": {"low": 8, "high": 16}}, r"\[num_envs\] must have choices or a value"),
        ({"num_envs": {"value": 0}}, r"\[num_envs\] value: num_envs must be .* at least 1"),
    ],
)
def test_mistakes_are_named(tables, message):
    with pytest.raises(UserError, match=message):
        SearchSpace.from_tables(tables)


def test_a_fixed_parameter_keeps_its_default():
    wide = SearchSpace.named("wide")
    fixed = wide.without(["hidden_sizes", "gamma"])
    assert set(dict(wide.tuned)) - set(dict(fixed.tuned)) == {"hidden_sizes", "gamma"}
    agent = AgentConfig(hidden_sizes=(32,))
    baseline = Configuration(Hyperparameters(gamma=0.7), agent)
    assert fixed.holding(baseline).complete({}) == baseline
    assert wide.without([]) == wide


def test_fixing_what_is_not_tuned_or_everything_is_refused():
    with pytest.raises(UserError, match=r"fix must be .* but got 'gama'; did you mean 'gamma'\?"):
        SearchSpace().without(["gamma", "gama"])
    with pytest.raises(UserError, match="tunes nothing"):
        SearchSpace().without([name for name, _ in SearchSpace().tuned])


def test_space_that_tunes_nothing_is_refused():
    tables = {name: {"drop": True} for name, _ in SearchSpace().tuned}
    with pytest.raises(UserError, match="tunes nothing"):
        SearchSpace.from_tables(tables)


@pytest.mark.parametrize("content", [b"[gamma", b"\xff\xfe", None])
def test_unreadable_file_is_refused_by_name(tmp_path, content):
    file = tmp_path / "space.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*space\.toml: "):
        SearchSpace.from_file(file)


def test_suggestions_lie_in_the_space_and_have_the_right_types():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    changed = space(gamma={"value": 0.9}, anneal_learning_rate={"choices": [True, False]})
    for _ in range(20):
        values = changed.suggest(study.ask()).hyperparameters
        assert 1e-5 <= values.learning_rate <= 1e-3
        assert values.n_steps in (1024, 2048, 4096)
        assert 3 <= values.n_epochs <= 10
        assert type(values.n_epochs) is int
        assert type(values.anneal_learning_rate) is bool
        assert values.gamma == 0.9


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"low": 1e-4, "high": 2e-4}, 2e-4),
        ({"low": 1e-3, "high": 2e-3}, 1e-3),
        ({"low": 1e-4, "high": 1e-3}, 3e-4),
        ({"choices": [1e-5, 2e-4, 1e-3]}, 2e-4),
    ],
)
def test_baseline_moves_to_the_nearest_value_that_the_space_allows(table, expected):
    changed = space(learning_rate=table)
    assert changed.baseline()["learning_rate"] == expected
    moved = {} if expected == 3e-4 else {"learning_rate": (3e-4, expected)}
    assert changed.moved_defaults() == moved


def test_baseline_takes_the_fixed_values():
    changed = space(n_steps={"value": 512}, batch_size={"value": 64})
    assert changed.choices("n_steps") == (512,)
    assert changed.complete(changed.baseline()).hyperparameters.n_steps == 512
    assert changed.moved_defaults()["n_steps"] == (2048, 512)


def test_grid_covers_the_ends_on_the_scale_of_the_range():
    grid = SearchSpace().grid(3)
    assert grid["learning_rate"] == pytest.approx([1e-5, 1e-4, 1e-3])
    assert grid["n_epochs"] == [3, 6, 10]
    assert grid["batch_size"] == [128, 256, 512]


@pytest.mark.parametrize(
    ("changes", "num_envs", "n_steps", "batch_size"),
    [
        ({}, 16, (1024, 2048, 4096), (128, 256, 512)),
        ({"n_steps": 256, "batch_size": 64}, 16, (256, 1024, 2048, 4096), (64, 128, 256)),
        ({"n_steps": 8192, "batch_size": 2048}, 64, (2048, 4096, 8192), (128, 256, 512, 2048)),
        ({"n_steps": 6000, "batch_size": 1500}, 8, (6000,), (1500,)),
        ({"n_steps": 20480, "batch_size": 1024}, 2048, (2048, 4096, 20480), (128, 256, 512, 1024)),
    ],
)
def test_a_space_around_other_defaults_holds_them(changes, num_envs, n_steps, batch_size):
    defaults = Hyperparameters(learning_rate=3e-3, gamma=0.9, entropy_coef=0.0, **changes)
    around = SearchSpace.around(defaults, num_envs)
    assert around.complete(around.baseline()).hyperparameters == defaults
    assert not around.moved_defaults()
    assert around.choices("n_steps") == n_steps
    assert around.choices("batch_size") == batch_size
    TrainConfig(
        agent=AgentConfig(num_envs=num_envs), n_steps_choices=n_steps, batch_size_choices=batch_size
    )
    ranges = dict(around.tuned)
    assert ranges["learning_rate"] == Range(1e-5, 3e-3, log=True)
    assert ranges["gamma"] == Range(0.9, 0.999)
    assert ranges["entropy_coef"] == Range(0.0, 0.05)
    settings = Settings(space=around, agent=AgentConfig(num_envs=num_envs))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
