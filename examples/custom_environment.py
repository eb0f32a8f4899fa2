"""Train and tune on an environment of one's own; it is in line_world.py.

python examples/custom_environment.py
"""

import argparse

import ppo_jax
from ppo_jax.devices import enable_all_cpu_cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-steps", type=int, default=100_000)
    arguments = parser.parse_args()

    enable_all_cpu_cores()  # Before gymnax is imported, which starts JAX.
    from line_world import Line

    # Steps of 0.2 instead of 0.1: fields of the environment's parameters are `env_kwargs`.
    result = ppo_jax.train(
        Line,
        env_kwargs={"step_size": 0.2},
        total_steps=arguments.total_steps,
        eval_every=arguments.total_steps // 2,
        seeds=2,
    )
    print("mean return at the checkpoints:", result.returns.mean(axis=1).round(2))


if __name__ == "__main__":
    main()
