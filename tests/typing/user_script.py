"""A user's script; mypy must find the mistakes that are marked, and nothing else.

An unused ``type: ignore`` is an error in ``make lint``.
"""

from pathlib import Path

import numpy as np

import ppo_jax
import tune


def report(checkpoint: ppo_jax.Checkpoint) -> bool:
    print(f"{checkpoint.step:,} steps: {checkpoint.returns.mean():.1f}")
    return bool(checkpoint.returns.min() > 450)


result = ppo_jax.train(
    "CartPole-v1",
    learning_rate=1e-3,
    hidden_sizes=(128, 128),
    total_steps=500_000,
    seeds=4,
    env_kwargs={"max_steps_in_episode": 200},
    callback=report,
)
curve: np.ndarray = result.returns
result.plot().set_title("mine")
result.save("runs/mine")
policy: ppo_jax.Policy = ppo_jax.policy.load(Path("runs/mine") / "policy")
actions: np.ndarray = policy.act(np.zeros((5, 4)))

ppo_jax.train("CartPole-v1", learning_rate="fast")  # type: ignore[arg-type]
ppo_jax.train("CartPole-v1", learnin_rate=1e-3)  # type: ignore[call-arg]
ppo_jax.train(3)  # type: ignore[arg-type]

settings = tune.Settings(env="Acrobot-v1", env_kwargs={"max_steps_in_episode": 300}, space="wide")
study = tune.run_study(20, settings, output="runs/study")
assert study.recommendation is not None
recommended = study.recommendation.candidate
tune.run_study("20")  # type: ignore[arg-type]
tune.run_studies(20)  # type: ignore[attr-defined]
again = ppo_jax.train(
    settings.env,
    hyperparameters=recommended.hyperparameters,
    agent=recommended.agent,
    seeds=20,
)
