"""ARLBench: PPO in JAX after PureJaxRL, one seed a run.

Its space has no minibatches of 256, so it runs those of 128.
"""

from collections.abc import Callable

from protocol import Work, serve


def prepare(work: Work) -> Callable[[], int]:
    """Train one seed after another; each call continues where the last one stopped."""
    import jax
    from arlbench.core.algorithms import PPO
    from arlbench.core.environments import make_env

    settings = PPO.get_default_hpo_config()
    settings["minibatch_size"] = 128
    settings["n_steps"] = work.n_steps // work.num_envs
    settings["update_epochs"] = work.n_epochs
    settings["ent_coef"] = 0.01
    environment = make_env("gymnax", work.env, n_envs=work.num_envs, seed=0)
    algorithm = PPO(settings, environment)
    states = [algorithm.init(jax.random.PRNGKey(seed)) for seed in range(work.seeds)]

    def taken() -> int:
        # It counts steps of all environments as one.
        return work.num_envs * sum(int(state.runner_state.global_step) for state in states)

    def train() -> int:
        before = taken()
        for seed, state in enumerate(states):
            # One evaluation of one episode is the least it can do.
            states[seed], _ = algorithm.train(
                *state, n_total_timesteps=work.steps, n_eval_steps=1, n_eval_episodes=1
            )
        jax.block_until_ready(states)
        return taken() - before

    return train


serve(prepare, "arlbench", "jax", "jaxlib", "gymnax")
