"""Training against a plain PPO, written for static shapes with Python loops."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppo_jax import trainer
from ppo_jax.config import AgentConfig, TrainConfig, config_for, iterations_for
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.learner import shuffle
from ppo_jax.rollout import Transition

NUM_ENVS = 4
# Limits by which some episodes are cut off and others have ended before.
STATIC = {
    "env_kwargs": (("max_steps_in_episode", 11), ("theta_threshold_radians", 0.15)),
    "agent": AgentConfig(num_envs=NUM_ENVS, hidden_sizes=(16,)),
}
CONFIG = TrainConfig(n_steps_choices=(32, 64, 128), batch_size_choices=(16, 32), **STATIC)

COMMON = {"learning_rate": 3e-3, "gamma": 0.9, "gae_lambda": 0.8, "max_grad_norm": 0.3}
SETTINGS = {
    "short": Hyperparameters(**COMMON, n_steps=32, batch_size=16, n_epochs=3),
    "middle": Hyperparameters(
        **COMMON,
        n_steps=64,
        batch_size=32,
        n_epochs=2,
        clip_epsilon=0.02,
        value_coef=1.5,
        entropy_coef=0.3,
        anneal_learning_rate=True,
        anneal_entropy_coef=True,
    ),
    "long": Hyperparameters(
        **COMMON, n_steps=128, batch_size=16, n_epochs=1, clip_value_loss=False, clip_epsilon=0.1
    ),
    # All that is off by default.
    "other": Hyperparameters(
        **COMMON,
        n_steps=64,
        batch_size=32,
        n_epochs=3,
        clip_epsilon=0.1,
        entropy_coef=0.2,
        value_clip_epsilon=0.05,
        anneal_learning_rate=True,
        anneal_entropy_coef=True,
        anneal_clip_epsilon=True,
        learning_rate_end=0.4,
        entropy_coef_end=3.0,
        clip_epsilon_end=0.2,
        cosine_annealing=True,
        advantages_by_rollout=True,
        critic_learning_rate=3.0,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-3,
        weight_decay=1.0,
    ),
}


# Most of the time goes into compiling.
QUICK = {"xla_backend_optimization_level": 0}


@cache
def traced(config=CONFIG):
    return jax.jit(partial(trainer.train_until, config), compiler_options=QUICK)


@cache
def start(seed=7, config=CONFIG):
    return jax.jit(partial(trainer.init, config))(jax.random.key(seed))


def train(hyperparameters, target=2, total=4, state=None, config=CONFIG):
    return traced(config)(
        start() if state is None else state,
        hyperparameters.to_arrays(),
        np.int32(target),
        np.int32(total),
    )


def assert_close(one, other, rtol=1e-3, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def largest_difference(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)))


# The reference: one environment step, one minibatch, one line after the other.


@jax.jit
def forward(params, observation):
    def mlp(layers):
        hidden = jnp.tanh(observation @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
        return hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]

    return mlp(params["params"]["actor"]), mlp(params["params"]["critic"])[..., 0]


def reference_loss(params, batch, hyperparameters, entropy_coef, clip_epsilon):
    h = hyperparameters
    logits, value = forward(params, batch["observation"])
    probabilities = jax.nn.softmax(logits)
    taken = probabilities[jnp.arange(len(logits)), batch["action"]]
    ratio = taken / jnp.exp(batch["log_prob"])
    advantage = batch["advantage"]
    if not h.advantages_by_rollout:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    bound = jnp.where(advantage > 0, 1 + clip_epsilon, 1 - clip_epsilon) * advantage
    actor_loss = -jnp.minimum(ratio * advantage, bound).mean()
    error = (value - batch["returns"]) ** 2
    if h.clip_value_loss:
        width = h.value_clip_epsilon or clip_epsilon
        low, high = batch["value"] - width, batch["value"] + width
        error = jnp.maximum(error, (jnp.clip(value, low, high) - batch["returns"]) ** 2)
    entropy = -(probabilities * jnp.log(probabilities)).sum(-1).mean()
    return actor_loss + h.value_coef * error.mean() / 2 - entropy_coef * entropy


ENVIRONMENT = make(CONFIG.env, CONFIG.env_kwargs)


@jax.jit
def reference_step(params, actors, key):
    env_state, observation = actors
    action_key, env_key, reset_key = jax.random.split(key, 3)
    logits, value = forward(params, observation)
    action = jax.random.categorical(action_key, logits)
    timestep = jax.vmap(ENVIRONMENT.step)(jax.random.split(env_key, NUM_ENVS), env_state, action)
    row = {
        "observation": observation,
        "action": action,
        "log_prob": jax.nn.log_softmax(logits)[jnp.arange(NUM_ENVS), action],
        "value": value,
        "next_value": forward(params, timestep.observation)[1],
        "reward": timestep.reward,
        "terminated": timestep.terminated,
        "truncated": timestep.truncated,
    }
    starts = [ENVIRONMENT.reset(its_key) for its_key in jax.random.split(reset_key, NUM_ENVS)]
    return (timestep.state, timestep.observation), row, starts


def reference_rollout(params, actors, key, length):
    rows = []
    for t in range(length):
        step_key = jax.random.fold_in(key, t)
        actors, row, starts = jax.tree.map(np.array, reference_step(params, actors, step_key))
        for n in range(NUM_ENVS):
            if row["terminated"][n] or row["truncated"][n]:
                for all_envs, new in zip(*map(jax.tree.leaves, (actors, starts[n])), strict=True):
                    all_envs[n] = new
        rows.append(row)
    return actors, {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def reference_advantages(rollout, gamma, gae_lambda):
    advantages = np.zeros_like(rollout["reward"])
    for n in range(NUM_ENVS):
        following = 0.0
        for t in reversed(range(len(advantages))):
            terminated = rollout["terminated"][t, n]
            delta = rollout["reward"][t, n] - rollout["value"][t, n]
            if not terminated:
                delta += gamma * rollout["next_value"][t, n]
            if terminated or rollout["truncated"][t, n]:
                following = 0.0
            following = delta + gamma * gae_lambda * following
            advantages[t, n] = following
    return advantages


class ReferenceAdam:
    def __init__(self, params):
        self.steps = 0
        self.first = jax.tree.map(np.zeros_like, params)
        self.second = jax.tree.map(np.zeros_like, params)

    def step(self, params, gradient, learning_rate, h):
        self.steps += 1
        b1, b2 = h.adam_beta1, h.adam_beta2
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g: g * min(1.0, h.max_grad_norm / norm), gradient)
        self.first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, self.first, gradient)
        self.second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, self.second, gradient)
        bias_1, bias_2 = 1 - b1**self.steps, 1 - b2**self.steps

        def moved(path, p, m, v):
            critic = "critic" in jax.tree_util.keystr(path)
            step_size = learning_rate * (h.critic_learning_rate if critic else 1)
            direction = (m / bias_1) / (np.sqrt(v / bias_2) + h.adam_epsilon)
            return p - step_size * (direction + h.weight_decay * p)

        moments = self.first, self.second
        return jax.tree_util.tree_map_with_path(moved, params, *moments), norm


def reference_rate(h, name, progress):
    """Return a rate of an iteration that begins at `progress` of the training."""
    start = getattr(h, name)
    if not getattr(h, f"anneal_{name}"):
        return start
    end = start * getattr(h, f"{name}_end")
    if h.cosine_annealing:
        return end + (start - end) * (1 + np.cos(np.pi * progress)) / 2
    return start + (end - start) * progress


@cache
def reference_ppo(h, iterations, total):
    """Train from ``start()``; return parameters and everything that was collected."""
    state = start()
    params = jax.tree.map(np.asarray, state.params)
    actors = state.actors.env_state, state.actors.observation
    adam, history = ReferenceAdam(params), []
    gradient_of = jax.jit(
        jax.grad(lambda params, batch, *rates: reference_loss(params, batch, h, *rates))
    )
    for iteration in range(iterations):
        learning_rate, *rates = (
            reference_rate(h, name, iteration / total)
            for name in ("learning_rate", "entropy_coef", "clip_epsilon")
        )
        rollout_key, shuffle_key = jax.random.split(jax.random.fold_in(state.key, iteration))
        actors, rollout = reference_rollout(params, actors, rollout_key, h.n_steps // NUM_ENVS)
        rollout["advantage"] = reference_advantages(rollout, h.gamma, h.gae_lambda)
        rollout["returns"] = rollout["advantage"] + rollout["value"]
        if h.advantages_by_rollout:
            centred = rollout["advantage"] - rollout["advantage"].mean()
            rollout["advantage"] = centred / (rollout["advantage"].std() + 1e-8)
        history.append(rollout)
        rows = {name: x.reshape(h.n_steps, *x.shape[2:]) for name, x in rollout.items()}
        norms = []
        for epoch in range(h.n_epochs):
            order = np.asarray(shuffle(jax.random.fold_in(shuffle_key, epoch), h.n_steps))
            for first in range(0, h.n_steps, h.batch_size):
                chosen = order[first : first + h.batch_size]
                batch = {name: x[chosen] for name, x in rows.items()}
                gradient = jax.tree.map(np.asarray, gradient_of(params, batch, *rates))
                params, norm = adam.step(params, gradient, learning_rate, h)
                norms.append(norm)
        rollout["norms"] = np.array(norms)
    return params, history


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_a_plain_ppo(name):
    hyperparameters = SETTINGS[name]
    expected, history = reference_ppo(hyperparameters, iterations=2, total=4)
    # What would be wrong otherwise has to occur.
    assert any(rollout["terminated"].any() for rollout in history)
    assert any(rollout["truncated"].any() for rollout in history)
    norms = np.concatenate([rollout["norms"] for rollout in history])
    assert (norms > hyperparameters.max_grad_norm).any()
    state, _ = train(hyperparameters)
    assert largest_difference(start().params, expected) > 0.01
    assert_close(state.params, expected)
    assert state.iteration == 2
    assert state.finite


def test_metrics_of_training_equal_those_of_a_plain_ppo():
    hyperparameters = SETTINGS["short"]
    _, history = reference_ppo(hyperparameters, iterations=2, total=4)
    _, metrics = train(hyperparameters)
    explained = [1 - h["advantage"].var() / h["returns"].var() for h in history]
    np.testing.assert_allclose(metrics.explained_variance, np.mean(explained), rtol=1e-3)
    ended = np.concatenate([h["terminated"] | h["truncated"] for h in history])
    assert metrics.episodes == ended.sum()
    # CartPole pays one a step.
    lengths = []
    for column in ended.T:
        ends = np.flatnonzero(column) + 1
        lengths += list(np.diff(ends, prepend=0))
    np.testing.assert_allclose(metrics.episode_length, np.mean(lengths), rtol=1e-6)
    np.testing.assert_allclose(metrics.episodic_return, np.mean(lengths), rtol=1e-6)


@pytest.mark.parametrize("name", ["short", pytest.param("long", marks=pytest.mark.slow)])
def test_traced_shapes_equal_static_shapes(name):
    hyperparameters = SETTINGS[name]
    static = config_for(hyperparameters, **STATIC)
    ours, our_metrics = train(hyperparameters)
    theirs, their_metrics = train(hyperparameters, config=static)
    assert_close(ours.params, theirs.params)
    assert_close(ours.optimizer_state, theirs.optimizer_state, atol=1e-4)
    assert_close(ours.actors.observation, theirs.actors.observation)
    assert_close(our_metrics, their_metrics, rtol=5e-3)


def test_different_configurations_side_by_side_equal_each_alone():
    states = [start(1), start(2), start(3), start(4)]
    settings = list(SETTINGS.values())
    targets, totals = np.array([3, 1, 2, 2], np.int32), np.array([4, 4, 2, 2], np.int32)

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    train_all = jax.vmap(partial(trainer.train_until, CONFIG))
    together, metrics = jax.jit(train_all, compiler_options=QUICK)(
        stack(states), stack([s.to_arrays() for s in settings]), targets, totals
    )
    for lane, (state, setting) in enumerate(zip(states, settings, strict=True)):
        alone, its_metrics = train(setting, targets[lane], totals[lane], state)
        ours, our_metrics = jax.tree.map(lambda x, lane=lane: x[lane], (together, metrics))
        assert ours.iteration == targets[lane]
        assert_close(ours.params, alone.params)
        assert_close(ours.actors.observation, alone.actors.observation)
        assert_close(our_metrics, its_metrics, rtol=5e-3)


@pytest.mark.parametrize("name", ["short", "middle"])
def test_two_calls_equal_one(name):
    at_once, metrics = train(SETTINGS[name], target=4)
    first, first_metrics = train(SETTINGS[name], target=1)
    then, then_metrics = train(SETTINGS[name], target=4, state=first)
    for one, other in zip(jax.tree.leaves(at_once), jax.tree.leaves(then), strict=True):
        assert jnp.array_equal(one, other)
    # Metrics are means over the iterations of a call.
    np.testing.assert_allclose(
        metrics.loss,
        (np.array(first_metrics.loss) + 3 * np.array(then_metrics.loss)) / 4,
        rtol=1e-5,
    )
    assert metrics.episodes == first_metrics.episodes + then_metrics.episodes


def test_training_is_repeatable_and_depends_on_the_key():
    one, again = (train(SETTINGS["short"])[0] for _ in range(2))
    assert largest_difference(one.params, again.params) == 0
    state = dataclasses.replace(start(), key=start(8).key)
    other, _ = train(SETTINGS["short"], state=state)
    assert largest_difference(one.params, other.params) > 1e-3


RATES = {"learning_rate": 0.5, "entropy_coef": 0.25, "clip_epsilon": 0.125}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("end", [0.0, 0.25, 2.0])
@pytest.mark.parametrize(
    "shape", [optax.linear_schedule, optax.cosine_decay_schedule, optax.constant_schedule]
)
def test_annealed_rates_equal_the_schedules_of_optax(name, end, shape):
    hyperparameters = Hyperparameters(
        **RATES,
        **{f"anneal_{name}": shape is not optax.constant_schedule, f"{name}_end": end},
        cosine_annealing=shape is optax.cosine_decay_schedule,
    ).to_arrays()
    start = RATES[name]
    expected = {
        optax.linear_schedule: lambda: shape(start, start * end, 8),
        optax.cosine_decay_schedule: lambda: shape(start, 8, alpha=end),
        optax.constant_schedule: lambda: shape(start),
    }[shape]()
    for iteration in (0, 1, 4, 7, 8):
        rates = trainer.annealed(hyperparameters, jnp.float32(iteration / 8))
        np.testing.assert_allclose(getattr(rates, name), expected(iteration), atol=1e-7)
        others = vars(rates).keys() - {name}
        assert all(getattr(rates, n) is getattr(hyperparameters, n) or n in RATES for n in others)
        for other in RATES.keys() - {name}:
            assert getattr(rates, other) == RATES[other]


@pytest.mark.parametrize("name", ["anneal_learning_rate", "anneal_entropy_coef"])
def test_annealing_follows_the_horizon_only_where_it_is_on(name):
    on = dataclasses.replace(SETTINGS["short"], entropy_coef=0.5, **{name: True})
    off = dataclasses.replace(on, **{name: False})
    annealed, longer, plain, plain_longer = (
        train(h, target=2, total=total)[0].params for h in (on, off) for total in (2, 200)
    )
    assert largest_difference(annealed, longer) > 1e-4
    assert largest_difference(annealed, plain) > 1e-4
    assert largest_difference(plain, plain_longer) == 0


def test_annealing_of_the_learning_rate_is_linear_over_the_whole_horizon():
    # With one epoch and one minibatch, an iteration moves a parameter by at most about the
    # rate, and Adam's steps come near it while the gradient keeps its sign.
    hyperparameters = dataclasses.replace(
        SETTINGS["short"], batch_size=32, n_epochs=1, anneal_learning_rate=True
    )
    total, moves = 8, []
    state = start()
    for target in range(1, total + 1):
        new, _ = train(hyperparameters, target, total, state)
        moves.append(largest_difference(new.params, state.params) / hyperparameters.learning_rate)
        state = new
    rates = 1 - np.arange(total) / total
    assert moves[0] == pytest.approx(1.0, rel=0.02)
    assert (np.array(moves) > 0.3 * rates).all()
    assert (np.array(moves) < 1.7 * rates).all()


prepare = jax.jit(partial(trainer.prepare, CONFIG))


def buffer(reward, value, next_value):
    shape = reward.shape
    zeros, no = jnp.zeros(shape), jnp.zeros(shape, bool)
    return Transition(
        observation=jnp.zeros((*shape, 4)),
        action=jnp.zeros(shape, jnp.int32),
        log_prob=zeros,
        reward=jnp.asarray(reward),
        terminated=no,
        truncated=no,
        value=jnp.asarray(value),
        next_value=jnp.asarray(next_value),
    )


def test_explained_variance_is_that_of_the_collected_part():
    random = np.random.default_rng(0)
    reward, value, next_value = random.normal(size=(3, CONFIG.max_n_steps // NUM_ENVS, NUM_ENVS))
    hyperparameters = dataclasses.replace(SETTINGS["middle"])
    rows = hyperparameters.n_steps // NUM_ENVS
    _, explained = prepare(buffer(reward, value, next_value), hyperparameters.to_arrays())
    no = np.zeros((rows, NUM_ENVS), bool)
    rollout = {
        "reward": reward[:rows],
        "value": value[:rows],
        "next_value": next_value[:rows],
        "terminated": no,
        "truncated": no,
    }
    advantages = reference_advantages(rollout, hyperparameters.gamma, hyperparameters.gae_lambda)
    returns = advantages + value[:rows]
    expected = 1 - np.var(returns - value[:rows]) / np.var(returns)
    np.testing.assert_allclose(explained, expected, rtol=1e-4)


def test_explained_variance_of_constant_returns_is_zero():
    zeros = np.zeros((CONFIG.max_n_steps // NUM_ENVS, NUM_ENVS))
    _, explained = prepare(buffer(zeros, zeros, zeros), SETTINGS["short"].to_arrays())
    assert explained == 0


def test_experience_is_time_major():
    reward = np.arange(CONFIG.max_n_steps, dtype=np.float32).reshape(-1, NUM_ENVS)
    zeros = np.zeros_like(reward)
    hyperparameters = Hyperparameters(gae_lambda=0.0, n_steps=64)
    experience, _ = prepare(buffer(reward, zeros, zeros), hyperparameters.to_arrays())
    np.testing.assert_array_equal(experience.advantage[:64], np.arange(64))
    np.testing.assert_array_equal(experience.advantage[64:], 0)
    assert experience.observation.shape == (CONFIG.max_n_steps, 4)


def test_a_nan_parameter_is_noticed():
    params = jax.tree.map(jnp.array, start().params)
    params["params"]["critic"]["Dense_1"]["bias"] = jnp.array([jnp.nan])
    state, _ = train(SETTINGS["short"], state=dataclasses.replace(start(), params=params))
    assert not state.finite


def test_an_infinite_learning_rate_is_noticed():
    infinite = dataclasses.replace(SETTINGS["short"], learning_rate=np.inf)
    state, _ = train(infinite, target=1)
    assert not state.finite


def test_a_diverged_seed_stays_diverged():
    state = dataclasses.replace(start(), finite=jnp.array(False))
    assert not train(SETTINGS["short"], state=state)[0].finite


@pytest.mark.parametrize(
    ("steps", "n_steps", "iterations"),
    [(1, 2048, 1), (2048, 2048, 1), (2049, 2048, 2), (10**12, 1024, 976_562_500)],
)
def test_iterations_reach_the_steps_at_the_least(steps, n_steps, iterations):
    assert iterations_for(steps, n_steps) == iterations


def test_initial_state():
    state = start()
    assert state.iteration == 0
    assert state.finite
    assert state.actors.observation.shape == (NUM_ENVS, 4)
    assert len(np.unique(state.actors.observation[:, 0])) == NUM_ENVS
    assert largest_difference(start(1).params, start(2).params) > 0.01


def test_more_iterations_than_can_be_counted_are_refused():
    assert iterations_for(16 * (2**31 - 2), 16) == 2**31 - 2
    with pytest.raises(UserError, match=r"at most 34,359,738,336 .* n_steps=16, but got 1,000"):
        iterations_for(10**12, 16)
