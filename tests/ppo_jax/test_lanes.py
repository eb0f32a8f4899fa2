"""Runs side by side equal runs one after another."""

import dataclasses
import itertools
from functools import cache, partial

import jax
import numpy as np
import pytest

from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.programs import Programs
from ppo_jax.schedules import LanePrograms, OneAfterAnother, Run, SideBySide
from ppo_jax.seeds import TRAINING, seed_keys

CONFIG = TrainConfig(
    env_kwargs=(("max_steps_in_episode", 60),),
    agent=AgentConfig(num_envs=4, hidden_sizes=()),
    n_steps_choices=(32, 64),
    batch_size_choices=(16, 32),
    eval_episodes=4,
)
SEEDS = 3  # On two devices: one of them has a lane more, which belongs to nobody.
CHECKPOINTS = (200, 640)
SMALL = Hyperparameters(n_steps=32, batch_size=32, n_epochs=3, learning_rate=1e-3)
MIXED = (
    SMALL,
    Hyperparameters(n_steps=64, batch_size=16, n_epochs=2, target_kl=1e-4, learning_rate=3e-3),
    Hyperparameters(
        n_steps=64,
        batch_size=32,
        anneal_learning_rate=True,
        clip_value_loss=False,
        advantages_by_rollout=True,
        critic_learning_rate=2.0,
    ),
    Hyperparameters(
        n_steps=32,
        batch_size=16,
        n_epochs=1,
        anneal_entropy_coef=True,
        gamma=0.9,
        normalize_advantages=False,
        adam_beta1=0.8,
        weight_decay=0.1,
    ),
)


def keys(count=SEEDS):
    return seed_keys(0, TRAINING, count)


def checkpoints_of(schedule, runs):
    """Train `runs`, as many at once as there is room for; return the checkpoints of each."""
    found = {run: [] for run in runs}
    waiting, left = list(runs), len(runs)
    while left:
        while waiting and schedule.room:
            schedule.start(waiting.pop(0))
        run, checkpoint = schedule.next()
        found[run].append(checkpoint)
        left -= checkpoint.step == run.checkpoints[-1]
    return list(found.values())


@cache
def lane_programs(config=CONFIG, runs=3):
    return LanePrograms(config, SEEDS, runs)


def assert_same(ours, theirs, rtol=1e-5):
    """Compare checkpoints; relative to the largest number of a leaf, as its sums are rounded.

    What the actors' compensated sums carry along is rounding itself, below 1e-8.
    """

    def close(a, b, floor=0.0):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        largest = np.abs(b).max(initial=0.0, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=max(rtol * largest, floor))

    assert [c.step for c in ours] == [c.step for c in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our.environment_steps == their.environment_steps
        close(our.returns, their.returns)
        # Losses are sums of terms that cancel, like advantages whose mean is zero.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            our.metrics.loss,
            their.metrics.loss,
        )
        jax.tree.map(close, our.metrics[1:], their.metrics[1:])
    own, expected = ours[-1].state, theirs[-1].state
    assert own.iteration == expected.iteration
    for name in ("params", "optimizer_state", "key", "finite"):
        jax.tree.map(close, getattr(own, name), getattr(expected, name))
    jax.tree.map(partial(close, floor=1e-8), own.actors, expected.actors)


def compare(config, hyperparameters, runs=3, checkpoints=CHECKPOINTS):
    runs_of = [Run(keys(), h, checkpoints) for h in hyperparameters]
    expected = checkpoints_of(OneAfterAnother(Programs(config, SEEDS)), runs_of)
    found = checkpoints_of(SideBySide(lane_programs(config, runs)), runs_of)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_runs_of_mixed_sizes_and_a_refilled_place_equal_runs_one_after_another():
    compare(CONFIG, MIXED)


@pytest.mark.slow
def test_forms_for_accelerators_give_the_same_results(request):
    config = dataclasses.replace(CONFIG, agent=AgentConfig(num_envs=4, hidden_sizes=(8,)))
    runs = [Run(keys(), h, CHECKPOINTS) for h in MIXED[:2]]
    expected = checkpoints_of(OneAfterAnother(Programs(config, SEEDS)), runs)
    request.getfixturevalue("accelerator_forms")
    for schedule in (
        OneAfterAnother(Programs(config, SEEDS)),
        SideBySide(LanePrograms(config, SEEDS, 2)),
    ):
        for ours, theirs in zip(checkpoints_of(schedule, runs), expected, strict=True):
            assert_same(ours, theirs)


def equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)
        jax.tree.map(np.testing.assert_array_equal, a.metrics, b.metrics)
        jax.tree.map(np.testing.assert_array_equal, a.state.params, b.state.params)


def test_neither_neighbours_nor_place_nor_moment_change_a_run():
    alone, *_ = checkpoints_of(SideBySide(lane_programs()), [Run(keys(), SMALL, CHECKPOINTS)])
    schedule, late = SideBySide(lane_programs()), Run(keys(), SMALL, CHECKPOINTS)
    for hyperparameters in MIXED[1:3]:
        schedule.start(Run(keys(), hyperparameters, CHECKPOINTS))
    schedule.start(late, at=7)
    found = []
    while len(found) < len(CHECKPOINTS):
        run, checkpoint = schedule.next()
        if run is late:
            found.append(checkpoint)
    assert schedule.clock == 7 + 20
    equal(found, alone)


def test_continues_from_a_checkpoint_bit_for_bit():
    whole, *_ = checkpoints_of(SideBySide(lane_programs()), [Run(keys(), SMALL, CHECKPOINTS)])
    rest = Run(keys(), SMALL, CHECKPOINTS, passed=1, state=whole[0].state)
    (found,) = checkpoints_of(SideBySide(lane_programs()), [rest])
    equal(found, whole[1:])


def test_stopped_run_makes_room_when_all_of_the_moment_have_been_returned():
    schedule = SideBySide(lane_programs())
    runs = [Run(keys(2), SMALL, CHECKPOINTS) for _ in range(3)]
    for run in runs:
        schedule.start(run)
    assert schedule.room == 0
    first, checkpoint = schedule.next()
    assert checkpoint.returns.shape == (2,)
    schedule.stop(first)
    assert schedule.room == 0
    others = [schedule.next()[0] for _ in range(2)]
    assert schedule.room == 1
    others += [schedule.next()[0] for _ in range(2)]
    assert first not in others
    assert schedule.room == 3


def test_checkpoints_that_a_rollout_passes_together_are_of_one_moment():
    schedule = SideBySide(lane_programs())
    once = Run(keys(2), SMALL, (SMALL.n_steps,))
    twice = Run(keys(2), SMALL, (SMALL.n_steps // 2, SMALL.n_steps))
    schedule.start(once)
    schedule.start(twice)
    rooms = {}
    for _ in range(3):
        run, checkpoint = schedule.next()
        rooms[run, checkpoint.step] = schedule.room
    assert list(rooms.values()) == [0, 0, 3]


def test_diverged_lane_is_told_and_disturbs_no_other():
    broken = dataclasses.replace(SMALL, learning_rate=1.0, max_grad_norm=1e6, value_coef=1e6)
    state = lane_programs().init(keys())
    biases = state.params["params"]["critic"]["Dense_0"]["bias"]
    state.params["params"]["critic"]["Dense_0"]["bias"] = biases * np.nan
    found = checkpoints_of(
        SideBySide(lane_programs()),
        [Run(keys(), SMALL, CHECKPOINTS), Run(keys(), broken, CHECKPOINTS, 0, state)],
    )
    assert np.isnan(found[1][0].returns).all()
    alone, *_ = checkpoints_of(SideBySide(lane_programs()), [Run(keys(), SMALL, CHECKPOINTS)])
    equal(found[0], alone)


def test_sizes_that_were_not_compiled_and_no_place_are_refused():
    with pytest.raises(UserError, match="n_steps must be one of 32, 64"):
        SideBySide(lane_programs()).start(Run(keys(), Hyperparameters(), CHECKPOINTS))
    with pytest.raises(UserError, match="lanes must be an integer of at least 1, but got 0"):
        LanePrograms(CONFIG, SEEDS, 0)


def test_checkpoint_that_a_rollout_has_passed_already_has_no_metrics():
    compare(CONFIG, MIXED[1:2], runs=1, checkpoints=(16, 32, 64, 200))


@pytest.mark.parametrize(
    ("n_steps", "batch_sizes"), [((64, 96), (64, 32)), ((64, 128), (32, 128)), ((48, 80), (16, 48))]
)
def test_minibatches_that_a_block_is_not_made_of(n_steps, batch_sizes):
    config = dataclasses.replace(CONFIG, n_steps_choices=n_steps, batch_size_choices=batch_sizes)
    sizes = itertools.product(n_steps, batch_sizes)
    hyperparameters = [
        Hyperparameters(n_steps=n, batch_size=b, n_epochs=2, learning_rate=1e-3)
        for n, b in sizes
        if n % b == 0
    ]
    compare(config, hyperparameters)


@pytest.mark.slow
@pytest.mark.optimized
def test_all_combinations_of_sizes():
    config = dataclasses.replace(
        CONFIG,
        agent=AgentConfig(num_envs=4, hidden_sizes=(8,)),
        n_steps_choices=(32, 64, 128),
        batch_size_choices=(8, 16, 32),
    )
    sizes = itertools.product(config.n_steps_choices, config.batch_size_choices, (1, 2, 3))
    hyperparameters = [
        Hyperparameters(n_steps=n, batch_size=b, n_epochs=e, learning_rate=1e-3)
        for n, b, e in sizes
    ]
    # 20 iterations of the largest rollouts.
    compare(config, hyperparameters, runs=8, checkpoints=(20 * 128,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "env_kwargs", "agent"),
    [
        # Fewer optimizations round sums that cancel otherwise.
        pytest.param(
            *("CartPole-v1", (), {"normalize_observations": True, "normalize_rewards": True}),
            marks=pytest.mark.optimized,
        ),
        pytest.param(
            *("Pendulum-v1", (("max_steps_in_episode", 60),), {}), marks=pytest.mark.optimized
        ),
        ("Breakout-MinAtar", (), {"conv_features": (4,)}),
        ("CartPole-v1", (), {"network": "gru", "sequence_length": 4}),
    ],
)
def test_normalisation_continuous_actions_convolutions_and_memory(env, env_kwargs, agent):
    config = dataclasses.replace(
        CONFIG,
        env=env,
        env_kwargs=env_kwargs,
        agent=AgentConfig(num_envs=4, hidden_sizes=(8,), **agent),
    )
    compare(config, MIXED)
