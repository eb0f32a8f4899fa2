"""The wide space: scales, zeros, agents, repair, and studies whose space becomes wider."""

import dataclasses
import itertools

import numpy as np
import optuna
import pytest

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from tests.tune.conftest import FakePrograms
from tune import run_optimization
from tune.protocol.settings import Settings
from tune.protocol.space import SPACES, Configuration, Range, SearchSpace
from tune.protocol.trials import StudyRecord
from tune.search.model import ScoreModel, axes_of
from tune.search.pool import ProgramPool
from tune.search.samplers import SAMPLERS, make_sampler

WIDE = SearchSpace.named("wide")


def drawn(space, count, sampler="gp", seed=0):
    settings = Settings(space=space, sampler=sampler, seed=seed, sampler_startup_trials=count)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(settings))
    configurations = []
    for _ in range(count):
        trial = study.ask()
        configurations.append(space.suggest(trial))
        study.tell(trial, 1.0)
    return configurations, study


def test_the_wide_space_holds_the_standard_one():
    assert WIDE.widening(SearchSpace()).keys["gamma"] == "one_minus_gamma"
    with pytest.raises(UserError, match=r"space\.learning_rate = 1e-05 to 0\.01, but got .*0\.001"):
        SearchSpace().widening(WIDE)


@pytest.mark.parametrize("sampler", ["gp", "random", "tpe", "qmc"])
def test_every_draw_can_be_trained_and_all_values_are_reached(sampler):
    configurations, study = drawn(WIDE, 128, sampler)
    for configuration, trial in zip(configurations, study.trials, strict=True):
        settings = Settings(space=WIDE)
        settings.config_of(configuration.agent).check(configuration.hyperparameters)
        assert WIDE.decode(trial.params) == configuration
        assert WIDE.decode(WIDE.encode(configuration)) == configuration
    zeros = [c.hyperparameters.entropy_coef == 0 for c in configurations]
    assert 0.05 < np.mean(zeros) < 0.4  # A fifth is expected.
    discount = np.log10([1 - c.hyperparameters.gamma for c in configurations])
    assert -3 < np.median(discount) < -1.7  # Of 1e-4 to 0.2 on a log scale: about 0.0045.
    assert {c.agent.num_envs for c in configurations} == {4, 16, 64}
    assert {c.agent.hidden_sizes for c in configurations} == {(64, 64), (256, 256)}
    assert {c.agent.normalize_rewards for c in configurations} == {True, False}


def test_sizes_that_do_not_go_together_become_the_nearest_that_do():
    repaired = WIDE.repaired(Configuration().to_dict() | {"n_steps": 256, "batch_size": 512})
    assert repaired == {"batch_size": 256}
    space = SearchSpace.from_tables(
        {"num_envs": {"choices": [10, 16]}, "n_steps": {"choices": [1000, 1024]},
         "batch_size": {"choices": [125, 128, 512]}}
    )  # fmt: skip
    for n_steps, num_envs, batch_size in itertools.product((1000, 1024), (10, 16), (125, 128, 512)):
        params = space.baseline_params()
        params |= {"n_steps": n_steps, "num_envs": num_envs, "batch_size": batch_size}
        found = space.decode(params)
        assert found.hyperparameters.n_steps == n_steps
        assert n_steps % found.agent.num_envs == 0
        assert n_steps % found.hyperparameters.batch_size == 0


@pytest.mark.parametrize("sequence_length", [1, 16, 64])
def test_sizes_go_together_with_the_sequences_of_a_network_that_remembers(sequence_length):
    agent = AgentConfig(network="gru", sequence_length=sequence_length)
    settings = Settings(space=WIDE, agent=agent)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    for _ in range(50):
        found = settings.space.suggest(study.ask())
        settings.config_of(found.agent).check(found.hyperparameters)


def test_the_sampler_proposes_what_is_trained():
    """A point that the space repairs would be drawn again and again for the same one."""
    settings = Settings(space=WIDE, sampler_startup_trials=4, total_steps=100, eval_every=50)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(settings))
    seen = []
    for number in range(10):
        expected = WIDE.decode(study.sampler.expected(study))
        trial = study.ask()
        configuration = WIDE.suggest(trial)
        assert configuration == expected  # With no other trial under way.
        assert WIDE.encode(configuration) == pytest.approx(trial.params)
        for step in settings.checkpoints():
            trial.report(number % 3, step)
        trial.set_user_attr("hyperparameters", configuration.hyperparameters.to_dict())
        trial.set_user_attr("agent", configuration.agent.to_dict())
        study.tell(trial, number % 3)
        seen.append(configuration)
    assert len(set(seen)) == 10
    assert ScoreModel.fit(StudyRecord("", settings, ()).trials, settings) is None
    assert len(axes_of(settings)) == len(WIDE.tuned)


def test_a_grid_has_every_scale():
    space = SearchSpace.from_tables(
        {name: {"drop": True} for name in SPACES["standard"]}
        | {"gamma": {"low": 0.9, "high": 0.999, "log_complement": True},
           "entropy_coef": {"low": 1e-4, "high": 1e-2, "log": True, "zero": True}}
    )  # fmt: skip
    gammas = [space.decode({"one_minus_gamma": x}) for x in space.grid(3)["one_minus_gamma"]]
    assert [c.hyperparameters.gamma for c in gammas] == pytest.approx([0.9, 0.99, 0.999])
    entropies = [space.decode({"entropy_coef": x}) for x in space.grid(3)["entropy_coef"]]
    found = [c.hyperparameters.entropy_coef for c in entropies]
    assert found == pytest.approx([0, 1e-4, 1e-3, 1e-2])


def test_a_file_names_agents_scales_and_its_base(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        'base = "wide"\n[hidden_sizes]\nchoices = [[32], [64, 64]]\n[activation]\nvalue = "relu"\n'
        "[gae_lambda]\nlow = 0.9\nhigh = 0.99\nlog_complement = true\n"
    )
    space = SearchSpace.from_file(file)
    assert dict(space.tuned)["gae_lambda"] == Range(0.9, 0.99, log_complement=True)
    assert dict(space.tuned)["n_steps"] == dict(WIDE.tuned)["n_steps"]
    settings = Settings(space=space)
    assert settings.config.agent.activation == "relu"
    assert {agent.hidden_sizes for agent in settings.space.agents()} == {(32,), (64, 64)}
    assert Settings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("base = 'wyde'", r"base must be one of standard, wide, but got 'wyde'"),
        ("[activation]\nchoices = ['tanh', 'rely']", r"\[activation\] choices: .*'rely'"),
        ("[hidden_sizes]\nchoices = [[64], [64]]", "must differ"),
        ("[num_envs]\nlow = 1\nhigh = 2", "must have choices or a value"),
        ("[gamma]\nlow = 0.9\nhigh = 1.0\nlog_complement = true", "numbers below 1"),
        ("[gamma]\nlow = 0.9\nhigh = 0.99\nzero = true", "zero is for numbers with log"),
        ("[learning_rate]\nlow = 1e-5\nhigh = 1e-3\nlog = true\nzero = true", "must be .* above 0"),
    ],
)
def test_mistakes_are_named(tmp_path, table, message):
    file = tmp_path / "space.toml"
    file.write_text(table)
    with pytest.raises(UserError, match=message):
        SearchSpace.from_file(file)


def test_a_preset_and_an_agent_are_in_the_widened_space():
    preset = Configuration(
        Hyperparameters(learning_rate=0.02, n_steps=8192), AgentConfig(num_envs=8, network="mlp")
    )
    space = WIDE.holding(preset)
    assert space.complete(space.baseline()) == preset
    assert dict(space.tuned)["num_envs"].values == (4, 8, 16, 64)


@pytest.mark.parametrize("storage", ["study.db", "study.journal"])
def test_a_study_goes_on_in_a_wider_space(tmp_path, storage):
    scheme = "sqlite:///" if storage.endswith("db") else "journal:"

    def run(trials, space):
        settings = Settings(space=space, sampler_startup_trials=4)
        return run_optimization(
            trials,
            settings,
            output=tmp_path,
            storage=f"{scheme}{tmp_path / storage}",
            programs=FakePrograms(),
        )

    run(5, SearchSpace())
    some = SearchSpace.from_tables({"batch_size": {"choices": [64, 128, 256, 512]}})
    run(7, some)
    study = run(10, WIDE)
    assert [trial.number for trial in study.trials] == list(range(10))
    assert run(11, WIDE).trials[10].params.keys() == study.trials[9].params.keys()
    record = StudyRecord.of(study)
    keys = set(record.settings.space.keys.values())
    assert {"batch_size_3", "n_steps_2", "one_minus_gamma", "learning_rate"} <= keys
    assert all(set(trial.params) == keys for trial in record.trials)  # Also the earlier ones.
    model = ScoreModel.fit(record.trials, record.settings)
    assert len(model.observations) == len(record.finished)
    with pytest.raises(UserError, match="wider, not narrower"):
        run(12, some)


def test_programs_are_shared_by_all_that_they_can_run():
    pool = ProgramPool(Settings(space=WIDE))
    one = pool.programs(AgentConfig(normalize_observations=True))
    other = pool.programs(AgentConfig(normalize_rewards=True))
    wider = pool.programs(AgentConfig(hidden_sizes=(256, 256)))
    assert one.config.agent.normalize_observations
    assert not other.config.agent.normalize_observations
    assert one.compile_log is other.compile_log
    assert one.compile_log is not wider.compile_log
    standard = ProgramPool(Settings())
    assert standard.programs(AgentConfig()) is standard.programs(AgentConfig())


def test_all_samplers_take_the_wide_space():
    for name, sampler in SAMPLERS.items():
        if sampler.package is None:
            drawn(dataclasses.replace(WIDE, tuned=WIDE.tuned[:2]), 2, name)
