"""Drawings of environments that do not draw themselves, from what the policy sees."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from PIL import Image, ImageDraw

from ppo_jax.environments import Environment
from ppo_jax.errors import UserError
from ppo_jax.playback.film import Film
from ppo_jax.policy import Policy

_SIDE = 400
_FINER = 2
"""Lines are drawn this much larger and scaled down, which smooths them."""

_INK, _PAPER, _ACCENT, _PALE = "#22313f", "#ffffff", "#c0603a", "#c9d1d9"
_CHANNELS = np.array(
    [
        (78, 121, 167),
        (242, 142, 43),
        (225, 87, 89),
        (118, 183, 178),
        (89, 161, 79),
        (237, 201, 72),
        (176, 122, 161),
        (255, 157, 167),
        (156, 117, 95),
        (186, 176, 172),
    ],
    np.float32,
)
"""Colours of the channels of an image, the tenth again for all after it."""

Pen = ImageDraw.ImageDraw


def require_drawable(environment: Environment) -> None:
    """Raise a ``UserError`` unless :func:`frames` can draw `environment`."""
    if environment.name not in _DRAWINGS and not _is_grid(environment):
        raise UserError(
            f"--record cannot draw {environment.name}: it draws classic control and environments "
            "whose observations are images; where Gymnasium has the environment, use --gymnasium"
        )


def frames(policy: Policy, environment: Environment, seed: int, sample: bool) -> Film:
    """Return a film of one episode of `environment`.

    Args:
      policy: who plays.
      environment: where; one that :func:`require_drawable` accepts.
      seed: root of all random numbers.
      sample: draw actions from the policy's distribution in place of greedy ones.
    """
    episode = _episode(policy, environment, jax.random.key(seed), sample)
    return Film(_fps(environment), (_frame(environment, *moment) for moment in episode))


def in_short(policy: Policy, environment: Environment, most: int = 90) -> Film:
    """Return a small film of one greedy episode, without text, for a page.

    Args:
      policy: who plays.
      environment: where; one that :func:`require_drawable` accepts.
      most: pictures; of a longer episode, every so many steps are shown, at its speed.
    """
    seen = [observation for observation, _ in _episode(policy, environment, jax.random.key(0))]
    every = -(-len(seen) // most)
    small = (np.asarray(_picture(environment, moment).reduce(2)) for moment in seen[::every])
    return Film(_fps(environment) / every, small)


def _fps(environment: Environment) -> float:
    return 10.0 if _is_grid(environment) else _DRAWINGS[environment.name][0]


def _episode(
    policy: Policy, environment: Environment, key: jax.Array, sample: bool = False
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the observation of each step, and a caption."""
    step = jax.jit(environment.step)
    reset_key, step_key, action_key = jax.random.split(key, 3)
    state, observation = jax.jit(environment.reset)(reset_key)
    total, memory = 0.0, policy.memory()
    yield np.asarray(observation), f"step 0   return {total:g}"
    for index in range(environment.max_episode_steps):
        drawn = jax.random.fold_in(action_key, index) if sample else None
        action, memory = policy.step(np.asarray(observation), memory, drawn)
        timestep = step(jax.random.fold_in(step_key, index), state, action)
        state, observation = timestep.state, timestep.observation
        total += float(timestep.reward)
        yield np.asarray(observation), f"step {index + 1}   return {total:.5g}"
        if timestep.terminated or timestep.truncated:
            return


def _is_grid(environment: Environment) -> bool:
    return len(environment.spaces.observation_shape) in (2, 3)


def _picture(environment: Environment, observation: np.ndarray) -> Image.Image:
    """Draw what an observation shows."""
    seen = np.asarray(observation, np.float32)
    if _is_grid(environment):
        return _grid(seen)
    image = Image.new("RGB", (_SIDE * _FINER, _SIDE * _FINER), _PAPER)
    _DRAWINGS[environment.name][1](ImageDraw.Draw(image), seen)
    return image.reduce(_FINER)


def _frame(environment: Environment, observation: np.ndarray, caption: str) -> np.ndarray:
    """Return uint8 ``[height, width, 3]``: the picture below a caption."""
    image = _picture(environment, observation)
    framed = Image.new("RGB", (max(image.width, _SIDE), image.height + 24), _INK)
    framed.paste(image, ((framed.width - image.width) // 2, 24))
    ImageDraw.Draw(framed).text((8, 4), f"{environment.name}   {caption}", _PAPER, font_size=13)
    return np.asarray(framed)


def _grid(seen: np.ndarray) -> Image.Image:
    """Draw ``[rows, columns]`` or ``[rows, columns, channels]``: every channel has a colour.

    The first channel lies on top: it is what the agent moves.
    """
    channels = seen.reshape(*seen.shape[:2], -1)
    pixels = np.full((*seen.shape[:2], 3), 28.0, np.float32)
    for channel in reversed(range(channels.shape[-1])):
        share = np.clip(channels[..., channel, None], 0, 1)
        pixels = pixels * (1 - share) + _CHANNELS[min(channel, 9)] * share
    rows, columns = seen.shape[:2]
    cell = max(2, _SIDE // max(rows, columns) // 2 * 2)
    image = Image.fromarray(pixels.astype(np.uint8))
    return image.resize((columns * cell, rows * cell), Image.Resampling.NEAREST)


class _Plane:
    """Draws in the environment's units, y upwards, on a square that shows `width` of them."""

    def __init__(self, pen: Pen, width: float, center: tuple[float, float] = (0.0, 0.0)) -> None:
        self._pen, self._center = pen, center
        self._scale = _SIDE * _FINER / width

    def point(self, x: float, y: float) -> tuple[float, float]:
        half = _SIDE * _FINER / 2
        left, up = x - self._center[0], y - self._center[1]
        return half + left * self._scale, half - up * self._scale

    def line(self, points: list[tuple[float, float]], width: float, color: str) -> None:
        pixels = max(1, round(width * self._scale))
        self._pen.line([self.point(*p) for p in points], color, pixels, joint="curve")

    def disc(self, x: float, y: float, radius: float, color: str) -> None:
        u, v, r = *self.point(x, y), radius * self._scale
        self._pen.ellipse((u - r, v - r, u + r, v + r), color)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        left, top = self.point(x - width / 2, y + height / 2)
        right, bottom = self.point(x + width / 2, y - height / 2)
        self._pen.rectangle((left, top, right, bottom), color)


def _cart_pole(pen: Pen, seen: np.ndarray) -> None:
    x, angle = float(seen[0]), float(seen[2])
    plane = _Plane(pen, 5.2, (0.0, 0.5))
    plane.line([(-2.6, 0.0), (2.6, 0.0)], 0.03, _PALE)
    for limit in (-2.4, 2.4):
        plane.line([(limit, -0.12), (limit, 0.12)], 0.03, _PALE)
    plane.box(x, 0.0, 0.6, 0.3, _INK)
    tip = x + np.sin(angle), 0.1 + np.cos(angle)
    plane.line([(x, 0.1), tip], 0.1, _ACCENT)
    plane.disc(x, 0.1, 0.07, _PALE)


def _acrobot(pen: Pen, seen: np.ndarray) -> None:
    first = np.arctan2(seen[1], seen[0])
    both = first + np.arctan2(seen[3], seen[2])
    elbow = float(np.sin(first)), float(-np.cos(first))
    hand = elbow[0] + float(np.sin(both)), elbow[1] - float(np.cos(both))
    plane = _Plane(pen, 4.8)
    plane.line([(-2.4, 1.0), (2.4, 1.0)], 0.02, _PALE)
    plane.line([(0.0, 0.0), elbow], 0.14, _INK)
    plane.line([elbow, hand], 0.14, _ACCENT)
    for joint in ((0.0, 0.0), elbow):
        plane.disc(*joint, 0.1, _PALE)


def _pendulum(pen: Pen, seen: np.ndarray) -> None:
    plane = _Plane(pen, 2.6)
    # The angle is 0 above and grows to the left.
    tip = -float(seen[1]), float(seen[0])
    plane.line([(0.0, 0.0), tip], 0.16, _ACCENT)
    plane.disc(*tip, 0.08, _ACCENT)
    plane.disc(0.0, 0.0, 0.05, _INK)


def _mountain_car(pen: Pen, seen: np.ndarray) -> None:
    def height(x: float) -> float:
        return 0.45 * float(np.sin(3 * x)) + 0.55

    x = float(seen[0])
    plane = _Plane(pen, 1.9, (-0.3, 0.55))
    plane.line([(p, height(p)) for p in np.linspace(-1.25, 0.65, 80)], 0.012, _INK)
    goal = height(0.5)
    plane.line([(0.5, goal), (0.5, goal + 0.2)], 0.012, _INK)
    plane.box(0.55, goal + 0.17, 0.1, 0.06, _ACCENT)
    plane.disc(x, height(x) + 0.045, 0.045, _ACCENT)


_DRAWINGS: dict[str, tuple[float, Callable[[Pen, np.ndarray], None]]] = {
    "CartPole-v1": (50.0, _cart_pole),
    "Acrobot-v1": (15.0, _acrobot),
    "Pendulum-v1": (20.0, _pendulum),
    "MountainCar-v0": (30.0, _mountain_car),
    "MountainCarContinuous-v0": (30.0, _mountain_car),
}
"""Environment -> its frames per second, and how to draw an observation."""
