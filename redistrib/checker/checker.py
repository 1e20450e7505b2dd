"""An independent checker of plans: every claim of a plan is derived again from its steps.

It reads the JSON of a plan and shares only the types with the planner: typing rules, traffic,
routing and lower bound are written a second time. What two tiles have in common is a product over
*parts*: runs of dimensions and the device digits that own them. A part whose digits match is
settled by its digits, whatever its size; the others are enumerated, each alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np

from redistrib.checker.claims import require
from redistrib.checker.lower_bound import lower_bound
from redistrib.checker.parts import parts_of, size_of
from redistrib.checker.price import Links
from redistrib.errors import CheckError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, digit_values, inside, split_at
from redistrib.types.digits import parse_device_digit as device_digit
from redistrib.types.digits import parse_index_digit as index_digit
from redistrib.types.equivalence import equivalent
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.notation import format_factor

LOCAL = ("dynamic_slice", "replicated_to_partial", "sharded_to_partial")
FORMATS = ("redistrib-plan/1", "redistrib-plan/2")
STRATEGIES = ("auto", "collectives", "direct", "paper", "exact", "custom")

# The type after a step, its digits, elements received and sent, latencies, digits crossed.
_Applied = tuple[ArrayType, Sequence[DeviceDigit], int, int, int, Iterable[DeviceDigit]]


def check(plan: Any) -> dict[str, int]:
    """Check a plan: a Plan, its JSON text, or the data in that text; its figures, now certain.

    Raises CheckError if a claim does not hold; `step` is the index of the step at fault or None.
    """
    at: list[int | None] = [None]
    try:
        text = plan.to_json() if hasattr(plan, "to_json") else plan
        return _check(json.loads(text) if isinstance(text, str) else text, at)
    except Exception as error:  # whatever it is, the plan was not found to be right
        where = "plan" if at[0] is None else f"step {at[0]}"
        kind = "" if isinstance(error, RedistribError) else f"malformed, {type(error).__name__}: "
        raise CheckError(f"{where}: {kind}{error}", step=at[0]) from error


def _check(data: Any, at: list[int | None]) -> dict[str, int]:
    form = data["format"]
    require(form in FORMATS, f"the format is {' or '.join(FORMATS)}; the plan has {form}")
    require(data["strategy"] in STRATEGIES, f"the strategy is one of {', '.join(STRATEGIES)}")
    meshes = data["mesh"], data["dst_mesh"] or data["mesh"]
    mesh, other = (Mesh([(n, k) for n, k in m["axes"]], devices=m["devices"]) for m in meshes)
    src, dst = ArrayType.parse(data["src"], mesh), ArrayType.parse(data["dst"], other)
    require((src.shape, src.dtype) == (dst.shape, dst.dtype), "src and dst are of one array")
    current, tiles, received, sent, live = src, [src.tile_bytes], [0], [0], [src.tile_bytes]
    links = Links.of(data["profile"], mesh) if form != FORMATS[0] else None
    seconds = 0.0
    for at[0], step in enumerate(data["steps"]):
        name = step["collective"]
        exchanges = data["strategy"] in {"auto", "direct", "custom"}
        require(name != "exchange" or exchanges, "it may exchange")
        current, digits, most_received, most_sent, latencies, crossed = _apply(
            name, step, current, other
        )
        tiles.append(current.tile_bytes)
        received.append(most_received * src.itemsize)
        sent.append(most_sent * src.itemsize)
        if links and name not in LOCAL:
            seconds += links.seconds(name, crossed, received[-1], latencies)
        live.append(src.tile_bytes + (tiles[-2] if at[0] else 0) + tiles[-1])
        derived = {
            "type": str(current),
            "axes": [format_factor(digit, current.mesh) for digit in digits],
            "local_shape": list(current.tile_shape),
            "received_bytes": received[-1],
            "sent_bytes": sent[-1],
            "live_bytes": live[-1],
        }
        _same(derived, step)
    at[0] = None
    require(equivalent(current, dst), f"the steps end in {dst}; they end in {current}")
    limit = max(src.tile_bytes, dst.tile_bytes, data.get("memory_limit") or 0)
    require(max(tiles) <= limit, f"no tile is above {limit} bytes; the largest is {max(tiles)}")
    if links is None:  # version 1 does not say under which profile
        require(isfinite(data["seconds"]) and data["seconds"] >= 0, "seconds is not negative")
    else:
        _same({"seconds": seconds}, data)
    figures = {
        "num_collectives": sum(step["collective"] not in LOCAL for step in data["steps"]),
        "received_bytes": sum(received),
        "sent_bytes": sum(sent),
        "lower_bound_bytes": lower_bound(src, current) * src.itemsize,
        "peak_tile_bytes": max(tiles),
        "live_bytes": max(live),
    }
    _same(figures, data)
    return figures


# What a step's digits are before and after it; what a group of `k` with such tiles receives each.
_CHANGES: dict[str, tuple[str, str, Callable[[int, int], int]]] = {
    "dynamic_slice": ("free", "owner", lambda _tile, _k: 0),
    "all_gather": ("owner", "free", lambda tile, k: tile * (k - 1)),
    "all_to_all": ("owner", "owner", lambda tile, k: tile // k * (k - 1)),
    "reduce_scatter": ("partial", "owner", lambda tile, k: tile // k * (k - 1)),
    # Each device reduces one chunk and sends it around; the largest chunk is rounded up.
    "all_reduce": ("partial", "free", lambda tile, k: tile + (k - 2) * -(-tile // k)),
    "replicated_to_partial": ("free", "partial", lambda _tile, _k: 0),
    "sharded_to_partial": ("owner", "partial", lambda _tile, _k: 0),
}


def _apply(name: str, step: Any, t: ArrayType, other: Mesh) -> _Applied:
    if name == "exchange":
        return _exchange(step, t, other if "onto" in step else t.mesh)
    if name == "collective_permute":
        return _permute_by_table(step["table"], t) if "table" in step else _permute(step, t)
    require(name in _CHANGES, f"{name} is a collective")
    was, becomes, traffic = _CHANGES[name]
    # Per digit: the index digit that it owns before, and the one that it owns after.
    named = (was, becomes).count("owner")
    items = step[("digits", "placements", "moves")[named]]
    split: Any = ([item] if not named else item for item in items)
    changes: list[Any] = [[device_digit(d), *map(index_digit, indices)] for d, *indices in split]
    require(all(len(x) == 1 + named for x in changes), f"each names {named} index digits")
    digits = [change[0] for change in changes]
    owns, partial = _roles(t, digits)
    for digit, *indices in changes:
        if was == "owner":
            require(owns.pop(digit, None) == indices[0], f"{digit} owns {indices[0]} in {t}")
        elif was == "partial":
            require(digit in partial, f"{digit} is partial in {t}")
            partial.remove(digit)
        else:
            _require_free(digit, (*owns, *partial), t)
        if becomes == "owner":
            new = indices[-1]
            fits = digit.size == new.size and t.shape[new.dim] % new.end == 0
            local = all(apart(new, index) for _, index in t.placements)
            require(fits and local, f"{new} is local in {t} and of the size of {digit}")
    reduction = step["reduction"] if becomes == "partial" else t.reduction
    require(not t.partial or t.reduction == reduction, f"{t} is partial under {reduction}")
    owns |= {digit: indices[-1] for digit, *indices in changes if becomes == "owner"}
    partial |= {digit for digit in digits if becomes == "partial"}
    moved = traffic(t.tile_size, size_of(digits))
    after = _typed(t, owns.items(), partial, reduction)
    return after, digits, moved, moved, 2 if name == "all_reduce" else 1, digits


def _permute(step: Any, t: ArrayType) -> _Applied:
    routes = [(device_digit(old), device_digit(new)) for old, new in step["routes"]]
    olds = [old for old, _ in routes]
    owns, partial = _roles(t, olds)
    for old in {*olds} - {*owns} - partial:
        _require_free(old, (*owns, *partial), t)
    right = sorted((new, old.size) for old, new in routes) == sorted((d, d.size) for d in olds)
    require(right, "the routes of a permute are a permutation of digits of one size")
    moved = {new: owns.pop(old) for old, new in routes if old in owns}
    addends = {new for old, new in routes if old in partial} | (partial - {*olds})
    received = t.tile_size if any(old != new for old, new in routes) else 0
    after = _typed(t, (owns | moved).items(), addends, t.reduction)
    return after, olds, received, received, 1, olds


def _permute_by_table(table: Any, t: ArrayType) -> _Applied:
    axes, sources = [device_digit(axis) for axis in table["axes"]], list(table["sources"])
    new = [(device_digit(device), index_digit(index)) for device, index in table["placements"]]
    old = [(d, i) for d, i in t.placements if not all(apart(d, axis) for axis in axes)]
    for device, _ in (*old, *new):
        require(any(inside(device, axis) for axis in axes), f"{device} is in the table's axes")
    for digit in _roles(t, axes)[1]:
        _require_free(digit, axes, t)
    right = len(sources) == size_of(axes) and sorted(sources) == [*range(len(sources))]
    require(right, "the sources of a table are a permutation")
    # Tiles are told by where they start, if the same digits are owned, in whatever pieces.
    starts = np.zeros((2, len(t.shape), len(sources)), np.intp)
    edges: set[tuple[int, int]] = set()  # a digit that begins where another ends leaves none
    for side, (device, index) in (*((0, pair) for pair in old), *((1, pair) for pair in new)):
        value = digit_values([device], np.arange(len(sources)), axes)
        starts[side, index.dim] += value * (t.shape[index.dim] // index.end)
        edges ^= {(index.dim, index.pre), (index.dim, index.end)}
    right = not edges and np.array_equal(starts[0][:, sources], starts[1])
    require(right, "each device receives the tile that it wants")
    owns = [*(placement for placement in t.placements if placement not in old), *new]
    received = t.tile_size if sources != sorted(sources) else 0
    return _typed(t, owns, t.partial, t.reduction), axes, received, received, 1, axes


def _exchange(step: Any, t: ArrayType, mesh: Mesh) -> _Applied:
    """Every element comes from a device that holds it, and from the receiver itself if it does."""
    placements = [(device_digit(d), index_digit(i)) for d, i in step["placements"]]
    digits, across = [d for d, _ in placements], mesh != t.mesh
    after = t.replace(mesh=mesh, placements=placements)
    crossed = [device for device, _ in {*t.placements} ^ {*placements}]
    replicas = [(device_digit(a), device_digit(b)) for a, b in step["replicas"]]
    tables: list[Any] = []
    for x in step.get("tables", ()):
        axes, owners = ([device_digit(d) for d in x[key]] for key in ("axes", "owners"))
        tables.append((axes, owners, [dict(row) for row in x["rows"]]))
    routed = [a for a, _ in replicas] + [axis for axes, *_ in tables for axis in axes]
    right = not across or (routed == [*whole_axes(t.mesh)] and not t.partial)
    require(right, f"one table, of all axes of {t.mesh}, routes an array without partial axes")
    for digit in _roles(t, routed)[1] if routed else ():
        _require_free(digit, routed, t)
    for a, b in replicas:
        _require_free(a, [owner for owner, _ in t.placements], t)
        require(a.size == b.size, f"{a} and {b} have one size")
    if not t.size:
        return after, digits, 0, 0, 0, crossed
    # What a device has on both sides; what it sends in all and to itself; who sends to one.
    overlap, loads, peers = 1, {(1, 1)}, 1
    for part in parts_of(t, after, [d for pair in replicas for d in pair], [a for a, *_ in tables]):
        overlap *= part.least_overlap()
        mine = [table for table in tables if across or part.has(table[0][0])]
        served, senders = part.loads([pair for pair in replicas if part.has(pair[0])], mine)
        peers *= senders
        loads = {(a * s, b * k) for a, b in loads for s, k in served}
    received, sent = after.tile_size - overlap, max(a - b for a, b in loads)
    return after, digits, received, sent, peers, crossed


def _roles(t: ArrayType, named: Any) -> tuple[dict[DeviceDigit, IndexDigit], set[DeviceDigit]]:
    """What the digits of a type own, and which are partial; the digits of a step are cut out."""
    fits = all(d.size > 1 and t.mesh.axis_size(d.axis) % d.end == 0 for d in named)
    fits = fits and all(apart(a, b) for a, b in combinations(named, 2)) and bool(named)
    require(fits, f"a step names disjoint parts of axes; got {[str(d) for d in named]}")
    cuts = {(d.axis, end) for d in named for end in (d.pre, d.end)}
    partial = split_at([(d, IndexDigit(-1, d.pre, d.size)) for d in t.partial], cuts)
    return dict(split_at(t.placements, cuts)), {d for d, _ in partial}


def _require_free(digit: DeviceDigit, used: Iterable[DeviceDigit], t: ArrayType) -> None:
    require(all(apart(digit, other) for other in used), f"{digit} is free in {t}")


def _typed(t: ArrayType, owns: Any, partial: Any, reduction: str | None) -> ArrayType:
    return ArrayType.from_placements(t.mesh, t.dtype, t.shape, owns, partial, reduction)


def _same(derived: dict[str, Any], given: Any) -> None:
    for name, value in derived.items():
        require(given[name] == value, f"{name} is {value}; the plan has {given[name]}")
