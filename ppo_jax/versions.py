"""Versions and hardware, as recorded with every result."""

import contextlib
import functools
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "optuna", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return name -> version of Python, this project and the packages that shape results."""
    from ppo_jax import __version__

    found = {"python": platform.python_version(), "ppo_jax": __version__}
    return found | _installed()


@functools.cache
def _installed() -> dict[str, str]:
    """Return name -> version; read once, since every record of results asks for them."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def device_description() -> dict[str, str | int]:
    """Return platform, kind and number of the local devices; a CPU by its model."""
    devices = jax.local_devices()
    platform_name, kind = devices[0].platform, devices[0].device_kind
    if platform_name == "cpu":
        kind = _processor() or kind
    return {"platform": platform_name, "kind": kind, "count": len(devices)}


def _processor() -> str:
    """Return the processor's model, which only Linux's own list knows in full."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
