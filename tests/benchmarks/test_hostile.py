"""Hostile files and values, a part of those that the benchmark reads."""

import jax

from benchmarks import hostile


def test_each_is_read_or_refused_on_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.config.update", lambda *_: None)  # The backend has started.
    jax.devices()
    outcomes = hostile.measure(tmp_path, every=30)
    assert len(outcomes) > 20
    assert {outcome.case.kind for outcome in outcomes} == set(hostile._PARTS)
    # Seconds and memory are the benchmark's: here other tests' caches are in the way.
    found = {
        f"{o.case.kind}, {o.case.name}: {o.output}"
        for o in outcomes
        if o.fault and not o.fault.endswith((" s", " MB"))
    }
    assert not found
    assert any(outcome.status == 0 for outcome in outcomes)
    assert any(outcome.status == 2 for outcome in outcomes)


def test_faults_are_found(tmp_path):
    def outcome(read):
        return hostile.outcome_of(hostile.Case("names", "a test", read), tmp_path / "working")

    def talk():
        print("error: one")
        print("two")
        raise SystemExit(2)

    def obey():
        print("\x1b[31mred")

    assert outcome(lambda: 1 / 0).fault == "a traceback"
    assert outcome(talk).fault == "2 lines"
    assert outcome(obey).fault == "characters that a terminal obeys"
    assert outcome(lambda: None).fault == ""
