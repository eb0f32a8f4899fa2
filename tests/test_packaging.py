"""What surrounds the packages agrees with them."""

import importlib
import tomllib
from pathlib import Path

import pytest
import yaml

import ppo_jax
import ppo_jax.scripts
import tune.scripts

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ppo_jax.__version__
    assert citation["license"] == PROJECT["license"]


def test_workflows_test_the_pythons_that_are_promised():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    promised = [
        name.rpartition(" ")[2]
        for name in PROJECT["classifiers"]
        if name.startswith("Programming Language :: Python :: 3.")
    ]
    for job in ("test", "distributions"):
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == promised


def test_every_extra_of_the_image_exists():
    text = (ROOT / "Dockerfile").read_text()
    named = {
        extra for part in text.split("/source[")[1:] for extra in part.split("]")[0].split(",")
    }
    assert named
    assert named <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_every_script_starts_a_command(name, monkeypatch):
    started = []
    monkeypatch.setattr(ppo_jax.scripts, "start", started.append)
    monkeypatch.setattr(tune.scripts, "start", started.append)
    module, _, function = PROJECT["scripts"][name].partition(":")
    getattr(importlib.import_module(module), function)()
    assert callable(importlib.import_module(started[0]).main)
