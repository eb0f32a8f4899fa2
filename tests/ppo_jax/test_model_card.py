"""Model cards: metadata that the hub reads, and what a reader needs."""

import math

import numpy as np
import pytest
import yaml
from scipy import stats

from ppo_jax.config import AgentConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.model_card import may_be_replaced, render, returns_of_seeds

DESCRIPTION = {
    "environment": {"name": "CartPole-v1", "kwargs": {"max_steps_in_episode": 100}},
    "agent": AgentConfig(num_envs=8).to_dict(),
    "hyperparameters": Hyperparameters(gamma=0.98).to_dict(),
    "training": {"steps": 100_000, "seed": 2, "final_return": 99.5},
    "returns": returns_of_seeds([97.0, 98.0, 99.5, math.nan], 32),
    "versions": {"jax": "0.10.2", "ppo_jax": "0.1.0"},
}


def metadata(text):
    start, about, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(about)


def test_the_metadata_is_a_model_index():
    about = metadata(render(DESCRIPTION))
    assert about["library_name"] == "ppo_jax"
    assert {"reinforcement-learning", "CartPole-v1"} <= set(about["tags"])
    ((result,),) = [entry["results"] for entry in about["model-index"]]
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"] == {"name": "CartPole-v1", "type": "CartPole-v1"}
    (metric,) = result["metrics"]
    assert metric["type"] == "mean_reward"
    assert metric["value"] == 98.17


def test_the_interval_is_students():
    values = np.array([97.0, 98.0, 99.5])
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
    low, high = DESCRIPTION["returns"]["interval"]
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))
    text = render(DESCRIPTION)
    assert f"**98.2, 95% interval {low:.1f} to {high:.1f}**" in text
    assert "1 seed diverged" in text


def test_seeds_that_have_all_diverged_say_nothing():
    assert returns_of_seeds([math.nan, math.nan], 32) is None
    assert "model-index" not in metadata(render(DESCRIPTION | {"returns": None}))


def test_a_reader_finds_environment_command_and_versions():
    text = render(DESCRIPTION)
    assert "max_steps_in_episode = 100" in text
    assert (
        "python -m ppo_jax.train --env CartPole-v1 --env-kwargs max_steps_in_episode=100 "
        "--total-steps 100000 --num-envs 8 --gamma 0.98"
    ) in text
    assert "| jax | 0.10.2 |" in text
    assert "a single seed, with a return of 99.5." in text


@pytest.mark.parametrize("network", ["gru", "lstm"])
def test_a_policy_that_remembers_is_used_with_its_memory(network):
    text = render(DESCRIPTION | {"agent": AgentConfig(network=network).to_dict()})
    assert "memory = policy.memory()" in text
    assert "action, memory = policy.step(observation, memory)" in text
    assert ".act(" not in text


def test_a_return_that_is_no_number_is_left_out():
    training = DESCRIPTION["training"] | {"final_return": None}
    assert "These weights" not in render(DESCRIPTION | {"training": training})


def test_what_is_not_known_is_left_out():
    known = {k: DESCRIPTION[k] for k in ("environment", "agent", "versions")}
    text = render(known)
    assert "model-index" not in metadata(text)
    assert "ppo_jax.train" not in text
    assert may_be_replaced(text)
    assert may_be_replaced("\0" * len(text)), "as a power loss leaves it"
    assert not may_be_replaced("# Mine")


def test_names_cannot_break_the_metadata():
    hostile = {"name": "a: [b\n---\n# x", "kwargs": {}}
    about = metadata(render(DESCRIPTION | {"environment": hostile}))
    assert about["model-index"][0]["results"][0]["dataset"]["name"] == "a: [b\\n---\\n# x"
