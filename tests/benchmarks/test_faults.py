"""The benchmark of faults, in small: it counts losses, and there are none."""

import json

import pytest

from benchmarks import faults, postgres


def counts(table):
    return {name.strip(): int(value) for name, value in table.rows if value.isdecimal()}


@pytest.mark.slow
def test_one_process_survives_kills(tmp_path):
    arguments = faults.Arguments(kills=3, trials=4, total_steps=8192, validate_steps=16_384)
    found = counts(faults.one_process(arguments, tmp_path))
    assert found["kills survived"] == 3
    assert found["lost trials that had finished"] == 0
    assert found["other results than an uninterrupted study"] == 0
    assert found["lost temporary files"] == 0


@pytest.mark.slow
@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
def test_workers_on_postgresql_survive_kills(tmp_path):
    arguments = faults.Arguments(workers=2, trials=6, total_steps=8192, every=3.0)
    found = counts(faults.workers(arguments, tmp_path))
    assert found["finished (complete or pruned)"] == 6
    assert found["workers killed and replaced"] > 0
    assert found["lost configurations"] == found["other total than asked for"] == 0
    assert found["other state: RUNNING or WAITING"] == 0
    assert found["other count of a configuration than one"] == 0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", "starting"),
        ("study 's'\ncompiling the programs, once", "compiling or in the first trial"),
        ("compiling\ntrial  0  1.0", "in a trial"),
        ("trial  0\nfinalists: the 2 best\n", "training finalists"),
        ("trial  0\nvalidation: trial 3\n", "validating"),
    ],
)
def test_what_a_study_was_doing(text, moment):
    assert faults.doing(text) == moment


def test_json_is_read_strictly(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": float("nan")}))
    with pytest.raises(ValueError, match="holds NaN"):
        faults.read_strictly(tmp_path / "a.json")
