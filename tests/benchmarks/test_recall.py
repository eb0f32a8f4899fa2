"""The benchmark of memory: its environment, and the rows of its table."""

import jax
import numpy as np

from benchmarks.recall import Result, plot, recall_table
from ppo_jax.environments import make


def result(network, last):
    returns = np.linspace(-1.0, 1.0, 3)[:, None] * np.float64(last)
    return Result("MemoryChain-bsuite", network, [1, 2, 3], returns, 1.0)


def test_cartpole_without_velocities_is_cartpole_otherwise():
    whole, ours = make("CartPole-v1"), make("benchmarks.recall:PositionsOnly")
    keys = jax.random.split(jax.random.key(0), 30)
    (state, observation), (our_state, seen) = whole.reset(keys[0]), ours.reset(keys[0])
    step, our_step = jax.jit(whole.step), jax.jit(ours.step)
    for key in keys:
        np.testing.assert_array_equal(seen, np.asarray(observation)[[0, 2]])
        timestep, our_timestep = step(key, state, 1), our_step(key, our_state, 1)
        state, observation = timestep.state, timestep.observation
        our_state, seen = our_timestep.state, our_timestep.observation
        assert our_timestep.terminated == timestep.terminated
    assert ours.max_episode_steps == whole.max_episode_steps


def test_a_row_says_how_many_seeds_have_solved_the_task():
    rows = recall_table([result("gru", [1.0, 1.0, 0.9]), result("mlp", [0.1, -0.1, 0.0])]).rows
    assert [row[1] for row in rows] == ["gru", "mlp"]
    assert [row[3] for row in rows] == ["0.97", "0.00"]
    assert [row[-1] for row in rows] == ["3 of 3", "0 of 3"]


def test_the_picture_has_a_panel_a_task(tmp_path):
    plot([result("gru", [1.0, 1.0]), result("mlp", [0.1, 0.0])], tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 1000
