"""The model card of a policy: ``README.md`` in the form that the Hugging Face hub reads.

YAML metadata with a ``model-index`` (https://huggingface.co/docs/hub/model-cards), then what a
reader wants to know: environment, returns with their interval, the command that trains it,
versions.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from ppo_jax.command_words import agent_words, environment_words, hyperparameter_words
from ppo_jax.config import RECURRENT, AgentConfig
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.statistics import STUDENT, t_interval
from ppo_jax.text import estimate_text, fixed, interval_text, plural, printable

FILE = "README.md"
_BEGINNING = "---\nlibrary_name: ppo_jax\n"


def returns_of_seeds(returns: Sequence[float] | np.ndarray, episodes: int) -> dict[str, Any] | None:
    """Return what the description of a policy says about all seeds of its configuration.

    None where all have diverged.

    Args:
      returns: mean return of each seed at the end of training; NaN of a diverged one.
      episodes: that each is the mean of.
    """
    values = np.asarray(returns, np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    return {
        "mean": float(finite.mean()),
        "interval": t_interval(finite),
        "method": STUDENT,
        "seeds": len(values),
        "diverged": len(values) - len(finite),
        "episodes": episodes,
    }


def may_be_replaced(text: str) -> bool:
    """Return whether a README is a card that :func:`render` made, or what a power loss left."""
    return text.startswith(_BEGINNING) or not text.strip("\0")


def render(description: Mapping[str, Any]) -> str:
    """Return the card of a policy.

    Args:
      description: of the policy; with ``returns`` of :func:`returns_of_seeds`,
        ``hyperparameters`` and ``training`` where these are known.
    """
    environment = description["environment"]
    name = printable(str(environment["name"]))
    returns, training = description.get("returns"), description.get("training", {})
    lines = [f"# PPO on {name}", ""]
    lines += [
        "A policy of `ppo_jax`: PPO (Schulman et al., 2017, arXiv:1707.06347), compiled with JAX.",
        "",
    ]
    if environment["kwargs"]:
        changed = ", ".join(f"{key} = {value}" for key, value in environment["kwargs"].items())
        lines += [f"The environment has {printable(changed)}.", ""]
    if returns is not None:
        estimate = estimate_text(returns["mean"], returns["interval"])
        lines += [
            f"Mean return **{estimate}** ({returns['method']}) over "
            f"{plural(returns['seeds'], 'seed')} at the end of training, "
            f"{plural(returns['episodes'], 'greedy episode')} each.",
            "",
        ]
        if returns["diverged"]:
            lines += [f"{plural(returns['diverged'], 'seed')} diverged and left out.", ""]
    if training.get("final_return") is not None:
        lines += [
            f"These weights are of a single seed, with a return of "
            f"{fixed(training['final_return'])}. Where it was chosen for its return, that is "
            "partly luck: expect the mean.",
            "",
        ]
    lines += ["## Use", "", "```python", "import ppo_jax.policy", ""]
    lines += [*_use(description), "```"]
    command = _command(description)
    if command is not None:
        lines += ["", "## Training", "", "```", command, "```"]
        if "total_steps" in training:
            lines += ["", f"The run was stopped after {training['steps']:,} steps."]
    lines += ["", "## Versions", "", "| package | version |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in description["versions"].items()]
    return _metadata(name, returns) + "\n".join(lines) + "\n"


def _use(description: Mapping[str, Any]) -> list[str]:
    """Return the lines of Python that act with the policy."""
    own = description.get("needs")
    network = "" if own is None else f", network={own['network']!r}"
    load = f'policy = ppo_jax.policy.load("FOLDER"{network})'
    if description["agent"].get("network") not in RECURRENT:
        return [load, "action = policy.act(observation)"]
    return [
        load,
        "memory = policy.memory()  # Again wherever an episode begins.",
        "action, memory = policy.step(observation, memory)",
    ]


def _metadata(name: str, returns: Mapping[str, Any] | None) -> str:
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "ppo", "jax", name]
    about: dict[str, Any] = {"tags": tags}
    if returns is not None:
        interval, over = returns["interval"], plural(returns["seeds"], "seed")
        ends = "" if interval is None else f", 95% interval {interval_text(interval)}"
        metric = {
            "type": "mean_reward",
            "value": round(returns["mean"], 2),
            "name": f"mean return of {over}{ends}",
            "verified": False,
        }
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        result = {"task": task, "dataset": {"name": name, "type": name}, "metrics": [metric]}
        about["model-index"] = [{"name": "PPO", "results": [result]}]
    text: str = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)
    return f"{_BEGINNING}{text}---\n\n"


def _command(description: Mapping[str, Any]) -> str | None:
    """Return the command that trains the policy's configuration; None where it is not known."""
    environment = description["environment"]
    if "hyperparameters" not in description or "steps" not in description.get("training", {}):
        return None
    words = ["python", "-m", "ppo_jax.train"]
    words += environment_words(environment["name"], environment["kwargs"])
    # What is annealed ends with the run that was planned, not where it was stopped.
    training = description["training"]
    words += ["--total-steps", str(training.get("total_steps", training["steps"]))]
    words += agent_words(AgentConfig.from_dict(description["agent"]))
    words += hyperparameter_words(Hyperparameters.from_dict(description["hyperparameters"]))
    return shlex.join(words)
