"""An independent checker of plans: every claim of a plan is derived again from its steps.

It reads the JSON of a plan and shares only the types with the planner: typing rules, traffic,
routing, times and lower bound are written a second time. On x=2,y=4, from f32[8{x}, 4] to
f32[8, 4{x}], the checker

1. reads the text strictly (`reading`): mesh, ends, profile and steps are of their kinds, and no
   entry is left unread;
2. applies the rule of each step to the type before it: all_to_all needs x to own 0:(1)2 and 1:(1)2
   to be local, which gives f32[8, 4{x}]; a step must state that type, its tile and axes;
3. derives what the step moves: half a tile of 16 elements, 32 bytes. For an exchange it finds out
   who sends which element and that it has it (`parts`, `senders`);
4. derives its time from the profile: latency + 32 / bandwidth of x (`price`);
5. asks whether the steps end in the target, no tile is above the memory limit, and all totals and
   the lower bound (`lower_bound`) are as stated.

What it enumerates is counted before, so that a small file cannot ask for much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from redistrib.checker.blocks import block_loads, padded_ends
from redistrib.checker.claims import Effort, require
from redistrib.checker.crossing import crossing
from redistrib.checker.lower_bound import lower_bound
from redistrib.checker.parts import Part, parts_of, size_of
from redistrib.checker.price import Links
from redistrib.checker.reading import read_plan, read_step
from redistrib.checker.senders import Table, loads, worst
from redistrib.errors import CheckError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, digit_values, inside, split_at
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import MAX_CROSSED, MAX_ENUMERATED, Mesh, whole_axes
from redistrib.types.notation import format_factor

LOCAL = ("dynamic_slice", "replicated_to_partial", "sharded_to_partial")
STRATEGIES = ("auto", "collectives", "direct", "paper", "exact", "custom")
EXCHANGING = ("auto", "direct", "custom")
MAX_STEPS = 256

# The type after a step, its digits, elements received and sent, latencies, digits crossed.
_Applied = tuple[ArrayType, Sequence[DeviceDigit], int, int, int, Iterable[DeviceDigit]]


def check(plan: Any) -> dict[str, int]:
    """Check a plan: a Plan, its JSON text, or the data in that text; its figures, now certain.

    Raises CheckError if a claim does not hold; `step` is the index of the step at fault or None.
    """
    step_index: list[int | None] = [None]
    try:
        return _check(read_plan(plan.to_json() if hasattr(plan, "to_json") else plan), step_index)
    except Exception as error:  # whatever it is, the plan was not found to be right
        where = "plan" if step_index[0] is None else f"step {step_index[0]}"
        kind = "" if isinstance(error, RedistribError) else f"malformed, {type(error).__name__}: "
        raise CheckError(f"{where}: {kind}{error}", step=step_index[0]) from error


def _check(data: dict[str, Any], step_index: list[int | None]) -> dict[str, int]:
    require(data["strategy"] in STRATEGIES, f"the strategy is one of {', '.join(STRATEGIES)}")
    src, dst = _ends(data)
    links = Links.of(data["profile"], src.mesh) if "profile" in data else None
    start, end = src, dst
    if "padded_shape" in data:  # steps are of the padded array, bounds of the real one
        start, end = padded_ends(src, dst, data["padded_shape"])
    current, effort, seconds = start, Effort(), 0.0
    tiles, received, sent, live = [start.tile_bytes], [0], [0], [start.tile_bytes]
    require(len(data["steps"]) <= MAX_STEPS, f"a plan has at most {MAX_STEPS} steps")
    for step_index[0], unread in enumerate(data["steps"]):
        step = read_step(unread)
        name = step["collective"]
        exchanges = data["strategy"] in EXCHANGING
        require(name != "exchange" or exchanges, "it may exchange")
        current, digits, most_received, most_sent, latencies, crossed = _apply(
            name, step, current, dst.mesh, effort
        )
        tiles.append(current.tile_bytes)
        received.append(most_received * src.itemsize)
        sent.append(most_sent * src.itemsize)
        onto = current.mesh if "onto" in step else None
        if links and name not in LOCAL:
            # Onto another mesh one device may send to all others.
            timed = max(received[-1], sent[-1]) if onto else received[-1]
            seconds += links.seconds(name, crossed, timed, latencies, onto)
        if links and onto:
            links = Links.of(data["profile"], onto)
        live.append(start.tile_bytes + (tiles[-2] if step_index[0] else 0) + tiles[-1])
        derived = {
            "type": str(current),
            "axes": [format_factor(digit, current.mesh) for digit in digits],
            "local_shape": list(current.tile_shape),
            "received_bytes": received[-1],
            "sent_bytes": sent[-1],
            "live_bytes": live[-1],
        }
        _same(derived, step)
    step_index[0] = None
    # A target that has a type on the mesh of the source may be reached there.
    target = on_mesh(dst, src.mesh) or dst
    ends = (end, on_mesh(end, src.mesh))
    require(current in ends, "the steps end in {}; they end in {}", end, current)
    limit = data.get("memory_limit", max(src.tile_bytes, dst.tile_bytes))
    require(max(tiles) <= limit, f"no tile is above {limit} bytes; the largest is {max(tiles)}")
    figures = {
        "num_collectives": sum(step["collective"] not in LOCAL for step in data["steps"]),
        "received_bytes": sum(received),
        "sent_bytes": sum(sent),
        "lower_bound_bytes": lower_bound(src, target, effort) * src.itemsize,
        "peak_tile_bytes": max(tiles),
        "live_bytes": max(live),
    }
    # Version 1 does not say under which profile its time is.
    _same(figures | ({"seconds": seconds} if links else {}), data)
    require(data["seconds"] >= 0, "seconds is not negative")
    at_bound = figures["received_bytes"] == figures["lower_bound_bytes"]
    direct = data["strategy"] == "direct" and not (src.partial or dst.partial)
    require(at_bound or not direct, "what direct receives is the lower bound")
    return figures


def _ends(data: dict[str, Any]) -> tuple[ArrayType, ArrayType]:
    """The types of source and target, each on its mesh."""
    meshes = [_mesh(data[key]) for key in ("mesh", "dst_mesh") if data[key]]
    if len(meshes) > 1:
        require(meshes[0] != meshes[1], "dst_mesh is null or another mesh")
    src, dst = (ArrayType.parse(data[e], m) for e, m in (("src", meshes[0]), ("dst", meshes[-1])))
    require((src.shape, src.dtype) == (dst.shape, dst.dtype), "src and dst are of one array")
    return src, dst


def _mesh(data: dict[str, Any]) -> Mesh:
    """The mesh of an object; its devices may be given by the first of ids one after the other."""
    devices = data["devices"]
    if isinstance(devices, dict):
        count = Mesh(data["axes"]).num_devices
        require(count <= MAX_ENUMERATED, f"ids are listed of at most {MAX_ENUMERATED} devices")
        devices = range(devices["first"], devices["first"] + count)
    return Mesh(data["axes"], devices=devices)


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


def _apply(name: str, step: Any, t: ArrayType, other: Mesh, effort: Effort) -> _Applied:
    effort.spend((len(t.placements) + len(t.partial)) ** 2)
    if name == "exchange":
        return _exchange(step, t, other, effort)
    if name == "collective_permute":
        table = step.get("table")
        return _permute(step["routes"], t) if table is None else _permute_by_table(table, t)
    role_before, role_after, traffic = _CHANGES[name]
    # Per digit: the index digit that it owns before, and the one that it owns after.
    items = step[("digits", "placements", "moves")[(role_before, role_after).count("owner")]]
    changes: list[Any] = (
        items if "owner" in (role_before, role_after) else [[digit] for digit in items]
    )
    digits = [change[0] for change in changes]
    owns, partial = _roles(t, digits)
    for digit, *indices in changes:
        if role_before == "owner":
            require(owns.pop(digit, None) == indices[0], "{} owns {} in {}", digit, indices[0], t)
        elif role_before == "partial":
            require(digit in partial, "{} is partial in {}", digit, t)
            partial.remove(digit)
        else:
            _require_free(digit, (*owns, *partial), t)
        if role_after == "owner":
            new = indices[-1]
            fits = digit.size == new.size and new.dim < len(t.shape)
            fits = fits and t.shape[new.dim] % new.end == 0
            local = all(apart(new, index) for _, index in t.placements)
            require(fits and local, "{} is local in {} and of the size of {}", new, t, digit)
    reduction = step["reduction"] if role_after == "partial" else t.reduction
    require(not t.partial or t.reduction == reduction, "{} is partial under {}", t, reduction)
    owns |= {digit: indices[-1] for digit, *indices in changes if role_after == "owner"}
    partial |= {digit for digit in digits if role_after == "partial"}
    moved = traffic(t.tile_size, size_of(digits))
    after = _typed(t, owns.items(), partial, reduction)
    return after, digits, moved, moved, 2 if name == "all_reduce" else 1, digits


def _permute(routes: Any, t: ArrayType) -> _Applied:
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
    axes, sources = table["axes"], table["sources"]
    new = [(device, index) for device, index in table["placements"]]
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


def _exchange(step: Any, t: ArrayType, other: Mesh, effort: Effort) -> _Applied:
    """Every element comes from a device that holds it, and from the receiver itself if it does."""
    mesh = other if "onto" in step else t.mesh
    across = mesh != t.mesh
    few = max(t.mesh.num_devices, mesh.num_devices) <= MAX_CROSSED
    require(few or not across, f"an array crosses between at most {MAX_CROSSED} devices")
    right = ("onto" in step) == across and step.get("onto", "dst_mesh") == "dst_mesh"
    require(right, "an exchange goes onto dst_mesh, if at all, from another mesh")
    if "blocks" in step:
        return _exchange_blocks(step, t, ArrayType.parse(step["blocks"], mesh), effort)
    placements = [(device, index) for device, index in step["placements"]]
    after = t.replace(mesh=mesh, placements=placements)
    digits = [device for device, _ in placements]
    replicas = [(a, b) for a, b in step["replicas"]]
    tables = [Table(x["axes"], x["owners"], *x["rows"]) for x in step.get("tables", ())]
    _require_routed(replicas, tables, t, after)
    if not t.size:
        require(not any(len(table.entries[0]) for table in tables), "nothing is asked for")
        return after, digits, 0, 0, 0, _crossed(t, after, [])
    # What a device has on both sides; what it sends in all and to itself; who sends to one.
    overlap, served, peers = 1, {(1, 1)}, 1
    if across and not tables:
        overlap, served, peers = crossing(t, after, replicas, effort)
        parts = []
    else:
        pairs = [digit for pair in replicas for digit in pair]
        parts = [*parts_of(t, after, effort, pairs, [table.axes for table in tables])]
    for part in parts:
        overlap *= part.least_overlap()
        mine = [table for table in tables if across or part.has(table.axes[0])]
        more, senders = loads(part, [pair for pair in replicas if part.has(pair[0])], mine)
        peers *= senders
        served = worst({(a * s, b * k) for a, b in served for s, k in more})
    received, sent = after.tile_size - overlap, max(a - b for a, b in served)
    return after, digits, received, sent, peers, _crossed(t, after, parts)


def _crossed(before: ArrayType, after: ArrayType, parts: Iterable[Part]) -> list[DeviceDigit]:
    """The digits that own something else after an exchange; what has no parts is taken whole.

    Onto another mesh those that own something before it, as that mesh has digits of its own.
    """
    if before.mesh != after.mesh:
        return list(before.owners)
    if before.size:
        return [device for part in parts for device in part.changed]
    return [device for device, _ in {*before.placements} ^ {*after.placements}]


def _exchange_blocks(step: Any, t: ArrayType, after: ArrayType, effort: Effort) -> _Applied:
    """Uneven types: the type after the step says all."""
    placements = [(device, index) for device, index in step["placements"]]
    right = not step["replicas"] and not step.get("tables") and placements == [*after.placements]
    require(right, "an exchange of blocks has the placements of {}, and routes nothing", after)
    same = (t.shape, t.dtype, t.partial, t.reduction) == (
        after.shape,
        after.dtype,
        after.partial,
        after.reduction,
    )
    require(same and bool(t.uneven or after.uneven), "{} and {} are uneven, of one array", t, after)
    require(t.mesh == after.mesh or not t.partial, "to another mesh there are no partial axes")
    received, sent, peers = block_loads(t, after, effort)
    owners = {*t.placements, *(after.placements if after.mesh == t.mesh else ())}
    crossed = [device for device, _ in owners]
    return after, [device for device, _ in placements], received, sent, peers, crossed


def _require_routed(
    replicas: list[Any], tables: list[Table], t: ArrayType, after: ArrayType
) -> None:
    """The replicas and tables of an exchange name digits that they may decide on."""
    across = after.mesh != t.mesh
    axes = [axis for table in tables for axis in table.axes]
    routed = [a for a, _ in replicas] + axes
    require(not (across and t.partial), "an array is reduced before it goes to another mesh")
    right = not (across and tables) or (routed == [*whole_axes(t.mesh)] and len(tables) == 1)
    require(right, "one table, of all axes of {}, routes an exchange to another mesh", t.mesh)
    require(across or all(table.axes for table in tables), "a table has axes")
    for digit in _roles(t, routed)[1] if routed else ():
        _require_free(digit, routed, t)
    if replicas and across:
        _roles(after, [b for _, b in replicas])
    for a, b in replicas:
        _require_free(a, [owner for owner, _ in t.placements], t)
        require(a.size == b.size, "{} and {} have one size", a, b)


def _roles(t: ArrayType, named: Any) -> tuple[dict[DeviceDigit, IndexDigit], set[DeviceDigit]]:
    """What the digits of a type own, and which are partial; the digits of a step are cut out."""
    fits = all(d.size > 1 and t.mesh.axis_size(d.axis) % d.end == 0 for d in named) and bool(named)
    # In order, each begins where the one before it on that axis ends, or further on.
    fits = fits and all(a.axis != b.axis or b.pre % a.end == 0 for a, b in pairwise(sorted(named)))
    require(fits, "a step names disjoint parts of axes; got {}", [*map(str, named)])
    cuts = {(d.axis, end) for d in named for end in (d.pre, d.end)}
    partial = split_at([(d, IndexDigit(-1, d.pre, d.size)) for d in t.partial], cuts)
    return dict(split_at(t.placements, cuts)), {d for d, _ in partial}


def _require_free(digit: DeviceDigit, used: Iterable[DeviceDigit], t: ArrayType) -> None:
    require(all(apart(digit, other) for other in used), "{} is free in {}", digit, t)


def _typed(t: ArrayType, owns: Any, partial: Any, reduction: str | None) -> ArrayType:
    if t.uneven:  # only partial axes change
        require({*owns} == {*t.placements}, "the blocks of {} stay", t)
        return t.replace(partial=partial, reduction=reduction if partial else None)
    return ArrayType.from_placements(t.mesh, t.dtype, t.shape, owns, partial, reduction)


def _same(derived: dict[str, Any], stated: Any) -> None:
    for name, value in derived.items():
        require(stated[name] == value, "{} is {}; the plan has {}", name, value, stated[name])
