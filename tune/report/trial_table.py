"""Trials as rows of a table that fits a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_jax.hyperparameters import DOMAINS
from tune.protocol.space import SearchSpace
from tune.report import text

LABELS = {
    **{name: domain.label for name, domain in DOMAINS.items()},
    "num_envs": "envs",
    "hidden_sizes": "hidden",
    "normalize_observations": "norm-obs",
    "normalize_rewards": "norm-rew",
}


def value_in_short(value: Any, digits: int = 3) -> str:
    """Return the value of a hyperparameter, for a line that holds many.

    >>> value_in_short(0.00089123), value_in_short(0.9951, 2), value_in_short((64, 64))
    ('0.000891', '1', '64×64')
    """
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, bool):
        return text.number(value)
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)


class TrialTable:
    """The layout of a study's trials: number, score, hyperparameters, seconds, mean returns.

    What does not fit is left out from the end, and the report has all of it.

    Args:
      space: whose parameters are columns.
      width: of the terminal, in characters.
      in_ascii: whether it shows no other characters.
    """

    def __init__(self, space: SearchSpace, width: int, in_ascii: bool = False) -> None:
        self._labels = {**LABELS, **_SHORTER, **(_IN_ASCII if in_ascii else {})}
        self._columns: dict[str, int] = {}
        taken = len(_row("trial", " " * _SCORE, [], " " * _SECONDS))
        for name in space.keys:
            column = max(len(self._label(name)), _width(space, name))
            if taken + 1 + column > width:
                break
            self._columns[name] = column
            taken += 1 + column
        self._left_out = len(space.keys) - len(self._columns)
        self._room = width - taken

    @property
    def header(self) -> list[str]:
        """The lines above the first row."""
        labels = [f"{self._label(name):>{width}}" for name, width in self._columns.items()]
        line = _row("trial", f"{'score':>{_SCORE}}", labels, f"{'time':>{_SECONDS}}")
        if self._room > len(_RETURNS):
            line += _RETURNS
        more = f"({text.plural(self._left_out, 'further column')} in the report)"
        return [*([more] if self._left_out else []), line]

    def row(
        self,
        number: int,
        score: str,
        values: Mapping[str, Any],
        seconds: float,
        means: Sequence[str],
    ) -> str:
        """Return the row of a trial.

        Args:
          number: of the trial.
          score: as text, or what has become of the trial.
          values: hyperparameter -> value.
          seconds: it has taken.
          means: mean returns at its checkpoints, as text; the last ones that fit are shown.
        """
        cells = [
            f"{value_in_short(values[name], _digits(name)):>{width}}"
            for name, width in self._columns.items()
        ]
        elapsed = f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        line = _row(f"{number:>5}", f"{score:>{_SCORE}}", cells, f"{elapsed:>{_SECONDS}}")
        if self._room > len(_RETURNS):
            shown = list(means)
            while shown and 2 + len("  ".join(shown)) > self._room:
                shown.pop(0)
            line += "".join(f"  {mean}" for mean in shown)
        return line

    def _label(self, name: str) -> str:
        return self._labels.get(name, name)


_SCORE, _SECONDS = 8, 6
_RETURNS = "  returns at checkpoints"
_SHORTER = {"n_epochs": "ep"}
_IN_ASCII = {"gamma": "gamma", "gae_lambda": "lam", "clip_epsilon": "clip"}
_PRECISE = {"gamma", "gae_lambda"}
"""What lies close to one."""


def _digits(name: str) -> int:
    return 3 if name in _PRECISE else 2


def _row(number: str, score: str, cells: Sequence[str], seconds: str) -> str:
    return " ".join([number, score, *cells, seconds])


def _width(space: SearchSpace, name: str) -> int:
    """Return how many characters the values of a parameter take at most."""
    is_integer = name in DOMAINS and DOMAINS[name].kind is int
    values = dict(space.tuned)[name].grid(9, is_integer)
    return max(len(value_in_short(value, _digits(name))) for value in values)
