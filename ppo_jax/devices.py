"""Spreading seeds over local devices, and the compilation cache.

The two ``enable_`` functions are for command-line entry points: they change the
process, so no import does it for its caller.
"""

import glob
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
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


def enable_compilation_cache() -> None:
    """Keep compiled programs on disk, so that the second start does not compile.

    In a folder of this project's, unless the user has set ``JAX_COMPILATION_CACHE_DIR``.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(root) / "ppo_jax")
        jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Also the small ones: there are dozens, and a start waits for them all.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.showwarning = _CacheTrouble(Path(folder))


class _CacheTrouble:
    """Shows warnings, but for those of the compilation cache in `folder`.

    A kill or a full disk can cut an entry short. JAX then warns at every start and compiles, but
    never writes the entry again; so it is removed. Where entries cannot be read or written, one
    line says so.
    """

    _WARNING = re.compile(
        r"Error (reading|writing) persistent compilation cache entry for '(.+?)': (.+)", re.DOTALL
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._show = warnings.showwarning
        self._told = False

    def __call__(self, message: Warning | str, *rest: Any, **options: Any) -> None:
        """Take the place of ``warnings.showwarning``."""
        found = self._WARNING.match(str(message))
        if found is None:
            self._show(message, *rest, **options)
            return
        doing, program, reason = found.groups()
        mended = doing == "reading" and self._remove(program)
        if not mended and not self._told:
            self._told = True
            print(
                f"warning: compiled programs cannot be kept in {self._folder} ({reason}); "
                "every start compiles anew",
                file=sys.stderr,
            )

    def _remove(self, program: str) -> bool:
        """Remove the entries of `program`, of which one is damaged; return whether that worked."""
        entries = list(self._folder.glob(f"{glob.escape(program)}-*-cache"))
        try:
            for entry in entries:
                entry.unlink(missing_ok=True)
        except OSError:
            return False
        return bool(entries)


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

    def map(self, function: Callable, in_axes: Sequence[Any], out_axes: Any) -> Callable:
        """Vmap `function` over lanes and shard the lanes over the devices.

        Args:
          in_axes, out_axes: as for ``jax.vmap``, made of 0 (one a lane) and None (shared).
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
