"""The time of each part of a training iteration, and the limits of the machine.

:mod:`benchmarks.throughput` prints them. The counts of floating-point operations and bytes are
pure functions of the configuration; :class:`Parts` compiles and times.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measuring import Spread
from ppo_jax import learner, rollout, trainer
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import Environment, make
from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.networks import make_network
from ppo_jax.programs import STATE_AXES, Programs
from ppo_jax.seeds import seed_keys
from ppo_jax.trainer import TrainState
from tune.protocol.purposes import TUNING

REPEATS = 10
"""Repetitions of a part in one timed call."""
_PRODUCTS = 300
"""Repetitions of a product of small matrices, which takes microseconds."""
_COPIED_BYTES = 2**28
_LARGE = 1024
FLOAT = 4
"""Bytes of a number."""


@dataclasses.dataclass(frozen=True)
class Work:
    """The least that one transition costs, however the program is written.

    Attributes:
      rollout_flops: floating-point operations of the network during collection: the actor
        once, the critic for V(s) and V(s').
      update_flops: forward and backward passes of all epochs.
      bytes: each transition is written once and read in every epoch; for every minibatch,
        parameters, gradients and both moments of Adam are read, and parameters and moments
        are written.
    """

    rollout_flops: float
    update_flops: float
    bytes: float


def work(config: TrainConfig, hyperparameters: Hyperparameters) -> Work:
    """Return the work of a transition.

    Raises:
      ValueError: for a network with convolutions, whose work is not counted.
    """
    environment = make(config.env, config.env_kwargs)
    if make_network(config.agent, environment.spaces).conv_features:
        raise ValueError("the work of convolutions is not counted")
    actor, critic = (layers(config, environment, outputs) for outputs in outputs_of(environment))

    def forward(tower: list[tuple[int, int]]) -> int:
        return sum(2 * inputs * outputs for inputs, outputs in tower)

    def backward(tower: list[tuple[int, int]]) -> int:
        # The gradient of every kernel, and of every layer's input except the first's.
        return forward(tower) + forward(tower[1:])

    towers = (actor, critic)
    update = sum(forward(tower) + backward(tower) for tower in towers)
    parameters = sum(inputs * outputs + outputs for tower in towers for inputs, outputs in tower)
    row = math.prod(environment.spaces.observation_shape) * environment.observation_dtype.itemsize
    row += 5 * FLOAT  # Action, log-probability, value, advantage, return.
    adam = 7 * FLOAT * parameters / hyperparameters.batch_size
    return Work(
        rollout_flops=forward(actor) + 2 * forward(critic),
        update_flops=hyperparameters.n_epochs * update,
        bytes=row * (1 + hyperparameters.n_epochs) + hyperparameters.n_epochs * adam,
    )


def outputs_of(environment: Environment) -> tuple[int, int]:
    """Return the number of outputs of the actor and of the critic."""
    return make_network(AgentConfig(), environment.spaces).distribution.width, 1


def layers(config: TrainConfig, environment: Environment, outputs: int) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of each layer of a network."""
    widths = [math.prod(environment.spaces.observation_shape), *config.agent.hidden_sizes, outputs]
    return list(itertools.pairwise(widths))


def products(
    config: TrainConfig, hyperparameters: Hyperparameters
) -> dict[tuple[int, int, int], int]:
    """Return (m, k, n) -> how often one minibatch multiplies ``[m, k]`` by ``[k, n]``."""
    environment = make(config.env, config.env_kwargs)
    batch, found = hyperparameters.batch_size, dict[tuple[int, int, int], int]()
    for outputs in outputs_of(environment):
        for number, (i, o) in enumerate(layers(config, environment, outputs)):
            shapes = [(batch, i, o), (i, batch, o)] + [(batch, o, i)] * (number > 0)
            for shape in shapes:
                found[shape] = found.get(shape, 0) + 1
    return found


class Parts:
    """Compiled loops over the parts of an iteration, matrix products and a copy of memory.

    Each runs on all lanes and devices at once, as training does. A timed call repeats its part
    so often that the overhead of the call is negligible.
    """

    def __init__(
        self,
        config: TrainConfig,
        seeds: int,
        hyperparameters: Hyperparameters,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.config, self.hyperparameters = config, hyperparameters
        self.programs = Programs(config, seeds, devices)
        self.mesh = self.programs.mesh
        environment = make(config.env, config.env_kwargs)
        network = make_network(config.agent, environment.spaces)
        arrays = hyperparameters.to_arrays()
        keys = seed_keys(0, TUNING, seeds)
        state = self.programs.init(keys)
        # Training donates the buffers of its state, so it gets a second one.
        self.state, self.trained = self.programs.init(keys), 0

        def collect_from(state: TrainState, actors: Any, key: jax.Array) -> tuple[Any, ...]:
            network_and_rates = (network, state.params, actors, key, arrays.n_steps, arrays.gamma)
            return rollout.collect(config, environment, *network_and_rates)

        def collect(state: TrainState) -> Any:
            return collect_from(state, state.actors, state.key)[1]

        def rollouts(state: TrainState) -> Any:
            def once(index: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
                # The buffer is part of the carry; otherwise XLA would not fill it.
                actors, _ = carry
                key = jax.random.fold_in(state.key, index)
                return collect_from(state, actors, key)[:2]

            return jax.lax.fori_loop(0, REPEATS, once, (state.actors, collect(state)))

        def advantages(buffer: rollout.Transition) -> Any:
            def once(_: jax.Array, reward: jax.Array) -> jax.Array:
                prepared, explained = trainer.prepare(
                    config, buffer._replace(reward=reward), arrays
                )
                return prepared.advantage.reshape(reward.shape) + explained

            return jax.lax.fori_loop(0, REPEATS, once, buffer.reward)

        def updates(state: TrainState, experience: learner.Experience) -> Any:
            def once(index: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
                key = jax.random.fold_in(state.key, index)
                params, optimizer_state = carry
                return learner.update(
                    config,
                    network,
                    params,
                    optimizer_state,
                    experience,
                    arrays,
                    key,
                    few_launches=self.mesh.few_launches,
                )[:2]

            start = (state.params, state.optimizer_state)
            return jax.lax.fori_loop(0, REPEATS, once, start)

        buffer = self._compile(collect, state)()
        experience = self._compile(lambda b: trainer.prepare(config, b, arrays)[0], buffer)()
        self.loops: dict[str, Callable[[], Any]] = {
            "rollout": self._compile(rollouts, state),
            "advantages": self._compile(advantages, buffer),
            "updates": self._compile(updates, state, experience),
            "iteration": lambda: self._train(REPEATS),
            "evaluation": lambda: self.programs.evaluate(self.state, 0),
            "call": lambda: self._train(0),
        }
        self.repeats = {"evaluation": 1, "call": 1}
        self.shapes = products(config, hyperparameters)
        for shape in self.shapes:
            self.loops[f"product {shape}"] = self._product(*shape, _PRODUCTS)
            self.repeats[f"product {shape}"] = _PRODUCTS
        self.loops["large product"] = self._product(_LARGE, _LARGE, _LARGE, REPEATS)
        self.loops["copy"] = self._copy()

    def time(self, name: str) -> float:
        """Return the seconds of one repetition of a part on all lanes."""
        start = time.perf_counter()
        jax.block_until_ready(self.loops[name]())
        return (time.perf_counter() - start) / self.repeats.get(name, REPEATS)

    def _train(self, iterations: int) -> TrainState:
        self.trained += iterations * self.hyperparameters.n_steps
        self.state, _ = self.programs.train_until(
            self.state, self.hyperparameters, self.trained, 2**31
        )
        return self.state

    def _product(self, m: int, k: int, n: int, repeats: int) -> Callable[[], Any]:
        left, right = (jnp.ones((self.mesh.lanes, *shape)) for shape in ((m, k), (k, n)))

        def repeated(left: jax.Array, right: jax.Array) -> Any:
            def once(_: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
                left, result = carry
                result = left @ right
                # The next product depends on this one, so XLA cannot drop any.
                corner = 1 + 1e-30 * result[:1, :1]
                return jax.lax.dynamic_update_slice(left, corner, (0, 0)), result

            return jax.lax.fori_loop(0, repeats, once, (left, jnp.zeros((m, n))))[1]

        return self._compile(repeated, *map(self.mesh.put, (left, right)))

    def _copy(self) -> Callable[[], Any]:
        words = _COPIED_BYTES // FLOAT // self.mesh.lanes

        def repeated(source: jax.Array) -> Any:
            return jax.lax.fori_loop(0, REPEATS, lambda _, x: x + 1, source)

        return self._compile(repeated, self.mesh.put(jnp.zeros((self.mesh.lanes, words))))

    def _compile(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        axes = tuple(STATE_AXES if isinstance(x, TrainState) else 0 for x in args)
        program = jax.jit(self.mesh.map(function, axes, 0)).lower(*args).compile()
        return partial(program, *args)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The updates of an iteration beside the speed of the machine, all devices together.

    Attributes:
      update_flops, product_flops, large_product_flops: floating-point operations per
        second of the updates, of the same matrix products without the rest of the update, and
        of a product of large matrices.
      product_share, large_product_share: the first as a share of the second and of the third.
      bytes_per_second, copy_bytes_per_second: the least memory traffic of a whole iteration,
        per second of its time, and the traffic of a copy of memory.
      copy_share: the first as a share of the second.
    """

    update_flops: Spread
    product_flops: Spread
    large_product_flops: Spread
    product_share: Spread
    large_product_share: Spread
    bytes_per_second: Spread
    copy_bytes_per_second: Spread
    copy_share: Spread


def limits(parts: Parts, seconds: dict[str, Spread]) -> Limits:
    """Return the updates beside the limits that were measured in the same rounds."""
    h, lanes = parts.hyperparameters, parts.mesh.lanes
    cost = work(parts.config, h)
    transitions = lanes * h.n_steps
    minibatches = h.n_epochs * h.n_steps // h.batch_size

    def rate(amount: float, time: Spread) -> Spread:
        return Spread.of([amount / second for second in time.rounds])

    products = [
        minibatches
        * sum(
            count * seconds[f"product {shape}"].rounds[number]
            for shape, count in parts.shapes.items()
        )
        for number in range(len(seconds["updates"].rounds))
    ]
    update = rate(transitions * cost.update_flops, seconds["updates"])
    product = rate(transitions * cost.update_flops, Spread.of(products))
    large = rate(lanes * 2.0 * _LARGE**3, seconds["large product"])
    moved = rate(transitions * cost.bytes, seconds["iteration"])
    copied = rate(2.0 * _COPIED_BYTES, seconds["copy"])
    return Limits(
        update, product, large, update / product, update / large, moved, copied, moved / copied
    )


def spreads(parts: Parts, rounds: int) -> dict[str, Spread]:
    """Return part -> seconds; the parts take turns, and an untimed round comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in parts.loops}
    for _ in range(rounds + 1):
        for name, found in seconds.items():
            found.append(parts.time(name))
    return {name: Spread.of(found[1:]) for name, found in seconds.items()}
