"""Which hyperparameters a study tunes, and over which values; TOML files.

A file has one table a parameter. It changes the default space: parameters it does not
name stay as they are. ::

    [learning_rate]        # narrow or widen
    low = 1e-4
    high = 3e-3
    log = true

    [batch_size]           # other choices
    choices = [64, 256]

    [gamma]                # fix
    value = 0.995

    [value_coef]           # leave at its default
    drop = true

    [anneal_learning_rate] # add
    choices = [true, false]
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_jax.errors import UserError, nearest, require_count
from ppo_jax.files import read_toml
from ppo_jax.hyperparameters import DOMAINS, Hyperparameters

if TYPE_CHECKING:
    import optuna

Value = bool | int | float

SHAPES = ("n_steps", "batch_size")
"""Hyperparameters that need a list of choices: each choice is compiled into the program."""

STATIC = ("num_envs",)
"""Sizes that a space can fix but not tune: another value is another program."""


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers between `low` and `high`, both included; integers where the domain says so."""

    low: float
    high: float
    log: bool = False

    def nearest(self, value: Value) -> Value:
        """Return the value of this range that is nearest to `value`."""
        return min(max(value, self.low), self.high)

    def grid(self, points: int, integer: bool) -> list[Value]:
        """Return `points` values spread evenly from `low` to `high`, on its scale."""
        if points == 1 or self.low == self.high:
            return [self.low]
        low, high = (math.log(x) if self.log else x for x in (self.low, self.high))
        steps = [low + (high - low) * i / (points - 1) for i in range(points)]
        values = [math.exp(x) if self.log else x for x in steps]
        if integer:
            return sorted({round(x) for x in values})
        return [self.low, *values[1:-1], self.high]  # The ends without rounding errors.


@dataclasses.dataclass(frozen=True)
class Choices:
    """A list of values, without an order."""

    values: tuple[Value, ...]

    def nearest(self, value: Value) -> Value:
        """Return `value` where it is a choice, else the choice whose ratio to it is nearest to 1.

        Where a zero is among them, the choice with the smallest difference. A switch that
        cannot take its default takes its only other value.
        """
        if value in self.values or isinstance(value, bool):
            return value if value in self.values else self.values[0]
        if 0 in (value, *self.values):
            return min(self.values, key=lambda choice: abs(choice - value))
        return min(self.values, key=lambda choice: abs(math.log(choice / value)))

    def grid(self, _points: int, _integer: bool) -> list[Value]:
        """Return all choices; the arguments are for ranges."""
        return list(self.values)


Parameter = Range | Choices

_N_STEPS, _BATCH_SIZES = (1024, 2048, 4096), (128, 256, 512)

_DEFAULT: dict[str, Parameter] = {
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


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The parameters that a study tunes and the ones it fixes. Frozen and hashable.

    Attributes:
      tuned: (name, range or choices) pairs.
      fixed: (name, value) pairs. What is neither tuned nor fixed keeps its default.
      defaults: the baseline of the study, and what is neither tuned nor fixed.
    """

    tuned: tuple[tuple[str, Parameter], ...] = tuple(_DEFAULT.items())
    fixed: tuple[tuple[str, Value], ...] = ()
    defaults: Hyperparameters = Hyperparameters()

    @classmethod
    def around(cls, defaults: Hyperparameters, num_envs: int) -> "SearchSpace":
        """Return the default space, widened to hold other `defaults`.

        Rollout and minibatch sizes are those of the default space that go together with
        the ones of `defaults` and with `num_envs`.
        """
        tuned = dict(_DEFAULT)
        n_steps, batch_size = defaults.n_steps, defaults.batch_size
        rollouts = {n for n in _N_STEPS if n % batch_size == 0 and n % num_envs == 0} | {n_steps}
        batches = {b for b in _BATCH_SIZES if all(n % b == 0 for n in rollouts)} | {batch_size}
        tuned |= {
            "n_steps": Choices(tuple(sorted(rollouts))),
            "batch_size": Choices(tuple(sorted(batches))),
        }
        for name, parameter in tuned.items():
            if isinstance(parameter, Range):
                value = getattr(defaults, name)
                low, high = min(parameter.low, value), max(parameter.high, value)
                tuned[name] = Range(low, high, log=parameter.log and low > 0)
        return cls(tuple(tuned.items()), defaults=defaults)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "SearchSpace":
        """Return the default space changed by `tables`; see :meth:`changed_by`."""
        return cls().changed_by(tables)

    def changed_by(self, tables: Mapping[str, Any]) -> "SearchSpace":
        """Return this space changed by `tables`, as a TOML file holds them.

        Raises:
          UserError: naming the key, its value and what is allowed.
        """
        tuned, fixed = dict(self.tuned), dict(self.fixed)
        known = [*DOMAINS, *STATIC]
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
        return SearchSpace(tuple(tuned.items()), tuple(fixed.items()), self.defaults)

    @classmethod
    def from_file(cls, path: str | Path) -> "SearchSpace":
        """Return the default space changed by the TOML file at `path`."""
        return cls().changed_by_file(path)

    def changed_by_file(self, path: str | Path) -> "SearchSpace":
        """Return this space changed by the TOML file at `path`."""
        tables = read_toml(Path(path))
        try:
            return self.changed_by(tables)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return what :meth:`from_tables` takes, so that it restores all but `defaults`."""
        tables: dict[str, dict[str, Any]] = {name: {"drop": True} for name in _DEFAULT}
        for name, parameter in self.tuned:
            if isinstance(parameter, Range):
                tables[name] = dataclasses.asdict(parameter)
            else:
                tables[name] = {"choices": list(parameter.values)}
        return tables | {name: {"value": value} for name, value in self.fixed}

    @property
    def num_envs(self) -> int | None:
        """The number of environments this space fixes, if it does."""
        value = dict(self.fixed).get("num_envs")
        return None if value is None else int(value)

    def choices(self, name: str) -> tuple[int, ...]:
        """Return the values of `n_steps` or `batch_size` that the programs must run."""
        parameter = dict(self.tuned).get(name)
        if isinstance(parameter, Choices):
            return tuple(int(value) for value in parameter.values)
        return (int(getattr(self._untuned(), name)),)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Hyperparameters:
        """Ask `trial` for every tuned parameter and return the whole configuration."""
        values = {}
        for name, parameter in self.tuned:
            if isinstance(parameter, Choices):
                values[name] = trial.suggest_categorical(name, parameter.values)
            elif DOMAINS[name].kind is int:
                values[name] = trial.suggest_int(
                    name, int(parameter.low), int(parameter.high), log=parameter.log
                )
            else:
                values[name] = trial.suggest_float(
                    name, parameter.low, parameter.high, log=parameter.log
                )
        return self.complete(values)

    def complete(self, values: Mapping[str, Value]) -> Hyperparameters:
        """Return the configuration of a trial whose tuned parameters are `values`."""
        return Hyperparameters.from_dict(self._untuned().to_dict() | dict(values))

    def baseline(self) -> dict[str, Value]:
        """Return the default of each tuned parameter, or what comes nearest to it here."""
        defaults = self.defaults.to_dict()
        return {
            name: DOMAINS[name].check(name, parameter.nearest(defaults[name]))
            for name, parameter in self.tuned
        }

    def moved_defaults(self) -> dict[str, tuple[Value, Value]]:
        """Return name -> (default, baseline) where this space keeps out a default."""
        defaults = self.defaults.to_dict()
        baseline = self.complete(self.baseline()).to_dict()
        return {
            name: (defaults[name], baseline[name])
            for name in defaults
            if defaults[name] != baseline[name]
        }

    def grid(self, points: int) -> dict[str, list[Value]]:
        """Return name -> values of a grid with `points` values for each range."""
        return {
            name: parameter.grid(points, DOMAINS[name].kind is int)
            for name, parameter in self.tuned
        }

    def _untuned(self) -> Hyperparameters:
        fixed = {name: value for name, value in self.fixed if name not in STATIC}
        return Hyperparameters.from_dict(self.defaults.to_dict() | fixed)


def _parse(name: str, table: Mapping[str, Any]) -> Parameter | Value | None:
    """Return a parameter, a fixed value, or None for a dropped one."""
    kinds = {
        "value": {"value"},
        "choices": {"choices"},
        "drop": {"drop"},
        "low": {"low", "high", "log"},
    }
    keys = set().union(*kinds.values())
    for key in table:
        if key not in keys:
            raise UserError(
                f"[{name}] has an unknown key {key!r}{nearest(key, keys)} "
                "(allowed: low, high and log; choices; value; drop)"
            )
    kind = next((kind for kind, own in kinds.items() if kind in table and set(table) <= own), None)
    if kind is None:
        raise UserError(
            f"[{name}] must have either low and high, or choices, or value, or drop, "
            f"but got {', '.join(table) or 'nothing'}"
        )
    if name in STATIC:
        if kind == "value":
            require_count(f"[{name}] value", table["value"])
            return int(table["value"])
        raise UserError(
            f"[{name}] can only be fixed with 'value': another {name} is another program"
        )
    if kind == "drop":
        if table["drop"] is not True:
            raise UserError(f"[{name}] drop must be true, but got {table['drop']!r}")
        return None
    if kind == "value":
        return DOMAINS[name].check(f"[{name}] value", table["value"])
    if kind == "choices":
        return _parse_choices(name, table["choices"])
    return _parse_range(name, table)


def _parse_choices(name: str, choices: Any) -> Choices:
    if not isinstance(choices, list) or not choices:
        raise UserError(f"[{name}] choices must be a list of values, but got {choices!r}")
    values = tuple(DOMAINS[name].check(f"[{name}] choices", value) for value in choices)
    if len(set(values)) < len(values):
        raise UserError(f"[{name}] choices must differ, but got {choices!r}")
    return Choices(values)


def _parse_range(name: str, table: Mapping[str, Any]) -> Range:
    if name in SHAPES or DOMAINS[name].kind is bool:
        why = f": each {name} is compiled into the program" if name in SHAPES else ""
        raise UserError(f"[{name}] must have choices or a value, not a range{why}")
    if "high" not in table:
        raise UserError(f"[{name}] has low = {table['low']!r} but no high")
    low = DOMAINS[name].check(f"[{name}] low", table["low"])
    high = DOMAINS[name].check(f"[{name}] high", table["high"])
    log = table.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"[{name}] log must be true or false, but got {log!r}")
    if low >= high:
        raise UserError(
            f"[{name}] low must be below high, but got low = {low!r} and high = {high!r}"
        )
    if log and low <= 0:
        raise UserError(f"[{name}] low must be above 0 on a log scale, but got {low!r}")
    return Range(low, high, log)
