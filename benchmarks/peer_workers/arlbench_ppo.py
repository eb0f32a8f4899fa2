"""ARLBench: PPO in JAX, based on PureJaxRL, one seed per run.

Its search space has no minibatches of 256, so it trains with minibatches of 128.
"""

from collections.abc import Callable

from protocol import Work, serve


def prepare(work: Work) -> Callable[[], int]:
    """Return a function that trains the seeds one by one and continues with each call."""
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
        # It counts one step of all environments as a single step.
        steps = sum(int(state.runner_state.global_step) for state in states)
        return int(work.num_envs * steps)

    def train() -> int:
        before = taken()
        for seed, state in enumerate(states):
            # It cannot evaluate less than one episode once.
            states[seed], _ = algorithm.train(
                *state, n_total_timesteps=work.steps, n_eval_steps=1, n_eval_episodes=1
            )
        jax.block_until_ready(states)
        return taken() - before

    return train


serve(prepare, "arlbench", "jax", "jaxlib", "gymnax")
