"""What a result was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "optuna", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return name -> version of Python, this project and the packages that shape results."""
    from ppo_jax import __version__

    found = {"python": platform.python_version(), "ppo_jax": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_description() -> dict[str, str | int]:
    """Return kind and number of the local devices."""
    devices = jax.local_devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
