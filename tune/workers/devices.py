"""Which CPU cores and which GPU each worker of a host gets.

Reads the environment and ``/dev`` only: asking JAX would start a backend, which takes memory
on every GPU, and a TPU for itself alone.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from ppo_jax.devices import usable_cores
from ppo_jax.errors import UserError

MEMORY_FRACTION = 0.9
"""Of a GPU's memory, for all workers that share it."""

DEVICE_FILES = Path("/dev")


@dataclasses.dataclass(frozen=True)
class DeviceShare:
    """The devices of one worker.

    Attributes:
      cores: numbers of the CPU cores that it runs on.
      environment: variables that let it see no other GPU; empty where there is no GPU.
    """

    cores: tuple[int, ...]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, worker: int, workers: int) -> "DeviceShare":
        """Return the share of one of `workers` workers, which are numbered from 0."""
        return cls(_cores(worker, workers), _gpu_environment(worker, workers))


def require_divisible(workers: int) -> None:
    """Raise a ``UserError`` where `workers` workers cannot share the devices of this host.

    A process takes all TPU chips that it can see, so that a second one finds none.
    """
    if workers > 1 and _uses_tpu():
        raise UserError(
            f"workers cannot share the TPU of this host, but got --workers {workers}; leave "
            f"--workers out, which trains the seeds of a trial on all chips, or set "
            f"JAX_PLATFORMS=cpu"
        )


def _cores(worker: int, workers: int) -> tuple[int, ...]:
    """Return every `workers`-th core; one that is shared where there are fewer cores."""
    cores = usable_cores()
    return tuple(cores[worker::workers] or [cores[worker % len(cores)]])


def _uses_tpu() -> bool:
    """Return whether JAX would start on a TPU."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.partition(",")[0] in ("tpu", "proxy")
    # A chip is /dev/accel0, or /dev/vfio/0 on newer hosts, where libtpu makes it JAX's default.
    chips = [*DEVICE_FILES.glob("accel[0-9]*"), *(DEVICE_FILES / "vfio").glob("[0-9]*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _gpu_environment(worker: int, workers: int) -> dict[str, str]:
    """Return the environment that gives a worker one NVIDIA GPU, if there is any."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        # CUDA counts the GPUs that it finds from 0, whatever numbers their device files have:
        # a container may hold /dev/nvidia3 alone.
        gpus = [str(ordinal) for ordinal in range(len([*DEVICE_FILES.glob("nvidia[0-9]*")]))]
    else:
        gpus = _visible(visible)
    if not gpus:
        return {}
    environment = {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]}
    workers_per_gpu = -(-workers // len(gpus))
    if workers_per_gpu > 1:
        fraction = MEMORY_FRACTION / workers_per_gpu
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{fraction:.2f}"
    return environment


def _visible(variable: str) -> list[str]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` names; CUDA stops at the first it lacks."""
    gpus = []
    for name in map(str.strip, variable.split(",")):
        if name in ("", "-1"):
            break
        gpus.append(name)
    return gpus
