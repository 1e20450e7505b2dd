"""The chains of an aligned pair, and what can be done with each (docs/theory.md, section 5).

Read the exchange as a graph: a device digit that moves from index digit b to b' is an edge b -> b'.
Edges form chains, each a path or a cycle. Digits free in the source or in the target open a chain;
slicing such a digit somewhere before, or gathering it somewhere after, closes the chain on a
smaller tile. Axes idle on both sides can do the same.

Example: `f32[8{x}, 8{y}, 8] -> f32[8, 8{x}, 8{y}]` on x=2,y=2,z=2. x moves from dimension 0 to 1
and y from 1 to 2: one path 0 -> 1 -> 2. `f32[8{x}, 8{y}] -> f32[8{y}, 8{x}]` is a cycle. In
`f32[8{x}, 8, 8] -> f32[8, 8{x}, 8{y}]` the digit y is free in the source: it is sliced first, and x
moves at half the tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd, prod
from typing import NamedTuple

from redistrib.types.digits import DeviceDigit, IndexDigit, Placement
from redistrib.types.refinement import Refinement


class Chain(NamedTuple):
    """Device digits u1..um, index digits b0..bm: uk owns b(k-1) in the source, bk in the target.

    b0 or bm is None where u1 or um is free on that side; in a cycle they are the same.
    """

    devices: tuple[DeviceDigit, ...]
    indices: tuple[IndexDigit | None, ...]


class Choice(NamedTuple):
    """What is done with a chain.

    `slices` happen first and `gathers` last; `early` gathers and `late` slices happen just before
    and after the exchange phase. In that phase `devices` move along `indices`: a path, or a cycle
    where both ends of `indices` are the same. Without indices the devices swap roles in a ring that
    a free digit closes. A spare local index digit has dimension -1 until it is placed. `takes` is a
    chain free at both ends, or an idle digit, that is used up; `leaves` is such a chain that
    another choice has to take.
    """

    devices: tuple[DeviceDigit, ...] = ()
    indices: tuple[IndexDigit, ...] = ()
    slices: tuple[Placement, ...] = ()
    gathers: tuple[Placement, ...] = ()
    early: tuple[Placement, ...] = ()
    late: tuple[Placement, ...] = ()
    takes: tuple[DeviceDigit, ...] = ()
    leaves: tuple[DeviceDigit, ...] = ()

    @property
    def spares(self) -> set[IndexDigit]:
        """The spare index digits to be placed."""
        if not (self.slices or self.gathers):
            return set()
        return {i for _, i in self.slices + self.gathers if i.dim < 0}


def devices_of(placements: Sequence[Placement]) -> int:
    """The devices that these owners join: the size of their group."""
    return prod([device.size for device, _ in placements]) if placements else 1


def find_chains(
    refinement: Refinement, kept: frozenset[DeviceDigit]
) -> tuple[list[Chain], list[DeviceDigit]]:
    """The chains of the digits that change what they own, and the digits that never own any.

    Digits of `kept` are partial on both sides.
    """
    before, after = refinement.src, refinement.dst
    owner = {index: device for device, index in before.items()}
    used = {*before, *after, *kept}
    idle = [d for d in refinement.axes if d not in used]
    moving = [
        d for d in refinement.axes if (d in before or d in after) and before.get(d) != after.get(d)
    ]
    needed = set(after.values())
    first = [d for d in moving if before.get(d) not in needed]
    chains = []
    seen: set[DeviceDigit] = set()
    for start in first + moving:  # what the open chains leave over are cycles
        if start in seen:
            continue
        devices, indices = [], [before.get(start)]
        device: DeviceDigit | None = start
        while device is not None and device not in seen:
            seen.add(device)
            devices.append(device)
            index = after.get(device)
            indices.append(index)
            device = owner.get(index) if index is not None else None
        chains.append(Chain(tuple(devices), tuple(indices)))
    return chains, idle


def chain_choices(n: int, chain: Chain, closers: list[Chain]) -> Iterator[Choice]:
    """What can be done with chain number n; the first choice fits any limit and needs no spare."""
    u, b = chain.devices, chain.indices
    first, last, inner = b[0], b[-1], tuple(i for i in b[1:-1] if i is not None)
    spare, spare2 = (spare_digit(2 * n + k, u[0].size) for k in (0, 1))
    match first, last:
        case IndexDigit(), IndexDigit() if first == last:
            yield Choice(u, (first, *inner, last))
        case IndexDigit(), IndexDigit():
            yield Choice(u, (first, *inner, last))
            for closer in closers:
                size = closer.devices[0].size
                if size == u[0].size or (size % u[0].size == 0 and len(closer.devices) == 1):
                    yield _closed(chain, closer)
        case None, IndexDigit() if len(u) == 1:
            yield Choice(slices=((u[0], last),))
        case IndexDigit(), None if len(u) == 1:
            yield Choice(gathers=((u[0], first),))
        case None, IndexDigit():
            yield Choice(u, (last, *inner, last), slices=((u[0], last),))
            yield Choice(u, (spare, *inner, last), slices=((u[0], spare),))
            yield Choice(u[1:], (*inner, last), late=((u[0], inner[0]),))
        case IndexDigit(), None:
            yield Choice(u, (first, *inner, first), gathers=((u[-1], first),))
            yield Choice(u, (first, *inner, spare), gathers=((u[-1], spare),))
            yield Choice(u[:-1], (first, *inner), early=((u[-1], inner[-1]),))
        case _:
            slices, gathers = ((u[0], spare),), ((u[-1], spare2),)
            early, late = ((u[-1], inner[-1]),), ((u[0], inner[0]),)
            yield Choice(u, takes=u)
            yield Choice(leaves=u)
            yield Choice(
                u, (spare, *inner, spare), slices=slices, gathers=((u[-1], spare),), takes=u
            )
            yield Choice(u, (spare, *inner, spare2), slices=slices, gathers=gathers, takes=u)
            yield Choice(u[:-1], (spare, *inner), slices=slices, early=early, takes=u)
            yield Choice(u[1:], (*inner, spare2), gathers=gathers, late=late, takes=u)
            between = u[1:-1]
            yield Choice(between, inner if between else (), early=early, late=late, takes=u)


def _closed(chain: Chain, closer: Chain) -> Choice:
    """A path made a cycle: the closer owns its last index digit at first, its first at last."""
    size = chain.devices[0].size
    parts = tuple(DeviceDigit(d.axis, d.pre, size) for d in closer.devices)
    along = [index for index in (*chain.indices, *closer.indices) if index is not None]
    first, last = along[0], along[len(chain.devices)]
    return Choice(
        (*chain.devices, *parts),
        (*along, first),
        slices=((parts[0], last),),
        gathers=((parts[-1], first),),
        takes=closer.devices,
    )


def spare_digit(n: int, size: int) -> IndexDigit:
    """Number n of the spare index digits that are still to be placed."""
    return IndexDigit(-1, n, size)


def idle_choices(n: int, digit: DeviceDigit, spares: list[IndexDigit]) -> Iterator[Choice]:
    """What can be done with number n, an idle digit: nothing, or a part is sliced and gathered."""
    yield Choice()
    for size in sorted({gcd(digit.size, run.size) for run in spares} - {1}, reverse=True):
        part = (DeviceDigit(digit.axis, digit.pre, size), spare_digit(2 * n, size))
        yield Choice(slices=(part,), gathers=(part,), takes=(digit,))
