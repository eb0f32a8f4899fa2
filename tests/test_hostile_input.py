"""Whatever a file or an option holds, the answer is a value or one line, never a traceback."""

import ast
import copy
import dataclasses
import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from benchmarks import hostile
from ppo_jax import policy
from ppo_jax.command_line import parse_env_kwargs
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.files import folder_name, write_json
from ppo_jax.hyperparameters import DOMAINS, Hyperparameters
from ppo_jax.networks import make_network
from ppo_jax.programs import Weights
from ppo_jax.training_state import TrainingStates
from tune.evidence.recommendation import read_recommended
from tune.protocol.settings import Settings
from tune.protocol.space import SearchSpace
from tune.protocol.study_folder import StudyFolder
from tune.report.files import load_results
from tune.report.stored import address_of, load_study
from tune.report.summary import describe_study
from tune.search.samplers import SAMPLERS, make_sampler

ROOT = Path(__file__).parent.parent

NUMBERS = st.one_of(
    st.integers(-3, 600),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**309, -(10**309)]),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=12))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
"""What a JSON or TOML file can hold."""

KEYS = st.one_of(st.sampled_from([*DOMAINS, "num_envs"]), st.text(max_size=12))
TABLES = st.dictionaries(
    KEYS,
    st.one_of(
        VALUES,
        st.dictionaries(st.sampled_from(["low", "high", "log", "choices", "value"]), VALUES),
    ),
    max_size=3,
)

SOUND = st.sampled_from([0, 1e-5, 1e-3, 0.1, 0.5, 0.9, 0.99, 1, 2, 4, 8, 32, 64, 256, 1024, 2048])
NEARLY_SOUND = st.dictionaries(
    st.sampled_from([*DOMAINS, "num_envs"]),
    st.one_of(
        st.fixed_dictionaries({"low": SOUND, "high": SOUND}, optional={"log": st.booleans()}),
        st.fixed_dictionaries({"choices": st.lists(SOUND, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"value": SOUND}),
        st.just({"drop": True}),
    ),
    max_size=2,
)

# A fixture's folder is shared by the examples: each of them writes what it reads.
examples = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def accepts(function, *arguments):
    """Return the result, or None where the user is told what is wrong."""
    try:
        return function(*arguments)
    except UserError as error:
        message = str(error)
    assert message
    return None


@st.composite
def altered(draw, document):
    """Return `document` with one of its values replaced or removed."""
    document = copy.deepcopy(document)
    place = document
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        child = place[key]
        if not (isinstance(child, (dict, list)) and child) or draw(st.booleans()):
            break
        place = child
    if draw(st.integers(0, 4)):
        place[key] = draw(VALUES)
    else:
        del place[key]
    return document


@examples
@given(st.dictionaries(KEYS, VALUES, max_size=3))
@example({"learning_rate": 10**400})
def test_hyperparameters(values):
    found = accepts(Hyperparameters.from_dict, values)
    if found is not None:
        assert Hyperparameters.from_dict(found.to_dict()) == found


@examples
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([field.name for field in dataclasses.fields(AgentConfig)]), st.text()
        ),
        VALUES,
        max_size=3,
    )
)
def test_agents(values):
    found = accepts(AgentConfig.from_dict, values)
    if found is not None:
        assert AgentConfig.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@examples
@given(TABLES | NEARLY_SOUND)
def test_search_spaces(tables):
    found = accepts(SearchSpace.from_tables, tables)
    if found is not None:
        assert dict(SearchSpace.from_tables(found.to_tables()).tuned) == dict(found.tuned)
        accepts(suggest_once, found)


def suggest_once(space):
    """Do with a space what a study does, with every sampler that is installed."""
    for name, sampler in SAMPLERS.items():
        if sampler.package is not None and importlib.util.find_spec(sampler.package) is None:
            continue
        study = optuna.create_study(sampler=make_sampler(Settings(space=space, sampler=name)))
        study.enqueue_trial(space.baseline_params())
        for _ in range(2):
            trial = study.ask()
            assert space.encode(space.suggest(trial)) is not None
            study.tell(trial, 0.0)


@pytest.mark.parametrize(
    "tables",
    [
        {"learning_rate": {"low": 1e-5, "high": 1.0}, "entropy_coef": {"choices": [0.0, 0.1]}},
        {"gamma": {"value": 0.5}, "n_epochs": {"low": 1, "high": 2}, "num_envs": {"choices": [4]}},
    ],
)
def test_search_spaces_that_are_sound_give_configurations(tables):
    suggest_once(SearchSpace.from_tables(tables))


@examples
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_files_of_search_spaces(tmp_path, content):
    path = tmp_path / "a späce.toml"
    path.write_bytes(content)
    accepts(SearchSpace.from_file, path)


RECOMMENDED = json.loads(
    json.dumps(
        {
            "hyperparameters": Hyperparameters().to_dict(),
            "agent": AgentConfig().to_dict(),
            "settings": Settings().to_dict(),
        }
    )
)


@examples
@given(altered(RECOMMENDED))
def test_recommended_configurations(tmp_path, document):
    path = tmp_path / "recommended.json"
    path.write_text(json.dumps(document))  # NaN and Infinity too, as Python writes them.
    accepts(read_recommended, path)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Return the folder of a study with finalists and a validation, and the study."""
    folder = StudyFolder(tmp_path_factory.mktemp("studied") / "study")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "make_films"):
            patch.setattr(f"tune.session.{name}", lambda *_: None)
        patch.setattr("tune.evidence.statistics.RESAMPLES", 20)
        hostile.small_study(folder.path)
        yield folder, load_study(address_of(folder, None), folder, None)


@settings(examples, max_examples=25)
@given(st.data())
def test_files_of_studies(studied, tmp_path, data):
    sound, study = studied
    names = [sound.config.name, sound.finalists.name, sound.validation.name]
    for name in names:
        (tmp_path / name).write_bytes((sound.path / name).read_bytes())
    edited = tmp_path / data.draw(st.sampled_from(names))
    edited.write_text(json.dumps(data.draw(altered(json.loads(edited.read_text())))))
    folder = StudyFolder(tmp_path)
    accepts(folder.require_usable, study.study_name)
    results = accepts(functools.partial(load_results, analysed=False), study, folder)
    if results is not None:
        write_json(tmp_path / "results.json", describe_study(results))
        write_json(tmp_path / "results.json", results.validation and results.validation.to_dict())


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Return the folder of a training state."""
    folder = tmp_path_factory.mktemp("training state")
    with TrainingStates(folder, {"run": 1}) as states:
        states.save({"a": np.arange(3.0)}, {"returns": [1.5, None]})
    return folder


@settings(examples, max_examples=25)
@given(st.data())
def test_descriptions_of_training_states(state, data):
    (path,) = (p for p in state.rglob("*") if p.is_file() and b'"progress"' in p.read_bytes())
    content = path.read_text()
    try:
        path.write_text(json.dumps(data.draw(altered(json.loads(content)))))
        with TrainingStates(state, {"run": 1}) as states:
            found = accepts(states.restore, {"a": np.zeros(3)})
    finally:
        path.write_text(content)
    if found is not None:
        assert found[0]["a"].tolist() == [0.0, 1.0, 2.0]
        assert found[1] == {"returns": [1.5, None]}


@examples
@given(st.lists(st.text(max_size=20), max_size=3))
def test_environment_arguments(pairs):
    accepts(parse_env_kwargs, pairs)


@examples
@given(
    st.sampled_from(["gravity", "max_steps_in_episode", "tau", "gravitas"]),
    st.one_of(SCALARS, st.just("9.81")),
)
def test_environment_parameters(name, value):
    assume(value is not None)
    accepts(make, "CartPole-v1", ((name, value),))


@examples
@given(
    st.one_of(
        st.text(max_size=20),
        st.tuples(
            st.sampled_from(["brax", "navix", "json", ".", "os.path", "no_such"]),
            st.sampled_from(["/", ":"]),
            st.text(max_size=8),
        ).map("".join),
    )
)
def test_environment_names(name):
    accepts(make, name)
    assert "/" not in folder_name(name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, random_params):
    """Return the folder of a small policy."""
    folder = tmp_path_factory.mktemp("policy")
    config = TrainConfig(env="CartPole-v1", agent=AgentConfig(hidden_sizes=(4,)))
    network = make_network(config.agent, make(config.env).spaces)
    policy.save(folder, config, Weights(random_params(network, (4,)), None))
    return folder


@examples
@given(st.data())
def test_descriptions_of_policies(saved, tmp_path, data):
    document = data.draw(altered(json.loads((saved / "policy.json").read_text())))
    (tmp_path / "policy.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    found = accepts(policy.load, tmp_path)
    if found is not None:
        assert found.act([0.1, 0.2, 0.3, 0.4]).shape == ()


@examples
@given(st.data())
def test_tensors_of_policies(saved, tmp_path, data):
    content = bytearray((saved / "model.safetensors").read_bytes())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=12))
    (tmp_path / "policy.json").write_bytes((saved / "policy.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(content)
    accepts(policy.load, tmp_path)


@examples
@given(VALUES)
def test_what_is_written_is_strict_json(tmp_path, value):
    def refuse(constant):
        raise AssertionError(constant)

    path = tmp_path / "values.json"
    write_json(path, value)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_nothing_on_the_way_in_can_execute_code():
    """No module reads pickles, allows NumPy to, or evaluates text."""
    found = []
    for package in ("ppo_jax", "tune"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Import(names=names):
                        used = {name.name.partition(".")[0] for name in names}
                    case ast.ImportFrom(module=str(module)):
                        used = {module.partition(".")[0]}
                    case ast.Call(func=ast.Name(id=name)):
                        used = {name} if name in ("eval", "exec", "compile") else set()
                    case ast.keyword(arg="allow_pickle"):
                        used = {"allow_pickle"}
                    case ast.Attribute(attr="unsafe_load"):
                        used = {"unsafe_load"}
                    case _:
                        continue
                banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
                banned |= {"eval", "exec", "compile", "allow_pickle", "unsafe_load"}
                found += [f"{path.name}: {name}" for name in used & banned]
    assert not found
