"""What a power loss or a full disk leaves in the folder of a study, and the same command after it.

Workers that die are in ``workers/test_launcher.py``, databases that do in
``search/test_storage.py``.
"""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ppo_jax import files, policy
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.files import read_json, write_json
from ppo_jax.networks import make_network
from ppo_jax.programs import Weights
from tune import session
from tune.protocol.plan import Plan
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import FINISHED
from tune.search.study import run_optimization
from tune.session import train_best_config

DAMAGES = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.fixture
def policies(monkeypatch, random_params):
    """Policies of random weights, which the stand-in for training has not."""
    save = policy.save

    def save_random(folder, config, weights, **extra):
        network = make_network(config.agent, make(config.env, config.env_kwargs).spaces)
        save(folder, config, Weights(random_params(network, (4,)), None), **extra)

    monkeypatch.setattr("tune.session.make_films", lambda *_: None)
    monkeypatch.setattr(policy, "save", save_random)


def contents(folder):
    """Return name -> content of the files of a study, but for its storage."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("study.db", ".lock")
    }


VOLATILE = {
    "all_trials.json",
    "optimization_results.json",
    "report.html",
    "finalists.json",
    "validation.json",
}
"""They hold moments and seconds."""


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("ways", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_file_of_a_study_that_is_damaged_is_written_again(programs, tmp_path, progress, ways):
    """Each in as many `ways`."""
    settings = Settings(sampler="random", pruner="none")
    folder = StudyFolder(tmp_path / "study")
    plan = Plan(
        settings,
        3,
        "CartPole-v1",
        folder,
        validate_steps=400_000,
        validate_seeds=4,
    )
    whole = session.run(plan, programs, progress)
    before = contents(folder.path)
    assert len(before) == 12
    for place, name in enumerate(before):
        for way in range(place, place + ways):
            damage = list(DAMAGES.values())[way % 3]
            path = folder.path / name
            path.write_bytes(damage(before[name]))
            again = session.run(plan, programs, progress)
            assert again.verdict == whole.verdict, name
            after = contents(folder.path)
            assert after.keys() == before.keys()
            same = before.keys() - VOLATILE
            assert {name: after[name] for name in same} == {name: before[name] for name in same}
            if name.endswith(".json"):
                assert shape(read_json(path)) == shape(json.loads(before[name]))


def shape(document):
    """Return the keys of an object, or the number of items of a list."""
    return document.keys() if isinstance(document, dict) else len(document)


@pytest.mark.parametrize("storage", ["study.db", "study.journal"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_storage_that_is_damaged_is_named_and_never_begun_anew(programs, tmp_path, storage, damage):
    address = f"journal:{tmp_path / storage}" if storage == "study.journal" else None
    run_optimization(4, output=tmp_path, storage=address, programs=programs)
    path = tmp_path / storage
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if storage == "study.journal" and damage == "halved":  # A journal of fewer trials.
        study = run_optimization(4, output=tmp_path, programs=programs, worker_timeout=1.0)
        assert sum(trial.state in FINISHED for trial in study.trials) == 4
        return
    with pytest.raises(UserError, match=r"storage|damaged") as caught:
        run_optimization(4, output=tmp_path, programs=programs)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_storage_that_has_been_removed_is_begun_anew(programs, tmp_path):
    run_optimization(2, output=tmp_path, programs=programs)
    (tmp_path / "study.db").unlink()
    assert len(run_optimization(1, output=tmp_path, programs=programs).trials) == 1


def test_damaged_config_does_not_let_another_study_into_the_folder(programs, tmp_path):
    run_optimization(1, output=tmp_path, study_name="mine", programs=programs)
    (tmp_path / "config.json").write_bytes(b"")
    with pytest.raises(UserError, match="holds the study 'mine', but got 'yours'"):
        run_optimization(1, output=tmp_path, study_name="yours", programs=programs)
    run_optimization(1, output=tmp_path, study_name="mine", programs=programs)
    assert StudyFolder(tmp_path).study_name() == "mine"


def test_config_of_somebody_else_is_not_overwritten(programs, tmp_path):
    (tmp_path / "config.json").write_text("{port: 8080}")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        run_optimization(1, output=tmp_path, programs=programs)
    assert (tmp_path / "config.json").read_text() == "{port: 8080}"


def interrupted_validation(programs, folder):
    """Leave the training state of a validation that was stopped."""

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_best_config(
            {"gamma": 0.98}, 100_000, seeds=2, output=folder, observer=stop, programs=programs
        )


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("damage", DAMAGES)
def test_training_state_that_is_damaged_counts_as_none(programs, tmp_path, damage):
    interrupted_validation(programs, tmp_path)
    for path in (tmp_path / "training_state").rglob("*"):
        if path.is_file():
            path.write_bytes(DAMAGES[damage](path.read_bytes()))
    train_best_config({"gamma": 0.98}, 100_000, seeds=2, output=tmp_path, programs=programs)
    assert not (tmp_path / "training_state").exists()


@pytest.mark.usefixtures("policies")
def test_kill_while_a_training_state_is_removed_leaves_none(programs, tmp_path, monkeypatch):
    interrupted_validation(programs, tmp_path)
    folder = StudyFolder(tmp_path)

    def killed(path, **_):
        if path.exists():
            next(p for p in path.rglob("*") if p.is_file()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.remove_training_state()
    assert not folder.training_state.exists()
    train_best_config({"gamma": 0.98}, 100_000, seeds=2, output=tmp_path, programs=programs)
    assert not any("training_state" in path.name for path in tmp_path.iterdir())


def test_disk_that_is_full_in_a_validation_is_an_os_error_and_the_same_call_continues(
    programs, tmp_path, monkeypatch
):
    from orbax.checkpoint import CheckpointManager

    monkeypatch.setattr("ppo_jax.training_state.SECONDS_BETWEEN_SAVES", 0.0)

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: writing: No space left on device [os_error_code=28]")

    def full_at_the_end(manager, close=CheckpointManager.close):
        close(manager)
        full()

    def run():
        return train_best_config(
            {"gamma": 0.98}, 100_000, seeds=2, output=tmp_path, programs=programs
        )

    for target, name, error in (
        (CheckpointManager, "save", full),
        (CheckpointManager, "close", full_at_the_end),
        (policy.safetensors_numpy, "save", full),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, error)
            with pytest.raises(OSError, match="No space left") as caught:
                run()
            assert caught.value.errno == errno.ENOSPC
            assert str(tmp_path) in caught.value.filename
    monkeypatch.setattr(policy.safetensors_numpy, "save", lambda tensors: b"weights")
    assert np.isfinite(run().winner.validated.returns).all()


def test_files_and_folders_are_synced_around_a_rename(tmp_path, monkeypatch):
    done = []
    replace = Path.replace

    def renamed(source, target):
        done.append("rename")
        return replace(source, target)

    def synced(handle):
        done.append(str(Path(f"/proc/self/fd/{handle}").readlink()))

    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    write_json(tmp_path / "data.json", 1)
    content, *rest = done
    assert content.startswith(str(tmp_path / ".data-"))
    assert rest == ["rename", str(tmp_path)]
    done.clear()
    files.make_folder(tmp_path / "a" / "b")
    assert done == [str(tmp_path / "a"), str(tmp_path)]


@pytest.mark.parametrize("known", [True, False])
def test_macos_empties_the_cache_of_the_drive_as_well(tmp_path, monkeypatch, known):
    done = []

    def full_sync(handle, command):
        done.append(command)
        if not known:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync"))
    write_json(tmp_path / "data.json", 1)
    assert done == (2 * [51] if known else 2 * [51, "fsync"])
