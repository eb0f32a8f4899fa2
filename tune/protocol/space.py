"""Which parameters a study tunes, and over which values; TOML files.

Two spaces are built in, :data:`SPACES`. A file has one table a parameter: a hyperparameter, or a
setting of the agent such as its number of environments. It changes the default space: parameters
it does not name stay as they are. ::

    base = "wide"          # start from another space

    [learning_rate]        # narrow or widen
    low = 1e-4
    high = 3e-3
    log = true

    [gae_lambda]           # on the logarithm of 1 - x
    low = 0.8
    high = 0.999
    log_complement = true

    [entropy_coef]         # zero as well
    low = 1e-5
    high = 0.1
    log = true
    zero = true

    [batch_size]           # other choices
    choices = [64, 256]

    [gamma]                # fix
    value = 0.995

    [value_coef]           # leave at its default
    drop = true

    [hidden_sizes]         # add; each choice is another program
    choices = [[64, 64], [256, 256]]
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError, nearest, require_choice
from ppo_jax.files import read_toml
from ppo_jax.hyperparameters import DOMAINS, Hyperparameters

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Value = bool | int | float | str | tuple[int, ...]

SHAPES = ("n_steps", "batch_size")
"""Hyperparameters that need a list of choices: each choice is compiled into the program."""

COMPLEMENT = "one_minus_"
"""What the name in Optuna begins with where the complement of a parameter is drawn."""

AGENT = tuple(field.name for field in dataclasses.fields(AgentConfig))
"""Settings of the agent. A list of choices of one is tuned over several programs."""

_ZERO_SHARE = 0.2
"""Share of an axis that stands for a zero beside a range."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a trial trains: all that may differ between two trials of a study."""

    hyperparameters: Hyperparameters = Hyperparameters()
    agent: AgentConfig = AgentConfig()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Configuration":
        """Restore :meth:`to_dict`; what is missing keeps its default.

        Raises:
          UserError: for an unknown name or a wrong value.
        """
        agent = {name: value for name, value in values.items() if name in AGENT}
        others = {name: value for name, value in values.items() if name not in AGENT}
        return cls(Hyperparameters.from_dict(others), AgentConfig.from_dict(agent))

    def to_dict(self) -> dict[str, Any]:
        """Return name -> value of hyperparameters and agent together."""
        return self.hyperparameters.to_dict() | dict(vars(self.agent))


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers between `low` and `high`, both included; integers where the domain says so.

    Attributes:
      low, high: the ends.
      log: on a logarithmic scale.
      log_complement: on that of 1 - x, for what is close to one.
      zero: zero as well, besides a logarithmic range; a fifth of the scale stands for it.
      generation: how often the scale was changed by a study that was continued: Optuna keeps one
        scale a name.
    """

    low: float
    high: float
    log: bool = False
    log_complement: bool = False
    zero: bool = False
    generation: int = 0

    def nearest(self, value: Any) -> Value:
        """Return the value of this range that is nearest to `value`."""
        if self.zero and value < self.low / 2:
            return 0.0
        nearest: Value = min(max(value, self.low), self.high)
        return nearest

    def grid(self, points: int, integer: bool) -> list[Value]:
        """Return `points` values spread evenly from `low` to `high`, on its scale."""
        if self.log_complement:
            complements = Range(1 - self.high, 1 - self.low, log=True).grid(points, False)
            return [self.decode(value) for value in reversed(complements)]
        if self.zero:
            return [0.0, *dataclasses.replace(self, zero=False).grid(points, integer)]
        if points == 1 or self.low == self.high:
            return [self.low]
        low, high = (math.log(x) if self.log else x for x in (self.low, self.high))
        steps = [low + (high - low) * i / (points - 1) for i in range(points)]
        values = [math.exp(x) if self.log else x for x in steps]
        if integer:
            return sorted({round(x) for x in values})
        return [self.low, *values[1:-1], self.high]  # The ends without rounding errors.

    def key(self, name: str) -> str:
        """Return the name of the parameter in Optuna."""
        return _key(f"{COMPLEMENT}{name}" if self.log_complement else name, self.generation)

    def distribution(self, name: str) -> "BaseDistribution":
        """Return where Optuna draws it from; :meth:`decode` makes a value of what it draws."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.log_complement:
            return FloatDistribution(complement(self.high), complement(self.low), log=True)
        if DOMAINS[name].kind is int:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self._lowest, self.high, log=self.log)

    def decode(self, drawn: Any) -> Value:
        """Return the value that stands for what Optuna has drawn."""
        if self.log_complement:
            return min(max(1.0 - float(drawn), self.low), self.high)
        if self.zero and drawn < self.low:
            return 0.0
        value: Value = drawn
        return value

    def encode(self, value: Any) -> Any:
        """Return what Optuna would draw for `value`; None where that is outside."""
        if self.zero and value == 0:
            return math.sqrt(self._lowest * self.low)
        if not self.low <= value <= self.high:
            return None
        if self.log_complement:
            low, high = complement(self.high), complement(self.low)
            return min(max(1.0 - value, low), high)
        return value

    def holds(self, other: "Parameter") -> bool:
        """Return whether all values of `other` are in this range."""
        if isinstance(other, Choices):
            return all(self.encode(value) is not None for value in other.values)
        within = self.low <= other.low and other.high <= self.high
        return within and (self.zero or not other.zero)

    @property
    def _lowest(self) -> float:
        """The lowest number that is drawn: below `low` they stand for zero."""
        if not self.zero:
            return self.low
        share = _ZERO_SHARE / (1 - _ZERO_SHARE)
        lowest: float = self.low * (self.low / self.high) ** share
        return lowest


def complement(value: float) -> float:
    """Return one minus `value`, which may be close to one."""
    return float(f"{1 - value:.9g}")  # Without rounding errors: 0.0001, not 0.00009999999999.


def _key(name: str, generation: int) -> str:
    return f"{name}_{generation + 1}" if generation else name


@dataclasses.dataclass(frozen=True)
class Choices:
    """A list of values, without an order.

    Attributes:
      values: the choices.
      generation: see :class:`Range`.
    """

    values: tuple[Value, ...]
    generation: int = 0

    def nearest(self, value: Any) -> Value:
        """Return `value` where it is a choice, else the choice whose ratio to it is nearest to 1.

        Where a zero is among them, the choice with the smallest difference. A switch or a name
        that cannot take its default takes its first value.
        """
        if value in self.values or isinstance(value, (bool, str, tuple)):
            return value if value in self.values else self.values[0]
        numbers: tuple[Any, ...] = self.values
        by_difference = 0 in (value, *numbers)
        nearest: Value = min(
            numbers,
            key=lambda x: abs(x - value) if by_difference else abs(math.log(x / value)),
        )
        return nearest

    def grid(self, _points: int, _integer: bool) -> list[Value]:
        """Return all choices; the arguments are for ranges."""
        return list(self.values)

    def key(self, name: str) -> str:
        """Return the name of the parameter in Optuna."""
        return _key(name, self.generation)

    def distribution(self, _name: str) -> "BaseDistribution":
        """Return where Optuna draws it from; see :class:`Range`."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(tuple(map(self.encode, self.values)))

    def decode(self, drawn: Any) -> Value:
        """Return the choice that stands for what Optuna has drawn."""
        return next(value for value in self.values if self.encode(value) == drawn)

    def encode(self, value: Any) -> Any:
        """Return what Optuna would draw for `value`, of its types; None where it is no choice."""
        if value not in self.values:
            return None
        return " ".join(map(str, value)) if isinstance(value, tuple) else value

    def holds(self, other: "Parameter") -> bool:
        """Return whether all values of `other` are choices."""
        return isinstance(other, Choices) and set(other.values) <= set(self.values)


Parameter = Range | Choices

_N_STEPS, _BATCH_SIZES = (1024, 2048, 4096), (128, 256, 512)

_STANDARD: dict[str, Parameter] = {
    "learning_rate": Range(1e-5, 1e-3, log=True),
    "gamma": Range(0.95, 0.999),
    "gae_lambda": Range(0.9, 0.99),
    "clip_epsilon": Range(0.1, 0.3),
    "value_coef": Range(0.25, 1.0),
    "entropy_coef": Range(0.001, 0.05, log=True),
    "max_grad_norm": Range(0.3, 1.0),
    "n_steps": Choices(_N_STEPS),
    "batch_size": Choices(_BATCH_SIZES),
    "n_epochs": Range(3, 10),
}

_SWITCH = Choices((False, True))

_WIDE: dict[str, Parameter] = {
    "learning_rate": Range(1e-5, 1e-2, log=True),
    "gamma": Range(0.8, 0.9999, log_complement=True),
    "gae_lambda": Range(0.8, 0.999, log_complement=True),
    "clip_epsilon": Range(0.1, 0.4),
    "value_coef": Range(0.1, 1.0),
    "entropy_coef": Range(1e-5, 0.1, log=True, zero=True),
    "max_grad_norm": Range(0.3, 5.0, log=True),
    "n_steps": Choices((256, 512, 1024, 2048, 4096)),
    "batch_size": Choices((32, 64, 128, 256, 512)),
    "n_epochs": Range(1, 20),
    "anneal_learning_rate": _SWITCH,
    "clip_value_loss": _SWITCH,
    "normalize_observations": _SWITCH,
    "normalize_rewards": _SWITCH,
    "num_envs": Choices((4, 16, 64)),
    "hidden_sizes": Choices(((64, 64), (256, 256))),
    "activation": Choices(("tanh", "relu")),
}

SPACES: Mapping[str, Mapping[str, Parameter]] = {"standard": _STANDARD, "wide": _WIDE}
"""Name -> a built-in space. ``wide`` holds what published tunings use (RL Baselines3 Zoo), and
each value of ``standard``."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The parameters that a study tunes and the ones it fixes. Frozen and hashable.

    Rollout, minibatch and number of environments that do not go together are repaired: the
    number of environments becomes the nearest one that divides the rollout, and so does the
    minibatch.

    Attributes:
      tuned: (name, range or choices) pairs.
      fixed: (name, value) pairs. What is neither tuned nor fixed keeps its default.
      defaults: the baseline of the study, and what is neither tuned nor fixed.
      agent: likewise; that of the study's settings.
    """

    tuned: tuple[tuple[str, Parameter], ...] = tuple(_STANDARD.items())
    fixed: tuple[tuple[str, Value], ...] = ()
    defaults: Hyperparameters = Hyperparameters()
    agent: AgentConfig = AgentConfig()

    @classmethod
    def of(cls, value: "SpaceLike") -> "SearchSpace":
        """Return a search space that is given as such, by name, by file, or by tables.

        Raises:
          UserError: for anything else, or what a space cannot hold.
        """
        if isinstance(value, SearchSpace):
            return value
        if isinstance(value, Mapping):
            return cls().changed_by(value)
        if not isinstance(value, (str, Path)):
            raise UserError(
                "space must be a SearchSpace, a name, a file, or a mapping of parameters to "
                f"tables, but got {value!r:.80}"
            )
        if str(value) in SPACES:
            return cls.named(str(value))
        return cls.from_file(space_file("space", value))

    @classmethod
    def named(cls, name: str) -> "SearchSpace":
        """Return one of :data:`SPACES`.

        Raises:
          UserError: for another name.
        """
        require_choice("space", name, SPACES)
        return cls(tuple(SPACES[name].items()))

    @classmethod
    def around(cls, defaults: Hyperparameters, num_envs: int) -> "SearchSpace":
        """Return the default space, widened to hold other `defaults`.

        Rollout and minibatch sizes are those of the default space that go together with
        the ones of `defaults` and with `num_envs`.
        """
        n_steps, batch_size = defaults.n_steps, defaults.batch_size
        rollouts = {n for n in _N_STEPS if n % batch_size == 0 and n % num_envs == 0} | {n_steps}
        batches = {b for b in _BATCH_SIZES if all(n % b == 0 for n in rollouts)} | {batch_size}
        sizes = {
            "n_steps": Choices(tuple(sorted(rollouts))),
            "batch_size": Choices(tuple(sorted(batches))),
        }
        return cls(tuple((_STANDARD | sizes).items())).holding(Configuration(defaults))

    def holding(self, baseline: Configuration) -> "SearchSpace":
        """Return this space with another baseline, widened to hold it."""
        values, tuned = baseline.to_dict(), dict(self.tuned)
        for name, parameter in self.tuned:
            value = values[name]
            if parameter.encode(value) is not None:
                continue
            if isinstance(parameter, Choices):
                chosen: Any = {*parameter.values, value}
                tuned[name] = Choices(tuple(sorted(chosen)))
            else:
                low, high = min(parameter.low, value), max(parameter.high, value)
                log, complement = parameter.log and low > 0, parameter.log_complement and high < 1
                tuned[name] = Range(low, high, log, complement, parameter.zero and log)
        return dataclasses.replace(
            self,
            tuned=tuple(tuned.items()),
            defaults=baseline.hyperparameters,
            agent=baseline.agent,
        )

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "SearchSpace":
        """Return the default space changed by `tables`; see :meth:`changed_by`."""
        return cls().changed_by(tables)

    def changed_by(self, tables: Mapping[str, Any]) -> "SearchSpace":
        """Return this space, or the one that `tables` name as their base, changed by them.

        Args:
          tables: as a TOML file holds them.

        Raises:
          UserError: naming the key, its value and what is allowed.
        """
        if not isinstance(tables, Mapping):
            raise UserError(f"tables must be a mapping of parameters, but got {tables!r:.80}")
        if "base" in tables:
            require_choice("base", tables["base"], SPACES)
            start = SearchSpace.named(tables["base"])
            others = {name: table for name, table in tables.items() if name != "base"}
            return start.holding(Configuration(self.defaults, self.agent)).changed_by(others)
        tuned, fixed = dict(self.tuned), dict(self.fixed)
        known = [*DOMAINS, *AGENT]
        for name, table in tables.items():
            if name not in known:
                raise UserError(
                    f"unknown parameter [{name}]{nearest(name, known)} (known: {', '.join(known)})"
                )
            if not isinstance(table, Mapping):
                raise UserError(
                    f"[{name}] must be a table, as in '[{name}]' followed by 'value = ...', "
                    f"but got {name} = {table!r}"
                )
            tuned.pop(name, None)
            fixed.pop(name, None)
            parameter = _parse(name, table)
            if isinstance(parameter, (Range, Choices)):
                tuned[name] = parameter
            elif parameter is not None:
                fixed[name] = parameter
        if not tuned:
            raise UserError("the search space tunes nothing: every parameter is fixed or dropped")
        return dataclasses.replace(self, tuned=tuple(tuned.items()), fixed=tuple(fixed.items()))

    def without(self, names: Collection[str]) -> "SearchSpace":
        """Return this space with parameters that are no longer tuned, and keep their defaults.

        Raises:
          UserError: for one that it does not tune, or all of them.
        """
        for name in names:
            require_choice("fix", name, dict(self.tuned))
        return self.changed_by({name: {"drop": True} for name in names})

    @classmethod
    def from_file(cls, path: str | Path) -> "SearchSpace":
        """Return the default space changed by the TOML file at `path`."""
        return cls().changed_by_file(path)

    def changed_by_file(self, path: str | Path) -> "SearchSpace":
        """Return this space, or the one a file names as its base, changed by a TOML file."""
        tables = read_toml(Path(path))
        try:
            return self.changed_by(tables)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return what :meth:`from_tables` takes, so that it restores all but the baseline."""
        tuned = dict(self.tuned)  # Their order is that of a sampler's draws.
        tables: dict[str, dict[str, Any]] = {
            name: {"drop": True} for name in _STANDARD if name not in tuned
        }
        for name, parameter in self.tuned:
            if isinstance(parameter, Range):
                tables[name] = {
                    key: value
                    for key, value in vars(parameter).items()
                    if key in ("low", "high", "log") or value
                }
            else:
                tables[name] = {"choices": list(map(_plain, parameter.values))}
                if parameter.generation:
                    tables[name]["generation"] = parameter.generation
        return tables | {name: {"value": _plain(value)} for name, value in self.fixed}

    @property
    def num_envs(self) -> int | None:
        """The number of environments this space fixes, if it does."""
        value = dict(self.fixed).get("num_envs")
        return value if isinstance(value, int) else None

    @property
    def fixed_agent(self) -> AgentConfig:
        """The agent of a trial where none of its settings is tuned."""
        return self.untuned().agent

    @property
    def tuned_agent(self) -> list[str]:
        """Names of the agent's settings that are tuned."""
        return [name for name, _ in self.tuned if name in AGENT]

    def agents(self) -> list[AgentConfig]:
        """Return every agent of the space."""
        tuned = {n: p.values for n, p in self.tuned if n in AGENT and isinstance(p, Choices)}
        combinations: list[dict[str, Any]] = [
            dict(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())
        ]
        return [dataclasses.replace(self.fixed_agent, **values) for values in combinations]

    @property
    def keys(self) -> dict[str, str]:
        """Tuned parameter -> its name in Optuna."""
        return {name: parameter.key(name) for name, parameter in self.tuned}

    def choices(self, name: str) -> tuple[int, ...]:
        """Return the values of `n_steps` or `batch_size` that the programs must run."""
        parameter = dict(self.tuned).get(name)
        if isinstance(parameter, Choices):
            return tuple(int(value) for value in parameter.values if isinstance(value, int))
        return (int(getattr(self.untuned().hyperparameters, name)),)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return name in Optuna -> where values are drawn from, in order."""
        return {p.key(name): p.distribution(name) for name, p in self.tuned}

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Configuration:
        """Ask `trial` for every tuned parameter and return the whole configuration."""
        values = {}
        for name, parameter in self.tuned:
            key, distribution = parameter.key(name), parameter.distribution(name)
            values[name] = parameter.decode(_ask(trial, key, distribution))
        return self.complete(self._working(values))

    def decode(self, params: Mapping[str, Any]) -> Configuration:
        """Return the configuration of a trial to which Optuna has suggested `params`."""
        values = {
            name: parameter.decode(params[parameter.key(name)])
            for name, parameter in self.tuned
            if parameter.key(name) in params
        }
        return self.complete(self._working(values))

    def encode(self, configuration: Configuration) -> dict[str, Any] | None:
        """Return what Optuna would suggest for `configuration`; None where it is outside."""
        values = configuration.to_dict()
        params = {p.key(name): p.encode(values[name]) for name, p in self.tuned}
        return None if any(value is None for value in params.values()) else params

    def has_untuned(self, configuration: Configuration) -> bool:
        """Return whether what this space does not tune is the same in `configuration`."""
        values = configuration.to_dict()
        return self.complete({name: values[name] for name, _ in self.tuned}) == configuration

    def complete(self, values: Mapping[str, Any]) -> Configuration:
        """Return the configuration of a trial whose tuned parameters are `values`."""
        return Configuration.from_dict(self.untuned().to_dict() | dict(values))

    def repaired(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what has to change for rollout, minibatch and environments to go together.

        Only what is tuned changes, and only to another of its choices.
        """
        tuned, changed, n_steps = dict(self.tuned), {}, values["n_steps"]
        memory = {name: values[name] for name in ("network", "sequence_length")}
        row = dataclasses.replace(self.fixed_agent, **memory).row_size
        go_together: dict[str, Callable[[Any], bool]] = {
            "num_envs": lambda num_envs: n_steps % (num_envs * row) == 0,
            "batch_size": lambda batch_size: n_steps % batch_size == 0 == batch_size % row,
        }
        for name, goes in go_together.items():
            parameter = tuned.get(name)
            if isinstance(parameter, Choices) and not goes(values[name]):
                working = tuple(choice for choice in parameter.values if goes(choice))
                if working:
                    changed[name] = Choices(working).nearest(values[name])
        return changed

    def baseline(self) -> dict[str, Any]:
        """Return the default of each tuned parameter, or what comes nearest to it here."""
        defaults = Configuration(self.defaults, self.agent).to_dict()
        return self._working({name: p.nearest(defaults[name]) for name, p in self.tuned})

    def baseline_params(self) -> dict[str, Any]:
        """Return :meth:`baseline` as Optuna would suggest it."""
        params = self.encode(self.complete(self.baseline()))
        assert params is not None, "the baseline is in the space"
        return params

    def moved_defaults(self) -> dict[str, tuple[Value, Value]]:
        """Return name -> (default, baseline) where this space keeps out a default."""
        defaults = Configuration(self.defaults, self.agent).to_dict()
        baseline = self.complete(self.baseline()).to_dict()
        return {
            name: (defaults[name], baseline[name])
            for name in defaults
            if defaults[name] != baseline[name] and not (name in AGENT and name in dict(self.fixed))
        }

    def grid(self, points: int) -> dict[str, list[Any]]:
        """Return name in Optuna -> values of a grid with `points` values for each range."""
        return {
            parameter.key(name): [
                parameter.encode(value)
                for value in parameter.grid(points, name in DOMAINS and DOMAINS[name].kind is int)
            ]
            for name, parameter in self.tuned
        }

    def widening(self, former: "SearchSpace") -> "SearchSpace":
        """Return this space as the continuation of a study with the space `former`.

        Raises:
          UserError: naming the first parameter of which this space lacks a value.
        """
        before, after = dict(former.tuned), dict(self.tuned)
        was, now = former.untuned().to_dict(), self.untuned().to_dict()
        tuned = dict(after)
        for name in {**before, **after, **now}:
            old, new = before.get(name), after.get(name)
            if new is None and (old is not None or was[name] != now[name]):
                raise _narrowed(name, old or was[name], now[name])
            if new is None:
                continue
            if not new.holds(Choices((was[name],)) if old is None else old):
                raise _narrowed(name, old or was[name], new)
            if old is not None and old.key(name) == dataclasses.replace(
                new, generation=old.generation
            ).key(name):
                same = _compatible(old.distribution(name), new.distribution(name))
                tuned[name] = dataclasses.replace(new, generation=old.generation + (not same))
        return dataclasses.replace(self, tuned=tuple(tuned.items()))

    def _working(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return tuned parameters with sizes that go together."""
        return {**values, **self.repaired(self.untuned().to_dict() | dict(values))}

    def untuned(self) -> Configuration:
        """Return the baseline, but for what is fixed."""
        defaults = Configuration(self.defaults, self.agent).to_dict()
        return Configuration.from_dict(defaults | dict(self.fixed))


SpaceLike = SearchSpace | Mapping[str, Any] | str | Path
"""A search space, tables that change the standard one, a name of :data:`SPACES`, or a file."""


def space_file(name: str, value: str | Path) -> Path:
    """Return `value`, which is not of :data:`SPACES`, as the path of a file.

    Raises:
      UserError: where it looks more like a misspelt space; `name` is what the user calls it.
    """
    path = Path(value)
    if not path.suffix and not path.exists():
        require_choice(name, str(path), [*SPACES, "FILE.toml"])
    return path


def _ask(trial: "optuna.trial.BaseTrial", key: str, distribution: Any) -> Any:
    """Ask `trial` for a parameter by its distribution, for which Optuna has no public method."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    low, high, log = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, low, high, log=log)


def _compatible(old: "BaseDistribution", new: "BaseDistribution") -> bool:
    """Return whether Optuna takes both for one parameter of a study."""
    from optuna.distributions import check_distribution_compatibility

    try:
        check_distribution_compatibility(old, new)
    except ValueError:
        return False
    return True


def _narrowed(name: str, old: Any, new: Any) -> UserError:
    return UserError(
        f"the study was started with space.{name} = {_describe(old)}, but got {_describe(new)}: "
        f"a space may become wider, not narrower; choose another --output or --study-name"
    )


def _describe(value: Any) -> str:
    if isinstance(value, Range):
        return f"{'0 or ' if value.zero else ''}{value.low:g} to {value.high:g}"
    if isinstance(value, Choices):
        return f"one of {', '.join(map(str, map(_plain, value.values)))}"
    return f"{_plain(value)}"


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _parse(name: str, table: Mapping[str, Any]) -> Parameter | Value | None:
    """Return a parameter, a fixed value, or None for a dropped one."""
    kinds = {
        "value": {"value"},
        "choices": {"choices", "generation"},
        "drop": {"drop"},
        "low": {"low", "high", "log", "log_complement", "zero", "generation"},
    }
    keys = set().union(*kinds.values())
    for key in table:
        if key not in keys:
            raise UserError(
                f"[{name}] has an unknown key {key!r}{nearest(key, keys)} "
                "(allowed: low, high, log or log_complement, and zero; choices; value; drop)"
            )
    kind = next((kind for kind, own in kinds.items() if kind in table and set(table) <= own), None)
    if kind is None:
        raise UserError(
            f"[{name}] must have either low and high, or choices, or value, or drop, "
            f"but got {', '.join(table) or 'nothing'}"
        )
    generation = table.get("generation", 0)
    if isinstance(generation, bool) or not isinstance(generation, int) or generation < 0:
        raise UserError(f"[{name}] generation must be an integer, but got {generation!r}")
    if kind == "drop":
        if table["drop"] is not True:
            raise UserError(f"[{name}] drop must be true, but got {table['drop']!r}")
        return None
    if kind == "value":
        return _check(name, "value", table["value"])
    if kind == "choices":
        return dataclasses.replace(_parse_choices(name, table["choices"]), generation=generation)
    return dataclasses.replace(_parse_range(name, table), generation=generation)


def _check(name: str, key: str, value: Any) -> Value:
    """Return a value of a parameter, of its type."""
    if name in DOMAINS:
        return DOMAINS[name].check(f"[{name}] {key}", value)
    try:
        checked: Value = getattr(AgentConfig.from_dict({name: value}), name)
    except (UserError, TypeError) as error:
        raise UserError(f"[{name}] {key}: {error}") from error
    return checked


def _parse_choices(name: str, choices: Any) -> Choices:
    if not isinstance(choices, list) or not choices:
        raise UserError(f"[{name}] choices must be a list of values, but got {choices!r}")
    values = tuple(_check(name, "choices", value) for value in choices)
    if len(set(values)) < len(values):
        raise UserError(f"[{name}] choices must differ, but got {choices!r}")
    return Choices(values)


def _parse_range(name: str, table: Mapping[str, Any]) -> Range:
    if name in SHAPES or name in AGENT or DOMAINS[name].kind is bool:
        compiled = name in SHAPES or name in AGENT
        why = f": each {name} is compiled into the program" if compiled else ""
        raise UserError(f"[{name}] must have choices or a value, not a range{why}")
    if "high" not in table:
        raise UserError(f"[{name}] has low = {table['low']!r} but no high")
    low: Any = _check(name, "low", table["low"])
    high: Any = _check(name, "high", table["high"])
    switches = {key: table.get(key, False) for key in ("log", "log_complement", "zero")}
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise UserError(f"[{name}] {key} must be true or false, but got {value!r}")
    if low >= high:
        raise UserError(
            f"[{name}] low must be below high, but got low = {low!r} and high = {high!r}"
        )
    if switches["log"] and low <= 0:
        raise UserError(f"[{name}] low must be above 0 on a log scale, but got {low!r}")
    if switches["log_complement"] and (switches["log"] or DOMAINS[name].kind is int or high >= 1):
        raise UserError(
            f"[{name}] log_complement is for numbers below 1 without log, but got high = {high!r}"
        )
    if switches["zero"] and not (switches["log"] and DOMAINS[name].kind is float):
        raise UserError(f"[{name}] zero is for numbers with log = true")
    if switches["zero"]:
        _check(name, "zero", 0.0)
    return Range(low, high, **switches)
