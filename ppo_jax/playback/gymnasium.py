"""A policy in the real Gymnasium (https://gymnasium.farama.org), whatever it was trained on."""

import os
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ppo_jax.environments import Spaces
from ppo_jax.environments.spaces import spaces_of
from ppo_jax.errors import UserError, require_package
from ppo_jax.playback.film import Film
from ppo_jax.policy import Policy

LONGEST_EPISODE = 100_000
"""Steps after which an episode of an environment without a time limit counts as endless."""


class Gymnasium:
    """An environment that Gymnasium registers, played by a policy.

    Args:
      name: as ``gymnasium.make`` takes it, which sets the time limit.

    Raises:
      UserError: where Gymnasium is missing, does not know the environment or cannot make
        it, or where its spaces are not the policy's.
    """

    def __init__(self, name: str, policy: Policy) -> None:
        require_package("gymnasium", extra="gymnasium", option="--gymnasium")
        self.name, self._policy = name, policy
        environment = self._made(lambda gymnasium: gymnasium.make(name))
        spaces = spaces_of(
            f"Gymnasium's {name}", environment.observation_space, environment.action_space
        )
        environment.close()
        limit = None if environment.spec is None else environment.spec.max_episode_steps
        self._longest = limit or LONGEST_EPISODE
        if spaces != policy.spaces:
            raise UserError(
                f"Gymnasium's {name} has {_text(spaces)}, but the policy has {_text(policy.spaces)}"
            )

    def play(self, episodes: int, seed: int, sample: bool) -> tuple[np.ndarray, np.ndarray]:
        """Play `episodes` episodes side by side, each in its own environment.

        Args:
          episodes: how many.
          seed: root of all random numbers.
          sample: draw actions from the policy's distribution in place of greedy ones.

        Returns:
          Undiscounted returns, float64, and lengths, ``[episodes]``.

        Raises:
          UserError: where an episode does not end.
        """
        environments = self._made(
            lambda gymnasium: gymnasium.make_vec(
                self.name, num_envs=episodes, vectorization_mode="sync"
            )
        )
        returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
        running = np.ones(episodes, bool)
        observation, _ = environments.reset(seed=seed)
        memory = self._policy.memory((episodes,))
        while running.any():
            action, memory = self._act(observation, memory, seed, lengths.max(), sample)
            observation, reward, terminated, truncated, _ = environments.step(action)
            # The environments that have ended go on with episodes that do not count.
            returns += np.where(running, reward, 0.0)
            lengths += running
            running &= ~(terminated | truncated)
            self._require_end(bool(running.any()), int(lengths.max()))
        environments.close()
        return returns, lengths

    def frames(self, seed: int, sample: bool) -> Film:
        """Return a film of one episode as Gymnasium draws it."""
        for driver in ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER"):
            os.environ.setdefault(driver, "dummy")  # A film needs neither sound nor a screen.
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        environment = self._made(
            lambda gymnasium: gymnasium.make(self.name, render_mode="rgb_array")
        )

        def frames() -> Iterator[np.ndarray]:
            observation, _ = environment.reset(seed=seed)
            ended, step, memory = False, 0, self._policy.memory()
            yield environment.render()
            while not ended:
                action, memory = self._act(observation, memory, seed, step, sample)
                observation, _, terminated, truncated, _ = environment.step(action)
                ended, step = terminated or truncated, step + 1
                self._require_end(not ended, step)
                yield environment.render()
            environment.close()

        return Film(environment.metadata.get("render_fps", 30), frames())

    def _require_end(self, runs: bool, steps: int) -> None:
        if runs and steps >= self._longest:
            raise UserError(
                f"Gymnasium's {self.name}: an episode has not ended after {steps:,} steps; "
                "register it with max_episode_steps"
            )

    def _act(
        self, observation: Any, memory: Any, seed: int, step: int, sample: bool
    ) -> tuple[np.ndarray, Any]:
        key = jax.random.fold_in(jax.random.key(seed), step) if sample else None
        if self._policy.spaces.parts:
            return self._policy.step(observation, memory, key)
        observation = np.asarray(observation)
        if not np.issubdtype(observation.dtype, np.integer):
            shape = self._policy.spaces.observation_shape
            batch = observation.shape[: observation.ndim - len(shape)]
            observation = observation.reshape(*batch, *shape)
        return self._policy.step(observation, memory, key)

    def _made(self, make: Any) -> Any:
        import gymnasium

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of older versions and of rendering.
                return make(gymnasium)
        except (gymnasium.error.Error, ImportError, ValueError) as error:
            raise UserError(f"Gymnasium cannot make {self.name!r}: {error}") from error


def _text(spaces: Spaces) -> str:
    n = spaces.discrete_observations
    seen = f"observations of shape {spaces.observation_shape}" if n is None else f"{n} observations"
    return f"{seen} and actions {spaces.action_space}"
