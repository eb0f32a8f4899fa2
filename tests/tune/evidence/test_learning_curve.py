from tune.evidence.learning_curve import training_steps
from tune.protocol.settings import Settings


def test_steps_hold_the_checkpoints_of_the_study():
    settings = Settings(total_steps=120_000)
    assert training_steps(settings, 200_000) == [50_000, 100_000, 120_000, 150_000, 200_000]
    assert training_steps(settings, 30_000) == [30_000]
