"""A policy as an ONNX model, node by node: what acts anywhere without JAX.

The model takes float32 observations ``[batch, ...]``, as the environment gives them, and returns
the greedy actions and what they were chosen by: logits, or the mean of a Gaussian before its
bounds. Observations that are integers are given one-hot, those of parts as the vector that
:meth:`ppo_jax.environments.Spaces.flat` makes of them.
"""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax import normalization
from ppo_jax.distributions import Gaussian
from ppo_jax.environments.base import Continuous, Discrete, MultiDiscrete
from ppo_jax.errors import UserError, require_package
from ppo_jax.files import replacing
from ppo_jax.networks import FORBIDDEN, ActorCritic, policy_outputs
from ppo_jax.normalization import normalized
from ppo_jax.policy import Policy

OPSET, IR_VERSION = 20, 10
"""Of ONNX 1.15 and later: the first with Gelu."""

TOLERANCE = 1e-4
"""Largest difference from our outputs, relative to the largest of them, that is accepted."""

_PARTS = {"actor", "critic", "actor_convolutions", "critic_convolutions", "log_std"}


class _Graph:
    """Nodes and constants of a graph that is being built; values are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an array."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return its output, or all of them where there are several."""
        from onnx import helper

        names = [f"{kind}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """Return the parts of the last axis."""
        if len(sizes) == 1:
            return [x]
        given: list[str] = self.add(
            "Split", x, self.constant(sizes, np.int64), outputs=len(sizes), axis=-1
        )
        return given

    def reshaped(self, x: str, *shape: int) -> str:
        """Return ``[batch, *shape]``."""
        reshaped: str = self.add("Reshape", x, self.constant((-1, *shape), np.int64))
        return reshaped

    def activated(self, x: str, activation: str) -> str:
        """Return the activation of `x`."""
        made: str
        match activation:
            case "silu":
                made = self.add("Mul", x, self.add("Sigmoid", x))
            case "gelu":
                made = self.add("Gelu", x, approximate="tanh")
            case _:
                made = self.add({"tanh": "Tanh", "relu": "Relu"}[activation], x)
        return made

    def dense(self, x: str, layer: dict[str, Any]) -> str:
        """Return a dense layer of ``[batch, in]``."""
        dense: str = self.add(
            "Gemm", x, self.constant(layer["kernel"]), self.constant(layer["bias"])
        )
        return dense


def model_of(policy: Policy) -> Any:
    """Return the ONNX model of a policy.

    Raises:
      UserError: where its network has parts that this does not know.
    """
    from onnx import TensorProto, helper

    network, spaces = policy.network, policy.spaces
    params = jax.tree.map(np.asarray, policy.weights.params["params"])
    unknown = set(params) - _PARTS
    if unknown or type(network) is not ActorCritic:
        what = ", ".join(sorted(unknown)) or policy.agent.network
        raise UserError(f"--to onnx is for mlp and cnn, but this network has {what}")
    graph, shape = _Graph(), spaces.observation_shape
    x = _normalized(graph, policy, "observation")
    if network.scale != 1.0:
        x = graph.add("Div", x, graph.constant(network.scale))
    mask = None
    if network.mask_size:
        x, mask = graph.split(x, [shape[0] - network.mask_size, network.mask_size])
    x = _features(graph, policy, params, x)
    layers = params["actor"]
    for number in range(len(layers)):
        x = graph.dense(x, layers[f"Dense_{number}"])
        if number + 1 < len(layers):
            x = graph.activated(x, network.activation)
    if mask is not None:
        allowed = graph.add("Greater", mask, graph.constant(0.0))
        x = graph.add("Where", allowed, x, graph.constant(FORBIDDEN))
    outputs = "mean" if isinstance(spaces.action_space, Continuous) else "logits"
    graph.nodes.append(helper.make_node("Identity", [x], [outputs]))
    kind, size = _act(graph, policy, x)
    width = layers[f"Dense_{len(layers) - 1}"]["bias"].shape[0]
    made = helper.make_graph(
        graph.nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", *shape])],
        [
            helper.make_tensor_value_info("action", kind, ["batch", *size]),
            helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["batch", width]),
        ],
        graph.constants,
    )
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ppo_jax",
    )


def _normalized(graph: _Graph, policy: Policy, x: str) -> str:
    """Return the observation as the network takes it."""
    statistics = policy.weights.observation_statistics
    if statistics is None:
        return x
    rest, last = None, policy.spaces.observation_shape[-1]
    measured = np.asarray(statistics.mean).shape[-1]
    if measured < last:  # Behind it comes a mask.
        x, rest = graph.split(x, [measured, last - measured])
    deviation = np.sqrt(np.asarray(statistics.variance, np.float64) + normalization.EPSILON)
    x = graph.add("Sub", x, graph.constant(statistics.mean))
    x = graph.add("Div", x, graph.constant(deviation))
    limits = (graph.constant(-normalization.CLIP), graph.constant(normalization.CLIP))
    x = graph.add("Clip", x, *limits)
    return x if rest is None else str(graph.add("Concat", x, rest, axis=-1))


def _features(graph: _Graph, policy: Policy, params: dict[str, Any], x: str) -> str:
    """Return what the first dense layer takes, ``[batch, features]``."""
    network, shape = policy.network, policy.spaces.observation_shape
    if not network.conv_features:
        return graph.reshaped(x, math.prod(shape) - network.mask_size)
    rest: str | None = None
    images = network.image_shapes or (shape,)
    if network.image_shapes:
        sizes = [math.prod(image) for image in images]
        left = shape[0] - network.mask_size - sum(sizes)
        parts = graph.split(x, [*sizes, left] if left else sizes)
        rest = parts.pop() if left else None
        shaped = [graph.reshaped(p, *image) for p, image in zip(parts, images, strict=True)]
        x = graph.add("Concat", *shaped, axis=-1) if len(shaped) > 1 else shaped[0]
    height, width = images[0][:2]
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    layers = params["actor_convolutions"]
    features = 0
    for number in range(len(layers)):
        layer = layers[f"Dense_{number}"]
        features = layer["bias"].shape[0]
        # [height, width, in, out] of the patches, [out, in, height, width] in ONNX.
        kernel = layer["kernel"].reshape(3, 3, -1, features).transpose(3, 2, 0, 1)
        x = graph.add("Conv", x, graph.constant(kernel), graph.constant(layer["bias"]))
        x = graph.activated(x, network.activation)
        height, width = height - 2, width - 2
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.reshaped(x, height * width * features)
    return x if rest is None else str(graph.add("Concat", x, rest, axis=-1))


def _act(graph: _Graph, policy: Policy, x: str) -> tuple[int, list[int]]:
    """Add the greedy action of outputs `x`, and return its type and the shape of one."""
    from onnx import TensorProto, helper

    match policy.spaces.action_space:
        case Continuous(low, high):
            if policy.agent.squash_actions:
                x = graph.add("Tanh", x)
            centre, scale = Gaussian(low, high).range
            x = graph.add("Mul", x, graph.constant(scale))
            x = graph.add("Add", x, graph.constant(centre))
            x = graph.add("Max", x, graph.constant(low))
            x = graph.add("Min", x, graph.constant(high))
            graph.nodes.append(helper.make_node("Identity", [x], ["action"]))
            return TensorProto.FLOAT, [len(low)]
        case Discrete(_):
            sizes, single = None, True
        case MultiDiscrete(several):
            sizes, single = list(several), False
    parts = [x] if sizes is None else graph.split(x, sizes)
    chosen = [graph.add("ArgMax", part, axis=-1, keepdims=0 if single else 1) for part in parts]
    x = graph.add("Concat", *chosen, axis=-1) if len(chosen) > 1 else chosen[0]
    graph.nodes.append(helper.make_node("Cast", [x], ["action"], to=TensorProto.INT32))
    return TensorProto.INT32, [] if single else [len(parts)]


def largest_difference(policy: Policy, content: bytes, batch: int = 256) -> float:
    """Return how far ONNX Runtime's outputs are from ours, relative to the largest of ours.

    Of continuous actions as well; others are the largest outputs.

    Args:
      policy: that `content` is of.
      content: an ONNX model.
      batch: observations that are tried, random ones in the range that the policy has seen.
    """
    import onnxruntime

    rng = np.random.default_rng(0)
    shape, mask = policy.spaces.observation_shape, policy.network.mask_size
    observation = rng.normal(0, 1, (batch, *shape)).astype(np.float32) * policy.spaces.scale
    statistics = policy.weights.observation_statistics
    if statistics is not None:
        measured = np.asarray(statistics.mean).shape[-1]
        observation[..., :measured] *= np.sqrt(np.asarray(statistics.variance))
        observation[..., :measured] += np.asarray(statistics.mean)
    if mask:
        observation[:, -mask:] = rng.random((batch, mask)) < 0.7

    def ours(observation: jax.Array) -> jax.Array:
        if statistics is not None:
            observation = normalized(statistics, observation)
        return policy_outputs(policy.network, policy.weights.params, observation)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    action, theirs = session.run(None, {"observation": observation})
    expected = np.asarray(jax.jit(ours)(observation))[:, : theirs.shape[1]]
    difference = _relative(theirs, expected)
    if isinstance(policy.spaces.action_space, Continuous):
        difference = max(difference, _relative(action, policy.act(observation)))
    return difference


def _relative(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the largest difference, relative to the largest of our numbers."""
    largest = np.abs(np.where(ours > FORBIDDEN, ours, 0.0)).max()
    return float(np.abs(theirs - ours).max() / max(largest, 1e-6))


def write(policy: Policy, path: Path) -> float:
    """Write a policy as an ONNX model, and return how far ONNX Runtime's outputs are from ours.

    Raises:
      UserError: without the extra ``onnx``, or where the network has no form in ONNX.
      RuntimeError: when the outputs differ by more than rounding; nothing is written.
    """
    for package in ("onnx", "onnxruntime"):
        require_package(package, extra="onnx", option="--to onnx")
    import onnx

    model = model_of(policy)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    difference = largest_difference(policy, content)
    if not difference <= TOLERANCE:
        raise RuntimeError(f"ONNX Runtime's outputs differ from ours by {difference:.2g}")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return difference
