"""What the benchmarks share: spread, what a figure was measured with, tables, publishing."""

import dataclasses
import os
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "benchmarks" / "results"
"""Where the results lie that the README quotes."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """One number a round, and what is quoted of them."""

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Spread":
        """Return the spread of `rounds`."""
        return cls(statistics.median(rounds), min(rounds), max(rounds), tuple(rounds))

    def __truediv__(self, other: "Spread") -> "Spread":
        """Return the ratio of the two in each round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Spread.of([ours / theirs for ours, theirs in pairs])

    def cells(self, form: str) -> tuple[str, str]:
        """Return median and range as table cells."""
        return f"{self.median:{form}}", f"{self.min:{form}} … {self.max:{form}}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the terminal and for the README."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row, one cell a header."""
        if len(cells) != len(self.headers):
            raise ValueError(f"expected {len(self.headers)} cells, but got {len(cells)}")
        self.rows.append(tuple(map(str, cells)))

    def print(self, console: "Console") -> None:
        """Print the table."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=self.title,
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, header in enumerate(self.headers):
            table.add_column(header, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*map(Text, row))
        console.print("", table, sep="\n")

    def markdown(self) -> str:
        """Return the table as Markdown, its title above."""
        ruler = ["---", *["---:"] * (len(self.headers) - 1)]
        lines = ["| " + " | ".join(row) + " |" for row in (self.headers, ruler, *self.rows)]
        return "\n".join([f"{self.title}:", "", *lines])


def make_console() -> "Console":
    """Return a console that leaves tables whole where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def setting(**sizes: Any) -> dict[str, dict[str, Any]]:
    """Return what every figure was measured with: versions, device, sizes."""
    from ppo_jax.versions import device_description, versions

    cores = len(os.sched_getaffinity(0))
    return {
        "versions": dict(versions()),
        "device": {**device_description(), "cores": cores},
        "sizes": sizes,
    }


def print_setting(setting: Mapping[str, Mapping[str, Any]], console: "Console") -> None:
    """Print a line of versions, one of the device, one of the sizes."""
    for name, values in setting.items():
        text = ", ".join(f"{key} {value}" for key, value in values.items())
        console.print(f"{name:<9} {text}", markup=False, soft_wrap=True)


def machine(setting: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence about the machine and the versions, for the README."""
    device, versions = setting["device"], setting["versions"]
    where = f"{device['cores']} cores of {device['kind']}"
    if device["platform"] != "cpu":
        where = f"{device['count']} × {device['kind']}"
    return f"{where}, Python {versions['python']}, jax {versions['jax']}"


def publish(name: str, markdown: str, output: Path, readme: Path = ROOT / "README.md") -> None:
    """Make the results of the benchmark `name` those that the README shows.

    Replaces the part of the README between the comments ``<!-- name -->`` and
    ``<!-- /name -->`` and copies JSON and picture to ``benchmarks/results``.
    """
    from ppo_jax.files import replacing

    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    part = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    text, found = part.subn(
        lambda _: f"{start}\n{markdown}\n{end}", readme.read_text(encoding="utf-8")
    )
    if found != 1:
        raise ValueError(f"expected one part {start} … {end} in {readme}, but found {found}")
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for suffix in ("json", "png"):
        target = PUBLISHED / f"{name}.{suffix}"
        with replacing(target) as temporary:
            temporary.write_bytes((output / target.name).read_bytes())
