"""A network of one's own, with layer normalisation and one body for actor and critic.

python -m ppo_jax.train --network examples.own_network:SharedNetwork
"""

import flax.linen as nn
import jax


class SharedNetwork(nn.Module):
    """What the package asks of a network: one attribute and two methods.

    Attributes:
      outputs: numbers that the policy gives an observation: logits of discrete actions, means of
        continuous ones.
    """

    outputs: int

    def setup(self) -> None:
        """Create the layers; called by Flax."""
        self.layers = [nn.Dense(64), nn.LayerNorm(), nn.Dense(64), nn.LayerNorm()]
        self.actor = nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(0.01))
        # `critic_learning_rate` moves the parameters of what is named critic.
        self.critic = nn.Dense(1)

    def policy(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[N, *shape]``, float32, to ``[N, outputs]``."""
        return self.actor(self._features(observation))

    def value(self, observation: jax.Array) -> jax.Array:
        """Map observations ``[N, *shape]``, float32, to state values ``[N]``."""
        return self.critic(self._features(observation))[:, 0]

    def _features(self, observation: jax.Array) -> jax.Array:
        x = observation.reshape(len(observation), -1)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, nn.Dense) else nn.tanh(layer(x))
        return x
