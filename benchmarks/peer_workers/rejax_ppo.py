"""rejax: PPO as one compiled program, seeds vmapped."""

from collections.abc import Callable

from protocol import Work, serve


def prepare(work: Work) -> Callable[[], int]:
    """Return a function that trains from scratch; rejax can only train whole runs."""
    import jax
    from rejax import PPO

    # A single empty evaluation at the end, since ours is timed without evaluation too. With
    # `eval_freq` below `total_timesteps` rejax would train for more steps than requested.
    algorithm = PPO.create(
        env=work.env,
        num_envs=work.num_envs,
        num_steps=work.n_steps // work.num_envs,
        num_minibatches=work.n_steps // work.batch_size,
        num_epochs=work.n_epochs,
        total_timesteps=work.steps,
        eval_freq=work.steps,
        skip_initial_evaluation=True,
        max_grad_norm=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    ).replace(eval_callback=lambda *_: 0)
    train_seeds = jax.jit(jax.vmap(algorithm.train))
    keys = jax.random.split(jax.random.PRNGKey(0), work.seeds)

    def train() -> int:
        state, _ = jax.block_until_ready(train_seeds(keys))
        return int(state.global_step.sum())

    return train


serve(prepare, "rejax", "jax", "jaxlib", "gymnax")
