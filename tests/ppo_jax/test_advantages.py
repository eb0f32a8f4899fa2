"""Advantages against the backwards recursion of the paper, in plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.advantages import generalized_advantage_estimation

T, N = 37, 3
GAMMA, LAMBDA = 0.97, 0.9

gae = jax.jit(generalized_advantage_estimation)


def backwards(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    advantages = np.zeros(rewards.shape)
    for n in range(rewards.shape[1]):
        following = 0.0
        for t in reversed(range(rewards.shape[0])):
            bootstrap = 0.0 if terminated[t, n] else next_values[t, n]
            if terminated[t, n] or truncated[t, n]:
                following = 0.0
            delta = rewards[t, n] + gamma * bootstrap - values[t, n]
            following = delta + gamma * gae_lambda * following
            advantages[t, n] = following
    return advantages, advantages + values


def rollout(seed=0, steps=T):
    random = np.random.default_rng(seed)
    return [random.normal(size=(steps, N)).astype(np.float32) for _ in range(3)]


def flags(kind, steps=T):
    random = np.random.default_rng(1)
    never = np.zeros((steps, N), bool)
    sometimes, others = (random.random((steps, N)) < 0.2 for _ in range(2))
    return {
        "never": (never, never),
        "terminated": (sometimes, never),
        "truncated": (never, sometimes),
        "either": (sometimes & ~others, others & ~sometimes),
        "both in the same step": (sometimes, sometimes),
        "any": (sometimes, others),
        "always terminated": (~never, never),
        "always truncated": (never, ~never),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "never",
        "terminated",
        "truncated",
        "either",
        "both in the same step",
        "any",
        "always terminated",
        "always truncated",
    ],
)
@pytest.mark.parametrize("gae_lambda", [0.0, LAMBDA, 1.0])
def test_equals_the_backwards_recursion(kind, gae_lambda):
    arrays = (*rollout(), *flags(kind))
    computed = gae(*arrays, GAMMA, gae_lambda)
    expected = backwards(*arrays, GAMMA, gae_lambda)
    for ours, theirs in zip(computed, expected, strict=True):
        assert ours.shape == (T, N)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 16, T])
def test_the_unused_tail_of_a_buffer_does_not_count(length):
    rewards, values, next_values = rollout()
    terminated, truncated = flags("any")
    arrays = (rewards, values, next_values, terminated, truncated)
    used = tuple(x[:length] for x in arrays)
    # Whatever a buffer holds after its last row, also no numbers at all.
    garbage = [np.where(np.arange(T)[:, None] < length, x, np.nan) for x in arrays[:3]]
    advantages, returns = gae(
        *garbage, terminated, truncated, GAMMA, LAMBDA, valid=jnp.arange(T) < length
    )
    expected = backwards(*used, GAMMA, LAMBDA)
    np.testing.assert_allclose(advantages[:length], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns[:length], expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(advantages[length:], 0)


@pytest.mark.parametrize("steps", [1, 2, 129])
def test_any_length(steps):
    arrays = (*rollout(steps=steps), *flags("any", steps))
    advantages, _ = gae(*arrays, GAMMA, LAMBDA)
    np.testing.assert_allclose(advantages, backwards(*arrays, GAMMA, LAMBDA)[0], atol=1e-5)


def test_one_environment_without_an_axis():
    arrays = (*rollout(), *flags("any"))
    batched, _ = gae(*arrays, GAMMA, LAMBDA)
    alone, _ = gae(*(x[:, 1] for x in arrays), GAMMA, LAMBDA, valid=jnp.ones(T, bool))
    np.testing.assert_allclose(alone, batched[:, 1], rtol=1e-6)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_nothing_leaks_over_the_end_of_an_episode(ending):
    rewards, values, next_values = rollout()
    end = np.zeros((T, N), bool)
    end[20] = True
    terminated, truncated = (end, ~end & False) if ending == "terminated" else (~end & False, end)

    def before(rewards, values, next_values):
        return gae(rewards, values, next_values, terminated, truncated, GAMMA, LAMBDA)[0][:21]

    later = np.arange(T)[:, None] > 20
    changed = before(*(np.where(later, x + 100, x) for x in (rewards, values, next_values)))
    np.testing.assert_array_equal(changed, before(rewards, values, next_values))


def test_bootstraps_at_a_truncation_and_not_at_a_termination():
    one, no, yes = jnp.ones((1, 1)), jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)

    def returns(terminated, truncated):
        values = gae(one, 3 * one, 10 * one, terminated, truncated, 0.5, LAMBDA)[1]
        return float(values[0, 0])

    assert returns(no, no) == 6.0
    assert returns(no, yes) == 6.0
    assert returns(yes, no) == 1.0
    assert returns(yes, yes) == 1.0
