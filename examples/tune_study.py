"""Tune, prove the winner on fresh seeds, train what is recommended.

python examples/tune_study.py --env Acrobot-v1 --trials 20
"""

import argparse

import ppo_jax
from tune import Settings, run_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200_000, help="of a seed of a trial")
    parser.add_argument("--output", default="runs/example-study")
    arguments = parser.parse_args()

    settings = Settings(
        env=arguments.env,
        total_steps=arguments.steps,
        eval_every=arguments.steps // 4,
        space={"learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}},
    )
    results = run_study(
        arguments.trials,
        settings,
        output=arguments.output,
        finalists=min(3, arguments.trials),
        validate_steps=5 * arguments.steps,
    )
    print(results.verdict)

    recommended = results.recommendation.candidate
    trained = ppo_jax.train(
        arguments.env,
        hyperparameters=recommended.hyperparameters,
        agent=recommended.agent,
        total_steps=5 * arguments.steps,
        eval_every=arguments.steps,
    )
    print("recommended configuration, last checkpoint:", trained.returns[-1])


if __name__ == "__main__":
    main()
