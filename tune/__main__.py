"""``python -m tune`` lists the commands of this package."""

from ppo_jax import command_line

if __name__ == "__main__":
    command_line.list_commands(
        "The tuner's commands, each with --help:",
        {
            "python -m tune.run": "tune PPO and prove the winner on fresh seeds (ppo-jax-tune)",
            "python -m tune.report FOLDER": "rebuild the report of a study (ppo-jax-report)",
            "python -m ppo_jax": "list the commands that train and evaluate",
        },
    )
