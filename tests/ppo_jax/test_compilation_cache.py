"""The compilation cache, in processes of their own: JAX opens it once."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ppo_jax.compilation_cache import enable_compilation_cache

PROGRAM = """
import jax, jax.numpy as jnp
from ppo_jax.compilation_cache import enable_compilation_cache
enable_compilation_cache()
def doubled(x): return 2 * x + jnp.sin(x)
def halved(x): return x / 2 + jnp.cos(x)
for function in (doubled, halved): jax.jit(function)(jnp.ones(3)).block_until_ready()
import warnings
warnings.warn("shown as ever")
"""


def start(cache: Path) -> str:
    """Return what a process prints that keeps its programs in `cache`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONWARNINGS": ""},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "shown as ever" in done.stderr
    return done.stderr


@pytest.mark.parametrize("damage", [b"", b"x\x9c cut short"])
def test_damaged_entry_of_the_cache_is_replaced_without_a_word(tmp_path, damage):
    assert "cache" not in start(tmp_path)
    (entry,) = tmp_path.glob("jit_doubled-*-cache")
    whole = entry.read_bytes()
    entry.write_bytes(damage)
    assert "cache" not in start(tmp_path)
    assert len(entry.read_bytes()) == pytest.approx(len(whole), rel=0.1)


def test_cache_that_cannot_be_written_is_told_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    told = start(tmp_path / "file" / "cache")
    assert told.count("compiled programs cannot be kept in") == 1
    assert "Error" not in told.replace("NotADirectoryError", "")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for variable in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    before = jax.config.jax_compilation_cache_dir
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
