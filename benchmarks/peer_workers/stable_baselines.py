"""Stable-Baselines3 in PyTorch, or SBX, its JAX version; both step environments in Python."""

import sys
from collections.abc import Callable

from protocol import Work, serve

SBX = sys.argv[2:] == ["sbx"]
NAMES = {"Breakout-MinAtar": "MinAtar/Breakout-v1"}


def prepare(work: Work) -> Callable[[], int]:
    """Return a function that trains the seeds one by one and continues with each call."""
    import gymnasium
    from stable_baselines3.common.env_util import make_vec_env

    if SBX:
        from sbx import PPO
    else:
        import torch
        from stable_baselines3 import PPO

        torch.set_num_threads(2)
    if work.env.endswith("-MinAtar"):
        import minatar.gym

        minatar.gym.register_envs()
    models = [
        PPO(
            "MlpPolicy",
            make_vec_env(
                NAMES.get(work.env, work.env),
                work.num_envs,
                seed=seed,
                wrapper_class=gymnasium.wrappers.FlattenObservation,
            ),
            n_steps=work.n_steps // work.num_envs,
            batch_size=work.batch_size,
            n_epochs=work.n_epochs,
            ent_coef=0.01,
            policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
            seed=seed,
            device="cpu",
        )
        for seed in range(work.seeds)
    ]
    warm = False

    def taken() -> int:
        return sum(int(model.num_timesteps) for model in models)

    def train() -> int:
        nonlocal warm
        before = taken()
        for model in models:
            # A single iteration is enough to compile and to warm up.
            steps = work.steps if warm else work.n_steps
            model.learn(steps, reset_num_timesteps=False)
        warm = True
        return taken() - before

    return train


serve(prepare, *(["sbx-rl", "jax"] if SBX else []), "stable-baselines3", "torch", "gymnasium")
