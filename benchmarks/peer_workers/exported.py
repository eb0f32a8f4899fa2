"""A script of ``ppo_jax.export --to sb3``: trains it once a seed and plays episodes with each.

Arguments: the script, number of seeds, episodes a seed. Prints the mean return of each seed.
"""

import json
import os
import runpy
import sys


def main() -> None:
    """Print one line of JSON."""
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)  # The networks are small: two threads wait for each other.
    script, seeds, episodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    exported = runpy.run_path(script)
    returns = []
    for seed in range(seeds):
        model = exported["make_model"](seed=1000 * (seed + 1))
        model.learn(exported["TOTAL_TIMESTEPS"])
        environment = model.get_env()
        if isinstance(environment, VecNormalize):
            environment.training = environment.norm_reward = False
        mean, _ = evaluate_policy(model, environment, n_eval_episodes=episodes, deterministic=True)
        returns.append(float(mean))
    print(json.dumps(returns), file=answers, flush=True)


main()
