"""A line with a goal: go left or right, to 1.0; every step costs 0.1."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class State(environment.EnvState):
    position: jax.Array
    time: int


@struct.dataclass
class Params(environment.EnvParams):
    step_size: float = 0.1
    max_steps_in_episode: int = 50


class Line(environment.Environment):
    """Go left or right, to 1.0; every step costs 0.1."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(position=jax.random.uniform(key, minval=-1.0, maxval=0.5), time=0)
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        position = state.position + params.step_size * jnp.where(action == 1, 1.0, -1.0)
        state = State(position=jnp.maximum(position, -1.0), time=state.time + 1)
        terminated = self.is_terminated(state, params)
        return self.get_obs(state), state, jnp.float32(-0.1), terminated, {}

    def get_obs(self, state):
        return state.position[None]

    def is_terminated(self, state, params):  # The time limit truncates; it is not reported here.
        return state.position >= 1.0

    def observation_space(self, params):
        return spaces.Box(-1.0, 1.1, (1,))

    def action_space(self, params):
        return spaces.Discrete(2)
