"""Where the time of a training iteration goes, and how near that is to what the machine can do."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
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
"""The same for products of small matrices, which take microseconds."""
_COPIED_BYTES = 2**28
_LARGE = 1024
FLOAT = 4
"""Bytes of a number."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What one transition costs at the least, whatever the program looks like.

    Attributes:
      rollout_flops: floating-point operations of the network while collecting: the actor
        once, the critic for V(s) and V(s').
      update_flops: forward and backward passes of all epochs.
      bytes: each transition written once and read in every epoch; parameters, gradients
        and both moments of Adam read, parameters and moments written, for every
        minibatch.
    """

    rollout_flops: float
    update_flops: float
    bytes: float


def work(config: TrainConfig, hyperparameters: Hyperparameters) -> Work:
    """Count the work of a transition."""
    environment = make(config.env, config.env_kwargs)
    if make_network(config.agent, environment.spaces).conv_features:
        raise ValueError("the work of convolutions is not counted")
    actor, critic = (layers(config, environment, outputs) for outputs in outputs_of(environment))

    def forward(tower: list[tuple[int, int]]) -> int:
        return sum(2 * inputs * outputs for inputs, outputs in tower)

    def backward(tower: list[tuple[int, int]]) -> int:
        # A gradient of every kernel, and of the input of all layers but the first.
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
    """Compiled loops over the parts of an iteration and over what they stand on.

    Each runs on all lanes and devices at once, as training does. A timed call repeats
    its part often enough for the call itself not to count.
    """

    def __init__(self, config: TrainConfig, seeds: int, hyperparameters: Hyperparameters) -> None:
        self.config, self.hyperparameters = config, hyperparameters
        self.programs = Programs(config, seeds)
        self.mesh = self.programs.mesh
        environment = make(config.env, config.env_kwargs)
        network = make_network(config.agent, environment.spaces)
        arrays = hyperparameters.to_arrays()
        keys = seed_keys(0, TUNING, seeds)
        state = self.programs.init(keys)
        # A state of its own: training gives up the one it is called with.
        self.state, self.trained = self.programs.init(keys), 0

        def collect_from(state: TrainState, actors: Any, key: jax.Array) -> tuple:
            network_and_rates = (network, state.params, actors, key, arrays.n_steps, arrays.gamma)
            return rollout.collect(config, environment, *network_and_rates)

        def collect(state: TrainState) -> Any:
            return collect_from(state, state.actors, state.key)[1]

        def rollouts(state: TrainState) -> Any:
            def once(index: jax.Array, carry: tuple) -> tuple:
                # The buffer is carried, or XLA would not fill it.
                actors, _ = carry
                key = jax.random.fold_in(state.key, index)
                return collect_from(state, actors, key)[:2]

            return jax.lax.fori_loop(0, REPEATS, once, (state.actors, collect(state)))

        def advantages(buffer: rollout.Transition) -> jax.Array:
            def once(_: jax.Array, reward: jax.Array) -> jax.Array:
                prepared, explained = trainer.prepare(
                    config, buffer._replace(reward=reward), arrays
                )
                return prepared.advantage.reshape(reward.shape) + explained

            return jax.lax.fori_loop(0, REPEATS, once, buffer.reward)

        def updates(state: TrainState, experience: learner.Experience) -> Any:
            def once(index: jax.Array, carry: tuple) -> tuple:
                key = jax.random.fold_in(state.key, index)
                params, optimizer_state = carry
                return learner.update(
                    config, network, params, optimizer_state, experience, arrays, key
                )[:2]

            start = (state.params, state.optimizer_state)
            return jax.lax.fori_loop(0, REPEATS, once, start)

        buffer = self._compile(collect, state)()
        experience = self._compile(lambda b: trainer.prepare(config, b, arrays)[0], buffer)()
        self.loops: dict[str, Callable[[], Any]] = {
            "rollout": self._compile(rollouts, state),
            "advantages": self._compile(advantages, buffer),
            "updates": self._compile(updates, state, experience),
            "iteration": self._train,
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
        """Return the seconds of one repetition of a part, on all lanes."""
        start = time.perf_counter()
        jax.block_until_ready(self.loops[name]())
        return (time.perf_counter() - start) / self.repeats.get(name, REPEATS)

    def _train(self, iterations: int = REPEATS) -> TrainState:
        self.trained += iterations * self.hyperparameters.n_steps
        self.state, _ = self.programs.train_until(
            self.state, self.hyperparameters, self.trained, 2**31
        )
        return self.state

    def _product(self, m: int, k: int, n: int, repeats: int) -> Callable[[], Any]:
        left, right = (jnp.ones((self.mesh.lanes, *shape)) for shape in ((m, k), (k, n)))

        def repeated(left: jax.Array, right: jax.Array) -> jax.Array:
            def once(_: jax.Array, carry: tuple) -> tuple:
                left, result = carry
                result = left @ right
                # One number of the next product comes from this one, so none is left out.
                corner = 1 + 1e-30 * result[:1, :1]
                return jax.lax.dynamic_update_slice(left, corner, (0, 0)), result

            return jax.lax.fori_loop(0, repeats, once, (left, jnp.zeros((m, n))))[1]

        return self._compile(repeated, *map(self.mesh.put, (left, right)))

    def _copy(self) -> Callable[[], Any]:
        words = _COPIED_BYTES // FLOAT // self.mesh.lanes

        def repeated(source: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, REPEATS, lambda _, x: x + 1, source)

        return self._compile(repeated, self.mesh.put(jnp.zeros((self.mesh.lanes, words))))

    def _compile(self, function: Callable, *args: Any) -> Callable[[], Any]:
        axes = tuple(STATE_AXES if isinstance(x, TrainState) else 0 for x in args)
        program = jax.jit(self.mesh.map(function, axes, 0)).lower(*args).compile()
        return partial(program, *args)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The updates of an iteration beside the machine's own speed, all devices together.

    Attributes:
      update_flops, product_flops, large_product_flops: floating-point operations per
        second of the updates; of the matrix products alone that an update is made of, of
        the same shapes; of a product of large matrices.
      product_share, large_product_share: the first as a share of the others.
      bytes_per_second, copy_bytes_per_second: what a whole iteration must move at the
        least, per second of its time, and what a copy of memory moves.
      copy_share: the former as a share of the latter.
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
    """Return how near the updates come to the limits measured in the same rounds."""
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
    """Time every part in turn, round after round; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in parts.loops}
    for _ in range(rounds + 1):
        for name, found in seconds.items():
            found.append(parts.time(name))
    return {name: Spread.of(found[1:]) for name, found in seconds.items()}
