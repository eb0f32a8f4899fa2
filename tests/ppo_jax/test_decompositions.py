"""Decompositions of many matrices on CPU: the same results, and none waits for another."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import decompositions
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Discrete, Spaces, Timestep
from ppo_jax.programs import Programs

BATCHES = [(3,), (4, 150)]

DECOMPOSITIONS = {
    "inverse": (jnp.linalg.inv, np.linalg.inv),
    "determinant": (jnp.linalg.det, np.linalg.det),
    "Cholesky": (jnp.linalg.cholesky, np.linalg.cholesky),
    "eigenvalues": (jnp.linalg.eigvalsh, np.linalg.eigvalsh),
    "singular values": (
        lambda x: jnp.linalg.svd(x, compute_uv=False),
        lambda x: np.linalg.svd(x, compute_uv=False),
    ),
    "QR": (lambda x: jnp.abs(jnp.linalg.qr(x)[1]), lambda x: np.abs(np.linalg.qr(x)[1])),
    "solution": (
        jnp.vectorize(
            lambda x: jax.scipy.linalg.solve(x, jnp.eye(len(x)), assume_a="pos"),
            signature="(n,n)->(n,n)",
        ),
        np.linalg.inv,
    ),
    "solution of a triangle": (
        lambda x: jax.scipy.linalg.solve_triangular(x, x[..., :2], lower=True),
        lambda x: np.linalg.solve(np.tril(x), x[..., :2]),
    ),
}


def assert_undivided(text):
    """Check that no kernel of a program is given more than it does by itself."""
    calls = [line.rpartition("->")[2] for line in text.splitlines() if "@lapack" in line]
    assert calls
    for call in calls:  # (tensor<150x4x4xf32>, tensor<150xi32>) where it returns a status as well.
        *batch, rows, columns = map(int, re.search(r"<([\dx]+)xf32>", call)[1].split("x"))
        count = np.prod(batch, dtype=int)
        assert count == 1 or count * max(rows, columns) ** 3 <= 200_000, call


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", [4, 33])
@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_parts_of_a_batch_are_the_whole(name, size, batch):
    ours, theirs = DECOMPOSITIONS[name]
    factors = np.random.default_rng(0).normal(size=(*batch, size, size))
    matrices = np.float32(factors @ np.swapaxes(factors, -1, -2) / size + np.eye(size))
    lowered = decompositions.lower(jax.jit(ours), matrices, platform="cpu")
    assert_undivided(lowered.as_text())
    expected = theirs(matrices.astype(np.float64))
    np.testing.assert_allclose(lowered.compile()(matrices), expected, rtol=5e-3, atol=5e-4)


class Decomposing:
    """An environment whose episodes begin with the inverse of a matrix."""

    name = "a probe"
    max_episode_steps = 2
    costly_reset = False
    spaces = Spaces((2,), Discrete(2))
    observation_dtype = jnp.float32

    def reset(self, key):
        factor = jax.random.normal(key, (16, 16))
        inverse = jnp.linalg.inv(factor @ factor.T + jnp.eye(16))
        return (jnp.int32(0), inverse[0, :2]), inverse[0, :2]

    def step(self, _key, state, action):
        time, start = state
        ends = jnp.bool(time == 1)
        return Timestep((time + 1, start), start, jnp.float32(action), ends, jnp.bool(False))


def test_programs_train_and_evaluate_in_parts():
    agent = AgentConfig(num_envs=8, hidden_sizes=(4,))
    config = TrainConfig(
        env=Decomposing(),
        agent=agent,
        n_steps_choices=(64,),
        batch_size_choices=(32,),
        eval_episodes=4,
    )
    programs = Programs(config, 2)
    for name, definition in programs.definitions().items():
        assert_undivided(programs.lowered(name, *definition).as_text())


_ON_ALL_CORES = """
from ppo_jax.devices import SeedMesh, enable_all_cpu_cores
enable_all_cpu_cores()
import jax, jax.numpy as jnp
from ppo_jax.decompositions import lower
mesh = SeedMesh(8)
def function(key):
    matrices = [jax.random.normal(key, (64, 64)) for key in jax.random.split(key, 4)]
    return jax.lax.fori_loop(0, 100, lambda i, xs: [x + jnp.linalg.qr(x)[0] for x in xs], matrices)
keys = mesh.put(jax.random.split(jax.random.key(0), 8))
program = lower(jax.jit(mesh.map(function, (0,), 0)), keys, platform="cpu").compile()
jax.block_until_ready(program(keys))
print(mesh.mesh.size)
"""


def test_decompositions_on_all_devices_do_not_wait_for_each_other():
    words = [sys.executable, "-c", _ON_ALL_CORES]
    done = subprocess.run(words, stdout=subprocess.PIPE, timeout=240, check=True)
    assert done.stdout == b"2\n"


def test_other_platforms_have_their_own_kernels():
    program = jax.jit(jnp.linalg.cholesky)
    matrices = jnp.eye(32) * jnp.ones((50, 1, 1))
    whole = decompositions.lower(program, matrices, platform="gpu").as_text()
    assert whole == program.lower(matrices).as_text()
    assert whole != decompositions.lower(program, matrices, platform="cpu").as_text()
