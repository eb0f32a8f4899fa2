"""Spreading seeds over local devices.

:func:`enable_all_cpu_cores` changes the process, so only command lines and the functions that
stand for them call it.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppo_jax.compilation_cache import enable_compilation_cache
from ppo_jax.errors import require_count

SEED_AXIS = "seeds"

JAX_SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
}
"""What the compiled programs and their results rest on: the defaults."""


def enable_all_cpu_cores() -> None:
    """Make every CPU core that this process may use a JAX device.

    XLA runs work of this size on one core, so one device per core uses them all. It has no
    effect on a GPU or TPU, nor where the user has set ``JAX_NUM_CPU_DEVICES``. Call it before
    the backend starts, that is, before gymnax is imported.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", len(usable_cores()))


def set_up_process() -> None:
    """Use all CPU cores and keep compiled programs, unless the process has chosen otherwise.

    What functions that train do where a command line has not done it. A backend that has started
    cannot be changed; a warning says so where it leaves cores unused. Another one names settings
    of JAX with which results are not those of the command line.
    """
    chosen: Any = jax.config
    others = [name for name, value in JAX_SETTINGS.items() if getattr(chosen, name) != value]
    if others:
        warnings.warn(
            f"with {', '.join(f'{name}={getattr(chosen, name)}' for name in others)} results "
            "differ from those of the same call without",
            stacklevel=3,
        )
    if chosen.jax_compilation_cache_dir is None:
        enable_compilation_cache()
    if chosen.jax_num_cpu_devices >= 0:
        return
    try:
        enable_all_cpu_cores()
    except RuntimeError:  # JAX has started.
        cores = len(usable_cores())
        if jax.default_backend() == "cpu" and len(jax.local_devices()) == 1 < cores:
            warnings.warn(
                f"JAX has started with one of {cores} CPU cores; to use them all, call "
                "ppo_jax.devices.enable_all_cpu_cores() before anything uses JAX",
                stacklevel=3,
            )


def usable_cores() -> list[int]:
    """Return the CPU cores that this process may use; all of them on macOS, which has no limit."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class SeedMesh:
    """Lanes of a seed axis, spread over devices.

    Args:
      seeds: how many seeds run at once.
      devices: to use; all local devices by default, and never more of them than seeds.

    Attributes:
      lanes: `seeds`, rounded up to a multiple of the devices used.
    """

    def __init__(self, seeds: int, devices: Sequence[jax.Device] | None = None) -> None:
        require_count("seeds", seeds)
        available = list(devices or jax.local_devices())
        used = available[: min(seeds, len(available))]
        self.seeds = seeds
        self.lanes = -(-seeds // len(used)) * len(used)
        self.mesh = Mesh(np.array(used), (SEED_AXIS,))

    @property
    def few_launches(self) -> bool:
        """Whether programs are to spare launches: they have a price everywhere but on CPU."""
        return self.platform != "cpu"

    @property
    def compiler_options(self) -> dict[str, bool]:
        """Options of XLA by which the same program is compiled to the same code.

        On a GPU XLA times several kernels for a product and takes the fastest, which need not be
        the same one the next time; sums of another kernel round differently.
        """
        return {"xla_gpu_deterministic_ops": True} if self.platform == "gpu" else {}

    @property
    def platform(self) -> str:
        """Of its devices: ``cpu``, ``gpu`` or ``tpu``."""
        return str(self.mesh.devices.flat[0].platform)

    def pad(self, keys: jax.Array) -> jax.Array:
        """Repeat the last of `keys`, ``[n]``, until every lane has one, ``[lanes]``.

        Raises:
          ValueError: unless n is from 1 to the number of seeds.
        """
        if not 1 <= len(keys) <= self.seeds:
            raise ValueError(f"expected 1 to {self.seeds} keys, but got {len(keys)}")
        return keys[np.minimum(np.arange(self.lanes), len(keys) - 1)]

    def put(self, tree: Any, axes: Any = 0) -> Any:
        """Place a tree on the mesh: leaves with axis 0 are sharded, leaves with None replicated."""
        return jax.device_put(tree, self._shardings(axes))

    def placed(self, tree: Any, axes: Any = 0) -> Any:
        """Return the shapes, types and shardings of a tree that :meth:`put` would place."""

        def place(sharding: NamedSharding, subtree: Any) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), subtree
            )

        return jax.tree.map(place, self._shardings(axes), tree)

    def map(
        self, function: Callable[..., Any], in_axes: Sequence[Any], out_axes: Any
    ) -> Callable[..., Any]:
        """Vmap `function` over lanes and shard the lanes over the devices.

        Args:
          function: of the arguments of one lane.
          in_axes: as for ``jax.vmap``: 0 (one value for each lane) or None (shared).
          out_axes: likewise.
        """
        return jax.shard_map(
            jax.vmap(function, in_axes=tuple(in_axes), out_axes=out_axes),
            mesh=self.mesh,
            in_specs=tuple(_specs(axes) for axes in in_axes),
            out_specs=_specs(out_axes),
            # Lanes never communicate, so there is nothing for this check to find.
            check_vma=False,
        )

    def spec(self, axes: Any) -> Any:
        """Return the partition specs of a tree: sharded where its axis is 0, else replicated."""
        return _specs(axes)

    def _shardings(self, axes: Any) -> Any:
        return jax.tree.map(
            lambda spec: NamedSharding(self.mesh, spec),
            _specs(axes),
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )


def _specs(axes: Any) -> Any:
    """Turn a tree of vmap axes into a tree of partition specs."""
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(SEED_AXIS),
        axes,
        is_leaf=lambda axis: axis is None,
    )
