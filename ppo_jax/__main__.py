"""``python -m ppo_jax`` lists the commands of this package."""

from ppo_jax import command_line

if __name__ == "__main__":
    command_line.list_commands(
        "The commands, each with --help:",
        {
            "python -m ppo_jax.train": "train one configuration (ppo-jax-train)",
            "python -m ppo_jax.evaluate FOLDER": "play with a saved policy (ppo-jax-evaluate)",
            "python -m ppo_jax.export FILE": "carry a configuration to and from other projects",
            "python -m tune": "list the commands that tune",
        },
    )
