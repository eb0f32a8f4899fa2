"""Training states: what was saved comes back, and nothing else does."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.errors import UserError
from ppo_jax.training_state import OtherRunError, TrainingStates

RUN = {"steps": [1, 2], "learning_rate": 3e-4}


def tree(scale=1.0):
    return {
        "params": {"kernel": scale * jnp.arange(6.0).reshape(2, 3)},
        "key": jax.random.split(jax.random.key(7), 2),
        "finite": jnp.array([True, False]),
        "iteration": jnp.int32(3),
        "image": jnp.arange(4, dtype=jnp.uint8),
    }


def save(folder, *trees, run=RUN, **kwargs):
    with TrainingStates(folder, run, every=0.0) as states:
        for number, one in enumerate(trees):
            states.save(one, {"number": number, "returns": [1.5, np.nan]}, **kwargs)


def restore(folder, like=None, run=RUN):
    with TrainingStates(folder, run) as states:
        return states.restore(tree() if like is None else like)


def assert_equal(left, right):
    def leaf(a, b):
        if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

    jax.tree.map(leaf, left, right)


def test_the_last_state_comes_back_with_its_progress(tmp_path):
    folder = tmp_path / "a state with späces"
    save(folder, tree(1.0), tree(2.0), tree(3.0))
    found, progress = restore(folder)
    assert_equal(found, tree(3.0))
    assert progress == {"number": 2, "returns": [1.5, None]}
    assert [path.name for path in folder.iterdir() if path.name.isdecimal()] == ["3"]


def test_what_is_saved_does_not_change_with_the_arrays(tmp_path):
    array = np.zeros(3)
    with TrainingStates(tmp_path / "s", RUN) as states:
        states.save({"a": array}, {})
        array += 1
    assert restore(tmp_path / "s", {"a": array})[0]["a"].tolist() == [0, 0, 0]


def test_saves_in_quick_succession_are_left_out_but_not_the_final_one(tmp_path):
    with TrainingStates(tmp_path / "s", RUN, every=1000.0) as states:
        states.save(tree(1.0), {"number": 1})
        states.save(tree(2.0), {"number": 2})
    assert restore(tmp_path / "s")[1] == {"number": 1}
    with TrainingStates(tmp_path / "s", RUN, every=1000.0) as states:
        states.save(tree(3.0), {"number": 3})
        states.save(tree(4.0), {"number": 4}, final=True)
    assert restore(tmp_path / "s")[1] == {"number": 4}


def test_exists_and_remove(tmp_path):
    states = TrainingStates(tmp_path / "s", RUN)
    assert not states.exists()
    states.remove()
    save(tmp_path / "s", tree())
    assert states.exists()
    states.remove()
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_has_left_is_no_state_and_goes(tmp_path):
    half = tmp_path / "s" / "2.orbax-checkpoint-tmp-0"
    half.mkdir(parents=True)
    (half / "arrays").write_text("half")
    assert not TrainingStates(tmp_path / "s", RUN).exists()
    save(tmp_path / "s", tree())
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["1"]


def test_state_of_another_run_is_refused(tmp_path):
    save(tmp_path / "s", tree())
    with pytest.raises(OtherRunError, match=r"a run with learning_rate = 0.0003, but got 0.001"):
        restore(tmp_path / "s", run={**RUN, "learning_rate": 1e-3})


def test_state_of_other_shapes_is_refused(tmp_path):
    save(tmp_path / "s", tree())
    other = {**tree(), "params": {"kernel": jnp.zeros((3, 3))}}
    with pytest.raises(OtherRunError, match=r"kernel.*float32\[2, 3\] instead of float32\[3, 3\]"):
        restore(tmp_path / "s", other)
    with pytest.raises(OtherRunError, match="is missing instead of"):
        restore(tmp_path / "s", {**tree(), "more": jnp.zeros(3)})


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Of Orbax.
def test_truncated_and_altered_files_are_refused_or_do_not_matter(tmp_path):
    """Whatever is done to a file, the state that comes back is the one that was saved."""
    save(tmp_path / "s", tree())
    refused = 0
    for path in files(tmp_path / "s"):
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (content[:middle], b"", flipped) if content else ():
            path.write_bytes(damaged)
            try:
                found, progress = restore(tmp_path / "s")
            except UserError:
                refused += 1
            else:
                assert_equal(found, tree())
                assert progress["number"] == 0
        path.write_bytes(content)
    assert refused > 5


def test_altered_progress_is_refused(tmp_path):
    save(tmp_path / "s", tree())
    (path,) = (p for p in files(tmp_path / "s") if b'"progress"' in p.read_bytes())
    description = json.loads(path.read_text())
    description["progress"] = description["progress"].replace("1.5", "9.5")
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match="damaged: its checksum does not match"):
        restore(tmp_path / "s")


def test_folders_of_a_state_are_made_before_the_call_returns(tmp_path):
    """Else threads wait for them for minutes where the disk is full."""
    with TrainingStates(tmp_path / "state", {"run": 1}) as states:
        states.save({"a": np.zeros(3)}, {})
        assert states._manager._options.async_options.create_directories_asynchronously is False
