"""Two CPU devices, one compilation cache for all processes, and how tests run commands and wait.

The only time limit is pytest's own, ``timeout`` in pyproject.toml, which ends a hang.
"""

import ctypes
import functools
import gc
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from threadpoolctl import threadpool_limits

from ppo_jax.scripts import collect_seldom

ROOT = Path(__file__).parent.parent

# Test processes share the cores, and threads of small matrices only wait for each other: in
# NumPy, which is loaded, and in SciPy and the commands that tests run, which are not.
threadpool_limits(1, "blas")
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Warnings of our own modules are errors also in the commands that tests run. Each module has to be
# named there.
os.environ["PYTHONWARNINGS"] = ",".join(
    f"error:::{name}"
    for name in (
        "__main__",
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for package in ("ppo_jax", "tune", "benchmarks")
            for path in sorted((ROOT / package).rglob("*.py"))
        ),
    )
)

collect_seldom()

# Threads that compile would each keep a heap of their own.
if sys.platform == "linux":
    ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX
os.environ["MALLOC_ARENA_MAX"] = "2"

# Before anything starts the backend: sharding is tested on any machine, also in commands, whose
# results are compared with those of this process.
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
jax.config.update("jax_num_cpu_devices", 2)


def _compile_fast(fast: bool) -> None:
    """Leave out most optimizations, also in commands that tests run.

    Most of a test's time is compiling, and most of that would be the code of fusions.
    """
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(fast))
    jax.config.update("jax_disable_most_optimizations", fast)


_compile_fast(True)
if jax.__version_info__ < (0, 11):  # Later ones end at this flag, which they do not know.
    flags = os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile a test that is marked so as users' programs are."""
    optimized = request.node.get_closest_marker("optimized") is not None
    if optimized:
        _compile_fast(False)
    yield
    if optimized:
        _compile_fast(True)


# Slow is not wrong: neither an example nor its drawing has a limit. The same examples each time,
# so that a change is judged by what it changes; `--hypothesis-profile=anew` draws others.
any_machine = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("same", any_machine, derandomize=True)
hypothesis.settings.register_profile("anew", any_machine, derandomize=False)
hypothesis.settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(request: pytest.FixtureRequest) -> None:
    """Let all test processes, and the commands that they run, share what they compile.

    It stays until `--cache-clear`: the slow tests begin with what the quick ones have compiled.
    """
    cache = str(request.config.cache.mkdir("compilation"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture
def command():
    """Return a function that runs ``python -m MODULE ARGUMENTS...`` as a user would."""

    def run(*arguments: object, **kwargs: object):
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            **kwargs,
        )

    return run


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Return a function that runs a command in this process.

    Nothing has to start, and what is traced and compiled is shared. What a command line changes in
    the process is put back. The result is that of :func:`command`.
    """
    monkeypatch.setattr("ppo_jax.command_line.start_backend", lambda: None)  # It has started.
    monkeypatch.setenv("COLUMNS", "200")

    def run(module: str, *arguments: object, cwd: Path | None = None) -> SimpleNamespace:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        names = (
            "jax_enable_compilation_cache",
            "jax_compilation_cache_dir",
            "jax_persistent_cache_min_compile_time_secs",
        )
        settings = {name: getattr(jax.config, name) for name in names}
        for owner, name in ((sys, "unraisablehook"), (warnings, "showwarning")):
            monkeypatch.setattr(owner, name, getattr(owner, name))
        if cwd is not None:
            monkeypatch.chdir(cwd)
            monkeypatch.syspath_prepend(cwd)
        capsys.readouterr()
        status: str | int | None = 0
        try:
            importlib.import_module(module).main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if settings != {name: getattr(jax.config, name) for name in names}:
                for name, value in settings.items():
                    jax.config.update(name, value)
                compilation_cache.reset_cache()  # It would go on with the folder that it knows.
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture
def refusal(in_process):
    """Return a function that gives a command wrong arguments and returns its one line of errors."""

    def run(module: str, *arguments: object) -> str:
        done = in_process(module, *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        return str(done.stderr)

    return run


@pytest.fixture(scope="session")
def random_params():
    """Return a function that draws parameters of a network; its ``init`` compiles for long."""

    def draw(network, shape, scale=0.5, seed=0):
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros(shape, np.float32))
        return jax.tree.map(lambda x: rng.normal(0, scale, x.shape).astype(x.dtype), shapes)

    return draw


@pytest.fixture
def wait_until():
    """Return a function that waits for a condition and fails once the process it is about ends."""

    def wait(condition, process: subprocess.Popen | None = None) -> None:
        while not condition():
            ended = process is not None and process.poll() is not None
            assert not ended or condition(), f"the process has ended with {process.returncode}"
            time.sleep(0.02)

    return wait


# The memory of test processes


@pytest.hookimpl(trylast=True)  # Fixtures have been torn down.
def pytest_runtest_teardown() -> None:
    """Return memory to the system once much has been taken.

    Compiling takes several hundred megabytes that glibc keeps for later when they are freed, and
    JAX and the caches of the packages keep what has been compiled.
    """
    if _resident() < _memory.limit:
        return
    for module in list(sys.modules.values()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(ROOT):
            for value in list(vars(module).values()):
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    _memory.limit = max(_LIMIT, _resident() + 200e6)


def pytest_sessionfinish(session: pytest.Session) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if hasattr(session.config, "workeroutput"):  # In a process of pytest-xdist.
        session.config.workeroutput["peak"] = peak
    else:
        _memory.peaks.append(peak)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    if "peak" in getattr(node, "workeroutput", {}):
        _memory.peaks.append(node.workeroutput["peak"])


def pytest_terminal_summary(terminalreporter) -> None:
    peaks = ", ".join(f"{peak / 1e9:.2f}" for peak in _memory.peaks)
    terminalreporter.write_line(f"peak memory of the test processes in GB: {peaks}")


def _resident() -> float:
    """Return the bytes that this process occupies; 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        return 0.0
    return pages * float(os.sysconf("SC_PAGE_SIZE"))


_LIMIT = 900e6
"""Bytes; a test that compiles adds up to 500 MB to them."""

_memory = SimpleNamespace(limit=_LIMIT, peaks=[])
