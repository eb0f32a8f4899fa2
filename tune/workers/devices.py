"""Which CPU cores and which GPU each worker of a host gets."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from ppo_jax.devices import usable_cores

MEMORY_FRACTION = 0.9
"""Of a GPU's memory, for all workers that share it."""


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


def _cores(worker: int, workers: int) -> tuple[int, ...]:
    """Return every `workers`-th core; one that is shared where there are fewer cores."""
    cores = usable_cores()
    return tuple(cores[worker::workers] or [cores[worker % len(cores)]])


def _gpu_environment(worker: int, workers: int) -> dict[str, str]:
    """Return the environment that gives a worker one NVIDIA GPU, if there is any.

    Reads the environment and ``/dev`` only: asking JAX would start a backend, which takes
    memory on every GPU.
    """
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))
    else:
        gpus = [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    if not gpus:
        return {}
    environment = {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]}
    workers_per_gpu = -(-workers // len(gpus))
    if workers_per_gpu > 1:
        fraction = MEMORY_FRACTION / workers_per_gpu
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{fraction:.2f}"
    return environment
