"""RL Zoo's tuner on Stable-Baselines3: the speed of its hyperparameter optimisation.

It samples its own settings, with smaller minibatches and rollouts among them, so this is the
speed of a tuner and not of the training that the other peers share.
"""

import sys
import tempfile
from collections.abc import Callable

from protocol import Work, serve


def prepare(work: Work) -> Callable[[], int]:
    """Return a function that runs a study with one trial per seed."""
    from rl_zoo3.train import train as run_command
    from stable_baselines3 import PPO

    taken = 0
    learn = PPO.learn

    def counted(self: PPO, *args: object, **kwargs: object) -> PPO:
        nonlocal taken
        try:
            return learn(self, *args, **kwargs)
        finally:
            # Counts pruned trials and steps beyond the requested ones too.
            taken += self.num_timesteps

    PPO.learn = counted
    warm = False

    def train() -> int:
        nonlocal warm
        before = taken
        with tempfile.TemporaryDirectory() as folder:
            sys.argv = ["train.py", "--algo", "ppo", "--env", work.env, "-optimize"]
            sys.argv += ["-n", str(work.steps if warm else 512), "--num-threads", "2"]
            sys.argv += ["--n-trials", str(work.seeds if warm else 1), "--n-jobs", "1"]
            sys.argv += ["--sampler", "tpe", "--pruner", "median", "--seed", "1"]
            sys.argv += ["--log-folder", folder, "--device", "cpu", "--verbose", "0"]
            run_command()
        warm = True
        return taken - before

    return train


serve(prepare, "rl_zoo3", "stable-baselines3", "optuna", "torch")
