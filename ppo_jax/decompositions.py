"""Decompositions of many matrices on CPU, in parts that end.

LAPACK's kernels in jaxlib 0.10 divide a batch of more than 200,000 operations over the threads of
XLA's pool, and wait for them in one of these threads. The pool has a thread a core. Where as many
such kernels run at once, because programs use all cores or kernels of one program do not depend on
each other, all threads wait, and the program stands still. Environments that decompose matrices,
as the resets of Brax do, are enough. A larger pool avoids that as well, but takes a fifth of the
throughput of all programs.

Here a program is lowered so that its kernels get parts of a batch which they do not divide.
"""

# Private API of JAX, pinned by tests.
# ruff: noqa: SLF001, RUF100

import functools
import itertools
import math
from typing import Any

import jax
from jax.interpreters import mlir
from jax.lax import linalg

_DIVIDED_FROM = 200_000
"""Operations from which on a kernel divides its batch."""

_OPERATIONS = {
    linalg.cholesky_p: 1,
    linalg.lu_p: 3,
    linalg.triangular_solve_p: 3,
    linalg.householder_product_p: 12,
    linalg.qr_p: 12,
    linalg.svd_p: 30,
    linalg.eig_p: 100,
    linalg.eigh_p: 100,
    linalg.hessenberg_p: 100,
    linalg.schur_p: 100,
}
"""Decomposition -> at least what its kernel counts for n × n complex numbers, in units of n³."""


def lower(function: jax.stages.Wrapped, *arguments: Any, platform: str) -> jax.stages.Lowered:
    """Return a program as it goes to the compiler.

    Args:
      function: as ``jax.jit`` returns it.
      *arguments: arrays, or their shapes and types.
      platform: of the devices it is for; only on ``cpu`` is anything special.
    """
    if platform != "cpu":
        return function.lower(*arguments)
    traced: Any = function.trace(*arguments)
    lowered: jax.stages.Lowered = traced.lower(_private_parameters=_parameters())
    return lowered


@functools.cache
def _parameters() -> mlir.LoweringParameters:
    """Return how primitives are lowered."""
    on_cpu = mlir._platform_specific_lowerings["cpu"]
    defaults = {p: on_cpu.get(p) or mlir._lowerings[p] for p in _OPERATIONS}
    rules: Any = tuple(
        (primitive, functools.partial(_lower, primitive, default.rule))
        for primitive, default in defaults.items()
    )
    return mlir.LoweringParameters(override_lowering_rules=rules)


def _lower(primitive: Any, default: Any, context: Any, *operands: Any, **params: Any) -> Any:
    """Lower a decomposition of matrices ``[*batch, n, m]``, and what else it takes of them."""
    shapes = [operand.shape for operand in context.avals_in]
    batch = shapes[0][:-2]
    largest = max(1, *itertools.chain(*(shape[len(batch) :] for shape in shapes)))
    part = max(1, _DIVIDED_FROM // (_OPERATIONS[primitive] * largest**3))
    if math.prod(batch) <= part:
        return default(context, *operands, **params)

    def in_parts(*arrays: jax.Array) -> Any:
        flat = [array.reshape(-1, *array.shape[len(batch) :]) for array in arrays]
        found = jax.lax.map(lambda x: primitive.bind(*x, **params), flat, batch_size=part)
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)

    return mlir.lower_fun(in_parts, primitive.multiple_results)(context, *operands)
