"""Synthetic trials whose truth is known: no training."""

import dataclasses

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from tune.analysis.analysis import analyse
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.trials import TrialRecord

IRRELEVANT = {"gae_lambda", "value_coef", "entropy_coef", "max_grad_norm", "n_steps", "batch_size"}


@pytest.fixture(scope="session")
def irrelevant():
    """The parameters that the planted score does not depend on."""
    return IRRELEVANT


@pytest.fixture(scope="session")
def make_record():
    return record


@pytest.fixture(scope="session")
def make_trials():
    return trials


@pytest.fixture(scope="session")
def planted():
    return planted_score


@pytest.fixture(scope="session")
def found():
    """The analysis of 60 trials of the planted score."""
    return analyse(trials(planted_score, 60), Settings())


def record(number, value, params, distributions, **changes):
    """Return a complete trial without reports."""
    frozen = create_trial(value=value, params=params, distributions=distributions)
    return dataclasses.replace(TrialRecord.of(frozen), number=number, **changes)


def trials(score, n, *, space=None, seed=0, pruned=(), running=(), settled=None):
    """Return random trials of `space` with `score(params, rng)`.

    Those numbered `pruned` stop after the first of four checkpoints. From the seventh on, they
    take the values `settled`.
    """
    space = space or SearchSpace()
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    made = []
    for number in range(n):
        if settled is not None and number >= 6:
            study.enqueue_trial(settled)
        asked = study.ask()
        space.suggest(asked)
        value = float(score(asked.params, rng))
        done = 1 if number in pruned else 4
        state = TrialState.COMPLETE
        if number in running or number in pruned:
            state = TrialState.RUNNING if number in running else TrialState.PRUNED
        made.append(
            record(
                number,
                value,
                asked.params,
                asked.distributions,
                state=state,
                score=value if state == TrialState.COMPLETE else None,
                is_baseline=number == 0,
                means={50_000 * (i + 1): value * (i + 1) / 4 for i in range(done)},
                environment_steps=200_000 * done,
                training_seconds=2.0 * done,
                evaluation_seconds=0.5 * done,
            )
        )
    return made


def planted_score(params, rng):
    """A score with known structure.

    A best region of gamma around 0.985, an interaction of learning rate and epochs, a best clip
    epsilon beyond its upper bound, and six parameters without any effect.
    """
    rate = (np.log10(params["learning_rate"]) + 5) / 2
    epochs = (params["n_epochs"] - 3) / 7
    gamma = (params["gamma"] - 0.985) / 0.05
    clip = (params["clip_epsilon"] - 0.1) / 0.2
    return (
        100
        - 120 * (rate + epochs - 1) ** 2
        - 150 * gamma**2
        + 60 * clip
        + 2 * rng.standard_normal()
    )
