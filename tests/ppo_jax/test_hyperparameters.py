"""Checking and converting hyperparameters."""

import dataclasses

import jax
import numpy as np
import pytest

from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import DOMAINS, Hyperparameters, require_hyperparameter


def test_defaults():
    assert Hyperparameters().to_dict() == {
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_epsilon": 0.2,
        "value_coef": 0.5,
        "entropy_coef": 0.01,
        "max_grad_norm": 0.5,
        "n_steps": 2048,
        "batch_size": 256,
        "n_epochs": 4,
        "target_kl": 0.0,
        "anneal_learning_rate": False,
        "anneal_entropy_coef": False,
        "clip_value_loss": True,
        "value_clip_epsilon": 0.0,
        "anneal_clip_epsilon": False,
        "learning_rate_end": 0.0,
        "entropy_coef_end": 0.0,
        "clip_epsilon_end": 0.0,
        "cosine_annealing": False,
        "normalize_advantages": True,
        "advantages_by_rollout": False,
        "critic_learning_rate": 1.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-5,
        "weight_decay": 0.0,
    }
    assert Hyperparameters().validated() == Hyperparameters()


def test_every_field_has_a_domain():
    assert list(DOMAINS) == [field.name for field in dataclasses.fields(Hyperparameters)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", 1.5),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", "fast"),
        ("learning_rate", None),
        ("learning_rate", True),
        ("gamma", -0.1),
        ("gamma", 1.01),
        ("gae_lambda", 1.01),
        ("clip_epsilon", 0),
        ("value_coef", -1),
        ("entropy_coef", -0.01),
        ("max_grad_norm", 0.0),
        ("n_steps", 0),
        ("n_steps", 2.5),
        ("n_steps", False),
        ("n_steps", 2**24 + 1),
        ("batch_size", 0),
        ("n_epochs", 0),
        ("target_kl", -0.01),
        ("n_epochs", "4"),
        ("anneal_learning_rate", 1),
        ("clip_value_loss", "true"),
        ("value_clip_epsilon", -0.1),
        ("learning_rate_end", -1.0),
        ("critic_learning_rate", -0.5),
        ("adam_beta1", 1.0),
        ("adam_beta2", 1.5),
        ("adam_epsilon", 0.0),
        ("weight_decay", -1e-4),
    ],
)
def test_values_outside_a_domain_are_refused_by_name(name, value):
    with pytest.raises(UserError) as refusal:
        Hyperparameters.from_dict({name: value})
    message = str(refusal.value)
    assert message.startswith(f"{name} must be {DOMAINS[name]}, but got ")
    assert message.endswith(repr(value))
    with pytest.raises(UserError, match=name):
        dataclasses.replace(Hyperparameters(), **{name: value}).validated()


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("gamma", 1, 1.0),
        ("gamma", 0, 0.0),
        ("gae_lambda", 0.0, 0.0),
        ("entropy_coef", 0, 0.0),
        ("n_epochs", 3.0, 3),
        ("n_steps", np.int64(64), 64),
        ("learning_rate", np.float32(0.5), 0.5),
        ("clip_value_loss", np.bool_(False), False),
    ],
)
def test_values_are_stored_as_plain_numbers(name, value, stored):
    result = getattr(Hyperparameters.from_dict({name: value}), name)
    assert result == stored
    assert type(result) is type(stored)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("learning_rte", "learning_rate"), ("GAMMA", "gamma"), ("n_step", "n_steps")],
)
def test_an_unknown_name_gets_the_nearest(name, suggestion):
    with pytest.raises(UserError, match=f"'{name}'; did you mean '{suggestion}'.*known: learning"):
        Hyperparameters.from_dict({name: 1})
    with pytest.raises(UserError, match="did you mean"):
        require_hyperparameter(name)


def test_dictionaries_go_both_ways():
    values = {"learning_rate": 1e-3, "n_steps": 64, "clip_value_loss": False}
    hyperparameters = Hyperparameters.from_dict(values)
    assert Hyperparameters.from_dict(hyperparameters.to_dict()) == hyperparameters
    assert hyperparameters.to_dict() == Hyperparameters().to_dict() | values


def test_arrays_have_one_signature_whatever_the_values():
    def signature(hyperparameters):
        return [(x.dtype, x.shape) for x in jax.tree.leaves(hyperparameters.to_arrays())]

    assert signature(Hyperparameters()) == signature(
        Hyperparameters(gamma=1, n_epochs=3.0, anneal_learning_rate=np.bool_(True))
    )
    assert len(jax.tree.leaves(Hyperparameters())) == len(DOMAINS)
    traces = []

    @jax.jit
    def twice(hyperparameters):
        traces.append(None)
        return hyperparameters.gamma * 2

    assert twice(Hyperparameters(gamma=0.5).to_arrays()) == 1
    assert twice(Hyperparameters(gamma=1, n_steps=64).to_arrays()) == 2
    assert len(traces) == 1


def test_hyperparameters_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Hyperparameters().gamma = 0.5
