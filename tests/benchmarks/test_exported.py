"""What exported configurations reach elsewhere: the table and the command line."""

import pytest

from benchmarks.exported import CONFIGURATIONS, result_table
from ppo_jax.environments.base import Continuous, Discrete, Spaces
from ppo_jax.export import writing

SPACES = {
    "CartPole-v1": Spaces((4,), Discrete(2)),
    "Pendulum-v1": Spaces((3,), Continuous((-2.0,), (2.0,))),
}


def test_a_difference_is_judged_by_its_interval():
    near = {"env": "a", "steps": 1000, "ours": [1.0, 2.0, 3.0], "theirs": [1.5, 2.5, 3.5]}
    far = near | {"theirs": [101.0, 102.0, 103.0]}
    first, second = result_table([near, far]).rows
    assert first[4].startswith("+0.5 (-1.8")
    assert (first[5], second[5]) == ("yes", "no")


@pytest.mark.parametrize("env", CONFIGURATIONS)
def test_the_configurations_are_carried_in_full(env):
    text = writing.sb3(writing.Source.of(CONFIGURATIONS[env], SPACES[env]))
    assert "no counterpart" not in text


def test_a_mistake_is_one_line(refusal):
    assert "did you mean 'CartPole-v1'?" in refusal("benchmarks.exported", "--envs", "CartPol-v1")
