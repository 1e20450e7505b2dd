"""The exact search finds what a search without any of its devices finds, and says where it ends."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations, permutations, product
from math import inf

import pytest

import redistrib as rd
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.synth.plan.tables import permute_table
from redistrib.synth.planner import exact
from redistrib.synth.planner.exact import ExactSearch, exact_size
from redistrib.types.digits import DeviceDigit, IndexDigit, divisors
from tests.exhaustive.stages import PARTIAL_MESHES, verify_partial
from tests.generators import partial_layouts, random_pair
from tests.repetitions import repetitions
from tests.verify import verify_runs

NO_LATENCY = Profile("no latency", Link(latency=0.0, bandwidth=1e11))


def pair(sizes: dict[str, int], src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    mesh = rd.Mesh(sizes)
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


def places(t: rd.ArrayType, size: int) -> list[IndexDigit]:
    return [
        IndexDigit(dim, pre, size)
        for dim, n in enumerate(t.shape)
        if n % size == 0
        for pre in divisors(n // size)
    ]


def all_types(like: rd.ArrayType) -> Iterator[rd.ArrayType]:
    """Every type of this array on this mesh, whose axes have prime size."""
    digits = [DeviceDigit(name, 1, size) for name, size in like.mesh.axes]
    for roles in product(*([None, "partial", *places(like, d.size)] for d in digits)):
        placed = zip(digits, roles, strict=True)
        owned = [(d, role) for d, role in placed if isinstance(role, IndexDigit)]
        partial = [d for d, role in zip(digits, roles, strict=True) if role == "partial"]
        with suppress(rd.LayoutError):
            yield rd.ArrayType.from_placements(like.mesh, like.dtype, like.shape, owned, partial)


def collectives(t: rd.ArrayType, others: list[rd.ArrayType]) -> Iterator[Collective]:
    """All that could be one step from a type with axes of prime size, legal or not."""
    digits = [DeviceDigit(name, 1, size) for name, size in t.mesh.axes]
    owned = dict(t.placements)
    for count in range(1, len(digits) + 1):
        for group in combinations(digits, count):
            yield AllReduce(group)
            yield ReplicatedToPartial(group, "sum")
            if all(d in owned for d in group):
                held = tuple((d, owned[d]) for d in group)
                yield AllGather(held)
                yield ShardedToPartial(held, "sum")
            for targets in product(*(places(t, d.size) for d in group)):
                placed = tuple(zip(group, targets, strict=True))
                yield DynamicSlice(placed)
                yield ReduceScatter(placed)
                if all(d in owned for d in group):
                    yield AllToAll(tuple(Move(d, owned[d], i) for d, i in placed))
            for news in permutations(group):
                if news != group:
                    yield CollectivePermute(tuple(zip(group, news, strict=True)))
    for other in others:
        with suppress(rd.LayoutError):
            yield CollectivePermute((), permute_table(t, other))


def naive(src: rd.ArrayType, limit: int, profile: Profile) -> dict[rd.ArrayType, float]:
    """Seconds to every type, by rules alone; every type but the first and last within the limit."""
    others = list(all_types(src))
    seconds = {src: 0.0}
    heap = [(0.0, 0, src)]
    pushed = 0
    while heap:
        reached, _, before = heapq.heappop(heap)
        if reached > seconds[before] or (before.tile_size > limit and before != src):
            continue
        for step in collectives(before, others):
            try:
                after = step.apply(before)
            except rd.LayoutError:
                continue
            cost = price_step(step, before.tile_size, src.itemsize, profile)[2]
            if reached + cost < seconds.get(after, inf):
                seconds[after] = reached + cost
                pushed += 1
                heapq.heappush(heap, (reached + cost, pushed, after))
    return seconds


@pytest.mark.parametrize("profile", [NO_LATENCY, DEFAULT_PROFILE], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("sizes", "shape"), [((2, 2), (4, 4)), ((2, 3), (6, 6)), ((2, 3), (12,)), ((2, 2, 2), (4,))]
)
def test_it_costs_what_a_search_by_the_rules_alone_finds(
    sizes: tuple[int, ...], shape: tuple[int, ...], profile: Profile
) -> None:
    mesh = rd.Mesh(dict(zip("xyz", sizes, strict=False)))
    found = list(partial_layouts(mesh, shape, "i64"))
    rng = random.Random(len(found))
    for src in rng.choices(found, k=4):
        limit = src.size // rng.choice((1, 2, 3))
        seconds = naive(src, limit, profile)
        for dst in rng.choices(found, k=12):
            search = ExactSearch(src, dst, limit, profile)
            steps = search.run()
            if steps is None:
                assert dst not in seconds, f"{src} -> {dst}"
                continue
            t, total = src, 0.0
            for step in steps:
                total += price_step(step, t.tile_size, src.itemsize, profile)[2]
                t = step.apply(t)
                assert t == dst or t.tile_size <= limit
            assert t == dst
            assert total == pytest.approx(seconds[dst], rel=1e-9), f"{src} -> {dst}"


@pytest.mark.parametrize(
    ("sizes", "src", "dst", "received"),
    [
        ({"x": 2, "y": 2, "z": 3}, "i64[12{y}, 4]", "i64[12{z}, 4{x,y}]", 32),
        ({"x": 2, "y": 3}, "i64[6, 6{y}] sum{x}", "i64[6, 6] sum{x}", 144),
        ({"x": 2, "y": 3}, "i64[6, 6{y}] sum{x}", "i64[6{y}, 6{x}]", 104),
        ({"x": 2, "y": 2}, "i64[7, 2{y}] sum{x}", "i64[7, 2{x}] sum{y}", 56),
        ({"x": 2, "y": 2}, "i64[4] max{x}", "i64[4] sum{x}", 16),
        ({"x": 2, "y": 2}, "i64[4] max{x}", "i64[4] sum{x,y}", 8),
        ({"x": 2, "y": 2}, "f32[8, 8]", "f32[8{x}, 8{y}]", 0),
        ({"x": 4}, "f32[8{x}]", "f32[8] sum{x:(2)2}", 8),
    ],
)
def test_sequences_through_partial_sums(
    sizes: dict[str, int], src: str, dst: str, received: int
) -> None:
    ends = pair(sizes, src, dst)
    plan = rd.plan(*ends, strategy="exact", profile=NO_LATENCY)
    assert plan.received_bytes == received
    verify_runs(plan)
    small = rd.plan(*ends, strategy="collectives", profile=NO_LATENCY)
    assert small.received_bytes == received


def test_floats_take_no_detour_through_a_sum() -> None:
    """A NaN need not keep its bits in a sum, nor need -0.0 keep its sign."""
    ends = pair({"x": 2, "y": 2, "z": 3}, "f64[12{y}, 4]", "f64[12{z}, 4{x,y}]")
    plan = rd.plan(*ends, strategy="exact", profile=NO_LATENCY)
    assert plan.received_bytes == 48
    assert not any(t.partial for t in plan.types)


def test_among_too_many_types_it_says_so_at_once() -> None:
    ends = pair({"x": 4, "y": 8, "z": 3}, "f32[96{x}, 96, 96{y}]", "f32[96{y}, 96{z}, 96{x}]")
    start = time.process_time()
    with pytest.raises(rd.RedistribError, match="among at most 100000 types; here") as error:
        rd.plan(*ends, strategy="exact")
    assert time.process_time() - start < 0.1
    assert error.value.types == exact_size(*ends) > error.value.most == 100_000


@pytest.mark.parametrize("strategy", ["exact", "collectives"])
def test_the_least_memory_is_enough_and_one_byte_less_is_not(strategy: str) -> None:
    infeasible = 0
    for mesh, shape in ((rd.Mesh(x=3, y=5), (6,)), (rd.Mesh(x=3, y=3), (6, 2))):
        found = list(all_types(rd.ArrayType(mesh, "i64", shape)))
        for src, dst in product(found, repeat=2):
            ends = max(src.tile_bytes, dst.tile_bytes)
            try:
                rd.plan(src, dst, strategy=strategy, memory_limit=ends)
            except rd.InfeasibleError as error:
                infeasible += bool(src.partial or dst.partial)
                least = error.least_bytes
                assert least > ends
                plan = rd.plan(src, dst, strategy=strategy, memory_limit=least)
                assert plan.peak_tile_bytes == least
                with pytest.raises(rd.InfeasibleError):
                    rd.plan(src, dst, strategy=strategy, memory_limit=least - 1)
    assert infeasible > 10


@pytest.mark.parametrize("mesh_at", range(len(PARTIAL_MESHES)))
def test_a_sample_of_the_exhaustive_partial_pairs(mesh_at: int) -> None:
    sizes, shape = PARTIAL_MESHES[mesh_at]
    found = list(partial_layouts(rd.Mesh(dict(zip("xyz", sizes, strict=False))), shape, "i64"))
    rng = random.Random(mesh_at)
    done = 0
    while done < repetitions(15, 300):
        src, dst = rng.choice(found), rng.choice(found)
        if src.partial or dst.partial:
            verify_partial(src, dst)
            done += 1


SLOW = pair({"x": 4, "y": 8}, "f32[12,48,4,1] min{x,y}", "f32[12,48{x},4,1]")
"""In normal form as many types as allowed, and six million collectives between them."""


def test_a_search_that_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked, it has a shortest path or says after so many collectives that it is long.

    Where it has a path, that is the path of a search without a bound.
    """
    rng = random.Random(0)
    asked = [random_pair(rng.choice) for _ in range(60)]
    small = [ends for ends in asked if exact_size(*ends) <= 3000][: repetitions(12, 40)]
    whole = [rd.plan(src, dst, strategy="exact") for src, dst in small]
    monkeypatch.setattr(exact, "MAX_COLLECTIVES", 100)
    long = 0
    for (src, dst), plan in zip(small, whole, strict=True):
        try:
            found = rd.plan(src, dst, strategy="exact")
        except rd.RedistribError as error:
            long += "100 collectives" in str(error)
        else:
            assert found == plan
    assert 0 < long < len(small)
    with pytest.raises(rd.RedistribError, match="100 collectives at most"):
        rd.plan(*SLOW, strategy="exact")


def test_the_least_limit_takes_no_longer_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    src, dst = pair({"x": 5}, "i64[15{x}]", "i64[15{_3,x}]")
    with pytest.raises(rd.InfeasibleError, match="with 120 there is one"):
        rd.plan(src, dst, strategy="exact")
    monkeypatch.setattr(exact, "MAX_COLLECTIVES", 3)
    with pytest.raises(rd.RedistribError, match="3 collectives at most"):
        rd.plan(src, dst, strategy="exact")
