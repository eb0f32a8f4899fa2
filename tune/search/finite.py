"""Spaces of few configurations: which there are, and which have been tried.

The same configuration on the same seeds returns the same again, so a search that has tried all of
them is over.
"""

import functools
import itertools
import math
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from tune.protocol.axes import Axis
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, SearchSpace
from tune.protocol.trials import TrialRecord
from tune.search.model import axes_of
from tune.search.optuna_private import enqueued_params, suggestion

MOST = 4096
"""Configurations of a space that are counted; no study tries as many."""


@functools.lru_cache(maxsize=8)
def configurations(space: SearchSpace) -> frozenset[Configuration] | None:
    """Return every configuration of a space; None where there are very many."""
    values = {name: Axis(name, found).values for name, found in space.distributions().items()}
    lists = [choices for choices in values.values() if choices is not None]
    if len(lists) < len(values) or math.prod(map(len, lists)) > MOST:
        return None
    return frozenset(
        space.decode(dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*lists)
    )


def untried(trials: Iterable[FrozenTrial], settings: Settings) -> set[Configuration] | None:
    """Return the configurations that no trial has or had; None where there are very many."""
    every = configurations(settings.space)
    if every is None:
        return None
    return set(every - {configuration_of(trial, settings) for trial in trials})


def configuration_of(trial: FrozenTrial, settings: Settings) -> Configuration | None:
    """Return what `trial` trains, has trained or is going to; None where that is unknown."""
    begun = TrialRecord.of(trial).configuration(settings)
    if begun is not None or trial.state == TrialState.FAIL:
        return begun
    values = {**(suggestion(trial) or {}), **enqueued_params(trial), **trial.params}
    if any(axis.name not in values for axis in axes_of(settings)):
        return None
    return settings.space.decode({**settings.space.baseline_params(), **values})
