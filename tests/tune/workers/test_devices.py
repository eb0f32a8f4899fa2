"""How workers divide the devices of a host."""

import os

import pytest

from ppo_jax.errors import UserError
from tune.workers import devices
from tune.workers.devices import DeviceShare, require_divisible


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


@pytest.fixture
def device_files(monkeypatch, tmp_path):
    """Return a function that makes files of an empty ``/dev``."""
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()

    return make


def test_gpus_are_counted_from_0_whatever_their_files_are_called(device_files):
    device_files("nvidia3", "nvidiactl", "nvidia-uvm")
    assert shares(1)[0].environment == {"CUDA_VISIBLE_DEVICES": "0"}
    device_files(*(f"nvidia{number}" for number in range(12)))
    found = [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares(12)]
    assert found == [str(number) for number in range(12)]


def test_gpus_after_one_that_is_not_there_are_not_visible(monkeypatch, device_files):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 1,-1,0")
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares(2)] == ["2", "1"]


@pytest.mark.parametrize("chip", ["accel0", "vfio/0"])
def test_workers_do_not_share_a_tpu(monkeypatch, device_files, chip):
    device_files(chip)
    require_divisible(2)  # Without libtpu, JAX runs on the CPU.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    require_divisible(1)
    with pytest.raises(UserError, match="cannot share the TPU of this host, but got --workers 2"):
        require_divisible(2)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    require_divisible(2)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    with pytest.raises(UserError, match="TPU"):
        require_divisible(2)


def test_cores_are_divided_on_macos_as_well(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert [share.cores for share in shares(2)] == [(0, 2), (1,)]


@pytest.mark.parametrize(("visible", "platforms"), [("", None), ("-1", None), ("0", "cpu")])
def test_without_a_gpu_the_environment_stays(monkeypatch, visible, platforms):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert shares(2)[0].environment == {}
