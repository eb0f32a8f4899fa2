"""Train one configuration on several seeds, look at it, keep its policy.

python examples/train.py --env Acrobot-v1 --output runs/acrobot
"""

import argparse

import numpy as np

import ppo_jax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--total-steps", type=int, default=500_000)
    parser.add_argument("--output", default="runs/example")
    arguments = parser.parse_args()

    result = ppo_jax.train(
        arguments.env,
        learning_rate=1e-3,
        total_steps=arguments.total_steps,
        eval_every=min(50_000, arguments.total_steps),
        seeds=4,
    )
    for step, returns in zip(result.steps, result.returns, strict=True):
        print(f"{step:9,} steps  mean return {returns.mean():8.1f}  seeds {returns.round(1)}")
    result.save(arguments.output)

    policy = ppo_jax.policy.load(f"{arguments.output}/policy")
    observations = np.zeros((3, *policy.spaces.observation_shape), np.float32)
    print("actions for three observations of zeros:", policy.act(observations))


if __name__ == "__main__":
    main()
