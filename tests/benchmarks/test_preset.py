"""What a study makes a preset of."""

import json

import pytest

from benchmarks import preset
from ppo_jax import presets
from ppo_jax.config import AgentConfig
from ppo_jax.hyperparameters import Hyperparameters


@pytest.fixture
def study(tmp_path):
    """Return the folder of a study whose winner is recommended."""
    mean = {"value": 0.99, "interval": [0.98, 1.0], "method": "Student t"}
    files = {
        "recommended": {
            "environment": {"name": "brax/ant", "kwargs": {"backend": "spring"}},
            "hyperparameters": Hyperparameters(gamma=0.9).to_dict(),
            "agent": AgentConfig(num_envs=4).to_dict(),
        },
        "validation": {
            "recommended": "winner",
            "winner": {"summary": {"mean": mean}},
            "seeds_trained": 8,
            "steps": [50_000, 200_000],
        },
        "optimization_results": {
            "n_trials": {"total": 20},
            "verdict": "Improved.",
            "versions": {"jax": "0.10.2", "optuna": "5.0.0", "ppo_jax": "0.1.0", "numpy": "2"},
        },
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_a_preset_is_what_the_study_recommends_and_its_evidence(study, tmp_path, monkeypatch):
    monkeypatch.setattr(preset, "ROOT", tmp_path)
    (tmp_path / "ppo_jax" / "presets").mkdir(parents=True)
    preset.main([str(study), "--command", "python -m tune.run --env brax/ant"])
    made = presets.read(tmp_path / "ppo_jax" / "presets" / "brax-ant.toml")
    assert (made.env, dict(made.env_kwargs)) == ("brax/ant", {"backend": "spring"})
    assert made.total_steps == 200_000
    assert made.hyperparameters == Hyperparameters(gamma=0.9)
    assert made.agent == AgentConfig(num_envs=4)
    assert made.evidence["score"] == 0.99
    assert made.evidence["seeds"] == 8
    assert made.evidence["verdict"] == "Improved."
    assert made.evidence["command"] == "python -m tune.run --env brax/ant"


def test_a_winner_that_is_not_validated_yet_makes_none(study, refusal):
    results = study / "optimization_results.json"
    results.write_text(results.read_text().replace('"Improved."', "null"))
    said = refusal("benchmarks.preset", study, "--command", "x")
    assert "has no verdict on its winner: run its command again" in said


def test_a_study_without_a_validation_makes_none(study, refusal):
    (study / "validation.json").write_text("{}")
    assert "holds no validated study" in refusal("benchmarks.preset", study, "--command", "x")
