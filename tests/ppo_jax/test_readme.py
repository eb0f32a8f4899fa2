"""The examples of README.md and docs, as a reader would copy them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.networks import make_network
from ppo_jax.normalization import RunningStatistics
from ppo_jax.programs import Weights

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def copied(folder, name):
    """Write the example whose first line is `name` into `folder`."""
    (example,) = re.findall(rf"^```python\n# {re.escape(name)}\n(.*?)^```$", README, re.M | re.S)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example, encoding="utf-8")


def policy_of(random_params, folder, name, **agent):
    config = TrainConfig(env=name, agent=AgentConfig(hidden_sizes=(16, 8), **agent))
    shape = make(name).spaces.observation_shape
    params = random_params(make_network(config.agent, make(name).spaces), shape)
    statistics = None
    if config.agent.normalize_observations:
        rows = np.random.default_rng(2).normal(1, 2, (40, *shape)).astype(np.float32)
        statistics = RunningStatistics.empty(shape).updated(rows)
    policy.save(folder, config, Weights(params, statistics))
    return policy.load(folder)


@pytest.mark.parametrize(
    ("name", "agent"),
    [
        ("Acrobot-v1", {"activation": "relu"}),
        ("CartPole-v1", {"normalize_observations": True}),
        ("Pendulum-v1", {"normalize_observations": True, "activation": "silu"}),
        ("PointRobot-misc", {"squash_actions": True, "activation": "gelu"}),
    ],
)
def test_a_policy_acts_from_numpy_alone(tmp_path, random_params, name, agent):
    loaded = policy_of(random_params, tmp_path / "policy", name, **agent)
    copied(tmp_path, "numpy_policy.py")
    shape = loaded.spaces.observation_shape
    observations = np.random.default_rng(0).normal(0, 3, (200, *shape)).astype(np.float32)
    observations[0] *= 1e4  # Beyond the clip.
    np.save(tmp_path / "observations.npy", observations)
    script = (
        "import sys; sys.modules.update(jax=None, ppo_jax=None, flax=None)\n"
        "import numpy as np; from numpy_policy import load\n"
        "act, observations = load('policy'), np.load('observations.npy')\n"
        "assert np.shape(act(observations[0])) == act(observations).shape[1:]\n"
        "np.save('actions.npy', act(observations))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    actions, expected = np.load(tmp_path / "actions.npy"), loaded.act(observations)
    assert len(np.unique(expected)) > 1
    np.testing.assert_allclose(actions, expected, atol=1e-5)


@pytest.mark.slow
def test_an_environment_of_ones_own_trains(tmp_path, in_process):
    copied(tmp_path, "my_package/my_module.py")
    done = in_process(
        *("ppo_jax.train", "--env", "my_package.my_module:Line", "--env-kwargs", "step_size=0.5"),
        *("--total-steps", 20480, "--eval-every", 10240, "--seeds", 2, "--hidden-sizes", 16),
        *("--n-steps", 512, "--batch-size", 128, "--learning-rate", 3e-3, "--output", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "training.json").read_text())
    assert results["config"]["env_kwargs"] == {"step_size": 0.5}
    # From -1 it takes four steps of 0.5, of 0.1 it would take twenty.
    assert np.min(results["returns"][-1]) >= -0.4 - 1e-5
    done = in_process(
        *("ppo_jax.evaluate", "out/policy", "--episodes", 10),
        *("--env", "my_package.my_module:Line"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my_package.my_module:Line: 10 episodes")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("my_pakage.my_module:Line", "cannot be imported: ModuleNotFoundError: No module named"),
        ("my_package.my_module:Lime", "has no class or function 'Lime'; did you mean 'Line'?"),
        ("my_package.my_module:State", "cannot be made"),
        ("my_package.my_module:Params", "cannot be made"),
        ("my_package.my_module:jnp", "has no class or function 'jnp'"),
        ("my_package.broken:Line", "cannot be imported: NameError"),
    ],
)
def test_what_is_no_environment_is_one_line_and_status_2(
    tmp_path, refusal, monkeypatch, env, message
):
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("my_package", "my_package.my_module"):
        sys.modules.pop(module, None)  # That of another test.
    copied(tmp_path, "my_package/my_module.py")
    (tmp_path / "my_package" / "broken.py").write_text("undefined_name\n")
    assert message in refusal("ppo_jax.train", "--env", env, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
