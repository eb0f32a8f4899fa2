"""How workers divide the devices of a host."""

import os

import pytest

from tune.workers.devices import DeviceShare


def shares(workers):
    return [DeviceShare.of(worker, workers) for worker in range(workers)]


@pytest.fixture
def five_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})


@pytest.mark.usefixtures("five_cores")
def test_cores_are_divided():
    assert [share.cores for share in shares(2)] == [(0, 2, 4), (1, 3)]


@pytest.mark.usefixtures("five_cores")
def test_more_workers_than_cores_share_them():
    assert [share.cores for share in shares(7)] == [(0,), (1,), (2,), (3,), (4,), (0,), (1,)]


def test_every_worker_has_a_gpu(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert [share.environment for share in shares(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "GPU-7"},
    ]


def test_workers_that_share_a_gpu_divide_its_memory(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert shares(4)[2].environment == {
        "CUDA_VISIBLE_DEVICES": "4",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45",
    }


@pytest.mark.parametrize(("visible", "platforms"), [("", None), ("-1", None), ("0", "cpu")])
def test_without_a_gpu_the_environment_stays(monkeypatch, visible, platforms):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert shares(2)[0].environment == {}
