import os
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
    config = SimpleNamespace(
        jax_compilation_cache_dir=None, jax_num_cpu_devices=-1, **devices.JAX_SETTINGS
    )
    process = SimpleNamespace(config=config, done=[], started=False)

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


def test_functions_use_what_the_process_has_not_chosen(process):
    set_up_process()
    assert process.done == ["cache", "cores"]
    process.done.clear()
    process.config.jax_compilation_cache_dir = "/mine"
    process.config.jax_num_cpu_devices = 2
    set_up_process()
    assert process.done == []


def test_settings_that_change_results_are_a_warning(process):
    process.config.jax_enable_x64 = True
    with pytest.warns(UserWarning, match="with jax_enable_x64=True results differ from those"):
        set_up_process()


def test_cores_that_stay_unused_are_a_warning(process, monkeypatch):
    process.started = True
    with pytest.warns(UserWarning, match="started with one of 4 CPU cores; to use them all, call"):
        set_up_process()
    monkeypatch.setattr(devices, "usable_cores", lambda: [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up_process()
