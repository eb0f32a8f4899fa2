"""What corresponds to what in Stable-Baselines3, RL Baselines3 Zoo and CleanRL.

:data:`ROWS` is the table; :data:`SB3_DIFFERENCES` and :data:`CLEANRL_DIFFERENCES` name what no
value can carry. A setting of this project that has no row and is not at its default is named by
itself. Read from Stable-Baselines3 2.9 (``ppo/ppo.py``, ``common/policies.py``,
``common/vec_env/vec_normalize.py``), RL Zoo 2.9 (``exp_manager.py``) and CleanRL's ``ppo.py`` and
``ppo_continuous_action.py`` of November 2026.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.hyperparameters import Hyperparameters

Values = Mapping[str, Any]
"""Name -> value: ours, of hyperparameters and agent together; or theirs, of keyword arguments of
Stable-Baselines3, where ``policy_kwargs.net_arch`` is an entry of a dictionary."""


class Name(str):
    """A name of Python, such as ``nn.ReLU``, and not a text."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A rate that goes from `start` to `end` over the training, along a line or half a cosine."""

    start: float
    end: float = 0.0
    cosine: bool = False

    def scaled(self, factor: float) -> "Schedule":
        """Return the schedule of a multiple."""
        return dataclasses.replace(self, start=self.start * factor, end=self.end * factor)


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting here and in the other implementations.

    Attributes:
      ours: name here.
      sb3: keyword of Stable-Baselines3's PPO, which RL Zoo's files have as well.
      cleanrl: option of CleanRL; empty where there is none.
      out: from our values to their value; None where another row of the same keyword has it.
      back: from their values to ours.
      to_cleanrl: from our values to CleanRL's.
    """

    ours: str
    sb3: str
    cleanrl: str = ""
    out: Callable[[Values], Any] | None = None
    back: Callable[[Values], Any] | None = None
    to_cleanrl: Callable[[Values], Any] | None = None


def _same(ours: str, sb3: str, cleanrl: str = "") -> Row:
    return Row(ours, sb3, cleanrl, lambda o: o[ours], lambda t: t[sb3], lambda o: o[ours])


def _rate(ours: str, rate: str, sb3: str, cleanrl: str = "") -> tuple[Row, Row, Row]:
    """Return the rows of a rate, of its annealing and of where that ends."""
    anneal, end = f"anneal_{ours}", f"{ours}_end"

    def back_end(theirs: Values) -> float:
        value = theirs[sb3]
        return value.end / value.start if isinstance(value, Schedule) and value.start else 0.0

    return (
        Row(ours, sb3, rate, lambda o: scheduled(o, ours), lambda t: start_of(t[sb3]), _get(ours)),
        Row(anneal, sb3, cleanrl, None, lambda t: isinstance(t[sb3], Schedule), _get(anneal)),
        Row(end, sb3, "", None, back_end),
    )


def _get(name: str) -> Callable[[Values], Any]:
    return lambda values: values[name]


def scheduled(ours: Values, name: str) -> "float | Schedule":
    """Return a rate of ours, or how it is annealed."""
    start: float = ours[name]
    if not ours[f"anneal_{name}"]:
        return start
    return Schedule(start, start * ours[f"{name}_end"], ours["cosine_annealing"])


def start_of(rate: "float | Schedule") -> float:
    """Return what a rate is at first."""
    return rate.start if isinstance(rate, Schedule) else rate


def _value_clip(ours: Values) -> "float | Schedule | None":
    own = ours["value_clip_epsilon"] or scheduled(ours, "clip_epsilon")
    return own if ours["clip_value_loss"] else None


def _own_value_clip(theirs: Values) -> float:
    clip = theirs["clip_range_vf"]
    return 0.0 if clip is None or clip == theirs["clip_range"] else start_of(clip)


def _batch_size(theirs: Values) -> int:
    """Return the minibatch: the largest one up to theirs that divides the rollout."""
    rollout = theirs["n_steps"] * theirs["n_envs"]
    most = min(theirs["batch_size"], rollout)
    return next(size for size in range(most, 0, -1) if rollout % size == 0)


def _optimizer(ours: Values, names: tuple[str, ...], value: Any) -> Any:
    """Return an argument of their optimizer; None where ours is theirs as well."""
    default = Hyperparameters().to_dict()
    return None if all(ours[name] == default[name] for name in names) else value


_BETAS = ("adam_beta1", "adam_beta2")
_ACTIVATIONS = {"tanh": "nn.Tanh", "relu": "nn.ReLU", "gelu": "nn.GELU", "silu": "nn.SiLU"}


def _activation(theirs: Values) -> str:
    """Return our name of their activation.

    Raises:
      UserError: where there is none.
    """
    name = theirs["policy_kwargs.activation_fn"]
    for ours, other in _ACTIVATIONS.items():
        if str(name).rpartition(".")[2] == other.rpartition(".")[2]:
            return ours
    raise UserError(f"activation_fn must be one of {', '.join(_ACTIVATIONS.values())}, not {name}")


# The table. A row: our name, theirs, CleanRL's; where more than a name differs, what is ours as
# theirs, theirs as ours, and ours as CleanRL's. `o` are all values of ours, `t` of theirs.
ROWS: tuple[Row, ...] = (
    _same("num_envs", "n_envs", "num-envs"),
    # Theirs counts each environment's own steps, ours those of all together.
    Row(
        *("n_steps", "n_steps", "num-steps"),
        lambda o: o["n_steps"] // o["num_envs"],
        lambda t: t["n_steps"] * t["n_envs"],
        lambda o: o["n_steps"] // o["num_envs"],
    ),
    # CleanRL is told how many minibatches a rollout has.
    Row(
        *("batch_size", "batch_size", "num-minibatches"),
        lambda o: o["batch_size"],
        _batch_size,
        lambda o: o["n_steps"] // o["batch_size"],
    ),
    _same("n_epochs", "n_epochs", "update-epochs"),
    *_rate("learning_rate", "learning-rate", "learning_rate", "anneal-lr"),
    _same("gamma", "gamma", "gamma"),
    _same("gae_lambda", "gae_lambda", "gae-lambda"),
    *_rate("clip_epsilon", "clip-coef", "clip_range"),
    Row(
        *("clip_value_loss", "clip_range_vf", "clip-vloss"),
        _value_clip,
        lambda t: t["clip_range_vf"] is not None,
        lambda o: o["clip_value_loss"],
    ),
    Row("value_clip_epsilon", "clip_range_vf", "", None, _own_value_clip),
    # Half the squared error here and in CleanRL, the whole of it there.
    Row(
        *("value_coef", "vf_coef", "vf-coef"),
        lambda o: o["value_coef"] / 2,
        lambda t: t["vf_coef"] * 2,
        lambda o: o["value_coef"],
    ),
    _same("entropy_coef", "ent_coef", "ent-coef"),
    _same("max_grad_norm", "max_grad_norm", "max-grad-norm"),
    # Theirs stops at 1.5 times the target.
    Row(
        *("target_kl", "target_kl", "target-kl"),
        lambda o: o["target_kl"] / 1.5 or None,
        lambda t: (t["target_kl"] or 0.0) * 1.5,
        lambda o: o["target_kl"] or None,
    ),
    _same("normalize_advantages", "normalize_advantage", "norm-adv"),
    Row(
        *("hidden_sizes", "policy_kwargs.net_arch", ""),
        lambda o: {"pi": list(o["hidden_sizes"]), "vf": list(o["hidden_sizes"])},
        lambda t: t["policy_kwargs.net_arch"]["pi"],
    ),
    Row(
        *("activation", "policy_kwargs.activation_fn", ""),
        lambda o: Name(_ACTIVATIONS[o["activation"]]),
        _activation,
    ),
    Row(
        *("initial_log_std", "policy_kwargs.log_std_init", ""),
        lambda o: o["initial_log_std"] or None,
        lambda t: t["policy_kwargs.log_std_init"],
    ),
    Row(
        *("adam_epsilon", "policy_kwargs.optimizer_kwargs.eps", ""),
        # Given anything at all, theirs takes PyTorch's 1e-8 for what it is not given.
        lambda o: _optimizer(o, ("adam_epsilon", *_BETAS), o["adam_epsilon"]),
        lambda t: t["policy_kwargs.optimizer_kwargs.eps"],
    ),
    Row(
        *("adam_beta1", "policy_kwargs.optimizer_kwargs.betas", ""),
        lambda o: _optimizer(o, _BETAS, [o["adam_beta1"], o["adam_beta2"]]),
        lambda t: t["policy_kwargs.optimizer_kwargs.betas"][0],
    ),
    Row(
        *("adam_beta2", "policy_kwargs.optimizer_kwargs.betas", ""),
        None,
        lambda t: t["policy_kwargs.optimizer_kwargs.betas"][1],
    ),
    _same("normalize_observations", "normalize.norm_obs"),
    _same("normalize_rewards", "normalize.norm_reward"),
)

SB3_DEFAULTS: Values = {
    "n_envs": 1,
    "n_steps": 2048,
    "batch_size": 64,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "clip_range_vf": None,
    "vf_coef": 0.5,
    "ent_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": None,
    "normalize_advantage": True,
    "policy_kwargs.net_arch": {"pi": [64, 64], "vf": [64, 64]},
    "policy_kwargs.activation_fn": Name("nn.Tanh"),
    "policy_kwargs.log_std_init": 0.0,
    "policy_kwargs.optimizer_kwargs.eps": 1e-5,
    "policy_kwargs.optimizer_kwargs.betas": [0.9, 0.999],
    "normalize.norm_obs": False,
    "normalize.norm_reward": False,
}
"""What Stable-Baselines3 does where a file of RL Zoo names nothing."""

Difference = tuple[Callable[[Values], Any], str]
"""Whether our values meet it, and what it is."""

SB3_DIFFERENCES: tuple[Difference, ...] = (
    (
        _get("clip_value_loss"),
        "clip_range_vf: the clipped error alone counts there, the larger of both errors here",
    ),
    (
        _get("target_kl"),
        "target_kl: looked at after each minibatch there, after each epoch here",
    ),
    (
        lambda o: o["anneal_learning_rate"] or o["anneal_clip_epsilon"],
        "schedules: one rollout ahead there, so that the last update has the final rate",
    ),
    (
        lambda o: o["activation"] == "gelu",
        "activation gelu: exact there, its approximation by tanh here",
    ),
)
"""What keywords of Stable-Baselines3 cannot carry."""

ELSEWHERE = {"cosine_annealing", "network", "conv_features", "sequence_length"}
"""Settings without a row that are heeded where configurations are written."""

CLEANRL_DIFFERENCES: tuple[Difference, ...] = (
    (bool, "time limits: an episode's end there; here the value goes on behind them"),
    (
        _get("target_kl"),
        "target_kl: by the last minibatch of an epoch there, by all of its minibatches here",
    ),
    (
        lambda o: o["anneal_learning_rate"] and (o["learning_rate_end"] or o["cosine_annealing"]),
        "learning_rate: annealed along a line to zero there",
    ),
)
"""What options of CleanRL cannot carry."""


def ours_of(hyperparameters: Hyperparameters, agent: AgentConfig) -> dict[str, Any]:
    """Return our values."""
    return hyperparameters.to_dict() | dict(vars(agent))


def to_sb3(ours: Values) -> dict[str, Any]:
    """Return keyword arguments of Stable-Baselines3, without those that are left to it."""
    values = {row.sb3: row.out(ours) for row in ROWS if row.out is not None}
    return {k: v for k, v in values.items() if v is not None or not k.startswith("policy_kwargs")}


def from_sb3(theirs: Values) -> tuple[Hyperparameters, AgentConfig]:
    """Return ours of keyword arguments of Stable-Baselines3.

    Raises:
      UserError: for a value that is not allowed here.
    """
    known = {f.name for f in dataclasses.fields(Hyperparameters)}
    full = dict(SB3_DEFAULTS) | dict(theirs)
    values = {row.ours: row.back(full) for row in ROWS if row.back is not None}
    hyperparameters = {name: value for name, value in values.items() if name in known}
    agent = {name: value for name, value in values.items() if name not in known}
    return Hyperparameters.from_dict(hyperparameters), AgentConfig.from_dict(agent)


def to_cleanrl(ours: Values) -> dict[str, Any]:
    """Return options of CleanRL."""
    return {row.cleanrl: row.to_cleanrl(ours) for row in ROWS if row.cleanrl and row.to_cleanrl}


def differences(
    ours: Values, known: Callable[[Row], Any], own: tuple[Difference, ...]
) -> list[str]:
    """Return what another implementation does not do alike, a line each.

    Args:
      ours: our values.
      known: whether the other implementation knows the setting of a row.
      own: differences of that implementation.
    """
    carried = {row.ours for row in ROWS if known(row)} | ELSEWHERE
    default = ours_of(Hyperparameters(), AgentConfig())
    return [text for applies, text in own if applies(ours)] + [
        f"{name} = {list(value) if isinstance(value, tuple) else value}: no counterpart"
        for name, value in ours.items()
        if name not in carried and value != default[name]
    ]


_CHOICES = ("Acrobot-v1", "CartPole-v1", "MountainCar-v0")
_NUMBERS = ("MountainCarContinuous-v0", "Pendulum-v1")
_MINATAR = "-MinAtar"


def gymnasium_name(env: str) -> str | None:
    """Return what Gymnasium calls an environment; None where that is not known.

    >>> gymnasium_name("CartPole-v1"), gymnasium_name("Breakout-MinAtar")
    ('CartPole-v1', 'MinAtar/Breakout-v1')
    """
    if env in (*_CHOICES, *_NUMBERS):
        return env
    return f"MinAtar/{env.removesuffix(_MINATAR)}-v1" if env.endswith(_MINATAR) else None


def has_choices(env: str) -> bool:
    """Return whether an environment is known to have discrete actions."""
    return env in _CHOICES or env.endswith(_MINATAR)


def our_name(env: str) -> str:
    """Return our name of an environment of Gymnasium.

    >>> our_name("MinAtar/Breakout-v1"), our_name("LunarLander-v3")
    ('Breakout-MinAtar', 'LunarLander-v3')
    """
    suite, _, name = env.rpartition("/")
    return f"{name.rpartition('-v')[0]}{_MINATAR}" if suite == "MinAtar" else env
