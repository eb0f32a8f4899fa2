"""Films for the report: of the recommended and of the default policy, once."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ppo_jax import policy
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.networks import make_network
from ppo_jax.playback import drawing
from ppo_jax.programs import Weights
from tune.protocol.settings import Settings
from tune.protocol.study_folder import StudyFolder
from tune.report.films import load_films, make_films


def validation(env, recommended="winner"):
    both = {"winner": object(), "baseline": object()}
    verdict = SimpleNamespace(recommended=both[recommended], baseline=both["baseline"])
    return SimpleNamespace(settings=Settings(env=env), verdict=verdict)


@pytest.fixture
def folder(tmp_path, random_params):
    """A folder with the two policies of a study of CartPole-v1."""
    config = TrainConfig(env="CartPole-v1", agent=AgentConfig(hidden_sizes=(4,)))
    spaces = make("CartPole-v1").spaces
    folder = StudyFolder(tmp_path)
    for seed, place in enumerate((folder.policy, folder.baseline_policy)):
        params = random_params(
            make_network(config.agent, spaces), spaces.observation_shape, seed=seed
        )
        policy.save(place, config, Weights(params, None))
    return folder


def test_both_policies_are_filmed_once(folder):
    study = validation("CartPole-v1")
    make_films(study, folder)
    films = load_films(study, folder)
    assert list(films) == ["winner", "baseline"]
    assert films["winner"] != films["baseline"]
    paths = [folder.films / f"{name}.gif" for name in films]
    with Image.open(paths[0]) as film:
        assert film.size == (200, 200)
        frames = film.n_frames
        assert len(np.unique(np.asarray(film.convert("L")))) > 1

    short = list(drawing.in_short(policy.load(folder.policy), make("CartPole-v1"), most=5).frames)
    assert len(short) <= 5 < frames <= 90

    written = [path.stat().st_mtime_ns for path in paths]
    make_films(study, folder)
    assert [path.stat().st_mtime_ns for path in paths] == written
    paths[0].write_bytes(films["winner"][:999])
    assert list(load_films(study, folder)) == ["baseline"]
    make_films(study, folder)
    assert load_films(study, folder) == films
    os.utime(folder.policy / "policy.json", (2**31, 2**31))
    assert list(load_films(study, folder)) == ["baseline"], "that of another policy is not shown"
    assert list(load_films(validation("CartPole-v1", "baseline"), folder)) == []


def test_what_cannot_be_drawn_is_not_filmed(folder):
    for study in (validation("PointRobot-misc"), validation("no_module:Nothing")):
        make_films(study, folder)
    assert not folder.films.exists()
