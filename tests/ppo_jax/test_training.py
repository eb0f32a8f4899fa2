"""``ppo_jax.train(...)``, as a script calls it."""

import dataclasses
import json
import re
import sys
import types

import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

import ppo_jax
from examples.own_network import SharedNetwork
from ppo_jax.config import AgentConfig, ask_for
from ppo_jax.environments import make, name_of
from ppo_jax.errors import UserError
from ppo_jax.export.reading import read
from ppo_jax.files import held
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.imports import imported
from ppo_jax.notebook import card
from ppo_jax.training import Training

SMALL = {
    "env_kwargs": {"max_steps_in_episode": 50},
    "total_steps": 2048,
    "seeds": 3,
    "eval_every": 512,
    "eval_episodes": 4,
    "n_steps": 512,
    "batch_size": 64,
    "num_envs": 4,
    "hidden_sizes": [4],
    "clip_value_loss": False,
}


@pytest.fixture(scope="module")
def result():
    return ppo_jax.train(CartPole, **SMALL)


def test_a_result_holds_curves_and_policies(result):
    assert result.steps.tolist() == [512, 1024, 1536, 2048]
    assert result.returns.shape == (4, 3)
    np.testing.assert_allclose(result.mean_returns, result.returns.mean(axis=1))
    assert result.hyperparameters == Hyperparameters(
        n_steps=512, batch_size=64, clip_value_loss=False
    )
    assert result.config.env_kwargs == (("max_steps_in_episode", 50),)
    assert result.config.agent.hidden_sizes == (4,)
    assert result.best_seed == result.returns[-1].argmax()
    assert "3 seeds × 2,048 steps" in repr(result)
    observations = np.random.default_rng(0).normal(size=(200, 4))
    actions = [policy.act(observations) for policy in result.policies]
    assert not (actions[0] == actions[1]).all() or not (actions[0] == actions[2]).all()
    np.testing.assert_array_equal(
        result.policy.act(observations), actions[result.returns[-1].argmax()]
    )


def test_what_is_saved_is_what_the_command_writes(result, tmp_path, command):
    done = command(
        *("ppo_jax.train", "--env", result.config.env, "--env-kwargs", "max_steps_in_episode=50"),
        *("--total-steps", 2048, "--seeds", 3, "--eval-every", 512, "--eval-episodes", 4),
        *("--n-steps", 512, "--batch-size", 64, "--num-envs", 4, "--hidden-sizes", 4),
        *("--no-clip-value-loss", "--output", tmp_path / "command"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("steps  return" in line for line in lines) == 4
    assert "final return" in lines[-1]
    result.save(tmp_path / "function")
    files = ("training.json", "policy/policy.json")
    theirs, ours = (
        [json.loads((tmp_path / name / file).read_text()) for file in files]
        for name in ("command", "function")
    )
    assert ours[0].keys() == theirs[0].keys()
    assert ours[1].keys() == theirs[1].keys()
    for name in ("hyperparameters", "config", "seeds", "steps", "environment_steps_per_seed"):
        assert ours[0][name] == theirs[0][name]
    np.testing.assert_allclose(ours[0]["returns"], theirs[0]["returns"])
    assert ours[1]["training"] == pytest.approx(theirs[1]["training"])
    assert np.max(theirs[0]["returns"]) <= 50
    for name in ("command", "function"):
        content = (tmp_path / name / "learning_curve.png").read_bytes()
        assert content.startswith(b"\x89PNG")
    loaded = ppo_jax.policy.load(tmp_path / "function" / "policy")
    observations = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(loaded.act(observations), result.policy.act(observations))


def test_what_a_run_was_trained_with_can_be_exported(result, tmp_path):
    result.save(tmp_path)
    found, notes = read(tmp_path / "training.json")
    assert (found.env, dict(found.env_kwargs)) == (result.config.env, SMALL["env_kwargs"])
    assert found.hyperparameters == result.hyperparameters
    assert (found.agent, found.total_steps, notes) == (result.config.agent, 2048, ())


def test_results_of_another_run_are_not_overwritten(result, tmp_path):
    result.save(tmp_path)
    result.save(tmp_path)
    with pytest.raises(UserError, match=r"seeds.root = 0, but got 1; choose another folder"):
        ppo_jax.train(CartPole, **SMALL, seed=1, output=tmp_path)


def test_a_callback_stops_and_the_same_call_goes_on(result, tmp_path, capsys):
    seen = []

    def stop(checkpoint):
        seen.append(checkpoint)
        return checkpoint.step == 1024

    stopped = ppo_jax.train(CartPole, **SMALL, output=tmp_path, callback=stop)
    assert [checkpoint.step for checkpoint in seen] == [512, 1024] == stopped.steps.tolist()
    assert seen[0].metrics.loss.entropy.shape == (3,)
    np.testing.assert_array_equal(stopped.returns, result.returns[:2])
    assert stopped.policy.description["training"]["steps"] == 1024
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "--total-steps 2048" in card
    assert "The run was stopped after 1,024 steps." in card
    assert capsys.readouterr().out == ""
    whole = ppo_jax.train(CartPole, **SMALL, output=tmp_path, callback=seen.append, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"[\d,]+ steps", line)[0] for line in lines] == [
        *("2,048 steps", "1,024 steps", "1,536 steps", "2,048 steps")
    ]
    assert lines[1] == "going on after 1,024 steps"
    assert [checkpoint.step for checkpoint in seen[2:]] == [1536, 2048]
    np.testing.assert_array_equal(whole.returns, result.returns)
    assert "stopped" not in (tmp_path / "policy" / "README.md").read_text()
    for ours, theirs in zip(whole.policies, result.policies, strict=True):
        np.testing.assert_array_equal(
            ours.weights.params["params"]["actor"]["Dense_0"]["kernel"],
            theirs.weights.params["params"]["actor"]["Dense_0"]["kernel"],
        )


def test_a_folder_where_another_process_trains_is_refused(tmp_path):
    with (
        held(tmp_path / ".lock", ""),
        pytest.raises(UserError, match="another process is training"),
    ):
        ppo_jax.train(CartPole, **SMALL, output=tmp_path)


def test_the_best_seed_has_not_diverged(result):
    returns = np.array([[5.0, np.inf, 7.0]])
    assert dataclasses.replace(result, returns=returns).best_seed == 2


def test_curves_are_drawn_on_axes(result):
    axes = result.plot()
    lines = axes.get_lines()
    assert len(lines) == 4
    np.testing.assert_allclose(lines[-1].get_ydata(), result.mean_returns)
    assert result.plot(axes) is axes


def test_notebooks_show_curve_and_settings(result):
    shown = result._repr_html_()
    assert shown.count("<svg") == 1
    assert f"{result.mean_returns[-1]:.1f}, mean over seeds" in shown
    assert "n_steps=512, batch_size=64, clip_value_loss=False" in shown
    assert "num_envs=4, hidden_sizes=(4,)" in shown
    policy = result.policy
    assert f'<td style="text-align:left">{result.best_seed}</td>' in policy._repr_html_()
    assert repr(policy).startswith("<Policy for gymnax.")
    assert len(repr(policy)) < 300


def test_what_notebooks_show_is_escaped():
    shown = card("a<b", {"<i>": "c&d"}, text="<script>")
    assert "a&lt;b" in shown
    assert "&lt;i&gt;" in shown
    assert "c&amp;d" in shown
    assert "<script>" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "CartPol-v1"}, "did you mean 'CartPole-v1'"),
        ({"env": 3}, "env must be a name, or a class or object of an environment.* but got 3"),
        ({"env": int}, "environment 'builtins:int' cannot be made"),
        ({"env_kwargs": 7}, "env_kwargs must be a mapping of names to values, but got 7"),
        ({"env_kwargs": {"gravity": [9]}}, r"but got 'gravity': \[9\]"),
        ({"env_kwargs": {"gravty": 9.8}}, "no parameter 'gravty'; did you mean 'gravity'"),
        ({"learnin_rate": 1e-3}, "no argument 'learnin_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number above 0.* but got 'fast'"),
        ({"hidden_sizes": 64}, "hidden_sizes must be a tuple of integers, but got 64"),
        ({"seeds": 0}, "seeds must be an integer of at least 1, but got 0"),
        ({"total_steps": 1e6}, "total_steps must be an integer of at least 1, but got 1000000.0"),
        ({"hyperparameters": 3}, "hyperparameters must be Hyperparameters or a mapping, but got 3"),
        ({"hyperparameters": {"gama": 1}}, "unknown hyperparameter 'gama'; did you mean 'gamma'"),
        ({"agent": "mlp"}, "agent must be an AgentConfig or a mapping, but got 'mlp'"),
        ({"output": 3}, "output must be a path, but got 3"),
        ({"callback": 3}, "callback must be a function of a checkpoint, but got 3"),
        ({"preset": 3}, "no preset 3"),
        ({"preset": "CartPol-v1"}, "no preset 'CartPol-v1'; did you mean 'CartPole-v1'"),
    ],
)
def test_mistakes_are_one_error(arguments, message):
    with pytest.raises(UserError, match=message):
        ppo_jax.train(**arguments)


def test_environments_are_found_by_the_names_they_get():
    class Local(CartPole):
        pass

    for given in (CartPole, Local, CartPole(), (CartPole(), CartPole().default_params)):
        environment = make(name_of(given), (("max_steps_in_episode", 7),))
        assert environment.max_episode_steps == 7
        assert name_of(given) == name_of(given)
    assert name_of("CartPole-v1") == "CartPole-v1"
    assert name_of(CartPole) == "gymnax.environments.classic_control.cartpole:CartPole"
    one, other = CartPole(), CartPole()
    assert name_of(one) != name_of(other)
    own = make("CartPole-v1")
    assert make(name_of(own)) is own
    with pytest.raises(UserError, match="was given to another process"):
        make("given:nowhere")


def test_a_network_is_given_as_its_class(monkeypatch):
    monkeypatch.setattr(Training, "run", lambda run, *_, **__: run)
    asked = {"network": SharedNetwork}
    for options in (asked, {"agent": asked}):
        agent = ppo_jax.train("CartPole-v1", **options).agent
        assert agent.network == "examples.own_network:SharedNetwork"
    assert AgentConfig(**asked) == agent
    ask_for(SharedNetwork)

    class LocalNetwork(SharedNetwork):
        pass

    name = ppo_jax.train("CartPole-v1", network=LocalNetwork).agent.network
    assert name == "given:LocalNetwork"
    assert imported("network", name) is LocalNetwork
    with pytest.raises(UserError, match="network 'builtins:int'"):
        ppo_jax.train("CartPole-v1", network=int)


def test_a_class_that_took_the_name_of_another_gets_another(monkeypatch):
    """As in a notebook whose cell runs again."""
    script = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    names = []
    for _ in range(3):
        script.Again = type("Again", (CartPole,), {"__module__": "__main__"})
        names.append(name_of(script.Again))
        assert imported("environment", names[-1]) is script.Again
    assert names == ["__main__:Again", "given:Again", "given:Again_2"]


def test_a_class_of_a_script_is_found_again(monkeypatch):
    script = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    script.Mine = type("Mine", (CartPole,), {"__module__": "__main__"})
    assert name_of(script.Mine) == "__main__:Mine"
    assert make("__main__:Mine").max_episode_steps == 500
