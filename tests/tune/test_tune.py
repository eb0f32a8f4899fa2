"""The package as a user's script sees it."""

import importlib

import pytest

import tune


@pytest.mark.parametrize("name", tune.__all__)
def test_public_names_stay_what_they_are_after_every_import(name):
    for module in ("run", "report", "search.objective", "search.study", "evidence.validation"):
        importlib.import_module(f"tune.{module}")
    assert callable(getattr(tune, name))
    assert getattr(tune, name).__name__ == name


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'objectives'"):
        _ = tune.objectives
