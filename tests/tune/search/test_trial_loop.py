"""Trials side by side: refilled, resumed, exact totals."""

from types import SimpleNamespace

import jax
import numpy as np
import optuna
import pytest

from ppo_jax.hyperparameters import Hyperparameters
from ppo_jax.losses import LossMetrics
from ppo_jax.programs import Programs
from ppo_jax.schedules import MOST_LANES, LanePrograms, blocks_for, choose_lanes
from ppo_jax.trainer import TrainMetrics
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.search import objective
from tune.search.objective import make_programs
from tune.search.study import run_optimization

SETTINGS = Settings(sampler_startup_trials=3, pruner_startup_trials=2, seeds=2)
LANES, TRIALS = 3, 9


class FakeLanePrograms(LanePrograms):
    """Lanes that learn instantly, as `returns(hyperparameters, step)` says."""

    def __init__(self, runs=LANES):
        super().__init__(SETTINGS.config, SETTINGS.seeds, runs, jax.devices()[:1])
        self.returns = lambda h, step: step / 1000 + 100 * h.gamma - 3 * abs(h.n_epochs - 6)
        self.held = {}
        self.most = 0

    def compile(self):
        pass

    def init(self, keys):
        return None

    def empty(self):
        return "lanes"

    def place(self, all_lanes, state, hyperparameters, total_steps, here):
        self.held.update(dict.fromkeys(np.flatnonzero(here), hyperparameters))
        return all_lanes

    def advance(self, all_lanes, active, passed, blocks):
        self.most = max(self.most, int(active.sum()) // self.seeds)
        return all_lanes

    def evaluate_lanes(self, all_lanes, checkpoint, iterations, wanted):
        steps = np.array(SETTINGS.checkpoints())[checkpoint]
        returns = [
            [self.returns(self.held[lane], step) if wanted[lane] else np.nan] * 2
            for lane, step in enumerate(steps)
        ]
        zero = np.zeros(len(steps))
        loss = LossMetrics(*(zero for _ in LossMetrics._fields))
        return np.array(returns), TrainMetrics(loss, zero, zero, zero, zero)

    def extract(self, all_lanes, place):
        return None


class StopAt:
    """Progress that stops the process with its `last` event."""

    def __init__(self, last=None, error=KeyboardInterrupt):
        self.left, self.error, self.events = last, error, 0

    def study_started(self, *_):
        pass

    def _count(self, *_):
        self.events += 1
        if self.events == self.left:
            raise self.error

    trial_started = checkpoint = trial_finished = _count


def run(folder, n_trials=TRIALS, **kwargs):
    kwargs = {"programs": FakeLanePrograms(), **kwargs}
    return run_optimization(n_trials, SETTINGS, output=folder, **kwargs)


def outcome(study):
    return [
        (trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.trials
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    progress = StopAt()
    study = run(tmp_path_factory.mktemp("whole"), progress=progress)
    return outcome(study), progress.events


def test_total_is_exact_and_lanes_are_refilled(uninterrupted, tmp_path):
    programs = FakeLanePrograms()
    study = run(tmp_path, programs=programs)
    assert outcome(study) == uninterrupted[0]
    states = [trial.state.name for trial in study.trials]
    assert len(states) == TRIALS
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert study.trials[0].user_attrs["baseline"]
    assert programs.most == LANES
    began = [trial.user_attrs["began_at_block"] for trial in study.trials]
    assert began[:LANES] == [0] * LANES
    assert 0 < began[LANES] < began[-1]


def test_no_trial_begins_before_all_results_of_that_moment_are_known(tmp_path):
    class Told(StopAt):
        def __init__(self):
            super().__init__()
            self.ends, self.known = {}, {}

        def trial_started(self, trial):
            self.known[trial.number] = set(self.ends)

        def trial_finished(self, study, trial):
            hyperparameters = Hyperparameters.from_dict(trial.user_attrs["hyperparameters"])
            reached = max(trial.intermediate_values)
            blocks = blocks_for(SETTINGS.config, hyperparameters, reached)
            self.ends[trial.number] = trial.user_attrs["began_at_block"] + blocks

    told = Told()
    study = run(tmp_path, progress=told)
    for trial in study.trials:
        began = trial.user_attrs["began_at_block"]
        assert told.known[trial.number] == {n for n, end in told.ends.items() if end <= began}


def test_stopped_study_ends_like_one_that_was_not(uninterrupted, tmp_path):
    whole, events = uninterrupted
    for last in [*range(2, events, events // 4), events - 1]:
        folder = tmp_path / str(last)
        with pytest.raises(KeyboardInterrupt):
            run(folder, progress=StopAt(last))
        if last % 2:  # And once more, at once.
            with pytest.raises(KeyboardInterrupt):
                run(folder, progress=StopAt(4))
        assert outcome(run(folder)) == whole, f"stopped with event {last} of {events}"


def test_pruner_is_not_asked_again_about_what_it_has_answered(tmp_path):
    """Here it would answer otherwise: the trials that have ended meanwhile were better."""
    answers = []

    class Pruner(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            answers.append((trial.number, trial.last_step))
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune.search.study.make_pruner", lambda settings: Pruner())
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=StopAt(15))
        run(tmp_path)
    assert len(answers) == len(set(answers))


def test_error_of_one_trial_counts_as_its_attempt_alone(tmp_path):
    programs = FakeLanePrograms()
    programs.returns = lambda h, step: 1.0 if h == Hyperparameters() else np.nan
    with pytest.raises(RuntimeError):
        run(tmp_path, programs=programs, progress=StopAt(4, RuntimeError))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert sum("attempts" in trial.user_attrs for trial in study.trials) == 1
    assert [trial.state.name for trial in study.trials] == ["RUNNING"] * LANES


def test_shared_study_releases_what_ran_beside_an_error_and_keeps_its_total(tmp_path):
    storage = f"journal:{tmp_path / 'study.journal'}"
    with pytest.raises(RuntimeError):
        run(tmp_path, storage=storage, progress=StopAt(LANES + 1, RuntimeError))
    study = run(tmp_path, storage=storage)
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert len(failed) == LANES
    assert sum("released" in trial.user_attrs for trial in failed) == LANES - 1
    assert sum(trial.state.name != "FAIL" for trial in study.trials) == TRIALS


def test_divergence_in_a_lane_ends_its_trial_alone(tmp_path):
    programs = FakeLanePrograms()
    programs.returns = lambda h, step: 1.0 if h == Hyperparameters() else np.nan
    study = run(tmp_path, 4, programs=programs)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", *["PRUNED"] * 3]


def test_number_of_lanes_follows_from_device_trials_and_memory():
    def lanes(most, gigabytes, platform="gpu"):
        memory = {"bytes_limit": gigabytes * 1e9}
        device = SimpleNamespace(platform=platform, memory_stats=lambda: memory)
        return choose_lanes(SETTINGS.config, SETTINGS.seeds, most, [device])

    assert lanes(20, 80) == MOST_LANES
    assert lanes(3, 80) == 3
    assert lanes(0, 80) == 1
    assert lanes(20, 80, "cpu") == 1
    assert 1 < lanes(20, 0.01) < MOST_LANES
    assert lanes(20, 0.0) == 1


def test_lanes_are_for_one_agent_and_programs_have_the_precision_of_the_study(monkeypatch):
    monkeypatch.setattr(objective, "choose_lanes", lambda *_: LANES)
    settings = Settings(matmul_precision="highest")
    pool = make_programs(settings, 100)
    assert pool.has_lanes
    assert pool.config.matmul_precision == "highest"
    wide = Settings(matmul_precision="highest", space=SearchSpace.named("wide"))
    for lanes in (None, 1):
        pool = make_programs(wide, 100, lanes)
        assert not pool.has_lanes
        for agent in wide.space.agents()[:2]:
            programs = pool.programs(agent)
            assert type(programs) is Programs
            assert programs.config.matmul_precision == "highest"
