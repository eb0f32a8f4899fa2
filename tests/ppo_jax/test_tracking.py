"""What TensorBoard and Weights & Biases are told, read back."""

import sys
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ppo_jax.train
from ppo_jax import command_line
from ppo_jax.errors import UserError
from ppo_jax.losses import LossMetrics
from ppo_jax.programs import Checkpoint
from ppo_jax.tracking import Tracker, TrackingConfig, scalars
from ppo_jax.trainer import TrainMetrics

TAGS = {
    "charts/SPS",
    "charts/diverged_seeds",
    "charts/episodic_length",
    "charts/episodic_return",
    "eval/return",
    "losses/approx_kl",
    "losses/clipfrac",
    "losses/entropy",
    "losses/explained_variance",
    "losses/policy_loss",
    "losses/value_loss",
}


def checkpoint(steps, returns=(10.0, 20.0, np.nan), episodic=(1.0, np.nan, 5.0)):
    loss = LossMetrics(*(np.array([i, i + 1.0, 1e9]) for i in range(5)))
    row = np.array([0.5, 0.7, np.nan])
    return Checkpoint(
        step=steps,
        environment_steps=steps,
        returns=np.array(returns),
        metrics=TrainMetrics(loss, row, np.array(episodic), row * 10, row),
        state=None,
        training_seconds=2.0,
        evaluation_seconds=1.0,
    )


def events(folder):
    found = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_means_are_over_the_seeds_that_have_not_diverged():
    values = scalars(checkpoint(100), 100)
    assert set(values) == TAGS
    assert values["eval/return"] == 15
    assert values["charts/episodic_return"] == 1
    assert values["charts/SPS"] == 150
    assert values["charts/diverged_seeds"] == 1
    assert values["losses/policy_loss"] == 0.5
    assert values["losses/clipfrac"] == 4.5
    assert values["losses/explained_variance"] == pytest.approx(0.6)


def test_event_files_hold_every_checkpoint_and_the_hyperparameters(tmp_path):
    config = TrackingConfig(tensorboard=True)
    with Tracker(config, tmp_path, "one", "group", {"gamma": 0.9, "n_steps": 8}) as tracker:
        tracker.checkpoint(checkpoint(100))
        tracker.checkpoint(checkpoint(300, returns=(np.nan,) * 3))
    found = events(tmp_path / "tensorboard" / "one")
    assert set(found) == TAGS
    assert found["eval/return"] == [(100, 15.0)]  # Nothing is known of seeds that diverged.
    assert found["charts/SPS"] == [(100, 150.0), (300, 300.0)]
    plugin = EventAccumulator(str(tmp_path / "tensorboard" / "one")).Reload()
    content = plugin.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"gamma" in content
    assert b"n_steps" in content


def test_a_run_that_goes_on_keeps_its_events_and_a_new_one_does_not(tmp_path):
    config = TrackingConfig(tensorboard=True)
    for steps, already in ((100, 0), (200, 100)):
        with Tracker(config, tmp_path, "", "group", {}, environment_steps=already) as tracker:
            tracker.checkpoint(checkpoint(steps))
        for path in (tmp_path / "tensorboard").iterdir():
            path.rename(path.with_name(path.name + f".{steps}"))  # Names have whole seconds.
    assert events(tmp_path / "tensorboard")["charts/SPS"] == [(100, 150.0), (200, 150.0)]
    with Tracker(config, tmp_path, "", "group", {}) as tracker:
        tracker.checkpoint(checkpoint(50))
    assert events(tmp_path / "tensorboard")["charts/SPS"] == [(50, 75.0)]


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    with Tracker(TrackingConfig(), tmp_path, "one", "group", {}) as tracker:
        tracker.checkpoint(checkpoint(100))
    assert not list(tmp_path.iterdir())


class FakeWandb(types.ModuleType):
    """Records what it is told."""

    class errors:
        class Error(Exception):
            pass

    def __init__(self, refuses=False):
        super().__init__("wandb")
        self.refuses, self.logged, self.started, self.finished = refuses, [], {}, 0

    def Settings(self, **settings):
        return settings

    def init(self, **arguments):
        if self.refuses:
            raise self.errors.Error("no key")
        self.started = arguments
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_weights_and_biases_is_told_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := FakeWandb())
    with Tracker(TrackingConfig(wandb="mine"), tmp_path, "t1", "study", {"gamma": 0.9}) as tracker:
        tracker.checkpoint(checkpoint(100))
    assert fake.started["project"] == "mine"
    assert fake.started["name"] == "t1"
    assert fake.started["group"] == "study"
    assert fake.started["reinit"] == "create_new"
    assert fake.started["config"] == {"gamma": 0.9}
    assert [step for step, _ in fake.logged] == [100]
    assert set(fake.logged[0][1]) == TAGS
    assert fake.finished == 1


def test_a_refusal_is_a_users_mistake(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(refuses=True))
    with pytest.raises(UserError, match="cannot log to 'mine': no key"):
        Tracker(TrackingConfig(wandb="mine"), tmp_path, "", "study", {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tensorboard"], r"--tensorboard needs the package tensorboardX.*tune\[tensorboard\]"),
        (["--wandb", "mine"], r"--wandb needs the package wandb; .*ppo-jax-tune\[wandb\]"),
    ],
)
def test_a_missing_package_is_named_before_anything_starts(monkeypatch, options, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    arguments = command_line.parse(ppo_jax.train.Arguments, "train", options)
    with pytest.raises(UserError, match=message):
        ppo_jax.train._run(arguments)


@pytest.mark.slow
def test_a_training_writes_both(in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = in_process(
        *("ppo_jax.train", "--total-steps", 2048, "--eval-every", 1024, "--seeds", 2),
        *("--n-steps", 512, "--batch-size", 128, "--hidden-sizes", 8, "--eval-episodes", 4),
        *("--output", "out", "--tensorboard", "--wandb", "mine"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    found = events(tmp_path / "out" / "tensorboard")
    assert set(found) == TAGS
    assert [step for step, _ in found["eval/return"]] == [1024, 2048]
    assert all(np.isfinite(value) for rows in found.values() for _, value in rows)
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb")
    assert b"losses/approx_kl" in run.read_bytes()
