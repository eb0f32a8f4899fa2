"""What the benchmarks share: statistics, the measurement's setting, tables, result files.

What a benchmark measures, and how it draws its picture, is in the benchmark's own module.
Child processes are in :mod:`benchmarks.processes`.
"""

import dataclasses
import json
import os
import re
import resource
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_jax.errors import UserError, require_count
from ppo_jax.files import plain, replacing

if TYPE_CHECKING:
    from rich.console import Console

    from tune.evidence.statistics import Estimate

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "benchmarks" / "results"
"""Folder of the results that the documentation quotes."""
LINE = 100
"""Longest line of nested JSON values."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """One number per round, with the median and range that are quoted."""

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


def mean_of(values: np.ndarray) -> "Estimate":
    """Return the mean of the finite `values`, ``[samples]``, with its 95% bootstrap interval."""
    from tune.evidence.statistics import estimate, finite

    return estimate([finite(values)], np.mean)


def with_interval(estimate: "Estimate", form: str | None = None) -> str:
    """Return an estimate as text, its interval in parentheses."""
    form = form or f".{estimate.decimals}f"
    if estimate.interval is None:
        return f"{estimate.value:{form}}"
    low, high = estimate.interval
    return f"{estimate.value:{form}} ({low:{form}} … {high:{form}})"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the terminal and for the README."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row with one cell per header.

        Raises:
          ValueError: when there are more or fewer cells than headers.
        """
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
            table.add_column(header, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        console.print("", table, sep="\n")

    def markdown(self) -> str:
        """Return the table as Markdown, its title above."""
        ruler = ["---", *["---:"] * (len(self.headers) - 1)]
        lines = ["| " + " | ".join(row) + " |" for row in (self.headers, ruler, *self.rows)]
        return "\n".join([f"{self.title}:", "", *lines])


def make_console() -> "Console":
    """Return a console; tables are not wrapped when the output is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def setting(**sizes: Any) -> dict[str, dict[str, Any]]:
    """Return the setting of a measurement: versions, device and sizes."""
    from ppo_jax.versions import device_description, versions

    cores = len(os.sched_getaffinity(0))
    return {
        "versions": dict(versions()),
        "device": {**device_description(), "cores": cores},
        "sizes": sizes,
    }


def print_setting(setting: Mapping[str, Mapping[str, Any]], console: "Console") -> None:
    """Print the versions, the device and the sizes, one line each."""
    for name, values in setting.items():
        text = ", ".join(f"{key} {value}" for key, value in values.items())
        console.print(f"{name:<9} {text}", markup=False, soft_wrap=True)


def machine(setting: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the machine and the versions on one line, for the README."""
    device, versions = setting["device"], setting["versions"]
    where = f"{device['cores']} cores of {device['kind']}"
    if device["platform"] != "cpu":
        where = f"{device['count']} × {device['kind']}"
    return f"{where}, Python {versions['python']}, jax {versions['jax']}"


def require_same_setting(
    published: Mapping[str, Any], setting: Mapping[str, Any], sizes: Sequence[str], again: str
) -> None:
    """Refuse to add to published results what was measured in another way.

    Args:
      published: content of a published ``NAME.json``.
      setting: of the new results; see :func:`setting`.
      sizes: names of those that must agree, as all versions must.
      again: what to do to measure all of them alike.

    Raises:
      UserError: naming what differs.
    """
    was, now = (
        {**values["versions"], **{name: values["sizes"].get(name) for name in sizes}}
        for values in (published, plain(setting))
    )
    differing = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    if differing:
        then, new = (
            ", ".join(f"{name} {values.get(name)}" for name in differing) for values in (was, now)
        )
        raise UserError(
            f"--publish: published results were measured with {then}, and these would be with "
            f"{new}; {again}"
        )


def require_counts(arguments: object, *names: str, low: int = 1) -> None:
    """Check options that are counts or tuples of counts.

    Raises:
      UserError: when one of them is less than `low`.
    """
    for name in names:
        value = getattr(arguments, name)
        for count in value if isinstance(value, tuple) else (value,):
            require_count("--" + name.replace("_", "-"), count, low=low)


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Bytes on a Mac, kilobytes on Linux.
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclasses.dataclass(frozen=True)
class Report:
    """The files of a benchmark, and its part of the documentation.

    Attributes:
      name: of the benchmark, its files and its part of the README.
      introduction: Markdown above the picture.
      caption: of the picture.
      sections: Markdown below the picture, tables for the most part.
      results: content of ``NAME.json``.
      draw: draws the picture into a file.
      arrays: content of ``NAME.npz``; no such file when empty.
    """

    name: str
    introduction: str
    caption: str
    sections: Sequence[str]
    results: Mapping[str, Any]
    draw: Callable[[Path], None]
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path, console: "Console") -> list[Path]:
        """Write the files into `folder`, and print and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        suffixes = ("json", "npz", "png") if self.arrays else ("json", "png")
        paths = {suffix: folder / f"{self.name}.{suffix}" for suffix in suffixes}
        write_results(paths["json"], self.results)
        if self.arrays:
            arrays: dict[str, Any] = dict(self.arrays)
            with replacing(paths["npz"]) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        self.draw(paths["png"])
        for path in paths.values():
            console.print(str(path), markup=False, soft_wrap=True)
        return list(paths.values())

    def markdown(self) -> str:
        """Return the part of the documentation."""
        picture = f"![{self.caption}](../benchmarks/results/{self.name}.png)"
        return "\n\n".join([self.introduction, picture, *self.sections])

    def publish(self, paths: Sequence[Path], docs: Path = ROOT / "docs") -> None:
        """Make these results the ones that the documentation shows.

        Replaces the part between the comments ``<!-- name -->`` and ``<!-- /name -->`` in a page
        of `docs` and copies the files of :meth:`write` to ``benchmarks/results``.

        Raises:
          ValueError: unless the pages have exactly one such part.
        """
        start, end = f"<!-- {self.name} -->", f"<!-- /{self.name} -->"
        part = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        pages = {page: page.read_text(encoding="utf-8") for page in sorted(docs.glob("*.md"))}
        holders = [page for page, text in pages.items() for _ in part.findall(text)]
        if len(holders) != 1:
            raise ValueError(
                f"expected one part {start} … {end} in {docs}, but found {len(holders)}"
            )
        (page,) = holders
        text = part.sub(lambda _: f"{start}\n{self.markdown()}\n{end}", pages[page])
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        for path in paths:
            with replacing(PUBLISHED / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())


def write_results(path: Path, results: Any) -> None:
    """Write strict JSON with one row per line; numbers that are not finite become null."""
    with replacing(path) as temporary:
        temporary.write_text(_lines(plain(results)) + "\n", encoding="utf-8")


def _lines(value: Any, indent: str = "", name: str = "") -> str:
    """Return `value` as JSON; a row of plain values, or what fits a line, is not broken up."""
    line = indent + name + json.dumps(value, allow_nan=False, ensure_ascii=False)
    if isinstance(value, dict):
        children = {f"{json.dumps(key, ensure_ascii=False)}: ": v for key, v in value.items()}
        items, brackets = list(children.items()), "{}"
    elif isinstance(value, list):
        items, brackets = [("", child) for child in value], "[]"
    else:
        return line
    if len(line) < LINE or not any(isinstance(child, (dict, list)) for _, child in items):
        return line
    rows = ",\n".join(_lines(child, indent + "  ", key) for key, child in items)
    return f"{indent}{name}{brackets[0]}\n{rows}\n{indent}{brackets[1]}"
