"""Result files: compact, strict JSON with one row per line, and the part of the documentation."""

import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks import measuring
from benchmarks.measuring import Report, mean_of, with_interval, write_results
from tune.evidence.statistics import Estimate


@pytest.fixture
def report():
    return Report(
        name="speed",
        introduction="Measured.",
        caption="Speed",
        sections=["| a |"],
        results={"rows": [1, 2]},
        draw=lambda path: path.write_bytes(b"picture"),
        arrays={"CartPole-v1": np.arange(6.0).reshape(2, 3)},
    )


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        1.5,
        {"a": [], "b": {}, "c": None},
        {"name": "é", "rows": [[0.1 + 0.2, 2, "x, y"], [True, None, 1e-300]], "n": {"m": [[1]]}},
        [{"values": list(range(90)), "other": "z" * 120}, [[[]], [{}]]],
    ],
)
def test_results_come_back_as_they_were(tmp_path, value):
    write_results(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_a_row_is_a_line(tmp_path):
    rows = np.arange(400.0).reshape(4, 100)
    write_results(tmp_path / "a.json", {"env": "it", "returns": rows, "sizes": {"seeds": [1, 2]}})
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert lines[1] == '  "env": "it",'
    assert lines[2] == '  "returns": ['
    assert [json.loads(line.rstrip(",")) for line in lines[3:7]] == rows.tolist()
    assert lines[8:] == ['  "sizes": {"seeds": [1, 2]}', "}"]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_results(tmp_path / "a.json", {"returns": np.array([1.0, np.nan, np.inf])})
    assert (tmp_path / "a.json").read_text() == '{"returns": [1.0, null, null]}\n'


def test_a_report_writes_and_publishes_its_files(report, tmp_path, monkeypatch):
    published = tmp_path / "published"
    published.mkdir()
    monkeypatch.setattr(measuring, "PUBLISHED", published)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "other.md").write_text("other\n", encoding="utf-8")
    page = docs / "page.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n", encoding="utf-8")
    paths = report.write(tmp_path / "out", Console(quiet=True))
    report.publish(paths, docs)
    assert page.read_text(encoding="utf-8") == (
        "before\n<!-- speed -->\nMeasured.\n\n![Speed](../benchmarks/results/speed.png)\n\n"
        "| a |\n<!-- /speed -->\nafter\n"
    )
    names = ["speed.json", "speed.npz", "speed.png"]
    assert sorted(path.name for path in published.iterdir()) == names
    arrays = np.load(published / "speed.npz")
    np.testing.assert_array_equal(arrays["CartPole-v1"], report.arrays["CartPole-v1"])
    page.write_text("no part", encoding="utf-8")
    with pytest.raises(ValueError, match="found 0"):
        report.publish(paths, docs)


def test_published_results_are_short():
    for path in measuring.PUBLISHED.glob("*.json"):
        assert path.stat().st_size < 60_000, path.name


def test_an_estimate_as_text():
    assert with_interval(Estimate(1.25, (-0.5, 3.0)), "+.1f") == "+1.2 (-0.5 … +3.0)"
    assert with_interval(Estimate(0.5, (-12.0, 13.0))) == "0.5 (-12.0 … 13.0)"
    assert with_interval(Estimate(0.5, (0.25, 0.75))) == "0.500 (0.250 … 0.750)"
    assert with_interval(Estimate(2.0)) == "2.00"
    assert mean_of(np.array([1.0, np.nan, 3.0])).value == 2.0
