"""A session on a clock of our own: what is said to be left is what is left."""

import dataclasses

import numpy as np
import pytest

from tune.protocol.plan import NO_LIMIT, Plan
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.report.time_left import Job


def plan_of(tmp_path, n_trials=20, **options):
    return Plan(Settings(), n_trials, "a", StudyFolder(tmp_path), **options)


@dataclasses.dataclass
class Session:
    """A session whose pace is known, recorded at each event."""

    job: Job
    plan: Plan
    rollout: float
    now: float = 0.0
    said: list = dataclasses.field(default_factory=list)

    def step(self, count, n_epochs):
        seconds = count * (self.rollout + n_epochs) * 1e-5
        self.now += seconds
        return seconds

    def record(self):
        self.said.append((self.now, self.job.seconds_left(self.now)))

    def trials(self, rng):
        self.now += 20.0  # Compiling.
        for number in range(self.plan.n_trials):
            n_epochs = int(rng.integers(3, 11)) if number else 4
            pruned_at = 50_000 if number > 4 and rng.random() < 0.3 else 200_000
            for step in range(50_000, pruned_at + 1, 50_000):
                seconds = self.step(50_000, n_epochs)
                self.now += 0.02 * seconds
                self.job.trial_checkpoint(number, n_epochs, step, seconds, self.now)
                self.record()
            self.job.trial_finished(number, float(n_epochs), number + 1, self.now)
            self.record()

    def proof(self, seeds, beaten=True):
        self.now += 25.0  # The report.
        runs = {name: (None, n) for name, n in (("a", 10), ("b", 10), ("c", 9), ("d", 4))}
        self.job.proof_started("finalists", self.plan, runs, self.now)
        for name, (_, n_epochs) in runs.items():
            for step in range(100_000, 1_000_001, 100_000):
                self.step(100_000, n_epochs)
                self.job.seeds_checkpoint(name, 0, 4, step, self.now)
                self.record()
        runs = {"winner": (None, 10), "baseline": (0, 4)} if beaten else {"winner": (0, 4)}
        self.job.proof_started("validation", self.plan, runs, self.now)
        trained = 0
        for look in (8, 12, 20):
            if trained >= seeds:
                break
            for name, (_, n_epochs) in runs.items():
                for first in range(trained, look, 4):
                    for step in range(100_000, 1_000_001, 100_000):
                        self.step(100_000, n_epochs)
                        self.job.seeds_checkpoint(name, first, first + 4, step, self.now)
                        self.record()
            trained = look
        self.now += 32.0  # The report, with films.


@pytest.mark.parametrize("rollout", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("seeds", "beaten"), [(8, True), (12, True), (20, True), (8, False)])
@pytest.mark.parametrize("draw", range(2))
def test_from_a_tenth_on_the_time_left_is_right_within_a_third(
    tmp_path, rollout, seeds, beaten, draw
):
    plan = plan_of(tmp_path)
    session = Session(Job(plan.settings, 20, plan, [], 0.0), plan, rollout)
    assert session.job.seconds_left(0.0) is None
    session.trials(np.random.default_rng(draw))
    session.proof(seeds, beaten)
    wrong = []
    for now, said in session.said:
        true = session.now - now
        if now > 0.1 * session.now and true > 0.02 * session.now:
            low, high = said
            wrong.append(not low * 0.7 <= true <= high * 1.3)
    assert len(wrong) > 100
    assert np.mean(wrong) <= 0.03
    done, total = session.job.steps()
    assert total is not None
    if seeds == 20 or not beaten:
        assert done == total


def test_clock_goes_on_between_events_and_a_late_event_does_not_bring_the_end_nearer(tmp_path):
    plan = plan_of(tmp_path, validate_steps=0)
    job = Job(plan.settings, 2, plan, [], 0.0)
    for number, step in enumerate((50_000, 100_000, 150_000)):
        job.trial_checkpoint(0, 4, step, 10.0, 10.0 * (number + 1))
    low, high = job.seconds_left(30.0)
    assert low == high
    assert job.seconds_left(33.0)[1] == pytest.approx(high - 3)
    assert job.seconds_left(300.0) == job.seconds_left(900.0)
    assert job.seconds_left(900.0)[0] > 0.5 * low


def test_clock_goes_on_while_the_last_report_is_written(tmp_path):
    plan = plan_of(tmp_path)
    session = Session(Job(plan.settings, 20, plan, [], 0.0), plan, 2.0)
    session.trials(np.random.default_rng(0))
    session.proof(20)
    end, left = session.said[-1]
    assert left[0] > 20
    assert session.job.seconds_left(end + 10) == pytest.approx((left[0] - 10, left[1] - 10))


def test_clock_goes_on_while_the_report_is_written(tmp_path):
    plan = plan_of(tmp_path, 1, validate_steps=0)
    job = Job(plan.settings, 1, plan, [], 0.0)
    for step in (50_000, 100_000, 150_000, 200_000):
        job.trial_checkpoint(0, 4, step, 1.0, step / 50_000)
    job.trial_finished(0, 1.0, 1, 4.0)
    assert job.seconds_left(4.0) == (6.0, 6.0)
    assert job.seconds_left(9.0) == (1.0, 1.0)
    assert job.seconds_left(90.0) == (0.0, 0.0)


def test_interrupted_session_knows_its_pace_at_once(tmp_path):
    plan = plan_of(tmp_path, 2, validate_steps=0)

    class Before:
        number, score = 0, 1.0
        hyperparameters = plan.settings.baseline.hyperparameters
        means = {200_000: 1.0}  # noqa: RUF012
        environment_steps = 800_000
        training_seconds, evaluation_seconds = 30.0, 10.0

    job = Job(plan.settings, 2, plan, [Before], 0.0)
    assert 45 < job.seconds_left(0.0)[1] < 70
    assert job.steps() == (800_000, 800_000 + 0.9 * 800_000)


def test_continued_finalist_does_not_look_fast(tmp_path):
    """What an earlier session has trained of it took no time in this one."""
    plan = plan_of(tmp_path, 1, finalists=1)
    sessions = []
    for first in (50_000, 950_000):
        job = Job(plan.settings, 1, plan, [], 0.0)
        job.trial_checkpoint(0, 4, 200_000, 20.0, 20.0)
        job.trial_finished(0, 1.0, 1, 20.0)
        job.proof_started("finalists", plan, {"a": (0, 4), "b": (0, 4)}, 20.0)
        job.seeds_checkpoint("a", 0, 4, first, 25.0)
        job.proof_started("validation", plan, {"a": (0, 4)}, 25.0)
        sessions.append(job.seconds_left(25.0))
    assert sessions[0] == sessions[1]


def test_budget_ends_trials_so_their_end_is_unknown(tmp_path):
    plan = plan_of(tmp_path, NO_LIMIT)
    job = Job(plan.settings, NO_LIMIT, plan, [], 0.0)
    job.trial_checkpoint(0, 4, 50_000, 5.0, 5.0)
    assert job.seconds_left(5.0) is None
    assert job.steps() == (200_000, None)
    job.proof_started("validation", plan, {"a": (0, 4)}, 6.0)
    assert job.seconds_left(6.0)[0] > 0


def test_others_on_the_same_study_halve_the_time(tmp_path):
    settings = Settings()
    alone, shared = (Job(settings, 20, None, [], 0.0) for _ in range(2))
    for job, finished in ((alone, 1), (shared, 2)):
        job.trial_checkpoint(0, 4, 200_000, 10.0, 10.0)
        job.trial_finished(0, 1.0, finished, 10.0)
    ratio = shared.seconds_left(10.0)[1] / alone.seconds_left(10.0)[1]
    assert ratio == pytest.approx(18 / 19 / 2)
