"""What surrounds the packages agrees with them."""

import tomllib
from pathlib import Path

import yaml

import ppo_jax

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
