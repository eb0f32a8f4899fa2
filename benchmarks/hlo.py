"""Loops of a compiled program and what each of their trips costs, read from XLA's optimised HLO.

On a GPU nearly every instruction of a loop's body is one launch: a kernel, a library call or a
copy. On a TPU the compiler writes its own estimate of cycles beside each.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_FREE = frozenset(
    (
        *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"),
        *("partition-id", "replica-id", "opt-barrier"),
    )
)
"""Instructions that name what is there already."""
_BITS = {"pred": 8, "bf16": 16}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
      name: in its computation.
      opcode: of HLO.
      type: of its result, as text.
      operands: names.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    type: str
    operands: Sequence[str]
    attributes: str

    @property
    def source(self) -> str:
        """What JAX calls where it comes from: ``jit(training)/while/body/...``."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def called(self, attribute: str) -> str:
        """Return the name of the computation that an attribute names."""
        found = re.search(rf"{attribute}=%?([\w.\-]+)", self.attributes)
        assert found is not None, f"{self.opcode} has no {attribute}"
        return found.group(1)

    @property
    def branches(self) -> list[str]:
        """Names of the branches of a conditional."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return re.findall(r"[\w.\-]+", found.group(1))
        return [self.called("true_computation"), self.called("false_computation")]

    @property
    def trips(self) -> int | None:
        """Trips of a loop; None where only the running program knows."""
        found = re.search(r'known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else None

    @property
    def cycles(self) -> int:
        """The estimate of the TPU's compiler; 0 where there is none."""
        found = re.search(r'estimated_cycles":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else 0


@dataclasses.dataclass(frozen=True)
class Body:
    """What one trip of a loop, or one call of a program, does itself.

    Attributes:
      name: where the loop comes from, as JAX names it.
      trips: None where only the running program knows, or for a whole program.
      launches: kernels, library calls and copies.
      path: launches on the longest chain of which each needs the one before.
      bytes: that the launches read and write; of what a loop slices, a slice.
      cycles: by a TPU's compiler.
      loops: inside.
      branches: of each conditional inside, its branches.
    """

    name: str
    trips: int | None
    launches: int
    path: int
    bytes: int
    cycles: int
    loops: Sequence["Body"]
    branches: Sequence[Sequence["Body"]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Body":
        """Restore :meth:`to_dict`."""
        return cls(
            **{
                **values,
                "loops": [cls.from_dict(loop) for loop in values["loops"]],
                "branches": [[cls.from_dict(b) for b in bs] for bs in values["branches"]],
            }
        )

    def walk(self) -> Iterator["Body"]:
        """Yield this body and all inside it, outer ones first."""
        yield self
        for inner in (*self.loops, *(b for bs in self.branches for b in bs)):
            yield from inner.walk()


def parse(text: str) -> Body:
    """Return the entry of an optimised HLO module as a tree of loops."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = header.group(2)
            computations[current] = []
            entry = current if header.group(1) else entry
        elif line.startswith("}"):
            current = ""
        elif current and (found := _INSTRUCTION.match(line)):
            computations[current].append(_instruction(found.group(1), found.group(2)))
    return _body(computations, entry, "program", None)


def _instruction(name: str, text: str) -> Instruction:
    """Parse ``TYPE opcode(operands), attributes``."""
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest, 0) - 1
    operands = re.findall(r"%([\w.\-]+)", rest[: end - 1])
    return Instruction(name, opcode, kind, operands, rest[end:])


def _closing(text: str, start: int) -> int:
    """Return the place after the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _body(
    computations: Mapping[str, Sequence[Instruction]], name: str, source: str, trips: int | None
) -> Body:
    instructions = computations[name]
    types = {i.name: i.type for i in instructions}
    depth: dict[str, int] = {}
    launches = transferred = cycles = 0
    loops: list[Body] = []
    branches: list[list[Body]] = []
    for each in instructions:
        before = max((depth.get(operand, 0) for operand in each.operands), default=0)
        depth[each.name] = before + (each.opcode not in _FREE)
        cycles += each.cycles
        if each.opcode == "while":
            loops.append(_body(computations, each.called("body"), each.source, each.trips))
        elif each.opcode == "conditional":
            inside = [_body(computations, b, each.source, None) for b in each.branches]
            branches.append(inside)
        elif each.opcode == "call":
            inner = _body(computations, each.called("to_apply"), each.source, None)
            launches, transferred = launches + inner.launches, transferred + inner.bytes
            loops.extend(inner.loops)
            branches.extend(map(list, inner.branches))
        elif each.opcode not in _FREE:
            launches += 1
            transferred += _transferred(each, types, trips or 1)
    path = max(depth.values(), default=0)
    return Body(source, trips, launches, path, transferred, cycles, loops, branches)


def _transferred(each: Instruction, types: Mapping[str, str], trips: int) -> int:
    """Return the bytes that a launch moves, about: of a stack of all trips only one's share."""
    result = _bytes(each.type)
    if "dynamic_update_slice" in each.name or "dynamic-update-slice" in each.name:
        return 2 * result // max(_rows(each.type), 1)
    total = result
    for operand in set(each.operands):
        size = _bytes(types.get(operand, ""))
        if "gather" in each.name:
            size = min(size, result)
        elif trips > 1 and _rows(types.get(operand, "")) == trips != _rows(each.type):
            size //= trips
        total += size
    return total


def _bytes(kind: str) -> int:
    total = 0
    for name, dimensions in _SHAPE.findall(kind):
        bits = _BITS.get(name) or int(re.sub(r"\D", "", name) or 0)
        count = 1
        for size in filter(None, dimensions.split(",")):
            count *= int(size)
        total += count * bits // 8
    return total


def _rows(kind: str) -> int:
    found = re.match(r"\(?[a-z]+\d*\[(\d+)", kind)
    return int(found.group(1)) if found else 0
