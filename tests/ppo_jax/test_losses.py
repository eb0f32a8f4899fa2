"""The objective against plain NumPy, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.distributions import Categorical
from ppo_jax.losses import normalize, policy_loss, ppo_loss, value_loss

B, ACTIONS = 24, 3
COEFFICIENTS = {"clip_epsilon": 0.2, "value_coef": 0.7, "entropy_coef": 0.05}


def minibatch():
    random = np.random.default_rng(3)
    old_log_prob = np.log(random.uniform(0.2, 0.5, B))
    old_value = random.normal(size=B)
    return {
        "logits": random.normal(size=(B, ACTIONS)),
        "value": old_value + random.normal(scale=0.4, size=B),
        "action": random.integers(0, ACTIONS, B),
        "old_log_prob": old_log_prob,
        "old_value": old_value,
        "advantages": random.normal(size=B),
        "returns": old_value + random.normal(size=B),
    }


def reference(logits, value, batch, clip_value_loss, value_clip_epsilon=None):
    """Loss and metrics, a transition at a time, in float64."""
    epsilon = COEFFICIENTS["clip_epsilon"]
    width = value_clip_epsilon or epsilon
    surrogates, errors, entropies, kls, clipped = [], [], [], [], []
    for i in range(B):
        probabilities = np.exp(logits[i]) / np.exp(logits[i]).sum()
        ratio = probabilities[batch["action"][i]] / np.exp(batch["old_log_prob"][i])
        advantage = batch["advantages"][i]
        if advantage >= 0:
            surrogates.append(min(ratio, 1 + epsilon) * advantage)
        else:
            surrogates.append(max(ratio, 1 - epsilon) * advantage)
        error = (value[i] - batch["returns"][i]) ** 2
        if clip_value_loss:
            low, high = batch["old_value"][i] - width, batch["old_value"][i] + width
            error = max(error, (min(max(value[i], low), high) - batch["returns"][i]) ** 2)
        errors.append(error)
        entropies.append(-(probabilities * np.log(probabilities)).sum())
        kls.append((ratio - 1) - np.log(ratio))
        clipped.append(not 1 - epsilon <= ratio <= 1 + epsilon)
    metrics = {
        "policy_loss": -np.mean(surrogates),
        "value_loss": np.mean(errors) / 2,
        "entropy": np.mean(entropies),
        "approx_kl": np.mean(kls),
        "clip_fraction": np.mean(clipped),
    }
    loss = (
        metrics["policy_loss"]
        + COEFFICIENTS["value_coef"] * metrics["value_loss"]
        - COEFFICIENTS["entropy_coef"] * metrics["entropy"]
    )
    return loss, metrics


def ours(logits, value, batch, clip_value_loss, value_clip_epsilon=0.0):
    batch = {name: jnp.asarray(x) for name, x in batch.items()}
    return ppo_loss(
        log_prob=Categorical(logits.shape[-1]).log_prob(logits, batch["action"]),
        old_log_prob=batch["old_log_prob"],
        advantages=batch["advantages"],
        entropy=Categorical(logits.shape[-1]).entropy(logits),
        value=value,
        old_value=batch["old_value"],
        returns=batch["returns"],
        clip_value_loss=clip_value_loss,
        value_clip_epsilon=value_clip_epsilon,
        **COEFFICIENTS,
    )


@pytest.mark.parametrize("value_clip", [(True, 0.0), (True, 0.07), (True, 1e3), (False, 0.07)])
def test_loss_and_metrics(value_clip):
    batch = minibatch()
    logits, value = jnp.asarray(batch["logits"]), jnp.asarray(batch["value"])
    loss, metrics = ours(logits, value, batch, *value_clip)
    expected_loss, expected = reference(batch["logits"], batch["value"], batch, *value_clip)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert metrics._asdict() == pytest.approx(expected, rel=1e-4)
    assert 0 < expected["clip_fraction"] < 1, "the batch does not exercise the clip"


@pytest.mark.parametrize("clip_value_loss", [True, False])
@pytest.mark.parametrize("argument", ["logits", "value"])
def test_gradient_equals_finite_differences(argument, clip_value_loss):
    batch = minibatch()

    def loss(x):
        logits, value = {**batch, argument: x}["logits"], {**batch, argument: x}["value"]
        return reference(logits, value, batch, clip_value_loss)[0]

    expected = np.zeros_like(batch[argument])
    for index in np.ndindex(expected.shape):
        step = np.zeros_like(expected)
        step[index] = 1e-6
        expected[index] = (loss(batch[argument] + step) - loss(batch[argument] - step)) / 2e-6

    gradient = jax.grad(ours, argnums=["logits", "value"].index(argument), has_aux=True)
    logits, value = jnp.asarray(batch["logits"]), jnp.asarray(batch["value"])
    computed, _ = gradient(logits, value, batch, clip_value_loss)
    np.testing.assert_allclose(computed, expected, rtol=1e-3, atol=1e-6)


def test_the_two_value_losses_differ():
    batch = minibatch()
    clipped, plain = (
        reference(batch["logits"], batch["value"], batch, c)[0] for c in (True, False)
    )
    assert abs(clipped - plain) > 1e-3, "the batch does not exercise the value clip"


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),  # Moved far enough towards a good action: no more gradient.
        (0.5, 2.0, 1.0, 1.0),  # Moved away from a good action: all of it.
        (0.5, -2.0, -1.6, 0.0),
        (1.5, -2.0, -3.0, -3.0),
    ],
)
def test_the_surrogate_is_pessimistic(ratio, advantage, expected, slope):
    def surrogate(log_prob):
        return -policy_loss(log_prob, jnp.zeros(1), jnp.array([advantage]), 0.2)

    value, gradient = jax.value_and_grad(surrogate)(jnp.log(jnp.array([ratio])))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "clip", "expected", "slope"),
    [
        (0.1, True, 0.5 * 0.9**2, -0.9),
        (0.5, True, 0.5 * 0.8**2, 0.0),  # Beyond the clip, towards the target.
        (0.5, False, 0.5 * 0.5**2, -0.5),
        (-0.5, True, 0.5 * 1.5**2, -1.5),  # Beyond the clip, away from the target.
    ],
)
def test_the_value_loss_is_pessimistic(value, clip, expected, slope):
    def loss(value):
        return value_loss(value, jnp.zeros(1), jnp.ones(1), 0.2, clip)

    computed, gradient = jax.value_and_grad(loss)(jnp.array([value]))
    np.testing.assert_allclose(computed, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6)


def test_the_switch_of_the_value_clip_can_be_traced():
    batch = minibatch()
    arrays = [jnp.asarray(batch[name]) for name in ("value", "old_value", "returns")]
    losses = jax.jit(jax.vmap(lambda clip: value_loss(*arrays, 0.2, clip)))(
        jnp.array([True, False])
    )
    expected = [reference(batch["logits"], batch["value"], batch, c)[1] for c in (True, False)]
    np.testing.assert_allclose(losses, [e["value_loss"] for e in expected], rtol=1e-5)


def test_nothing_has_moved_before_the_first_update():
    batch = minibatch()
    log_prob = jnp.asarray(batch["old_log_prob"])
    zeros = jnp.zeros(B)
    _, metrics = ppo_loss(
        log_prob=log_prob,
        old_log_prob=log_prob,
        advantages=jnp.asarray(batch["advantages"]),
        entropy=zeros,
        value=zeros,
        old_value=zeros,
        returns=zeros,
        clip_value_loss=True,
        **COEFFICIENTS,
    )
    assert metrics.approx_kl == 0
    assert metrics.clip_fraction == 0
    np.testing.assert_allclose(metrics.policy_loss, -batch["advantages"].mean(), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_approximate_kl_is_never_negative(seed):
    log_prob, old_log_prob = jax.random.normal(jax.random.key(seed), (2, B)) * 1e-3
    zeros = jnp.zeros(B)
    _, metrics = ppo_loss(
        log_prob=log_prob,
        old_log_prob=old_log_prob,
        advantages=zeros,
        entropy=zeros,
        value=zeros,
        old_value=zeros,
        returns=zeros,
        clip_value_loss=True,
        **COEFFICIENTS,
    )
    assert metrics.approx_kl >= 0


def test_advantages_are_normalised_to_mean_zero_and_deviation_one():
    advantages = np.random.default_rng(0).normal(5, 3, 256).astype(np.float32)
    expected = (advantages - advantages.mean()) / advantages.std()
    np.testing.assert_allclose(normalize(advantages), expected, atol=1e-5)


def test_equal_advantages_become_zero():
    np.testing.assert_array_equal(normalize(jnp.full(16, 3.0)), 0)


def test_a_single_advantage_stays_as_it_is():
    np.testing.assert_array_equal(normalize(jnp.full(1, 3.0)), 3)
    of_two = normalize(jnp.array([3.0, 5.0]), jnp.array([True, False]))
    np.testing.assert_array_equal(of_two[0], 3)
