import os

from ppo_jax.devices import usable_cores


def test_cores_of_a_process_that_may_not_use_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 1, 3})
    assert usable_cores() == [1, 3, 5]


def test_cores_where_the_system_knows_no_affinity(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores() == list(range(8))
