import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from ppo_jax import devices
from ppo_jax.devices import set_up_process, usable_cores


def test_cores_of_a_process_that_may_not_use_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 1, 3})
    assert usable_cores() == [1, 3, 5]


def test_cores_where_the_system_knows_no_affinity(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores() == list(range(8))


@pytest.fixture
def process(monkeypatch):
    """A process of its own, as far as `set_up_process` sees it."""
    config = SimpleNamespace(jax_compilation_cache_dir=None, jax_num_cpu_devices=-1)
    process = SimpleNamespace(config=config, done=[], started=False)
    monkeypatch.delenv("NPROC")

    def enable_cores():
        if process.started:
            raise RuntimeError("backends are initialized")
        process.done.append("cores")

    fake = SimpleNamespace(
        config=config, default_backend=lambda: "cpu", local_devices=lambda: ["cpu:0"]
    )
    monkeypatch.setattr(devices, "jax", fake)
    monkeypatch.setattr(devices, "enable_all_cpu_cores", enable_cores)
    monkeypatch.setattr(devices, "enable_compilation_cache", lambda: process.done.append("cache"))
    monkeypatch.setattr(devices, "usable_cores", lambda: [0, 1, 2, 3])
    return process


def test_functions_use_what_the_process_has_not_chosen(process, monkeypatch):
    set_up_process()
    assert process.done == ["cache", "cores"]
    assert os.environ["NPROC"] == "16"
    process.done.clear()
    process.config.jax_compilation_cache_dir = "/mine"
    process.config.jax_num_cpu_devices = 2
    monkeypatch.setenv("NPROC", "2")
    set_up_process()
    assert process.done == []
    assert os.environ["NPROC"] == "2"


def test_cores_that_stay_unused_are_a_warning(process, monkeypatch):
    process.started = True
    with pytest.warns(UserWarning, match="started with one of 4 CPU cores; to use them all, call"):
        set_up_process()
    monkeypatch.setattr(devices, "usable_cores", lambda: [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up_process()


_DECOMPOSING = """
from ppo_jax.devices import SeedMesh, enable_all_cpu_cores
enable_all_cpu_cores()
import jax, jax.numpy as jnp
mesh = SeedMesh(8)
def function(key):
    matrices = [jax.random.normal(key, (64, 64)) for key in jax.random.split(key, 4)]
    return jax.lax.fori_loop(0, 100, lambda i, xs: [x + jnp.linalg.qr(x)[0] for x in xs], matrices)
keys = mesh.put(jax.random.split(jax.random.key(0), 8))
jax.block_until_ready(jax.jit(mesh.map(function, (0,), 0))(keys))
print(len(jax.devices()))
"""


def test_decompositions_on_all_devices_do_not_wait_for_each_other():
    variables = {name: value for name, value in os.environ.items() if name != "NPROC"}
    words = [sys.executable, "-c", _DECOMPOSING]
    done = subprocess.run(words, env=variables, stdout=subprocess.PIPE, timeout=240, check=True)
    assert done.stdout == b"2\n"
