"""Training states on disk: everything that an interrupted run needs to continue bit for bit.

Orbax writes them at checkpoints while training continues. Reading one executes nothing. A
trained network to act with is a policy (:mod:`ppo_jax.policy`), not a training state.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.errors import UserError
from ppo_jax.files import disk_errors, plain, remove_folder
from ppo_jax.identity import first_difference

FORMAT = 1

SECONDS_BETWEEN_SAVES = 5.0
"""Writing a state costs a tenth of a second of a core; checkpoints can be quicker than that."""


class OtherRunError(UserError):
    """A training state belongs to another run than the one that asks for it."""


class DamagedStateError(UserError):
    """A training state cannot be read, or is not what was saved."""


class TrainingStates:
    """The training state of one run, in a folder that holds nothing else.

    A context manager that waits at its end for what is still being written.

    Args:
      folder: made at the first save.
      run: what the state belongs to: everything the rest of the run depends on, as JSON.
      every: seconds between two saves at the least; :data:`SECONDS_BETWEEN_SAVES` by default.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], every: float | None = None) -> None:
        self._folder = folder.absolute()
        self._run = json.loads(json.dumps(plain(run)))
        self._every = SECONDS_BETWEEN_SAVES if every is None else every
        self._last_save = -math.inf
        self._manager: Any = None
        # Orbax logs every save, that it does not create a folder when reading, and the traceback
        # of an error that it raises as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)

    def __enter__(self) -> "TrainingStates":
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with disk_errors(self._folder):
                manager.close()

    def exists(self) -> bool:
        """Return whether anything has been saved."""
        return self._folder.is_dir() and any(p.name.isdecimal() for p in self._folder.iterdir())

    def save(self, tree: Any, progress: Mapping[str, Any], final: bool = False) -> None:
        """Save a pytree of arrays and the progress of the run, replacing the last save.

        Returns when `tree` has been copied; it is written while training continues.

        Args:
          tree: a pytree of arrays.
          progress: strict JSON once numbers that are not finite have become null.
          final: save also when the last save was a moment ago.
        """
        if not final and time.monotonic() - self._last_save < self._every:
            return
        import orbax.checkpoint as ocp

        self._last_save = time.monotonic()
        manager = self._open()
        arrays = _flatten(tree)
        text = json.dumps(plain(progress), allow_nan=False)
        description = {
            "format": FORMAT,
            "run": self._run,
            "progress": text,
            "sha256": _digest(arrays, text),
        }
        with disk_errors(self._folder):
            manager.save(
                (manager.latest_step() or 0) + 1,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), description=ocp.args.JsonSave(description)
                ),
            )

    def restore(self, like: Any) -> tuple[Any, Any]:
        """Return what was saved last: the tree, of NumPy arrays and keys, and the progress.

        Args:
          like: a pytree of the same structure, shapes and types.

        Raises:
          OtherRunError: when it belongs to another run.
          DamagedStateError: when it was damaged or altered.
        """
        import orbax.checkpoint as ocp

        manager = self._open()
        try:
            found = manager.restore(
                manager.latest_step(),
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardRestore(), description=ocp.args.JsonRestore()
                ),
            )
            arrays, description = found["arrays"], found["description"]
            stored_run, text = description["run"], description["progress"]
            if description["format"] != FORMAT:
                raise ValueError(f"format {description['format']!r} instead of {FORMAT}")
            if description["sha256"] != _digest(arrays, text):
                raise ValueError("its checksum does not match")
            progress = json.loads(text)
        except Exception as error:  # Whatever Orbax makes of a damaged file.
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            raise DamagedStateError(
                f"the training state in {self._folder} is damaged: {reason}; "
                f"remove the folder to begin anew"
            ) from error
        difference = first_difference(stored_run, self._run)
        if difference is not None:
            raise OtherRunError(
                f"the training state in {self._folder} belongs to a run with {difference.name} = "
                f"{difference.stored}, but got {difference.asked}; remove the folder to begin anew"
            )
        return _unflatten(arrays, like, self._folder), progress

    def remove(self) -> None:
        """Remove the folder, when the run has ended."""
        self.__exit__()
        remove_folder(self._folder)

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp  # A second, which most starts can do without.

            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=1,
                    cleanup_tmp_directories=True,
                    create=True,
                    # Where a folder cannot be made, on a full disk, the threads that are to write
                    # into it would wait for it for five minutes, and the process for them.
                    async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
                ),
            )
        return self._manager


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    """Return path -> a copy of the leaf; of the data of a key, which no file format knows."""
    return {
        jax.tree_util.keystr(path): np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unflatten(arrays: Mapping[str, np.ndarray], like: Any, folder: Path) -> Any:
    def leaf(path: Any, expected: Any) -> Any:
        shape = jax.eval_shape(jax.random.key_data, expected) if _is_key(expected) else expected
        found = arrays.get(jax.tree_util.keystr(path))
        if found is None or (found.shape, found.dtype) != (shape.shape, shape.dtype):
            described = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise OtherRunError(
                f"the training state in {folder} does not fit this run: "
                f"{jax.tree_util.keystr(path)} is {described} instead of "
                f"{shape.dtype}{list(shape.shape)}; it may come from a machine with another "
                f"number of devices or from another version; remove the folder to begin anew"
            )
        if _is_key(expected):
            return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(expected))
        return found

    return jax.tree_util.tree_map_with_path(leaf, like)


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of `arrays`, and of `text`."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
