"""Networks that remember: the cell, sequences of a rollout, evaluation, policies, resumption."""

import dataclasses
import importlib.util
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import evaluation, policy, trainer
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Continuous, Discrete, Spaces, make
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network, outputs_and_value, policy_step, state_value
from ppo_jax.programs import Programs, Weights, lane_weights
from ppo_jax.rollout import collect, reset_actors
from ppo_jax.seeds import TRAINING, seed_keys

AGENT = AgentConfig(
    num_envs=4, network="gru", hidden_sizes=(6, 5), sequence_length=4, normalize_observations=True
)
# Episodes of at most 7 steps: they end within sequences and at their borders.
CONFIG = TrainConfig(
    env_kwargs=(("max_steps_in_episode", 7), ("theta_threshold_radians", 0.15)),
    agent=AGENT,
    n_steps_choices=(32, 64),
    batch_size_choices=(16,),
    eval_episodes=4,
)
HYPERPARAMETERS = Hyperparameters(n_steps=32, batch_size=16, n_epochs=2, learning_rate=1e-2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(p, h, x):
    """Cho et al. (2014), with the reset gate behind the product, as cuDNN has it."""
    r = sigmoid(x @ p["ir"]["kernel"] + p["ir"]["bias"] + h @ p["hr"]["kernel"])
    z = sigmoid(x @ p["iz"]["kernel"] + p["iz"]["bias"] + h @ p["hz"]["kernel"])
    remembered = h @ p["hn"]["kernel"] + p["hn"]["bias"]
    n = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + r * remembered)
    return (1 - z) * n + z * h, None


def lstm(p, memory, x):
    """Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""
    c, h = memory
    i, f, g, o = (
        x @ p[f"i{gate}"]["kernel"] + h @ p[f"h{gate}"]["kernel"] + p[f"h{gate}"]["bias"]
        for gate in "ifgo"
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return (c, sigmoid(o) * np.tanh(c)), None


@pytest.mark.parametrize("cell", [gru, lstm])
def test_sequences_equal_numpy_step_by_step(random_params, cell):
    agent = dataclasses.replace(AGENT, network=cell.__name__)
    spaces = Spaces((3,), Continuous((-1.0, -1.0), (1.0, 1.0)))
    network = make_network(agent, spaces)
    params = random_params(network, (3,))
    p = params["params"]
    random = np.random.default_rng(0)
    observation = random.normal(size=(2, 7, 3)).astype(np.float32)
    starts = random.random((2, 7)) < 0.3
    start = jax.tree.map(
        lambda x: random.normal(size=x.shape).astype(np.float32), network.fresh_memory((2,))
    )
    outputs, values = outputs_and_value(network, params, observation, start, starts)
    assert outputs.shape == (2, 7, 4)

    def head(layers, x):
        hidden = np.tanh(x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
        return hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]

    memory = start
    for t in range(7):
        keep = (~starts[:, t])[:, None]
        memory = jax.tree.map(lambda x, keep=keep: x * keep, memory)
        seen = np.tanh(observation[:, t] @ p["encoder_0"]["kernel"] + p["encoder_0"]["bias"])
        ours, ours_after = policy_step(network, params, observation[:, t], memory)
        value = state_value(network, params, observation[:, t], memory)
        memory, _ = cell(p["core"], memory, seen)
        remembered = memory[1] if cell is lstm else memory
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, ours_after, memory)
        close(ours[:, :2], head(p["actor"], remembered))
        close(ours[:, 2:], np.broadcast_to(p["log_std"], (2, 2)))
        close(value, head(p["critic"], remembered)[:, 0])
        close(outputs[:, t], ours)
        close(values[:, t], value)


@pytest.mark.parametrize("cell", ["gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_an_update_sees_what_acting_saw(random_params, cell):
    config = dataclasses.replace(CONFIG, agent=dataclasses.replace(AGENT, network=cell))
    environment = make(config.env, config.env_kwargs)
    network = make_network(config.agent, environment.spaces)
    params = random_params(network, (4,))
    h = HYPERPARAMETERS.to_arrays()

    @jax.jit
    def collected(actors, key, n_steps):
        actors, rollout, _ = collect(
            config, environment, network, params, actors, key, n_steps, h.gamma
        )
        rates = dataclasses.replace(h, n_steps=n_steps)
        return actors, rollout, trainer.prepare(config, rollout, rates)[0]

    actors = reset_actors(config, environment, jax.random.key(0))
    for n_steps in (32, 64):  # The second one begins in the middle of episodes.
        key = jax.random.key(n_steps)
        actors, rollout, experience = collected(actors, key, np.int32(n_steps))
        rows = n_steps // AGENT.sequence_length
        used = jax.tree.map(lambda x, rows=rows: x[:rows], experience)
        assert used.observation.shape == (rows, 4, 4)
        outputs, values = outputs_and_value(
            network, params, used.observation, used.memory, used.starts
        )
        log_prob = network.distribution.log_prob(outputs, used.action)
        np.testing.assert_allclose(log_prob, used.log_prob, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values, used.value, rtol=1e-4, atol=1e-5)
        assert used.starts[:, 1:].any()
        # Where no episode ends, the next value is the value of the next step.
        ended = np.asarray(rollout.terminated | rollout.truncated)[: n_steps // 4 - 1]
        following = np.asarray(rollout.value)[1 : n_steps // 4]
        found = np.asarray(rollout.next_value)[: n_steps // 4 - 1]
        assert 0 < ended.sum() < ended.size
        np.testing.assert_allclose(found[~ended], following[~ended], rtol=1e-4, atol=1e-5)


@cache
def trained():
    """Return programs of two seeds, and what they yield at two checkpoints."""
    programs, keys, found = Programs(CONFIG, 2), seed_keys(0, TRAINING, 2), []
    for checkpoint in programs.run(keys, HYPERPARAMETERS, (64, 128)):
        # The next checkpoint takes over the state.
        state = jax.tree.map(jnp.copy, checkpoint.state)
        found.append(checkpoint._replace(state=state))
    return programs, keys, found


def test_resumes_bit_for_bit_with_its_memory():
    programs, keys, (first, last) = trained()
    memory = np.asarray(first.state.actors.memory)
    assert memory.shape == (2, 4, 5)
    assert np.abs(memory).max() > 0
    state = jax.tree.map(jnp.copy, first.state)
    (found,) = programs.run(keys, HYPERPARAMETERS, (64, 128), 1, state)
    np.testing.assert_array_equal(found.returns, last.returns)
    for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(last.state), strict=True):
        assert jnp.array_equal(a, b)


def test_a_policy_file_acts_as_evaluation_does(tmp_path, random_params):
    config = TrainConfig(agent=dataclasses.replace(AGENT, normalize_observations=False))
    environment = make(config.env)
    params = random_params(make_network(config.agent, environment.spaces), (4,), scale=2.0)
    policy.of(config, Weights(params, None)).save(tmp_path)
    loaded = policy.load(tmp_path)
    assert loaded.agent == config.agent
    key = jax.random.key(3)
    played = evaluation.play(environment, loaded.network, params, key, None, 8)
    step = jax.jit(jax.vmap(environment.step))

    def lengths(remember):
        reset_key, _ = jax.random.split(key)
        state, observation = jax.vmap(environment.reset)(jax.random.split(reset_key, 8))
        memory, running, lengths = loaded.memory((8,)), np.ones(8, bool), np.zeros(8, int)
        while running.any():
            action, after = loaded.step(np.asarray(observation), memory)
            memory = after if remember else memory
            timestep = step(jax.random.split(key, 8), state, action)  # CartPole draws nothing.
            state, observation = timestep.state, timestep.observation
            lengths += running
            running &= ~np.asarray(timestep.terminated | timestep.truncated)
        return lengths

    np.testing.assert_array_equal(lengths(remember=True), played.lengths)
    assert (lengths(remember=False) != played.lengths).any()


@pytest.mark.skipif(
    importlib.util.find_spec("gymnasium") is None, reason="Gymnasium is not installed"
)
def test_plays_in_gymnasium_with_its_memory():
    from ppo_jax.playback.gymnasium import Gymnasium

    _, _, (_, last) = trained()
    loaded = policy.of(CONFIG, lane_weights(last.state, 0))
    returns, lengths = Gymnasium("CartPole-v1", loaded).play(3, seed=0, sample=True)
    np.testing.assert_array_equal(returns, lengths)
    assert (lengths > 5).all()


def test_acting_needs_the_memory(random_params):
    loaded = policy.of(CONFIG, Weights(random_params(make_network(AGENT, SPACES), (4,)), None))
    with pytest.raises(UserError, match=r"remembers \(gru\): .*policy\.step\(observation, memory"):
        loaded.act(np.zeros(4))
    with pytest.raises(UserError, match=r"memory must be that of policy\.memory\(\(3,\)\)"):
        loaded.step(np.zeros((3, 4)), loaded.memory())


SPACES = Spaces((4,), Discrete(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence_length": 5}, "steps of each environment .* sequence_length=5 with n_steps=96"),
        ({"sequence_length": 8}, "divide batch_size, .* sequence_length=8 with batch_size=12"),
        ({"sequence_length": 0}, "sequence_length must be an integer of at least 1, but got 0"),
        ({"hidden_sizes": ()}, "hidden_sizes must name at least one size for a gru"),
        ({"network": "gruu"}, "network must be one of .*, gru, lstm, but got 'gruu'.*'gru'"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(
            agent=AgentConfig(
                **{"num_envs": 4, "network": "gru", "sequence_length": 4, **settings}
            ),
            n_steps_choices=(96,),
            batch_size_choices=(12,),
        )


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(("network", "succeeds"), [("gru", True), ("lstm", True), ("mlp", False)])
def test_only_networks_that_remember_solve_a_task_of_memory(network, succeeds):
    config = TrainConfig(
        env="MemoryChain-bsuite",
        agent=AgentConfig(network=network),
        n_steps_choices=(1024,),
        batch_size_choices=(256,),
        eval_episodes=100,
    )
    hyperparameters = Hyperparameters(n_steps=1024, learning_rate=2e-3)
    programs = Programs(config, seeds=2)
    (last,) = programs.run(seed_keys(0, TRAINING, 2), hyperparameters, [40_000])
    # 1 for the right answer, -1 for the wrong one.
    assert (last.returns > 0.95).all() if succeeds else (np.abs(last.returns) < 0.5).all()
