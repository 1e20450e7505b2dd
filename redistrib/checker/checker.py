"""An independent checker of plans: every claim of a plan is derived again from its steps.

It reads the JSON of a plan and shares only the types with the planner: typing rules, traffic,
routing and lower bound are written a second time. What two tiles have in common is a product over
*parts*: runs of dimensions and the device digits that own them. A part whose digits match is
settled by its digits, whatever its size; the others are enumerated, each alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from math import ceil, gcd, isfinite, lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import CheckError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, inside, object_of, split_at
from redistrib.types.digits import parse_device_digit as device_digit
from redistrib.types.digits import parse_index_digit as index_digit
from redistrib.types.equivalence import equivalent
from redistrib.types.mesh import Mesh
from redistrib.types.notation import format_factor
from redistrib.types.positions import digit_values, whole_axes, with_digits

LOCAL = ("dynamic_slice", "replicated_to_partial", "sharded_to_partial")
STRATEGIES = ("auto", "collectives", "direct", "paper", "exact")
MAX_ENUMERATED = 1 << 24  # coordinates times elements of one part

_Applied = tuple[ArrayType, Sequence[DeviceDigit], int, int]  # type, digits, received, sent


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
    _same({"format": "redistrib-plan/1"}, data)
    _require(data["strategy"] in STRATEGIES, f"the strategy is one of {', '.join(STRATEGIES)}")
    meshes = data["mesh"], data["dst_mesh"] or data["mesh"]
    mesh, other = (Mesh([(n, k) for n, k in m["axes"]], devices=m["devices"]) for m in meshes)
    src, dst = ArrayType.parse(data["src"], mesh), ArrayType.parse(data["dst"], other)
    _require((src.shape, src.dtype) == (dst.shape, dst.dtype), "src and dst are of one array")
    current, tiles, received, sent, live = src, [src.tile_bytes], [0], [0], [src.tile_bytes]
    for at[0], step in enumerate(data["steps"]):
        name = step["collective"]
        _require(name != "exchange" or data["strategy"] in {"auto", "direct"}, "it may exchange")
        current, digits, most_received, most_sent = _apply(name, step, current, other)
        tiles.append(current.tile_bytes)
        received.append(most_received * src.itemsize)
        sent.append(most_sent * src.itemsize)
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
    _require(equivalent(current, dst), f"the steps end in {dst}; they end in {current}")
    limit = max(src.tile_bytes, dst.tile_bytes, data.get("memory_limit") or 0)
    _require(max(tiles) <= limit, f"no tile is above {limit} bytes; the largest is {max(tiles)}")
    _require(isfinite(data["seconds"]) and data["seconds"] >= 0, "seconds is not negative")
    figures = {
        "num_collectives": sum(step["collective"] not in LOCAL for step in data["steps"]),
        "received_bytes": sum(received),
        "sent_bytes": sum(sent),
        "lower_bound_bytes": _lower_bound(src, current) * src.itemsize,
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
    _require(name in _CHANGES, f"{name} is a collective")
    was, becomes, traffic = _CHANGES[name]
    # Per digit: the index digit that it owns before, and the one that it owns after.
    named = (was, becomes).count("owner")
    items = step[("digits", "placements", "moves")[named]]
    split: Any = ([item] if not named else item for item in items)
    changes: list[Any] = [[device_digit(d), *map(index_digit, indices)] for d, *indices in split]
    _require(all(len(x) == 1 + named for x in changes), f"each names {named} index digits")
    digits = [change[0] for change in changes]
    owns, partial = _roles(t, digits)
    for digit, *indices in changes:
        if was == "owner":
            _require(owns.pop(digit, None) == indices[0], f"{digit} owns {indices[0]} in {t}")
        elif was == "partial":
            _require(digit in partial, f"{digit} is partial in {t}")
            partial.remove(digit)
        else:
            _require_free(digit, (*owns, *partial), t)
        if becomes == "owner":
            new = indices[-1]
            fits = digit.size == new.size and t.shape[new.dim] % new.end == 0
            local = all(apart(new, index) for _, index in t.placements)
            _require(fits and local, f"{new} is local in {t} and of the size of {digit}")
    reduction = step["reduction"] if becomes == "partial" else t.reduction
    _require(not t.partial or t.reduction == reduction, f"{t} is partial under {reduction}")
    owns |= {digit: indices[-1] for digit, *indices in changes if becomes == "owner"}
    partial |= {digit for digit in digits if becomes == "partial"}
    moved = traffic(t.tile_size, _size(digits))
    return _typed(t, owns.items(), partial, reduction), digits, moved, moved


def _permute(step: Any, t: ArrayType) -> _Applied:
    routes = [(device_digit(old), device_digit(new)) for old, new in step["routes"]]
    olds = [old for old, _ in routes]
    owns, partial = _roles(t, olds)
    for old in {*olds} - {*owns} - partial:
        _require_free(old, (*owns, *partial), t)
    right = sorted((new, old.size) for old, new in routes) == sorted((d, d.size) for d in olds)
    _require(right, "the routes of a permute are a permutation of digits of one size")
    moved = {new: owns.pop(old) for old, new in routes if old in owns}
    addends = {new for old, new in routes if old in partial} | (partial - {*olds})
    received = t.tile_size if any(old != new for old, new in routes) else 0
    return _typed(t, (owns | moved).items(), addends, t.reduction), olds, received, received


def _permute_by_table(table: Any, t: ArrayType) -> _Applied:
    axes, sources = [device_digit(axis) for axis in table["axes"]], list(table["sources"])
    new = [(device_digit(device), index_digit(index)) for device, index in table["placements"]]
    old = [(d, i) for d, i in t.placements if not all(apart(d, axis) for axis in axes)]
    for device, _ in (*old, *new):
        _require(any(inside(device, axis) for axis in axes), f"{device} is in the table's axes")
    for digit in _roles(t, axes)[1]:
        _require_free(digit, axes, t)
    right = len(sources) == _size(axes) and sorted(sources) == [*range(len(sources))]
    _require(right, "the sources of a table are a permutation")
    # Tiles are told by where they start, if the same digits are owned, in whatever pieces.
    starts = np.zeros((2, len(t.shape), len(sources)), np.intp)
    edges: set[tuple[int, int]] = set()  # a digit that begins where another ends leaves none
    for side, (device, index) in (*((0, pair) for pair in old), *((1, pair) for pair in new)):
        value = digit_values([device], np.arange(len(sources)), axes)
        starts[side, index.dim] += value * (t.shape[index.dim] // index.end)
        edges ^= {(index.dim, index.pre), (index.dim, index.end)}
    right = not edges and np.array_equal(starts[0][:, sources], starts[1])
    _require(right, "each device receives the tile that it wants")
    owns = [*(placement for placement in t.placements if placement not in old), *new]
    received = t.tile_size if sources != sorted(sources) else 0
    return _typed(t, owns, t.partial, t.reduction), axes, received, received


def _exchange(step: Any, t: ArrayType, mesh: Mesh) -> _Applied:
    """Every element comes from a device that holds it, and from the receiver itself if it does."""
    placements = [(device_digit(d), index_digit(i)) for d, i in step["placements"]]
    digits, across = [d for d, _ in placements], mesh != t.mesh
    after = ArrayType.from_placements(mesh, t.dtype, t.shape, placements, t.partial, t.reduction)
    replicas = [(device_digit(a), device_digit(b)) for a, b in step["replicas"]]
    tables: list[Any] = []
    for x in step.get("tables", ()):
        axes, owners = ([device_digit(d) for d in x[key]] for key in ("axes", "owners"))
        tables.append((axes, owners, [dict(row) for row in x["rows"]]))
    routed = [a for a, _ in replicas] + [axis for axes, *_ in tables for axis in axes]
    right = not across or (routed == [*whole_axes(t.mesh)] and not t.partial)
    _require(right, f"one table, of all axes of {t.mesh}, routes an array without partial axes")
    for digit in _roles(t, routed)[1] if routed else ():
        _require_free(digit, routed, t)
    for a, b in replicas:
        _require_free(a, [owner for owner, _ in t.placements], t)
        _require(a.size == b.size, f"{a} and {b} have one size")
    if not t.size:
        return after, digits, 0, 0
    overlap, loads = 1, {(1, 1)}  # what a device has on both sides; sends in all and to itself
    for part in _parts(t, after, [d for pair in replicas for d in pair], [a for a, *_ in tables]):
        overlap *= part.least_overlap()
        mine = [table for table in tables if across or part.has(table[0][0])]
        served = part.loads([pair for pair in replicas if part.has(pair[0])], mine)
        loads = {(a * s, b * k) for a, b in loads for s, k in served}
    return after, digits, after.tile_size - overlap, max(a - b for a, b in loads)


def _lower_bound(src: ArrayType, dst: ArrayType) -> int:
    """Elements that the worst device must receive."""
    same = (src.partial, src.reduction) == (dst.partial, dst.reduction)
    if not src.size or (dst.partial and not (same and src.mesh == dst.mesh)):
        return 0
    if src.partial and src.mesh != dst.mesh:
        return dst.tile_size  # a sum takes some receipt of every element
    parts = _parts(src, dst)
    if same:
        return dst.tile_size - prod(part.least_overlap() for part in parts)
    # It takes K - 1 receipts to bring K addends together and one for each device that wants the
    # sum, one less if such a device holds an addend. This is the mean over all devices:
    more = _size(src.partial) - 1 - prod(part.held() for part in parts)
    return ceil(dst.tile_size + more * Fraction(dst.size, dst.mesh.num_devices))


@dataclass(frozen=True, slots=True)
class _Part:
    """Runs of dimensions and the digits that own them, with no bearing on other parts.

    `spans` are disjoint parts of axes with all digits, `there` those of the receivers, which have
    the coordinates `home` over `spans`, or -1. A part is `plain` if every digit is a span and owns
    a whole run: then all its digits, and the runs they own, have one size.
    """

    runs: list[IndexDigit]
    spans: list[DeviceDigit]
    src: dict[DeviceDigit, IndexDigit]
    dst: dict[DeviceDigit, IndexDigit]
    plain: bool
    there: list[DeviceDigit]
    home: NDArray[np.intp]
    unit: int = 1  # elements that an index of the runs stands for

    def has(self, digit: DeviceDigit) -> bool:
        return any(inside(digit, span) for span in self.spans)

    def least_overlap(self) -> int:
        """Elements that a device has on both sides: the least over devices."""
        if not self.plain:
            return self.unit * int(np.prod([x.sum(axis=1) for x in self.both()], axis=0).min())
        owner = {index: device for device, index in self.src.items()}
        if any(owner.get(index, device) != device for device, index in self.dst.items()):
            return 0
        return _size(run for run in self.runs if run not in {*owner, *self.dst.values()})

    def held(self) -> Fraction:
        """The fraction of the elements that some device has on both sides."""
        if self.plain:  # a digit that owns on both sides asks for equal indices in two runs
            return Fraction(1, _size(self.runs[1:]))
        found = np.zeros([run.size for run in self.runs], bool)
        for masks in zip(*self.both(), strict=True):
            found[np.ix_(*masks)] = True
        return Fraction(int(found.sum()), found.size)

    def both(self) -> list[NDArray[np.bool_]]:
        """Per run [coordinate over spans, index]: whether a device has it on both sides."""
        at, count = self.spans, len(self.home) * max((r.size for r in self.runs), default=0)
        _require(count <= MAX_ENUMERATED, f"{count} entries are few enough to be enumerated")
        held = (_tiles(r, self.src, at)[self.home] & (self.home >= 0)[:, None] for r in self.runs)
        return [a & _tiles(r, self.dst, self.there) for a, r in zip(held, self.runs, strict=True)]

    def loads(self, replicas: Any, tables: Any) -> set[tuple[int, int]]:
        """Elements that a device sends in all and to itself, for all devices."""
        _require(all(self.has(name) for _, name in replicas), "a part names its own replicas")
        if self.plain:
            # A digit of the sender is one of the receiver, or an index of the element.
            owner = {index: device for device, index in self.dst.items()}
            known = {d: owner.get(index, index) for d, index in self.src.items()}
            senders = {known.get(d, dict(replicas).get(d, d)) for d in self.spans}
            _require(len(senders) == len(self.spans), "all replicas serve the same amount")
            return {(_size(run for run in self.runs if run not in owner), self.least_overlap())}
        spans, wanted = self.spans, np.ones(len(self.home), bool)
        for run in self.runs:
            mask = _tiles(run, self.dst, self.there)
            wanted = wanted[..., None] & mask.reshape(-1, *(1,) * (wanted.ndim - 1), run.size)
        receiver, *indices = np.nonzero(wanted)
        home, held = self.home[receiver], {}
        sender, own = np.maximum(home, 0), home >= 0
        for device, index in self.src.items():
            at = next(at for at, run in enumerate(self.runs) if inside(index, run))
            held[device] = indices[at] // (self.runs[at].end // index.end) % index.size
            sender = with_digits(sender, [device], held[device], spans)
            own &= digit_values([device], home, spans) == held[device]
        for device, name in replicas:
            sender = with_digits(sender, [device], digit_values([name], receiver, spans), spans)
        for axes, owners, rows in tables:
            here = digit_values(axes, receiver, spans) if self.there is spans else receiver
            asked = (here, digit_values(owners, sender, spans))
            found = np.array([rows[a][b] for a, b in np.transpose(asked).tolist()])
            fits = len(rows) == 1 + here.max() and found.min() >= 0 and found.max() < _size(axes)
            _require(fits, "the rows and senders of a table are coordinates over its axes")
            sender = with_digits(sender, axes, found, spans)
        right = (np.array_equal(digit_values([d], sender, spans), held[d]) for d in held)
        _require(all(right), "who sends an element holds it")
        _require(np.array_equal(own, sender == home), "a device keeps what it already holds")
        counts = [np.bincount(who, minlength=_size(spans)) for who in (sender, sender[own])]
        return {(a * self.unit, b * self.unit) for a, b in np.transpose(counts).tolist()}


def _parts(src: ArrayType, dst: ArrayType, named: Any = (), tables: Any = ()) -> list[_Part]:
    """The parts of two types; `named` digits are in spans, the axes of a table in one part."""
    if src.mesh != dst.mesh:  # all is one part, whose indices are blocks that no tile cuts
        block = [gcd(a, b) for a, b in zip(src.block_shape, dst.block_shape, strict=True)]
        runs = [IndexDigit(dim, 1, n // block[dim]) for dim, n in enumerate(src.shape)]
        place = {device: at for at, device in enumerate(src.mesh.ids)}
        home = np.array([place.get(device, -1) for device in dst.mesh.ids])
        here, there = ([*whole_axes(t.mesh)] for t in (src, dst))
        a, b = (dict(t.placements) for t in (src, dst))
        return [_Part(runs or [IndexDigit(0, 1, 1)], here, a, b, False, there, home, prod(block))]
    sides, before = [list(src.placements), list(dst.placements)], None
    while sides != before:  # a cut splits what it falls into, which may cut the other side
        before = sides
        for kind in (1, 0):  # cuts of dimensions, then of axes
            cuts = _cuts(placement[kind] for placement in sides[0] + sides[1])
            sides = [split_at(side, cuts) for side in sides]
    ends = {(dim, end) for dim, n in enumerate(src.shape) for end in (1, n)}
    ends |= _cuts(index for _, index in sides[0] + sides[1])
    runs = [IndexDigit(d, a, b // a) for (d, a), (e, b) in pairwise(sorted(ends)) if d == e]
    spans = {*named, *(d for d, _ in sides[0] + sides[1]), *(d for axes in tables for d in axes)}
    while clash := next((p for p in combinations(sorted(spans), 2) if not apart(*p)), None):
        low, high = gcd(*(d.pre for d in clash)), lcm(*(d.end for d in clash))
        spans = spans - {*clash} | {DeviceDigit(clash[0].axis, low, high // low)}
    items: list[Any] = [*runs, *sorted(spans)]
    groups: list[set[Any]] = [{run} for run in runs]
    for link in (*sides[0], *sides[1], *tables, *([digit] for digit in named)):
        whole = {item for item in items if any(inside(digit, item) for digit in link)}
        whole = whole.union(*(group for group in groups if group & whole))
        groups = [group for group in groups if not group & whole] + [whole]
    parts = []
    for group in groups:
        ours = [span for span in sorted(spans) if span in group]
        one, two = ({d: i for d, i in side if any(inside(d, s) for s in ours)} for side in sides)
        plain = {*one, *two} == {*ours} and {*one.values(), *two.values()} <= group
        plain = plain and not any(inside(d, s) for axes in tables for d in axes for s in ours)
        runs_of, home = [run for run in runs if run in group], np.arange(_size(ours) * (not plain))
        parts.append(_Part(runs_of, ours, one, two, plain, ours, home))
    return parts


def _cuts(digits: Iterable[DeviceDigit | IndexDigit]) -> set[tuple[Any, int]]:
    """Ends of digits that divide, or are divided by, all ends on their axis or dimension."""
    ends: dict[Any, set[int]] = {}
    for digit in digits:
        ends.setdefault(object_of(digit), {1}).update((digit.pre, digit.end))
    every = {(obj, cut) for obj, found in ends.items() for cut in (*found, lcm(*found))}
    return {(o, c) for o, c in every if all(c % end == 0 or end % c == 0 for end in ends[o])}


def _tiles(run: IndexDigit, owns: Any, spans: Sequence[DeviceDigit]) -> NDArray[np.bool_]:
    """Which indices of a run [coordinate over spans, index] belong to a device."""
    at, indices = np.arange(_size(spans))[:, None], np.arange(run.size)
    mask = np.ones((len(at), run.size), bool)
    for device, index in ((d, i) for d, i in owns.items() if inside(i, run)):
        mask &= indices // (run.end // index.end) % index.size == digit_values([device], at, spans)
    return mask


def _size(digits: Iterable[DeviceDigit | IndexDigit]) -> int:
    return prod(digit.size for digit in digits)


def _roles(t: ArrayType, named: Any) -> tuple[dict[DeviceDigit, IndexDigit], set[DeviceDigit]]:
    """What the digits of a type own, and which are partial; the digits of a step are cut out."""
    fits = all(d.size > 1 and t.mesh.axis_size(d.axis) % d.end == 0 for d in named)
    fits = fits and all(apart(a, b) for a, b in combinations(named, 2)) and bool(named)
    _require(fits, f"a step names disjoint parts of axes; got {[str(d) for d in named]}")
    cuts = {(d.axis, end) for d in named for end in (d.pre, d.end)}
    partial = split_at([(d, IndexDigit(-1, d.pre, d.size)) for d in t.partial], cuts)
    return dict(split_at(t.placements, cuts)), {d for d, _ in partial}


def _require_free(digit: DeviceDigit, used: Iterable[DeviceDigit], t: ArrayType) -> None:
    _require(all(apart(digit, other) for other in used), f"{digit} is free in {t}")


def _typed(t: ArrayType, owns: Any, partial: Any, reduction: str | None) -> ArrayType:
    return ArrayType.from_placements(t.mesh, t.dtype, t.shape, owns, partial, reduction)


def _same(derived: dict[str, Any], given: Any) -> None:
    for name, value in derived.items():
        _require(given[name] == value, f"{name} is {value}; the plan has {given[name]}")


def _require(holds: bool, claim: str) -> None:
    if not holds:
        raise CheckError(f"does not hold: {claim}")
