"""The compiled programs: sharding, padding, repeatability and how often they compile."""

import dataclasses
import itertools
import logging
import os
import platform
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import programs
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Programs, lane_weights
from ppo_jax.seeds import TRAINING, seed_keys

CONFIG = TrainConfig(
    env_kwargs=(("max_steps_in_episode", 60),),
    # These tests wait for compilations, and small programs compile faster.
    agent=AgentConfig(num_envs=4, hidden_sizes=()),
    n_steps_choices=(32,),
    batch_size_choices=(16,),
    eval_episodes=4,
)
HYPERPARAMETERS = Hyperparameters(learning_rate=1e-2, n_steps=32, batch_size=16, n_epochs=2)
CHECKPOINTS = (100, 200)


@cache
def compiled_for(seeds, devices=2):
    assert len(jax.devices()) >= 2, "tests/conftest.py makes two devices"
    return Programs(CONFIG, seeds, jax.devices()[:devices])


def run(compiled, seeds):
    """Train; return the returns ``[checkpoints, seeds]`` and the last checkpoint."""
    keys = seed_keys(0, TRAINING, seeds)
    checkpoints = list(compiled.run(keys, HYPERPARAMETERS, CHECKPOINTS))
    return np.stack([c.returns for c in checkpoints]), checkpoints[-1]


@cache
def cached_run(seeds, devices=2):
    return run(compiled_for(seeds, devices), seeds)


def params_of(checkpoint, seeds):
    return [lane_weights(checkpoint.state, lane) for lane in range(seeds)]


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, other)


def test_two_devices_equal_one():
    returns, checkpoint = cached_run(2)
    expected_returns, expected = cached_run(2, devices=1)
    assert len(checkpoint.state.key.sharding.device_set) == 2
    assert len(expected.state.key.sharding.device_set) == 1
    assert_close(params_of(checkpoint, 2), params_of(expected, 2))
    np.testing.assert_allclose(returns, expected_returns)
    assert_close(checkpoint.metrics, expected.metrics)


def test_padding_changes_nothing():
    returns, checkpoint = cached_run(3)
    expected_returns, expected = cached_run(4)
    np.testing.assert_array_equal(returns, expected_returns[:, :3])
    jax.tree.map(
        np.testing.assert_array_equal, params_of(checkpoint, 3), params_of(expected, 4)[:3]
    )
    for ours, theirs in zip(
        jax.tree.leaves(checkpoint.metrics), jax.tree.leaves(expected.metrics), strict=True
    ):
        assert ours.shape == (3,)
        np.testing.assert_array_equal(ours, theirs[:3])


@pytest.mark.parametrize(
    "seeds", [2, 3, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 5))]
)
def test_any_number_of_seeds(seeds):
    returns, checkpoint = cached_run(seeds)
    assert returns.shape == (len(CHECKPOINTS), seeds)
    assert np.isfinite(returns).all()
    assert len(set(returns[0])) > 1 or seeds == 1
    # A seed does not depend on how many run beside it.
    expected_returns, expected = cached_run(4)
    both = min(seeds, 4)
    np.testing.assert_allclose(returns[:, :both], expected_returns[:, :both])
    assert_close(params_of(checkpoint, both), params_of(expected, both))


def test_fresh_programs_with_fewer_keys_than_seeds_repeat_bit_for_bit():
    returns, checkpoint = cached_run(4)
    again, its_checkpoint = run(Programs(CONFIG, 4), 2)
    np.testing.assert_array_equal(again, returns[:, :2])
    jax.tree.map(
        np.testing.assert_array_equal, params_of(checkpoint, 2), params_of(its_checkpoint, 2)
    )
    assert all(x.shape == (2,) for x in jax.tree.leaves(its_checkpoint.metrics))


def test_steps_are_counted_on_one_grid_and_really():
    _, checkpoint = cached_run(2)
    assert checkpoint.step == 200
    assert checkpoint.environment_steps == 7 * 32
    assert checkpoint.state.iteration == 7
    assert checkpoint.training_seconds > 0
    assert checkpoint.evaluation_seconds > 0


def compilations(caplog):
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("Compiling ")]


def test_a_study_over_all_shapes_compiles_once(caplog):
    config = dataclasses.replace(CONFIG, n_steps_choices=(32, 64), batch_size_choices=(16, 32))
    compiled = Programs(config, 2)
    keys, biases = seed_keys(0, TRAINING, 2), set()
    shapes = itertools.product((32, 64), (16, 32), (1, 3))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for number, (n_steps, batch_size, n_epochs) in enumerate(shapes):
            hyperparameters = Hyperparameters(
                learning_rate=10.0 ** -(2 + number % 3),
                gamma=0.9 + number / 100,
                n_steps=n_steps,
                batch_size=batch_size,
                n_epochs=n_epochs,
                clip_value_loss=bool(number % 2),
            )
            for checkpoint in compiled.run(keys, hyperparameters, CHECKPOINTS):
                assert np.isfinite(checkpoint.returns).all()
            biases.add(float(checkpoint.state.params["params"]["critic"]["Dense_0"]["bias"][0, 0]))
            if number == 0:
                first = compilations(caplog)
                for name in ("training", "evaluation", "initialisation"):
                    assert sum(name in line for line in first) == 1, first
    assert compilations(caplog) == first
    assert len(biases) == 8, "settings were compiled in"
    assert compiled.compile_log.programs == {"initialisation": 1, "training": 1, "evaluation": 1}
    assert compiled.compile_log.seconds > 0


def test_shapes_outside_the_configuration_are_refused():
    compiled = Programs(CONFIG, 1)
    state = compiled.init(seed_keys(0, TRAINING, 1))
    for wrong in ({"n_steps": 64}, {"batch_size": 8}):
        hyperparameters = dataclasses.replace(HYPERPARAMETERS, **wrong)
        (name,) = wrong
        with pytest.raises(UserError, match=f"{name} must be one of .* but got {wrong[name]}"):
            compiled.train_until(state, hyperparameters, 100, 100)
    assert "training" not in compiled.compile_log.programs


def test_a_diverged_seed_is_nan_and_the_others_are_not():
    compiled = compiled_for(3)
    state = compiled.init(seed_keys(0, TRAINING, 3))
    params = jax.tree.map(lambda x: x.at[1].set(jnp.nan), state.params)
    state = dataclasses.replace(state, params=compiled.mesh.put(params))
    for number, steps in enumerate(CHECKPOINTS):
        state, metrics = compiled.train_until(state, HYPERPARAMETERS, steps, CHECKPOINTS[-1])
        returns = compiled.evaluate(state, number)
        assert returns.shape == (3, CONFIG.eval_episodes)
        assert np.isnan(returns[1]).all()
        expected = cached_run(3)[0][number]
        np.testing.assert_array_equal(returns.mean(1, dtype=np.float64)[[0, 2]], expected[[0, 2]])
        assert np.isfinite(metrics.loss.policy_loss).tolist() == [True, False, True]


def test_evaluation_depends_on_parameters_seed_and_checkpoint_alone():
    compiled = compiled_for(2)
    state = compiled.init(seed_keys(0, TRAINING, 2))
    params = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.params)
    state = dataclasses.replace(state, params=compiled.mesh.put(params))
    first, second = compiled.evaluate(state, 0), compiled.evaluate(state, 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    later = compiled.mesh.put(
        dataclasses.replace(state, iteration=state.iteration + 5), programs.STATE_AXES
    )
    np.testing.assert_array_equal(compiled.evaluate(later, 0), first)


def test_switched_normalization_equals_that_which_is_compiled_in():
    keys = seed_keys(0, TRAINING, 2)
    switched = Programs(CONFIG, 2, switched_normalization=True)

    def last(observations, rewards):
        programs = switched.normalizing(observations=observations, rewards=rewards)
        return programs.config, list(programs.run(keys, HYPERPARAMETERS, CHECKPOINTS))[-1]

    def weights(checkpoint):
        return jax.tree.leaves(lane_weights(checkpoint.state, 1))

    both, normalized = last(True, True)
    compiled_in = list(Programs(both, 2).run(keys, HYPERPARAMETERS, CHECKPOINTS))[-1]
    for found, expected in ((normalized, compiled_in), (last(False, False)[1], cached_run(2)[1])):
        np.testing.assert_array_equal(found.returns, expected.returns)
        assert_close(weights(found), weights(expected))
    one, other = (weights(last(*flags)[1]) for flags in ((True, False), (False, True)))
    assert len(one) == len(weights(normalized)) > len(other)  # With statistics, and without.
    assert not np.array_equal(other[0], weights(cached_run(2)[1])[0])
    assert switched.compile_log.programs["training"] == 1


def test_images_train_from_bytes():
    config = dataclasses.replace(
        CONFIG, env="Breakout-MinAtar", env_kwargs=(("max_steps_in_episode", 20),)
    )
    (checkpoint,) = Programs(config, 1).run(seed_keys(0, TRAINING, 1), HYPERPARAMETERS, (64,))
    assert checkpoint.state.actors.observation.dtype == jnp.uint8
    assert checkpoint.state.actors.observation.shape[1:] == (4, 10, 10, 4)
    assert np.isfinite(checkpoint.returns).all()
    assert checkpoint.state.finite.all()


def test_programs_compile_side_by_side_under_the_settings_of_the_caller():
    compiled = Programs(CONFIG, 1)
    with jax.default_matmul_precision("float32"):
        compiled.compile()
    assert "HIGHEST" in compiled._compiled["training"].result().as_text().upper()
    for future in compiled._compiled.values():
        future.result()
    assert compiled.compile_log.programs == {"initialisation": 1, "training": 1, "evaluation": 1}
    list(compiled.run(seed_keys(0, TRAINING, 1), HYPERPARAMETERS, CHECKPOINTS))
    assert compiled.compile_log.programs == {"initialisation": 1, "training": 1, "evaluation": 1}


@pytest.mark.slow
def test_minibatches_need_not_fit_every_rollout():
    config = dataclasses.replace(CONFIG, n_steps_choices=(16, 48), batch_size_choices=(8, 48))
    both = Programs(config, 1)
    for n_steps, batch_size in ((48, 48), (16, 8)):
        sizes = {"n_steps": n_steps, "batch_size": batch_size}
        own = Programs(
            dataclasses.replace(
                CONFIG, n_steps_choices=(n_steps,), batch_size_choices=(batch_size,)
            ),
            1,
        )
        run = (seed_keys(0, TRAINING, 1), dataclasses.replace(HYPERPARAMETERS, **sizes), (96,))
        (found,), (expected,) = (list(programs.run(*run)) for programs in (both, own))
        assert_close(lane_weights(found.state, 0), lane_weights(expected.state, 0))
    with pytest.raises(UserError, match="batch_size=48 with n_steps=16"):
        config.check(dataclasses.replace(HYPERPARAMETERS, n_steps=16, batch_size=48))


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_precision_is_that_of_every_product(precision):
    config = dataclasses.replace(CONFIG, matmul_precision=precision)
    compiled = Programs(config, 2)
    for name, definition in compiled.definitions().items():
        text = compiled.lowered(name, *definition).as_text()
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert products or name == "initialisation"
        wanted = "precision = [HIGHEST, HIGHEST]" if precision == "highest" else "dot_general"
        assert all(wanted in line for line in products)
        assert precision == "highest" or "HIGHEST" not in text


COMPILES = """
import ctypes
import threading
from ppo_jax.config import TrainConfig
from ppo_jax.programs import Programs

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

Programs(TrainConfig("CartPole-v1"), 4).compile()
for thread in threading.enumerate():
    if thread.name.startswith("compile"):
        thread.join()
before = resident()
ctypes.CDLL(None).malloc_trim(0)
print(resident() / before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_compiling_has_freed_is_given_back():
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.7  # It would be less than half.
