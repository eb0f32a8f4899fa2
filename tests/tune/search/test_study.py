import contextlib
import errno
import fcntl
import json
import os

import optuna
import pytest

from ppo_jax.config import AgentConfig
from ppo_jax.errors import UserError
from ppo_jax.files import FolderInUseError, write_json
from ppo_jax.hyperparameters import Hyperparameters
from tune.protocol.settings import Settings
from tune.protocol.space import Configuration, SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.protocol.trials import StudyRecord, settings_of
from tune.report.stored import read_study
from tune.search.study import open_study, run_optimization


class Interrupt:
    """Progress that stops the process's work in the middle of a trial."""

    def __init__(self, at_trial, at_step=0):
        self.at_trial, self.at_step = at_trial, at_step

    def study_started(self, study, settings, n_trials):
        pass

    def trial_started(self, trial):
        pass

    def checkpoint(self, trial, checkpoint):
        if trial.number == self.at_trial and checkpoint.step >= self.at_step:
            raise KeyboardInterrupt

    def trial_finished(self, study, trial):
        pass


def parameters(study):
    return [tuple(trial.params.values()) for trial in study.trials]


def test_trial_0_is_the_baseline(programs, tmp_path):
    study = run_optimization(3, output=tmp_path, programs=programs)
    assert study.trials[0].params == SearchSpace().baseline()
    assert [trial.user_attrs.get("baseline", False) for trial in study.trials] == [True] + [
        False
    ] * 2
    assert (tmp_path / "study.db").exists()
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == 4


def test_continues_to_the_total_without_repeating_points(programs, tmp_path):
    run_optimization(4, output=tmp_path, programs=programs)
    study = run_optimization(9, output=tmp_path, programs=programs)
    assert len(study.trials) == 9
    assert len(set(parameters(study))) == 9
    assert sum(trial.user_attrs.get("baseline", False) for trial in study.trials) == 1
    assert len(run_optimization(9, output=tmp_path, programs=programs).trials) == 9


def test_same_seed_gives_the_same_trials(programs, tmp_path):
    first = run_optimization(8, output=tmp_path / "a", programs=programs)
    second = run_optimization(8, output=tmp_path / "b", programs=programs)
    other = run_optimization(8, Settings(seed=1), output=tmp_path / "c", programs=programs)
    assert parameters(first) == parameters(second)
    assert parameters(first)[1:] != parameters(other)[1:]


@pytest.mark.parametrize("at_trial", [0, 3])
def test_interrupted_trial_is_run_again_in_its_place(programs, tmp_path, at_trial):
    with pytest.raises(KeyboardInterrupt):
        run_optimization(6, output=tmp_path, progress=Interrupt(at_trial), programs=programs)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    before = optuna.load_study(study_name="CartPole-v1", storage=storage)
    assert [trial.state.name for trial in before.trials] == ["COMPLETE"] * at_trial + ["RUNNING"]
    points = parameters(before)
    after = run_optimization(6, output=tmp_path, programs=programs)
    assert len(after.trials) == 6
    assert all(trial.state.is_finished() for trial in after.trials)
    assert parameters(after)[: at_trial + 1] == points
    assert len(set(parameters(after))) == 6
    assert after.trials[at_trial].user_attrs["interrupted"] == 1


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "journal:{}/study.journal"])
@pytest.mark.parametrize("at_trial", [0, 3])
def test_interrupted_trial_stays_what_it_was_in_a_wider_space(
    programs, tmp_path, storage, at_trial
):
    where = {"output": tmp_path, "storage": storage.format(tmp_path), "programs": programs}
    programs.returns = lambda h, step, seed: step / 1000 + h.batch_size + 100 * h.gamma + seed
    with pytest.raises(KeyboardInterrupt):
        run_optimization(6, progress=Interrupt(at_trial, 100_000), **where)
    hyperparameters = programs.runs[-1][1]
    programs.runs.clear()
    wider = {
        "batch_size": {"choices": [32, 64, 128, 256, 512]},
        "gamma": {"low": 0.9, "high": 0.999, "log_complement": True},
    }
    study = run_optimization(6, Settings(space=wider), **where)
    record = StudyRecord.of(study)
    numbers = [n for n, t in enumerate(study.trials) if t.user_attrs.get("retry_of") == at_trial]
    again = record.trials[numbers[0] if numbers else at_trial]
    assert again.is_baseline == (at_trial == 0)
    assert hyperparameters == again.hyperparameters == programs.runs[0][1]
    for step, mean in again.means.items():
        assert mean == pytest.approx(again.returns[step].mean())
    params = record.settings.space.encode(again.configuration(record.settings))
    assert again.params == params


@pytest.mark.parametrize(
    ("storage", "began"),
    [
        ("sqlite:///{}/study.db", False),
        ("sqlite:///{}/study.db", True),
        ("journal:{}/study.journal", False),
    ],
)
def test_the_baseline_has_the_defaults_where_the_space_is_widened_before_it_has_begun(
    programs, tmp_path, storage, began
):
    """As after a kill in its first second."""
    where = {"output": tmp_path, "storage": storage.format(tmp_path)}
    with open_study(Settings(), StudyFolder(tmp_path), storage=where["storage"]) as study:
        if began:
            study.ask()
    wide = Settings(space=SearchSpace.named("wide"))
    record = StudyRecord.of(run_optimization(1, wide, programs=programs, **where))
    configuration = record.baseline.configuration(record.settings)
    assert configuration == Configuration(Hyperparameters(), AgentConfig())
    assert record.baseline.params == record.settings.space.baseline_params()


def test_an_agent_that_a_space_has_fixed_is_known_in_a_wider_one(programs, tmp_path):
    fixed, wider = ({"num_envs": table} for table in ({"value": 8}, {"choices": [8, 16]}))
    run_optimization(2, Settings(space=fixed), output=tmp_path, programs=programs)
    study = run_optimization(2, Settings(space=wider), output=tmp_path, programs=programs)
    record = StudyRecord.of(study)
    assert [t.configuration(record.settings).agent.num_envs for t in record.trials] == [8, 8]


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "journal:{}/study.journal"])
def test_interrupted_trial_waits_where_the_total_has_been_reached(programs, tmp_path, storage):
    where = {"output": tmp_path, "storage": storage.format(tmp_path), "programs": programs}
    with pytest.raises(KeyboardInterrupt):
        run_optimization(6, progress=Interrupt(4), **where)
    for n_trials, finished in ((2, 4), (4, 4), (5, 5)):
        study = run_optimization(n_trials, **where)
        assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials) == finished


def test_another_protocol_is_refused(programs, tmp_path):
    run_optimization(1, output=tmp_path, programs=programs)
    with pytest.raises(UserError, match="started with seeds = 4, but got 5"):
        run_optimization(2, Settings(seeds=5), output=tmp_path, programs=programs)
    space = SearchSpace.from_tables({"gamma": {"value": 0.9}})
    with pytest.raises(UserError, match=r"space\.gamma = "):
        run_optimization(2, Settings(space=space), output=tmp_path, programs=programs)


def test_an_agent_that_does_not_fit_is_refused_before_the_first_trial(programs, tmp_path):
    agent = AgentConfig(network="gru", sequence_length=128)
    wide = Settings(space=SearchSpace.named("wide"), agent=agent)
    with pytest.raises(UserError, match=r"sequence_length must divide .* and num_envs=64"):
        run_optimization(1, wide, output=tmp_path / "out", programs=programs)
    assert not (tmp_path / "out").exists()


def test_a_study_does_not_decide_which_network_is_imported(programs, tmp_path, monkeypatch):
    name = "examples.own_network:SharedNetwork"
    settings = Settings(agent=AgentConfig(network=name))
    run_optimization(1, settings, output=tmp_path, programs=programs)
    monkeypatch.setattr("ppo_jax.config._asked", set())  # As in another process.
    with pytest.raises(UserError, match=f"names the network '{name}', whose code would"):
        read_study(tmp_path)
    assert read_study(tmp_path, network=name).settings.agent.network == name


def test_reference_may_change(programs, tmp_path):
    run_optimization(1, output=tmp_path, programs=programs)
    study = run_optimization(2, Settings(reference_score=561.5), output=tmp_path, programs=programs)
    assert len(study.trials) == 2
    assert settings_of(study).reference_score == 561.5


def test_study_of_somebody_else_is_left_alone(programs, tmp_path):
    storage = f"sqlite:///{tmp_path / 'other.db'}"
    optuna.create_study(study_name="mine", storage=storage, direction="maximize").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    with pytest.raises(UserError, match="not made by this tuner"):
        run_optimization(
            2, output=tmp_path / "out", storage=storage, study_name="mine", programs=programs
        )


def test_storage_that_cannot_be_opened_is_refused_without_its_password(programs, tmp_path):
    with pytest.raises(UserError, match="cannot open the storage") as caught:
        run_optimization(
            2,
            output=tmp_path / "out",
            storage="nosuchdb://user:secret@host/db",
            study_name="s",
            programs=programs,
        )
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_processes_never_share_a_folder(programs, tmp_path):
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another process"):
            run_optimization(2, output=tmp_path, programs=programs)
    finally:
        os.close(descriptor)
    assert len(run_optimization(1, output=tmp_path, programs=programs).trials) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_locked_is_open_for_writing_as_nfs_asks_for(tmp_path, monkeypatch, shared):
    lock = fcntl.flock

    def nfs(descriptor, operation):
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and access == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", nfs)
    (tmp_path / ".config-unfinished-01ab.json").write_text("{")
    with StudyFolder(tmp_path).held(shared=shared):
        write_json(tmp_path / "config.json", {})
        with pytest.raises(FolderInUseError), StudyFolder(tmp_path).held(shared=False):
            pass
        with contextlib.ExitStack() as stack:
            if not shared:
                stack.enter_context(pytest.raises(FolderInUseError))
            stack.enter_context(StudyFolder(tmp_path).held(shared=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]


def test_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(OSError, match="No locks available") as caught,
        StudyFolder(tmp_path).held(shared=True),
    ):
        pass
    assert caught.value.filename == str(tmp_path / ".lock")


def test_best_trial_is_the_earliest_of_equals(programs, tmp_path):
    programs.returns = lambda hp, step, seed: 500.0
    study = run_optimization(4, output=tmp_path, programs=programs)
    assert StudyRecord.of(study).best.number == 0


def test_folder_of_another_study_is_refused(programs, tmp_path):
    run_optimization(1, output=tmp_path, study_name="mine", programs=programs)
    with pytest.raises(UserError, match="holds the study 'mine', but got 'yours'"):
        run_optimization(1, output=tmp_path, study_name="yours", programs=programs)


def test_processes_that_share_a_storage_share_the_folder_but_with_no_other(programs, tmp_path):
    storage = f"journal:{tmp_path / 'study.journal'}"
    with open_study(Settings(), StudyFolder(tmp_path), storage=storage) as study:
        joined = run_optimization(3, output=tmp_path, storage=storage, programs=programs)
        assert len(joined.trials) == len(study.trials) == 3
        with pytest.raises(UserError, match="another process is running a study"):
            run_optimization(
                3, output=tmp_path, storage=f"sqlite:///{tmp_path / 'x.db'}", programs=programs
            )


def test_journal_in_the_folder_goes_on_by_itself(programs, tmp_path):
    with open_study(Settings(), StudyFolder(tmp_path), workers=2):
        pass
    assert len(run_optimization(4, output=tmp_path, programs=programs).trials) == 4
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", "config.json", "study.journal"]


def test_workers_do_not_share_a_study_in_sqlite(programs, tmp_path):
    run_optimization(1, output=tmp_path, programs=programs)
    with (
        pytest.raises(UserError, match="begun by one process and is kept in SQLite"),
        open_study(Settings(), StudyFolder(tmp_path), workers=2),
    ):
        pass


def test_interrupted_trial_of_a_shared_study_is_run_again_as_another(programs, tmp_path):
    storage = f"journal:{tmp_path / 'j'}"
    with pytest.raises(KeyboardInterrupt):
        run_optimization(
            5, output=tmp_path, storage=storage, progress=Interrupt(2), programs=programs
        )
    study = run_optimization(5, output=tmp_path, storage=storage, programs=programs)
    states = [trial.state.name for trial in study.trials]
    assert states[2] == "FAIL"
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 5
    assert study.trials[3].params == study.trials[2].params
    uninterrupted = run_optimization(5, output=tmp_path / "other", programs=programs)
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    finished = [trial.params for trial in finished if trial.state.name != "FAIL"]
    assert finished == [trial.params for trial in uninterrupted.trials]


@pytest.mark.parametrize("storage", [None, "journal:{}/study.journal"])
def test_configuration_that_raises_is_given_up_after_its_retries(programs, tmp_path, storage):
    storage = None if storage is None else storage.format(tmp_path)
    failing = []

    def returns(hyperparameters, step, seed):
        gamma = hyperparameters.gamma
        if failing == [gamma] or (not failing and gamma != 0.99):
            failing[:] = [gamma]
            raise RuntimeError("this configuration breaks the environment")
        return 1.0

    programs.returns = returns

    def run():
        return run_optimization(
            3, output=tmp_path, storage=storage, programs=programs, max_retries=2
        )

    for _ in range(3):
        with pytest.raises(RuntimeError):
            run()
    states = [trial.state.name for trial in run().trials]
    assert states.count("COMPLETE") == 3
    assert states.count("FAIL") == (1 if storage is None else 3)


@pytest.mark.parametrize("name", [".", "..", "../..", "/", "x" * 300])
def test_study_of_any_name_has_a_folder_of_its_own_below_runs(
    programs, tmp_path, monkeypatch, name
):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    run_optimization(1, study_name=name, programs=programs)
    (config,) = tmp_path.rglob("config.json")
    assert config.parent.parent == tmp_path / "a" / "b" / "runs"
    with pytest.raises(UserError, match="but got"):
        run_optimization(1, study_name=f"{name} 2", output=config.parent, programs=programs)
    run_optimization(1, study_name=name, programs=programs)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 513, 3])
def test_name_that_a_storage_cannot_hold_is_refused(programs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the name of a study must") as caught:
        run_optimization(1, study_name=name, programs=programs)
    assert len(str(caught.value).encode()) < 300
    assert not any(tmp_path.iterdir())
