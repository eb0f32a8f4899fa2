"""Two CPU devices for every test, and one compilation cache for the whole run."""

import os
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent

# Before anything starts the backend: sharding is tested on any machine.
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all test processes, and the commands that they run, share what they compile."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # Each has a folder below the run's.
        root = root.parent
    cache = str(root / "compilation-cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture
def command():
    """Return a function that runs ``python -m MODULE ARGUMENTS...`` as a user would."""
    import subprocess

    def run(*arguments: object, timeout: float = 200, **kwargs: object):
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            **kwargs,
        )

    return run
