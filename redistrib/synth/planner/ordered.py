"""A problem with its axes and dimensions in an order of their own.

Example: x=5,y=12, `f64[8, 96, 960{x}] min{y} -> f64[8, 96, 960{y}]`. What is owned at first and in
the end, and how large it is, says more of the last dimension than of the others, and tells y, which
is partial, from x. So the problem becomes, on d0=12,d1=5, the larger axis and the dimension that
changes first,

    f64[960{d1}, 8, 96] min{d0} -> f64[960{d0}, 8, 96]

whatever the names of the axes, their order in the mesh and the order of the dimensions were.

Law: where digits do not match, what a search finds depends on what it looks at first. Names and
orders cannot change a price, because they are not in the problem that is planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.relabel import Digits, relabelled
from redistrib.text import MAX_INTEGER
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, IndexDigit, Local
from redistrib.types.mesh import Mesh

_Object = tuple[int, str] | int
"""An axis, by the number of its mesh and its name, or a dimension."""
_Looks = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Two types of one mesh and the profile, in that order, with the digits that these stand for.

    `links` is the profile on the mesh there.
    """

    src: ArrayType
    dst: ArrayType
    links: Profile
    digits: Digits

    def steps(self, start: ArrayType, steps: Iterable[Collective]) -> list[Collective]:
        """Steps between the types in order as steps from the type `start`."""
        return relabelled(start, steps, self.digits)


def ordered(src: ArrayType, dst: ArrayType, links: Profile) -> Ordered:
    """Two types on one mesh, of an array with elements, in their own order."""
    (start, end), (digits, _) = in_order((src, dst), (links, links))
    names = {parts[0].axis: name for name, parts in digits.axes.items()}
    return Ordered(start, end, _renamed(links, names), digits)


def in_order(
    types: tuple[ArrayType, ArrayType], links: tuple[Profile, Profile]
) -> tuple[list[ArrayType], list[Digits]]:
    """Two types in their order, and what the digits of each stand for.

    They are on one mesh or on two, each with its `links`.
    """
    order = order_of(types, links)
    dims = [obj for obj in order if isinstance(obj, int)]
    # A dimension without elements has room for every digit.
    of_dims = [(IndexDigit(dim, 1, types[0].shape[dim] or MAX_INTEGER),) for dim in dims]
    result, digits = [], []
    for side, t in enumerate(types):
        number = 0 if t.mesh == types[0].mesh else side
        axes = [obj[1] for obj in order if not isinstance(obj, int) and obj[0] == number]
        names = {axis: f"d{n}" for n, axis in enumerate(axes)}
        sizes = t.mesh.sizes
        result.append(_placed(t, Mesh([(names[axis], sizes[axis]) for axis in axes]), names, dims))
        of_axes = {names[axis]: (DeviceDigit(axis, 1, sizes[axis]),) for axis in axes}
        digits.append(Digits(of_axes, of_dims))
    return result, digits


def _placed(t: ArrayType, mesh: Mesh, names: Mapping[str, str], dims: Sequence[int]) -> ArrayType:
    """A type with other names of its axes, on their mesh, and its dimensions in an order."""

    def renamed(digit: DeviceDigit) -> DeviceDigit:
        return DeviceDigit(names[digit.axis], digit.pre, digit.size)

    def factor(entry: Factor) -> Factor:
        return entry if isinstance(entry, Local) else renamed(entry)

    return ArrayType(
        mesh,
        t.dtype,
        [t.shape[dim] for dim in dims],
        [list(map(factor, t.dims[dim])) for dim in dims],
        map(renamed, t.partial),
        t.reduction or "sum",
    )


def _renamed(links: Profile, names: Mapping[str, str]) -> Profile:
    """The profile with its links under other names of the axes, or of parts of them."""
    of_axes = []
    for text, link in links.axes:
        axis, colon, part = text.partition(":")
        if axis in names:
            of_axes.append((names[axis] + colon + part, link))
    return replace(links, axes=tuple(sorted(of_axes)), levels=())


def order_of(types: tuple[ArrayType, ArrayType], links: tuple[Profile, Profile]) -> list[_Object]:
    """The axes and dimensions, in an order that neither names nor orders have a part in.

    By colour refinement: each has looks, its size, its links, and what uses it with the looks of
    what it is used with, until no two more can be told apart. Of several that look alike the first
    goes first: they can trade places, unless digits go around in cycles of different lengths that
    look alike.
    """
    uses = _uses(types)
    src, dst = types
    # First the dimension that is cut most: what is cut further there stays one run of memory. Last
    # what nothing changes, so that searches leave it alone.
    looks: dict[_Object, _Looks] = {
        dim: (2, src.mesh == dst.mesh and src.dims[dim] == dst.dims[dim], -len(uses[dim]), n)
        for dim, n in enumerate(src.shape)
    }
    for number, axis in (obj for obj in uses if not isinstance(obj, int)):
        size = types[number].mesh.sizes[axis]
        looks[number, axis] = (number, -size, *_links(links[number], axis, size))
    ranks = _ranks(looks)
    while True:
        finer = _ranks(
            {
                obj: (rank, *sorted((*use, ranks[other]) for other, *use in uses[obj]))
                for obj, rank in ranks.items()
            }
        )
        count = Counter(finer.values())
        if len(count) > len(set(ranks.values())):
            ranks = finer
            continue
        alike = [obj for obj, rank in finer.items() if count[rank] > 1]
        if not alike:
            return sorted(finer, key=finer.__getitem__)
        first = min(alike, key=finer.__getitem__)
        ranks = {obj: 2 * rank + (obj != first) for obj, rank in finer.items()}


def _links(links: Profile, axis: str, size: int) -> Iterable[object]:
    link = links.link_of(DeviceDigit(axis, 1, size))
    parts = [(p.pre, p.size, links.link_of(p)) for p in links.parts_of(axis)]
    of_parts = ((a, b, c.latency, c.bandwidth, c.where) for a, b, c in parts)
    return link.latency, link.bandwidth, link.where, *of_parts


def _uses(
    types: tuple[ArrayType, ArrayType],
) -> dict[_Object, list[tuple[_Object, int, int, int, int]]]:
    """Per axis and dimension what it is used with, and how: with itself where an axis is summed."""
    uses: dict[_Object, list[tuple[_Object, int, int, int, int]]] = {
        dim: [] for dim in range(len(types[0].shape))
    }
    for side, t in enumerate(types):
        number = 0 if t.mesh == types[0].mesh else side
        for name, _ in t.mesh.axes:
            uses.setdefault((number, name), [])
        for device, index in t.placements:
            axis, use = (number, device.axis), (side, device.pre, index.pre, device.size)
            uses[axis].append((index.dim, *use))
            uses[index.dim].append((axis, *use))
        for device in t.partial:
            axis = number, device.axis
            uses[axis].append((axis, side, device.pre, 0, device.size))
    return uses


def _ranks(looks: Mapping[_Object, _Looks]) -> dict[_Object, int]:
    """Looks as numbers: equal ones have one."""
    number = {look: n for n, look in enumerate(sorted(set(looks.values())))}
    return {obj: number[look] for obj, look in looks.items()}
