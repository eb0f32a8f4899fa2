"""Fixtures of the benchmarks' tests."""

import pytest

from benchmarks import parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each part of an iteration once or twice, with small products and copies."""
    sizes = {"REPEATS": 1, "_PRODUCTS": 2, "_LARGE": 64, "_COPIED_BYTES": 2**20}
    for name, small in sizes.items():
        monkeypatch.setattr(parts, name, small)
