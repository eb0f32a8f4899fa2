"""Compiled programs on disk, so that the second start does not compile.

Nothing here runs at import: :func:`enable_compilation_cache` changes the process, so only
command lines call it.
"""

import glob
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax


def enable_compilation_cache() -> None:
    """Keep compiled programs in ``~/.cache/ppo_jax``.

    The user's ``JAX_COMPILATION_CACHE_DIR`` and
    ``JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`` take precedence, and ``XDG_CACHE_HOME``
    takes the place of ``~/.cache``. A user without a home, as in some containers, has no cache.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        try:
            root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:  # Others could write into any other folder that there may be.
            return
        folder = str(Path(root) / "ppo_jax")
        jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Also the small ones: there are dozens, and a start waits for them all.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.showwarning = _CacheTrouble(Path(folder))


class _CacheTrouble:
    """Takes the place of ``warnings.showwarning`` and handles warnings about the cache.

    A kill or a full disk can truncate an entry. JAX then warns and compiles at every start, but
    never writes the entry again, so it is removed here. Where entries cannot be read or written,
    one line says so. All other warnings are shown as before.
    """

    _WARNING = re.compile(
        r"Error (reading|writing) persistent compilation cache entry for '(.+?)': (.+)", re.DOTALL
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._show = warnings.showwarning
        self._reported = False

    def __call__(self, message: Warning | str, *rest: Any, **options: Any) -> None:
        """Handle a warning; the arguments are those of ``warnings.showwarning``."""
        found = self._WARNING.match(str(message))
        if found is None:
            self._show(message, *rest, **options)
            return
        doing, program, reason = found.groups()
        repaired = doing == "reading" and self._remove(program)
        if not repaired and not self._reported:
            self._reported = True
            print(
                f"warning: compiled programs cannot be kept in {self._folder} ({reason}); "
                "every start compiles anew",
                file=sys.stderr,
            )

    def _remove(self, program: str) -> bool:
        """Remove the entries of `program`, one of which is damaged; return whether that worked."""
        entries = list(self._folder.glob(f"{glob.escape(program)}-*-cache"))
        try:
            for entry in entries:
                entry.unlink(missing_ok=True)
        except OSError:
            return False
        return bool(entries)
