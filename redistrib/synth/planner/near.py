"""A search near both ends: sequences through types that are written with the digits of the ends.

Example: x=2,y=2,z=3, `f32[12{z}, 12, 12{x}] sum{y} -> f32[12{y}, 12{x}, 12]`. The ends own the
index digits 0:(1)3 (z), 2:(1)2 (x), 0:(1)2 (y) and 1:(1)2 (x). A type on the way may own these and,
for each prime digit of the mesh and either end, one more that is local there, as 0:(6)2.
That is some hundred types where `exact` has 2,156, and a cheap sequence among them is

    reduce_scatter y   f32[12{z,_2,y}, 12, 12{x}]
    all_gather z       f32[12{_6,y}, 12, 12{x}]
    all_to_all x, y    f32[12{y}, 12{x}, 12]

What it finds is mostly a shortest path of `exact`, and need not be. It looks first where fewest
kinds of steps are left, keeps the best sequence so far, and stops after MAX_EDGES collectives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.exact import ExactSearch, reductions_between
from redistrib.synth.planner.prime_digits import (
    compatible,
    prime_systems,
    split_state,
)
from redistrib.synth.planner.type_graph import TypeGraph
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit

MAX_EDGES = 1200
"""Collectives that are looked at between the ends of a problem: some ten milliseconds."""
MAX_EDGES_ONLY = 10_000
"""Where nothing else was found."""
MAX_EDGES_WITHIN = 500
"""Between two types on the way, with reductions around them."""
MAX_SYSTEMS = 24  # ways to cut the mesh into primes that are looked through
MAX_USED = 4  # and those that are used


class NearSearch(ExactSearch):
    """A cheap sequence from one type to another, through types that are near to both."""

    def _graph(self, profile: Profile) -> TypeGraph:
        systems = _systems(self.src, self.dst)
        indices = _indices(self.src, self.dst, systems)
        self.steps_of_an_edge = max(1, len(systems[0]) // 3)  # as long as the mesh has digits
        reductions = reductions_between(self.src, self.dst)
        return TypeGraph(self.src, reductions, profile, systems, indices)


def near_steps(
    src: ArrayType,
    dst: ArrayType,
    limit: int,
    profile: Profile,
    bound: float,
    most_edges: int,
    work: Work,
) -> list[Collective] | None:
    """A cheap sequence through tiles of at most `limit` elements, in less than `bound` seconds.

    None where there is none, or no way to cut the mesh into primes was found that suits an end.
    """
    if not _systems(src, dst):
        return None
    search = NearSearch(src, dst, limit, profile, bound)
    return search.run_within(work, most_edges)


def _systems(src: ArrayType, dst: ArrayType) -> list[tuple[DeviceDigit, ...]]:
    """Ways to cut the mesh into primes on which an end can be written, those of both first."""
    ranked = []
    for system in islice(prime_systems(src.mesh), MAX_SYSTEMS):
        fits = sum(split_state(t.placements, system) is not None for t in (src, dst))
        if fits:
            ranked.append((-fits, system))
    return [system for _, system in sorted(ranked)[:MAX_USED]]


def _indices(
    src: ArrayType, dst: ArrayType, systems: list[tuple[DeviceDigit, ...]]
) -> list[IndexDigit]:
    """The index digits that either end owns, on these systems, and a few that are local in both."""
    owned = {
        index
        for system in systems
        for end in (src, dst)
        for index in (split_state(end.placements, system) or {}).values()
    }
    indices = sorted(owned)
    changed = {index.dim for _, index in {*src.placements} ^ {*dst.placements}}
    dims = sorted(range(len(src.shape)), key=lambda dim: dim not in changed)
    for end in (src, dst):
        held = [index for _, index in end.placements]
        for prime, wanted in sorted(Counter(digit.size for digit in systems[0]).items()):
            indices += islice(_spares(src, dims, prime, held, indices), wanted)
    return sorted(set(indices))


def _spares(
    like: ArrayType, dims: list[int], prime: int, held: list[IndexDigit], taken: list[IndexDigit]
) -> Iterator[IndexDigit]:
    """Local index digits of a prime size, beside all that an end owns, each after a bound."""
    for dim in dims:
        n = like.shape[dim]
        bounds = sorted({1, *(b for i in taken if i.dim == dim for b in (i.pre, i.end))})
        for bound in bounds:
            index = IndexDigit(dim, bound, prime)
            while n and n % index.end == 0 and all(compatible(index, other) for other in held):
                if index not in taken:
                    yield index
                index = IndexDigit(dim, index.end, prime)
