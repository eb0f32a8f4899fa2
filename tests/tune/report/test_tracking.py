"""The trials of a study in TensorBoard, a run each."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = (
    *("--total-steps", 4096, "--eval-every", 2048, "--eval-episodes", 4, "--seeds", 2),
    *("--validate-steps", 0, "--trials", 2, "--hidden-sizes", 8),
)


def check(folder):
    assert {path.name for path in folder.iterdir()} == {"trial_000", "trial_001"}
    for path in folder.iterdir():
        run = EventAccumulator(str(path)).Reload()
        assert [event.step for event in run.Scalars("eval/return")] == [2048, 4096]
        assert len(run.Scalars("losses/value_loss")) == 2
        assert len(run.Scalars("score")) == 1
        content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"learning_rate" in content


@pytest.mark.slow
def test_every_trial_is_a_run(in_process, tmp_path):
    done = in_process("tune.run", *SMALL, "--output", tmp_path, "--tensorboard")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "tensorboard")


def test_a_project_without_a_name_is_refused(refusal, tmp_path):
    found = refusal("tune.run", "--wandb", " ", "--output", tmp_path / "out")
    assert "--wandb takes the name of a project, but got ' '" in found
    assert not (tmp_path / "out").exists()
