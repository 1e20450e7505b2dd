"""A problem in normal form: its digits are axes and dimensions of their own.

Example: x=2,y=4,z=2,w=2, `f32[64{z}, 64{y}] sum{x,w} -> f32[64{z,x}, 64]`. z stays where it is, y
is given up, x is reduced and owns a part of dimension 0, w is reduced. In normal form that is, on
`d0=2,d1=2,d2=4`,

    f32[2, 4{d2}, 256] sum{d0,d1} -> f32[2{d1}, 4, 256]

what x owns in the end, what y owns at first, and what nobody does; half of the array, because z
takes no part in it. Digits that are alike and in nobody's way are one: with two like w, d0 is 4.

Law: neither the names of axes nor their order in the mesh, neither the order of dimensions nor how
digits lie in them, change a price. They are not in the problem that is planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.chains import find_chains
from redistrib.synth.planner.relabel import Digits, relabelled
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, inside, prime_of
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import Refinement

FREE, PARTIAL, OWNER = range(3)
"""What a device digit is on one side."""

_Kind = tuple[int, int, float, float, tuple[tuple[int, ...], ...]]
"""Of a device digit: what it is before and after, latency, bandwidth and places of its link."""
_Chain = tuple[list[tuple[DeviceDigit, ...]], list[tuple[IndexDigit, ...]]]
"""The device digits and the index digits of a chain, each of one part or of several."""


@dataclass(frozen=True, slots=True)
class NormalForm:
    """Two types and the profile in normal form, with the digits that its axes and dimensions are.

    `fixed` is what takes no part: owned by the same digit before and after.
    """

    src: ArrayType
    dst: ArrayType
    links: Profile
    digits: Digits
    fixed: tuple[Placement, ...]

    def steps(self, start: ArrayType, steps: Iterable[Collective]) -> list[Collective]:
        """Steps between the types in normal form as steps from the type `start`."""
        return relabelled(start, steps, self.digits, self.fixed)


def normal_form(src: ArrayType, dst: ArrayType, common: Refinement, links: Profile) -> NormalForm:
    """The normal form of a problem whose digits match, of an array with elements."""
    before, after = common.src, common.dst
    fixed = tuple((d, i) for d, i in before.items() if after.get(d) == i)
    chains = _in_order(src, dst, common, links)
    devices = [device for along, _ in chains for device in along]
    indices = [index for _, along in chains for index in along]
    named = {*(part for index in indices for part in index), *(index for _, index in fixed)}
    runs = [run for dim in common.dims for run in dim if run not in named and run.size > 1]
    indices += _merged(runs, [device for along in devices for device in along])
    digits = Digits({f"d{n}": parts for n, parts in enumerate(devices)}, indices)
    unequal = tuple(
        entry
        for name, parts in digits.axes.items()
        for entry in links.named(name, parts[0])
        if entry[1] != links.link
    )
    profile = replace(links, axes=unequal, levels=())
    ends = _type(src, before, digits, indices), _type(dst, after, digits, indices)
    return NormalForm(*ends, profile, digits, fixed)


def _merged(
    runs: Iterable[IndexDigit], devices: Iterable[DeviceDigit]
) -> list[tuple[IndexDigit, ...]]:
    """The runs that nobody owns as dimensions: one for each prime of the digits, one for the rest.

    Digits have room in a run as far as they have primes in common, wherever it lies. A digit of
    several primes needs them in one run: then each run is a dimension.
    """
    of_devices = {prime_of(device.size) for device in devices}
    if 0 in of_devices:
        return [(run,) for run in sorted(runs, key=lambda run: -run.size)]
    rooms: dict[int, list[IndexDigit]] = {prime: [] for prime in sorted(of_devices)}
    others = []
    for run in runs:
        pre = run.pre
        for prime, room in rooms.items():
            size = gcd(run.size, prime ** run.size.bit_length())
            if size > 1:
                room.append(IndexDigit(run.dim, pre, size))
                pre *= size
        others += [IndexDigit(run.dim, pre, run.end // pre)] if run.end > pre else []
    return [tuple(room) for room in (*rooms.values(), others) if room]


def _type(
    t: ArrayType,
    owned: dict[DeviceDigit, IndexDigit],
    digits: Digits,
    dims: Sequence[tuple[IndexDigit, ...]],
) -> ArrayType:
    """One end in normal form, in which these index digits are owned."""
    number = {parts[0]: n for n, parts in enumerate(dims)}
    sizes = {name: prod(part.size for part in parts) for name, parts in digits.axes.items()}
    factors: list[list[DeviceDigit]] = [[] for _ in dims]
    partial = []
    for name, parts in digits.axes.items():
        if parts[0] in owned:
            factors[number[owned[parts[0]]]].append(DeviceDigit(name, 1, sizes[name]))
        elif any(inside(parts[0], summed) for summed in t.partial):
            partial.append(name)
    shape = [prod(part.size for part in parts) for parts in dims]
    return ArrayType(Mesh(sizes), t.dtype, shape, factors, partial, t.reduction or "sum")


def _in_order(src: ArrayType, dst: ArrayType, common: Refinement, links: Profile) -> list[_Chain]:
    """The chains and idle digits. Those that look alike are alike: their order does not matter."""
    before, after = common.src, common.dst

    def kind(device: DeviceDigit) -> _Kind:
        roles = [
            OWNER
            if device in owned
            else PARTIAL
            if any(inside(device, summed) for summed in t.partial)
            else FREE
            for t, owned in ((src, before), (dst, after))
        ]
        link = links.link_of(device)
        return (roles[0], roles[1], link.latency, link.bandwidth, links.where(device))

    chains, idle = find_chains(common, frozenset())
    entries: list[tuple[bool, list[tuple[int, _Kind]], _Chain]] = []
    alone: dict[tuple[_Kind, int], list[tuple[DeviceDigit, IndexDigit | None]]] = {}
    for chain in chains:
        devices, along = chain.devices, [index for index in chain.indices if index is not None]
        if len(devices) == 1 and len(along) == 1 and (prime := prime_of(devices[0].size)):
            alone.setdefault((kind(devices[0]), prime), []).append((devices[0], along[0]))
            continue
        closed = chain.indices[0] is not None and chain.indices[0] == chain.indices[-1]
        if closed:  # entered where it looks least
            along = along[:-1]
            sizes = [(d.size, kind(d)) for d in devices]
            start = min(range(len(devices)), key=lambda n: [*sizes[n:], *sizes[:n]])
            devices, along = devices[start:] + devices[:start], along[start:] + along[:start]
        looks = [(d.size, kind(d)) for d in devices]
        entries.append((closed, looks, ([(d,) for d in devices], [(i,) for i in along])))
    for device in idle:
        if prime := prime_of(device.size):
            alone.setdefault((kind(device), prime), []).append((device, None))
        else:
            entries.append((False, [(device.size, kind(device))], ([(device,)], [])))
    for (of_kind, _), pairs in alone.items():
        size = prod(device.size for device, _ in pairs)
        owned = [index for _, index in pairs if index is not None]
        parts = [tuple(device for device, _ in pairs)], [tuple(owned)] if owned else []
        entries.append((False, [(size, of_kind)], parts))
    return [chain for *_, chain in sorted(entries, key=lambda entry: entry[:2])]
