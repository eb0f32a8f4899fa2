"""What users, editors and type checkers see of both packages."""

import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppo_jax
import tune
from ppo_jax.config import AgentConfig, AgentOptions
from ppo_jax.hyperparameters import HyperparameterOptions, Hyperparameters
from ppo_jax.training import Training

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", [ppo_jax, tune])
def test_dir_names_what_there_is(package):
    assert set(package.__all__) <= set(dir(package))
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("package", [ppo_jax, tune])
def test_type_checkers_see_the_same_names(package):
    text = Path(package.__file__).read_text(encoding="utf-8")
    block = re.search(r"^if TYPE_CHECKING:\n((?:    .*\n)+)", text, re.MULTILINE)[1]
    seen = [name.partition(" as ")[0] for name in re.findall(r"[\w]+(?: as \w+)?", block)]
    assert set(package.__all__) <= set(seen)


def test_importing_the_packages_is_quick():
    script = "import sys, ppo_jax, tune; dir(ppo_jax); assert 'jax' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)


def test_train_is_a_function_and_the_module_of_the_command():
    module = importlib.import_module("ppo_jax.train")
    assert ppo_jax.train is module
    assert callable(module.main)
    signature = inspect.signature(ppo_jax.train)
    assert signature.parameters["learning_rate"].default == Hyperparameters.learning_rate
    assert signature.parameters["hidden_sizes"].default == AgentConfig.hidden_sizes
    assert "options" not in signature.parameters
    for field in dataclasses.fields(Training):
        if field.name in ("total_steps", "seeds", "seed", "eval_every", "eval_episodes"):
            assert signature.parameters[field.name].default == field.default
    assert signature.parameters["matmul_precision"].default == Training.matmul_precision


@pytest.mark.parametrize(
    ("options", "kind"), [(HyperparameterOptions, Hyperparameters), (AgentOptions, AgentConfig)]
)
def test_keyword_arguments_are_the_fields(options, kind):
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    if "network" in types:  # Its class, too.
        types["network"] |= Callable[..., Any]
    assert options.__annotations__ == types


@pytest.mark.slow
def test_mypy_finds_the_mistakes_of_a_users_script(tmp_path):
    """Also without the settings of this project."""
    pytest.importorskip("mypy")
    lines = (ROOT / "tests/typing/user_script.py").read_text().splitlines()
    planted = {
        (str(number), found[1])
        for number, line in enumerate(lines, start=1)
        if (found := re.search(r"# type: ignore\[(.+)\]", line))
    }
    (tmp_path / "script.py").write_text("\n".join(re.sub(r"  # type:.*", "", x) for x in lines))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    errors = re.findall(r"^script\.py:(\d+): error: .*\[(.+)\]$", done.stdout, re.MULTILINE)
    assert len(planted) == 5
    assert set(errors) == planted, done.stdout
