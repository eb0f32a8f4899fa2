"""Result files: strict JSON, whole or not at all."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from ppo_jax.errors import UserError
from ppo_jax.files import (
    FolderInUseError,
    disk_errors,
    folder_name,
    held,
    read_json,
    read_toml,
    remove_folder,
    replacing,
    require_writable,
    write_json,
)

NAN, INFINITY = float("nan"), float("inf")


def strict(path):
    """Parse as a strict parser does, which knows no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ({"a": NAN, "b": [INFINITY, -INFINITY, 1.5]}, {"a": None, "b": [None, None, 1.5]}),
        (
            {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)},
            {"a": 0.5, "b": 3, "c": True},
        ),
        (np.array([[1.0, NAN], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]]),
        ({"a": (1, 2), "b": {"c": np.float64(NAN)}}, {"a": [1, 2], "b": {"c": None}}),
        ({1: "x"}, {"1": "x"}),
        ({"name": "Größe λ", "nothing": None, "no": False}, None),
        ([], None),
    ],
)
def test_json_is_strict_and_plain(tmp_path, data, written):
    path = tmp_path / "data.json"
    write_json(path, data)
    expected = data if written is None else written
    assert strict(path) == expected
    assert read_json(path) == expected
    assert path.read_text(encoding="utf-8").endswith("\n")


def test_text_is_readable(tmp_path):
    write_json(tmp_path / "data.json", {"größe": "λ"})
    assert "größe" in (tmp_path / "data.json").read_text(encoding="utf-8")


def test_replacing_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "data.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_what_a_kill_has_left_is_removed_and_files_of_the_user_are_not(tmp_path):
    of_user = (".data-notes.json", ".data-mine.json")
    for name in (*of_user, ".data-unfinished-0123abcd.json"):
        (tmp_path / name).write_text("")
    write_json(tmp_path / "data.json", 1)
    assert {path.name for path in tmp_path.iterdir()} == {*of_user, "data.json"}


def test_a_folder_is_held_by_one_process_or_by_those_that_share(tmp_path):
    lock = tmp_path / ".lock"
    refused = pytest.raises(FolderInUseError, match="in use")
    with held(lock, "in use"), refused, held(lock, "in use", shared=True):
        pass
    with held(lock, "in use", shared=True), held(lock, "in use", shared=True):
        pass


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path, existing, error):
    path = tmp_path / "data.json"
    if existing:
        path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == (["data.json"] if existing else [])
    assert not existing or path.read_text() == "old"


def test_data_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "data.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_files_get_the_permissions_of_the_user(tmp_path):
    path = tmp_path / "data.json"
    mask = os.umask(0o027)
    try:
        write_json(path, 1)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_unreadable_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "data.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*data\.json"):
        read_json(path)


def test_a_folder_is_no_json(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)


@pytest.mark.parametrize("parts", [(), ("a",), ("a", "b", "c")])
def test_require_writable_creates_nothing(tmp_path, parts):
    require_writable(tmp_path.joinpath(*parts))
    assert [*tmp_path.iterdir()] == []


def test_require_writable_takes_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_writable((tmp_path / "runs" / "x").relative_to(tmp_path))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("parts", [("file",), ("file", "below")])
def test_a_file_in_the_way_is_refused(tmp_path, parts):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        require_writable(tmp_path.joinpath(*parts))


def test_a_name_that_is_too_long_is_refused_or_left_to_the_maker(tmp_path):
    # Only that the check itself does not fall over.
    require_writable(tmp_path / ("x" * 5000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            require_writable(tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "...", "/", "../..", "a/../b", "a\0b", "a\nb", "\ud800", "x" * 300, "λ" * 300],
)
def test_whatever_a_name_is_it_becomes_one_folder_of_its_own(tmp_path, name):
    below = tmp_path / "runs" / folder_name(name)
    below.mkdir(parents=True)
    assert below.resolve().parent == tmp_path / "runs"
    write_json(below / "data.json", 1)
    with replacing(below.with_suffix(".json")) as temporary:  # Longer than the name itself.
        temporary.write_text("1")


def test_long_names_that_differ_at_their_end_have_folders_of_their_own():
    assert folder_name("x" * 300 + "a") != folder_name("x" * 300 + "b")
    assert folder_name("x" * 100) == "x" * 100


@pytest.mark.parametrize("content", [b"[" * 100_000, b"1" * 5000])
def test_json_beyond_all_bounds_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*data\.json"):
        read_json(tmp_path / "data.json")


def test_removing_a_folder_takes_its_name_first_and_clears_up_after_a_kill(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    (folder / "a").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # Killed before it did anything.
        remove_folder(folder)
    assert not folder.exists()
    assert os.listdir(tmp_path)
    (folder / "b").mkdir(parents=True)
    remove_folder(folder)
    remove_folder(folder)
    assert not os.listdir(tmp_path)


def test_failing_disks_are_os_errors_whatever_a_library_raises(tmp_path):
    def fail(error, cause=None):
        with disk_errors(tmp_path / "x"):
            raise error from cause

    for cause in (ValueError("writing: No space left on device [28]"), OSError(28, "full")):
        with pytest.raises(OSError, match="No space left on device") as caught:
            fail(RuntimeError("a thread has failed"), cause)
        assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "x"))
    for name, shown in ((None, tmp_path / "x"), ("arrays", tmp_path / "x"), ("/a/b", "/a/b")):
        with pytest.raises(OSError, match="full") as caught:
            fail(OSError(28, "full", name))
        assert caught.value.filename == str(shown)
    with pytest.raises(RuntimeError, match="something else"):
        fail(RuntimeError("something else"))


@pytest.mark.parametrize("read", [read_json, read_toml])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested at most 50 deep|Expected|expected|Invalid|Unclosed"),
        (b"x = " + b"[" * 60 + b"]" * 60, "nested at most 50 deep|Expecting"),
        (b'{"x": ' + b"[" * 60 + b"]" * 60 + b"}", "nested at most 50 deep|Invalid"),
        (b"x = " + b"1" * 5000, "Exceeds the limit|Expecting"),
        (b"1" * 5000, "Exceeds the limit|Expected|Invalid|expected"),
        (b"\xff\xfe", "can't decode byte"),
        (b"x = '" + b"a" * 2**27 + b"'", "it must have at most"),
    ],
)
def test_hostile_text_is_one_line(tmp_path, read, content, message):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^cannot read {path}: .*({message})[^\n]*$"):
        read(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = Path("/dev/zero") if kind == "device" else tmp_path / "text"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"it is not a file|No such file"):
        read_json(path)
