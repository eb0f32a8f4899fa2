"""Spreading seeds over local devices.

:func:`enable_all_cpu_cores` changes the process, so only command lines call it.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppo_jax.errors import require_count

SEED_AXIS = "seeds"


def enable_all_cpu_cores() -> None:
    """Make every CPU core that this process may use a JAX device.

    XLA runs work of this size on one core; a device a core uses them all. Without
    effect on a GPU or TPU, and where the user has set ``JAX_NUM_CPU_DEVICES``. To be
    called before the backend starts, so before gymnax is imported.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


class SeedMesh:
    """Lanes of a seed axis, spread over devices.

    Args:
      seeds: how many seeds are to run at once.
      devices: where; all local devices by default, as many as there are seeds at most.

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

    def pad(self, keys: jax.Array) -> jax.Array:
        """Repeat the last of `keys`, ``[n]``, until every lane has one, ``[lanes]``.

        Raises:
          ValueError: unless n is from 1 to the number of seeds.
        """
        if not 1 <= len(keys) <= self.seeds:
            raise ValueError(f"expected 1 to {self.seeds} keys, but got {len(keys)}")
        return keys[np.minimum(np.arange(self.lanes), len(keys) - 1)]

    def put(self, tree: Any, axes: Any = 0) -> Any:
        """Place a tree on the mesh: leaves whose axis is 0 sharded, None replicated."""
        return jax.device_put(tree, self._shardings(axes))

    def placed(self, tree: Any, axes: Any = 0) -> Any:
        """Return what :meth:`put` would make of a tree of shapes and types, as such a tree."""

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
