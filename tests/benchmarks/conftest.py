"""Parts of an iteration so small that timing them takes no time."""

import pytest

from benchmarks import parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat parts hardly, and make products and copies small."""
    sizes = {"REPEATS": 1, "_PRODUCTS": 2, "_LARGE": 64, "_COPIED_BYTES": 2**20}
    for name, small in sizes.items():
        monkeypatch.setattr(parts, name, small)
