"""What a compiled HLO program moves between devices: bytes received, collectives, largest buffer.

Reads the text of an SPMD module (`compiled.as_text()`). Per device: an all-gather or all-to-all of
group size k receives (k-1)/k of its result, a reduce-scatter k-1 results, an all-reduce 2(k-1)/k of
its result, a permute its result where a pair from another device ends. The body of a loop counts as
often as it runs: as its known trip count says, or, where a compiler drops that, as a counter does
that starts at a constant and goes up by one to another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import RedistribError

_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "f4e2m1fn": 4, "token": 0, "opaque": 0,
    "bf16": 16, "c64": 64, "c128": 128,
    **{f"{kind}{bits}": bits for kind in "su" for bits in (8, 16, 32, 64)},
    **{f"f{bits}": bits for bits in (16, 32, 64)},
}  # fmt: skip

_SHAPE = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*\)\s*->.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT\s+)?%?[\w.\-]+\s*=\s*(.*)$")
_COLLECTIVES = (
    "all-gather",
    "all-to-all",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
_CALLED = re.compile(
    r"\b(?:to_apply|body|condition|calls|branch_computations)=\{?([^,}]*(?:, ?%[^,}]*)*)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True, slots=True)
class HloTraffic:
    """`received_bytes` by the device that receives most; `num_collectives` that move anything.

    `counts` are collectives by kind; `largest_buffer_bytes` the largest array of any instruction
    that is not inside a fusion.
    """

    received_bytes: int
    num_collectives: int
    counts: dict[str, int]
    largest_buffer_bytes: int


def hlo_traffic(text: str, num_devices: int | None = None) -> HloTraffic:
    """The traffic of an HLO module; `num_devices` where its header does not say `num_partitions`.

    Raises RedistribError for text without an entry computation, and for collectives whose groups or
    loops it cannot read: a figure is never a guess.
    """
    header = re.search(r"\bnum_partitions=(\d+)", text)
    devices = num_devices or (int(header[1]) if header else 1)
    computations, entry = _computations(text)
    received = np.zeros(devices, dtype=np.int64)
    counts: dict[str, int] = {}
    largest = 0
    for line, times in _executed(computations, entry, 1):
        result, kind, arguments = _parse(line)
        if kind not in {"parameter", "tuple", "get-tuple-element", "while", "conditional"}:
            largest = max([largest, *_array_bytes(result)])
        base = kind.removesuffix("-start")
        if base not in _COLLECTIVES:
            continue
        moved = _received(base, _result_bytes(base, result, kind != base), arguments, devices)
        if moved.any():
            received += moved * times
            counts[base] = counts.get(base, 0) + times
    return HloTraffic(int(received.max(initial=0)), sum(counts.values()), counts, largest)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The instruction lines of every computation, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            computations[name] = []
            if match[1]:
                entry = name
        elif line.startswith("}"):
            name = ""
        elif name and _INSTRUCTION.match(line):
            computations[name].append(line)
    if not entry:
        raise RedistribError("HLO text has an ENTRY computation; got none", text=text[:200])
    return computations, entry


def _executed(
    computations: dict[str, list[str]], name: str, times: int
) -> Iterator[tuple[str, int]]:
    """Every instruction that runs, with how often, but for those inside fusions and reducers."""
    for line in computations[name]:
        yield line, times
        _, kind, arguments = _parse(line)
        if kind not in {"while", "call", "conditional", "async-start"}:
            continue
        trips = 1
        if kind == "while":
            known = _trips(computations, name, arguments)
            trips = known or 0
        for called in _called(arguments):
            if kind == "while" and known is None and _moves(computations, called):
                raise RedistribError(
                    f"a loop with collectives has a known trip count; got {line.strip()[:200]}"
                )
            yield from _executed(computations, called, times * trips)


def _trips(computations: dict[str, list[str]], name: str, arguments: str) -> int | None:
    """How often the loop with these arguments, in this computation, runs its body."""
    if known := _TRIPS.search(arguments):
        return int(known[1])
    condition, body = (
        _by_name(computations[re.search(rf"\b{part}=%?([\w.\-]+)", arguments)[1]])  # type: ignore[index]
        for part in ("condition", "body")
    )
    before = _by_name(computations[name])
    start = before.get(_operands(arguments)[0], ("", ""))
    kind, compared = condition["ROOT"]
    if kind != "compare" or "direction=LT" not in compared or start[0] != "tuple":
        return None
    counter, last = _operands(compared)[:2]
    index = _element(condition, counter)
    if index is None:
        return None
    kind, sum_of = body.get(_operands(body["ROOT"][1])[index], ("", ""))
    first = _constant(before, _operands(start[1])[index])
    end = _constant(condition, last)
    if kind != "add" or first is None or end is None:
        return None
    once = {_element(body, term): _constant(body, term) for term in _operands(sum_of)}
    return max(end - first, 0) if once == {index: None, None: 1} else None


def _by_name(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Opcode and arguments of each instruction by its name; the last as ROOT too."""
    instructions = {}
    for line in lines:
        name = line.split("=", 1)[0].removeprefix("  ROOT").strip().lstrip("%")
        instructions[name] = _parse(line)[1:]
        if line.lstrip().startswith("ROOT"):
            instructions["ROOT"] = instructions[name]
    return instructions


def _operands(arguments: str) -> list[str]:
    return re.findall(r"%([\w.\-]+)", re.sub(r"/\*.*?\*/", "", arguments).partition(")")[0])


def _element(named: dict[str, tuple[str, str]], name: str) -> int | None:
    """Which element of a loop's state an instruction takes out of it."""
    kind, arguments = named.get(name, ("", ""))
    index = re.search(r"\bindex=(\d+)", arguments)
    return int(index[1]) if kind == "get-tuple-element" and index else None


def _constant(named: dict[str, tuple[str, str]], name: str) -> int | None:
    """The value of an integer constant, or of a copy of one."""
    kind, arguments = named.get(name, ("", ""))
    if kind == "copy":
        return _constant(named, _operands(arguments)[0])
    value = arguments.partition(")")[0]
    return int(value) if kind == "constant" and re.fullmatch(r"-?\d+", value) else None


def _called(arguments: str) -> list[str]:
    names = []
    for match in _CALLED.finditer(arguments):
        names += [name.strip().lstrip("%") for name in match[1].split(",")]
    return names


def _moves(computations: dict[str, list[str]], name: str) -> bool:
    kinds = [_parse(line)[1].removesuffix("-start") for line in computations[name]]
    return any(kind in _COLLECTIVES for kind in kinds) or any(
        _moves(computations, called)
        for line in computations[name]
        if _parse(line)[1] in {"while", "call", "conditional", "async-start"}
        for called in _called(_parse(line)[2])
    )


def _parse(line: str) -> tuple[str, str, str]:
    """Result shape, opcode, and arguments (operands, then attributes) of an instruction."""
    match = _INSTRUCTION.match(line)
    text = match[1] if match else ""
    if text.startswith("("):
        depths = accumulate((char == "(") - (char == ")") for char in text)
        end = next((index for index, depth in enumerate(depths) if not depth), len(text)) + 1
        shape, call = text[:end], text[end:].lstrip()
    else:
        shape, _, call = text.partition(" ")
    opcode, _, arguments = call.partition("(")
    return shape, opcode.strip(), arguments


def _array_bytes(shape: str) -> list[int]:
    """Bytes of every array in a shape or tuple of shapes."""
    sizes = []
    for dtype, dims in _SHAPE.findall(shape):
        bits = 8 if dtype.startswith("f8") else _BITS.get(dtype)
        if bits is None:
            raise RedistribError(f"unknown HLO element type {dtype!r} in {shape[:80]!r}")
        count = prod(int(n) for n in dims.split(",") if n)
        sizes.append(-(-count * bits // 8))
    return sizes


def _result_bytes(kind: str, shape: str, started: bool) -> int:
    """Bytes of what a collective delivers; a start also holds its operands (and contexts)."""
    arrays = _array_bytes(shape)
    if started and kind == "collective-permute":
        return arrays[1]
    if started and kind != "all-reduce":
        return sum(arrays[len(arrays) // 2 :])
    return sum(arrays)


def _received(kind: str, size: int, arguments: str, devices: int) -> NDArray[np.int64]:
    """Bytes that each device receives in one collective with a result of `size` bytes."""
    received = np.zeros(devices, dtype=np.int64)
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?\s*)*)\}", arguments)
        if pairs is None:
            raise RedistribError(
                f"a collective-permute has source_target_pairs; got {arguments[:200]}"
            )
        for source, target in re.findall(r"\{(\d+),(\d+)\}", pairs[1]):
            if source != target:
                received[int(target)] += size
        return received
    if kind == "ragged-all-to-all":
        raise RedistribError("the traffic of a ragged-all-to-all is not in the text")
    for group in replica_groups(arguments, devices):
        k = len(group)
        match kind:
            case "all-gather" | "all-to-all":
                share = size // k * (k - 1)
            case "reduce-scatter":
                share = size * (k - 1)
            case "all-reduce":
                share = 2 * size * (k - 1) // k
            case _:
                share = size if k > 1 else 0
        received[list(group)] += share
        if kind == "collective-broadcast":
            received[group[0]] -= share
    return received


def replica_groups(text: str, num_devices: int) -> list[tuple[int, ...]]:
    """The replica groups in the attributes of a collective.

    >>> replica_groups("replica_groups={{0,1},{2,3}}", 4)
    [(0, 1), (2, 3)]
    >>> replica_groups("replica_groups=[4,2]<=[2,4]T(1,0)", 8)
    [(0, 4), (1, 5), (2, 6), (3, 7)]
    >>> replica_groups("replica_groups={}", 2)
    [(0, 1)]
    >>> replica_groups("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", 4)
    [(0, 1), (2, 3)]

    Raises RedistribError for any other form.
    """
    if match := _LISTED.search(text):
        groups = [_numbers(inner) for inner in re.findall(r"\{([\d,\s]*)\}", match[1])]
        return [tuple(group) for group in groups if group] or [tuple(range(num_devices))]
    if match := _IOTA.search(text):
        rows = _iota(match[2], match[3]).reshape(_numbers(match[1]))
        return [tuple(row) for row in rows.tolist()]
    if match := _MESH.search(text):
        return _mesh_groups(match[1], match[2], match[3])
    raise RedistribError(f"unknown form of replica groups in {text[:200]!r}", text=text)


_LISTED = re.compile(r"replica_groups=\{((?:\s*\{[\d,\s]*\},?)*)\s*\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\(((?:[^()]|\([^()]*\))*)\))?\s*\{([^}]*)\}"
)


def _mesh_groups(mesh: str, devices: str | None, axes: str) -> list[tuple[int, ...]]:
    """Groups along the named axes, or parts `'x':(pre)size` of them, of a mesh with named axes."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh)}
    cuts = {name: {1, size} for name, size in sizes.items()}
    chosen = []
    for name, pre, part in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", axes):
        low = int(pre or 1)
        chosen.append((name, low, low * int(part) if part else sizes[name]))
        cuts[name] |= set(chosen[-1][1:])
    digits = [
        (name, low, high)
        for name, bounds in cuts.items()
        for low, high in pairwise(sorted({1, *bounds}))
    ]
    total = prod(sizes.values())
    if devices is None:
        ids = np.arange(total)
    elif order := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", devices):
        ids = _iota(order[1], order[2])
    else:
        ids = np.array(_numbers(devices))
    grid = ids.reshape([high // low for _, low, high in digits])
    moved = [
        index
        for name, low, high in chosen
        for index, (other, a, b) in enumerate(digits)
        if other == name and low <= a and b <= high
    ]
    kept = [index for index in range(len(digits)) if index not in moved]
    rows = grid.transpose(kept + moved).reshape(-1, prod(grid.shape[dim] for dim in moved))
    return [tuple(row) for row in rows.tolist()]


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n.strip()]


def _iota(dims: str, transposed: str | None) -> NDArray[np.int64]:
    """Device ids in the order of `[dims]T(perm)`: an iota reshaped and transposed."""
    shape = _numbers(dims)
    ids = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    return ids.transpose(_numbers(transposed)) if transposed else ids
