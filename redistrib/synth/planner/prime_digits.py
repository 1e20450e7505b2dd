"""Axes cut into primes, and what their digits own: the states of the searches over whole types.

A *system* is one way to cut all axes of a mesh into digits of prime size; an axis of 6 has two, 2
before 3 and 3 before 2. On a system a type is what each digit owns; joined again, digits that are
neighbours on the axis and in the dimension are one placement, so that a type is one state whatever
system it was written on:

>>> from redistrib.types.array_type import ArrayType
>>> t = ArrayType.parse("f32[12{x}]", Mesh(x=6))
>>> for system in prime_systems(t.mesh):
...     owned = split_state(t.placements, system)
...     print([(str(d), str(i)) for d, i in owned.items()], merge_state(owned) == {*t.placements})
[('x:(1)2', '0:(1)2'), ('x:(2)3', '0:(2)3')] True
[('x:(1)3', '0:(1)3'), ('x:(3)2', '0:(3)2')] True
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product

from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, divisors, primes
from redistrib.types.mesh import Mesh

State = frozenset[Placement]
"""What every device digit owns, each run of an axis in a dimension as one placement."""


def prime_systems(
    mesh: Mesh, pinned: Collection[DeviceDigit] = (), varied: Collection[str] | None = None
) -> Iterator[tuple[DeviceDigit, ...]]:
    """All ways to cut the axes of a mesh into prime digits.

    An axis of mixed size has several, one per order of its primes; those that are not `varied` are
    cut in one way. A digit in `pinned` is left whole.

    >>> [[str(d) for d in system] for system in prime_systems(Mesh(x=6))]
    [['x:(1)2', 'x:(2)3'], ['x:(1)3', 'x:(3)2']]
    """
    cuts = []
    for name, size in mesh.axes:
        uncut = sorted(d for d in pinned if d.axis == name)
        parts: list[list[tuple[DeviceDigit, ...]]] = []
        end = 1
        for digit in uncut:
            parts += [_orders(name, end, digit.pre // end), [(digit,)]]
            end = digit.end
        parts.append(_orders(name, end, size // end))
        cuts += parts if varied is None or name in varied else [part[:1] for part in parts]
    for choice in product(*cuts):
        yield tuple(digit for part in choice for digit in part)


@lru_cache(maxsize=1 << 10)
def _orders(name: str, pre: int, size: int) -> list[tuple[DeviceDigit, ...]]:
    """All ways to cut a part of an axis, which starts after `pre` positions, into primes."""
    if size == 1:
        return [()]
    return [
        (DeviceDigit(name, pre, prime), *others)
        for prime in sorted(set(primes(size)))
        for others in _orders(name, pre * prime, size // prime)
    ]


def split_state(
    placements: Iterable[Placement], system: Sequence[DeviceDigit]
) -> dict[DeviceDigit, IndexDigit] | None:
    """Placements on the digits of a system, in its order; None if one does not split there."""
    owned = {}
    for device, index in placements:
        covered = 1
        for digit in system:
            if digit.axis == device.axis and digit.pre >= device.pre and digit.end <= device.end:
                if digit.pre % device.pre or device.end % digit.end:
                    return None
                pre = index.pre * (digit.pre // device.pre)
                owned[digit] = IndexDigit(index.dim, pre, digit.size)
                covered *= digit.size
        if covered != device.size:
            return None
    return {digit: owned[digit] for digit in system if digit in owned}


def merge_state(owned: dict[DeviceDigit, IndexDigit]) -> State:
    """What digits own, as a state: placements that follow each other on both sides are one."""
    merged: list[tuple[DeviceDigit, IndexDigit, int]] = []
    for index, device in sorted(zip(owned.values(), owned, strict=True)):
        if merged:
            d, i, size = merged[-1]
            same = d.axis == device.axis and i.dim == index.dim
            if same and d.pre * size == device.pre and i.pre * size == index.pre:
                merged[-1] = (d, i, size * device.size)
                continue
        merged.append((device, index, device.size))
    return frozenset(
        [
            (d, i)
            if d.size == size
            else (DeviceDigit(d.axis, d.pre, size), IndexDigit(i.dim, i.pre, size))
            for d, i, size in merged
        ]
    )


FREE = -1
Places = tuple[int, ...]
"""Per digit of a system, the number of the index digit that it owns, or FREE."""


def prime_places(shape: Sequence[int], sizes: Collection[int]) -> list[IndexDigit]:
    """All index digits of these prime sizes that an array has."""
    return [
        IndexDigit(dim, pre, size)
        for dim, n in enumerate(shape)
        for size in sorted(sizes)
        if n and n % size == 0
        for pre in divisors(n // size)
    ]


class PrimePlaces:
    """Some index digits of prime size, numbered, and which of them may be owned at once.

    Bounds form a divisibility chain iff every two of them are comparable, so a set of index digits
    is legal iff every pair is, and sets of allowed index digits are bit masks.
    """

    def __init__(self, indices: Sequence[IndexDigit]) -> None:
        self.indices = indices
        self.number = {index: number for number, index in enumerate(indices)}
        self.everywhere = (1 << len(indices)) - 1
        self.beside = [
            sum(1 << b for b, other in enumerate(indices) if compatible(index, other))
            for index in indices
        ]
        self._of_size: dict[int, int] = {}
        for number, index in enumerate(indices):
            self._of_size[index.size] = self._of_size.get(index.size, 0) | 1 << number

    def beside_all(self, places: Iterable[int]) -> int:
        """The index digits that may be owned beside all of these."""
        allowed = self.everywhere
        for place in places:
            if place != FREE:
                allowed &= self.beside[place]
        return allowed

    def options(self, allowed: int, size: int) -> list[int]:
        """The index digits of a size among those allowed, ascending."""
        mask = allowed & self._of_size.get(size, 0)
        numbers = []
        while mask:
            low = mask & -mask
            numbers.append(low.bit_length() - 1)
            mask ^= low
        return numbers


def compatible(a: IndexDigit, b: IndexDigit) -> bool:
    """Whether two index digits may be owned at once: they do not overlap, and their bounds nest."""
    return a.dim != b.dim or b.pre % a.end == 0 or a.pre % b.end == 0
