"""The laws of the oracle, over every pair of whole-axis layouts and over random types."""

import doctest
import random
import threading
import tracemalloc
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

import redistrib as rd
from redistrib.synth.plan.links import Level
from redistrib.synth.planner.detours.batches import BY_SIGNATURE, all_pairs
from redistrib.synth.planner.detours.exchanges import Exchanges, exchange_prices
from redistrib.synth.planner.detours.numbered import NumberedTypes
from redistrib.synth.planner.detours.signatures import CHUNK, find_signatures
from redistrib.synth.planner.detours.stops import Bounds, Layouts, layout_of, stops
from redistrib.synth.planner.detours.symmetry import orbits
from tests.generators import random_layout, random_pair, whole_axis_layouts
from tests.oracle.laws import (
    EPS,
    ONE_CALL,
    SLOWER,
    THREE,
    UNEQUAL,
    UNIFORM,
    family,
    verify_matrix,
    worst_detour,
)
from tests.repetitions import repetitions
from tests.verify import verify_runs


def pairs(types: list[rd.ArrayType]) -> tuple[list[rd.ArrayType], list[rd.ArrayType]]:
    return [t for t in types for _ in types], types * len(types)


def singles(
    types: list[rd.ArrayType], profile: rd.Profile | None = None, strategy: str = "auto"
) -> np.ndarray:
    """What the planner alone answers for every pair."""
    oracle = rd.Oracle(types[0].mesh, profile, effort="fast")
    return oracle.cost_vector(*pairs(types), strategy=strategy).reshape(len(types), -1)


@pytest.mark.parametrize("profile", [UNIFORM, UNEQUAL], ids=lambda p: p.name)
@pytest.mark.parametrize(("axes", "side"), [((2, 2, 2), 64), ((2, 4, 2), 256)])
@pytest.mark.parametrize("limit", [None, "whole array", "half"])
def test_a_matrix_is_finite_zero_at_home_and_without_cheaper_detours(
    axes: tuple[int, ...], side: int, profile: rd.Profile, limit: str | None
) -> None:
    types = family(axes, side)
    size = types[0].size * types[0].itemsize
    bytes_ = {None: None, "whole array": size, "half": size // 2}[limit]
    matrix = rd.Oracle(types[0].mesh, profile, bytes_).matrix(types, types)
    fits = np.array([bytes_ is None or t.tile_bytes <= bytes_ for t in types])
    assert (np.isfinite(matrix.seconds) == np.logical_and.outer(fits, fits)).all()
    assert (matrix.seconds.diagonal()[fits] == 0).all()
    assert worst_detour(matrix.seconds, types, bytes_) == (1.0, 0)


def test_half_a_million_pairs_keep_the_same_laws() -> None:
    types = family((2, 2, 2, 2), 4096)
    oracle = rd.Oracle(types[0].mesh)
    seconds = oracle.cost_matrix(types, types)
    assert seconds.size == 469_225
    assert np.isfinite(seconds).all()
    assert (seconds.diagonal() == 0).all()
    assert worst_detour(seconds, types, None) == (1.0, 0)
    assert oracle.stats.batched_prices < 1000


@pytest.mark.parametrize(("axes", "side"), [((2, 2, 2), 64), ((2, 4, 2), 256)])
def test_direct_as_one_call_has_no_cheaper_detour_at_all(axes: tuple[int, ...], side: int) -> None:
    types = family(axes, side)
    seconds = singles(types, ONE_CALL, "direct")
    assert worst_detour(seconds, types, types[0].size * types[0].itemsize) == (1.0, 0)


@pytest.mark.parametrize("strategy", ["auto", "direct"])
@pytest.mark.parametrize("profile", [UNIFORM, UNEQUAL, THREE, ONE_CALL], ids=lambda p: p.name)
def test_all_laws_of_a_matrix(profile: rd.Profile, strategy: str) -> None:
    assert verify_matrix((2, 4, 2), 64, profile, strategy)["pairs"] == 11_236


def test_what_direct_receives_has_no_cheaper_detour_under_any_profile() -> None:
    """Only the latencies of its rounds, and links of different speed, make detours pay."""
    types = family((2, 4, 2), 64)
    free = rd.Profile("no latency", rd.Link(0.0, 1e11))
    seconds = singles(types, free, "direct")
    assert worst_detour(seconds, types, types[0].size * types[0].itemsize) == (1.0, 0)
    rounds = singles(types, UNIFORM, "direct")
    assert worst_detour(rounds, types, None)[1] > 0


def test_the_test_for_detours_can_fail() -> None:
    types = family((2, 2, 2), 64)
    seconds = rd.Oracle(types[0].mesh).cost_matrix(types, types)
    seconds[-1, :-1] *= 1.01
    assert worst_detour(seconds, types, None)[1] > 0


@pytest.mark.parametrize(("axes", "side"), [((2, 2, 2), 256), ((2, 4, 2), 256), ((2, 4, 8), 1024)])
def test_where_bytes_dominate_the_planner_alone_is_within_a_twentieth_of_the_closed_matrix(
    axes: tuple[int, ...], side: int
) -> None:
    types = family(axes, side)
    closed = rd.Oracle(types[0].mesh).cost_matrix(types, types)
    alone = singles(types)
    assert (alone >= closed * (1 - EPS)).all()
    assert (alone <= closed * 1.05).all()


@pytest.mark.parametrize(
    ("axes", "side", "profile"),
    [
        ((2, 2, 2), 64, UNIFORM),
        ((2, 2, 2), 4096, THREE),
        ((2, 4, 2), 64, UNEQUAL),
        ((2, 4, 2), 4096, SLOWER),
        ((2, 4, 2), 16, UNIFORM),
        ((2, 4, 8), 64, UNIFORM),
    ],
)
def test_a_single_cost_is_within_a_twentieth_of_the_closed_matrix(
    axes: tuple[int, ...], side: int, profile: rd.Profile
) -> None:
    """With a stop, under every profile, and where latencies dominate."""
    types = family(axes, side)
    oracle = rd.Oracle(types[0].mesh, profile)
    closed = oracle.cost_matrix(types, types)
    alone = singles(types, profile)
    far = np.argwhere(alone > closed * 1.05).tolist()
    rng = random.Random(0)
    some = rng.sample(far, min(12, len(far)))
    some += [rng.choices(range(len(types)), k=2) for _ in range(12)]
    for row, column in some:
        found = oracle.cost(types[row], types[column])
        assert closed[row, column] * (1 - EPS) <= found.seconds <= closed[row, column] * 1.05
        assert found.seconds <= alone[row, column]
        plan = oracle.plan(types[row], types[column])
        assert (plan.seconds, plan.received_bytes) == (found.seconds, found.received_bytes)
        assert plan.peak_tile_bytes <= max(plan.src.tile_bytes, plan.dst.tile_bytes)
        rd.check(plan)
    srcs, dsts = ([types[pair[end]] for pair in some] for end in range(2))
    each = [oracle.cost(src, dst).seconds for src, dst in zip(srcs, dsts, strict=True)]
    assert oracle.cost_vector(srcs, dsts).tolist() == each


@pytest.mark.parametrize("limit", [None, 2 * 48**3])
@pytest.mark.parametrize("profile", [UNIFORM, THREE], ids=lambda p: p.name)
def test_a_single_cost_of_a_misaligned_pair_is_no_more_than_the_matrix(
    profile: rd.Profile, limit: int | None
) -> None:
    types = [t for t in family((2, 3, 2), 48) if limit is None or t.tile_bytes <= limit]
    oracle = rd.Oracle(types[0].mesh, profile, limit)
    matrix = oracle.matrix(types, types)
    misaligned = np.argwhere(matrix._exchanged[np.ix_(matrix._rows, matrix._columns)]).tolist()
    some = random.Random(2).sample(misaligned, 8)
    for row, column in some:
        src, dst = types[row], types[column]
        found, alone = oracle.cost(src, dst), rd.cost(src, dst, memory_limit=limit, profile=profile)
        assert found.seconds <= matrix.seconds[row, column] * 1.05
        assert found.seconds <= alone.seconds
        plan = oracle.plan(src, dst)
        assert (plan.seconds, plan.received_bytes) == (found.seconds, found.received_bytes)
        assert plan.peak_tile_bytes <= (limit or max(src.tile_bytes, dst.tile_bytes))
        rd.check(plan)
    verify_runs(plan)
    srcs, dsts = ([types[pair[end]] for pair in some] for end in range(2))
    each = [oracle.cost(src, dst).seconds for src, dst in zip(srcs, dsts, strict=True)]
    assert oracle.cost_vector(srcs, dsts).tolist() == each


@pytest.mark.parametrize("profile", [UNIFORM, UNEQUAL, THREE, SLOWER], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("axes", "side"), [((2, 2, 2), 64), ((2, 4, 8), 4096), ((2, 3, 2), 24), ((4, 1, 3), 144)]
)
def test_bounds_are_below_every_way(axes: tuple[int, ...], side: int, profile: rd.Profile) -> None:
    types = family(axes, side)
    types = random.Random(0).sample(types, min(len(types), 10 if 3 in axes else 40))
    closed = rd.Oracle(types[0].mesh, profile).cost_matrix(types, types)
    bounds, layouts = (
        Bounds.of(types[0], profile.on(types[0].mesh)),
        Layouts([*map(layout_of, types)]),
    )
    each = np.arange(len(types))
    least = bounds.seconds(layouts, layouts, each[:, None], each)
    assert least[3, 5] == bounds.between(types[3], types[5])
    assert (least <= closed).all()
    assert ((least > 0) | (closed == 0)).mean() > 0.5
    assert (least[closed == 0] == 0).all()


def test_a_stop_keeps_the_memory_limit_and_the_plan_runs() -> None:
    mesh = rd.Mesh(a=2, b=4, c=2)
    src, dst = (
        rd.ArrayType.parse(text, mesh)
        for text in ("f32[64{c}, 64{b}, 64]", "f32[64{b}, 64{c,a}, 64]")
    )
    oracle = rd.Oracle(mesh, SLOWER)
    plan = oracle.plan(src, dst)
    assert plan.seconds * 1.15 < rd.cost(src, dst, profile=SLOWER).seconds
    assert str(oracle.explain(src, dst).plan) == str(plan)
    verify_runs(plan)
    limited = rd.Oracle(mesh, SLOWER, src.tile_bytes)
    assert limited.plan(src, dst).peak_tile_bytes <= src.tile_bytes
    assert rd.Oracle(mesh, SLOWER, effort="fast").plan(src, dst) == rd.plan(
        src, dst, profile=SLOWER
    )


def test_where_latencies_dominate_a_gather_and_slices_may_be_all() -> None:
    mesh = rd.Mesh(a=2, b=4, c=8)
    src, dst = (
        rd.ArrayType.parse(text, mesh) for text in ("f32[64{b}, 64, 64]", "f32[64{a}, 64{c}, 64]")
    )
    plan = rd.Oracle(mesh).plan(src, dst)
    assert [s.collective for s in plan.steps] == ["dynamic_slice", "all_gather", "dynamic_slice"]
    assert plan.seconds * 1.3 < rd.cost(src, dst).seconds
    verify_runs(plan)


def test_stops_are_the_layouts_of_whole_axes_unless_they_are_too_many() -> None:
    mesh = rd.Mesh(a=2, b=1, c=4)
    found = stops(mesh, (8, 12), tuple(mesh.sizes))
    expected = [layout_of(t) for t in whole_axis_layouts(rd.Mesh(a=2, c=4), (8, 12))]
    assert set(found) == set(expected)
    assert len(found) == len(expected)
    assert len(stops(rd.Mesh(a=2, b=2, c=2), (64, 64, 64), ("a", "b", "c"))) == 106
    four = rd.Mesh(a=2, b=2, c=2, d=2)
    assert stops(four, (64, 64, 64), ("a", "b", "c", "d")) == ()
    assert len(stops(four, (64, 64, 64), ("b", "c", "d"))) == 106
    many = rd.Mesh({f"x{n}": 2 for n in range(30)})
    assert stops(many, (2**40, 2**40), tuple(many.sizes)) == ()


def test_an_idle_axis_takes_no_stops_away() -> None:
    """Layouts of five axes are too many, of the four that the types use they are not."""
    texts = "f32[32{z}, 16, 24{y}]", "f32[32{v}, 16, 24{z:(1)2,x,z:(2)4}]"
    axes = {"x": 3, "y": 2, "z": 8, "v": 2}
    plain, idle = (
        rd.plan(*(rd.ArrayType.parse(t, mesh) for t in texts), profile="mpi-cluster", effort="best")
        for mesh in (rd.Mesh(axes), rd.Mesh({"idle": 4, **axes}))
    )
    verify_runs(idle)
    assert idle.seconds <= plain.seconds


@pytest.mark.parametrize("strategy", BY_SIGNATURE)
@pytest.mark.parametrize("profile", [UNIFORM, UNEQUAL, THREE], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("axes", "side", "limit"),
    [
        ((2, 2, 2), 8, None),
        ((2, 4, 2), 16, None),
        ((2, 2, 2, 2), 16, None),
        ((2, 4, 8), 64, 2**18),
    ],
)
def test_batched_prices_are_those_of_the_planner(
    axes: tuple[int, ...], side: int, limit: int | None, profile: rd.Profile, strategy: str
) -> None:
    types = family(axes, side)
    rng = random.Random(side)
    srcs, dsts = (rng.choices(types, k=250) for _ in range(2))
    oracle = rd.Oracle(types[0].mesh, profile, limit, effort="fast")
    found = oracle.cost_vector(srcs, dsts, strategy=strategy)
    for src, dst, seconds in zip(srcs, dsts, found, strict=True):
        assert seconds == priced_alone(src, dst, strategy, limit, profile)


@pytest.mark.parametrize("profile", [UNIFORM, UNEQUAL, THREE], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("axes", "shape", "missing"),
    [
        ((2, 2, 2), (8, 8, 8), 0),
        ((2, 2, 2), (64, 64, 8), 0),
        ((2, 4, 2), (16, 16, 16), 0),  # little room, so that the order of dimensions may matter
        ((2, 4, 2), (64, 128), 3),  # not closed under trades
        ((4, 4, 4), (256, 256, 256), 0),
    ],
)
def test_what_is_copied_from_symmetric_rows_is_what_each_pair_has(
    axes: tuple[int, ...], shape: tuple[int, ...], missing: int, profile: rd.Profile
) -> None:
    types = list(whole_axis_layouts(rd.Mesh(dict(zip("abc", axes, strict=True))), shape))
    types = types[missing:]
    found = rd.Oracle(types[0].mesh, profile)._price(types, None, "auto")
    each = rd.Oracle(types[0].mesh, profile)._price(types, all_pairs(len(types)), "auto")
    assert (found.seconds == each.seconds).all()
    assert (found.steps[found.answer] == each.steps[each.answer]).all()


def test_symmetry_saves_signatures() -> None:
    types = family((2, 2, 2), 64)
    codes = NumberedTypes(types, UNIFORM)
    assert len(codes.symmetries()) == 4  # two trades of dimensions and two of axes
    assert len(set(orbits(codes.symmetries(), len(types))[0].tolist())) == 7
    assert len(NumberedTypes(types, UNEQUAL).symmetries()) == 3
    assert len(NumberedTypes(types[:-1], UNIFORM).symmetries()) < 4


def test_a_matrix_holds_few_bytes_a_pair_and_says_how_far_it_is() -> None:
    types = random.Random(0).sample(family((2, 2, 2, 2), 64), 250)
    oracle, told = rd.Oracle(types[0].mesh), []
    clock = iter(range(1 << 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redistrib.synth.planner.detours.signatures.CHUNK", 1 << 11)
        patch.setattr("redistrib.synth.oracle.oracle.monotonic", lambda: next(clock))
        tracemalloc.start()
        try:
            matrix = oracle.matrix(types, types, progress=lambda *what: told.append(what))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most <= 32 * matrix.seconds.size + (3 << 20)
    assert {what for what, _ in told} == {"signatures", "prices", "closing"}
    assert all(0 <= part < 1 for _, part in told)
    silent: list[object] = []
    oracle.matrix(types[:2], types[:2], progress=lambda *what: silent.append(what))
    assert not silent


def test_so_many_pairs_that_they_come_in_chunks() -> None:
    types = family((2, 4, 2), 32)
    rng = random.Random(0)
    srcs, dsts = (rng.choices(types, k=2 * CHUNK + 100) for _ in range(2))
    found = rd.Oracle(types[0].mesh, effort="fast").cost_vector(srcs, dsts)
    for at in rng.sample(range(len(srcs)), 200):
        assert found[at] == priced_alone(srcs[at], dsts[at], "auto", None, UNIFORM)


@pytest.mark.parametrize(("axes", "rank"), [(9, 3), (13, 5)])
def test_many_digits_and_more_cuts_than_a_mask_holds(axes: int, rank: int) -> None:
    names = "abcdefghijklm"[:axes]
    mesh = rd.Mesh(dict.fromkeys(names, 2))
    rng = random.Random(axes)
    types = []
    for _ in range(3):
        dims: list[list[str]] = [[] for _ in range(rank)]
        for name in rng.sample(names, axes - 1):
            dims[rng.randrange(rank)].append(name)
        types.append(rd.ArrayType(mesh, "f32", (2 ** (axes + 1),) * rank, dims))
    if axes == 13:  # types of one dimension each, so that every bound is a cut
        types += [
            rd.ArrayType(
                mesh, "f32", (2**14,) * 5, [[*names] if d == dim else () for d in range(5)]
            )
            for dim in range(5)
        ]
        with pytest.raises(OverflowError, match="at most 62 cuts; got"):
            find_signatures(types, np.array([0]), np.array([1]), UNIFORM)
        types = types[-3:]
    found = singles(types)
    for (src, dst), seconds in zip(product(types, types), found.ravel(), strict=True):
        assert seconds == priced_alone(src, dst, "auto", None, UNIFORM)


def priced_alone(
    src: rd.ArrayType, dst: rd.ArrayType, strategy: str, limit: int | None, profile: rd.Profile
) -> float:
    try:
        return rd.cost(src, dst, strategy=strategy, memory_limit=limit, profile=profile).seconds
    except rd.InfeasibleError:
        return np.inf


@pytest.mark.parametrize("seed", range(repetitions(6, 25)))
def test_batches_of_random_types_are_priced_like_each_pair_alone(seed: int) -> None:
    """Sub-axes, local factors, partial sums of several kinds, digits that do not match."""
    rng = random.Random(seed)
    mesh = rd.Mesh(rng.choice(({"x": 4, "y": 2}, {"x": 2, "y": 2, "z": 2}, {"x": 8, "y": 3})))
    shape = rng.choice(((48,), (16, 12), (8, 16, 2), (0, 4)))
    types: list[rd.ArrayType] = []
    while len(types) < repetitions(5, 12):
        dims, partial, _ = random_layout(rng.choice, mesh, len(shape), True)
        try:
            types.append(
                rd.ArrayType(mesh, "f32", shape, dims, partial, rng.choice(("sum", "max")))
            )
        except rd.LayoutError:
            continue
    slow = rd.Profile("x", rd.Link(1e-6, 1e11), (("x", rd.Link(1e-6, 1e9)),))
    for profile, strategy in product((UNIFORM, slow), ("auto", "direct")):
        found = singles(types, profile, strategy)
        for (src, dst), seconds in zip(product(types, types), found.ravel(), strict=True):
            assert seconds == priced_alone(src, dst, strategy, None, profile), (src, dst)


@pytest.mark.parametrize("limit", [None, 48**3, 48**3 // 2])
def test_a_matrix_of_many_misaligned_pairs_has_exchanges_and_ways_around_them(
    limit: int | None,
) -> None:
    """As on 2x3x2, where searching 4,284 pairs would take a minute; few are still searched."""
    types = family((2, 3, 2), 48)
    oracle = rd.Oracle(types[0].mesh, UNIFORM, limit)
    matrix = oracle.matrix(types, types)
    fits = np.array([limit is None or t.tile_bytes <= limit for t in types])
    assert (np.isfinite(matrix.seconds) == np.logical_and.outer(fits, fits)).all()
    assert worst_detour(matrix.seconds, types, limit) == (1.0, 0)
    assert oracle.stats.batched_prices < 1000
    misaligned = np.argwhere(matrix._exchanged[np.ix_(matrix._rows, matrix._columns)]).tolist()
    for row, column in random.Random(0).sample(misaligned, 80):
        plan = matrix.plan(row, column)
        assert plan.strategy == "auto"
        assert plan.seconds == matrix.seconds[row, column]
    for row, column in random.Random(1).sample(misaligned, 8):
        plan = matrix.plan(row, column)
        verify_runs(plan)
        some = [plan.src, plan.dst, *random.Random(row).sample(types, 4)]
        few = rd.Oracle(types[0].mesh, UNIFORM, limit).matrix(some, some)
        assert not few._exchanged.any()
        assert few.seconds[0, 1] <= rd.cost(plan.src, plan.dst, memory_limit=limit).seconds


@pytest.mark.parametrize(
    "texts",
    [
        # By way of two stops, neither of them asked of: a third of the price of one exchange.
        ("i8[72{x:(1)2,y}, 8{x:(2)2}]", "i8[72{_3,y}, 8]"),
        ("i8[72{x:(1)2,y}, 8]", "i8[72, 8{x}] sum{y:(1)3}", "i8[72{y}, 8] sum{x}"),
    ],
)
def test_a_matrix_of_few_pairs_has_single_prices_or_less(texts: tuple[str, ...]) -> None:
    mesh = rd.Mesh(x=4, y=12)
    types = [rd.ArrayType.parse(text, mesh) for text in texts]
    oracle = rd.Oracle(mesh, "a100-cloud")
    for (m, src), (n, dst) in product(enumerate(types), repeat=2):
        single = oracle.cost(src, dst).seconds
        assert oracle.cost_matrix([src], [dst]) == single
        assert oracle.cost_matrix([src], [dst], closed=False) == single
        matrix = oracle.matrix(types, types)
        assert matrix.seconds[m, n] <= single
        plan = matrix.plan(m, n)
        assert plan.seconds == matrix.seconds[m, n]
        verify_runs(plan)


@pytest.mark.parametrize(
    ("axes", "texts"),
    [
        ({"a": 2, "b": 3}, ("f32[{n}{{a,b}}]", "f32[{n}{{_4194304,b}}]")),
        ({"a": 2**22, "b": 3}, ("f32[{n}{{a:(1)2,b}}]", "f32[{n}{{b,a:(1)2}}]")),
    ],
)
def test_exchanges_that_would_take_large_tables_have_no_price(
    axes: dict[str, int], texts: tuple[str, str]
) -> None:
    mesh = rd.Mesh(axes)
    types = [rd.ArrayType.parse(text.format(n=3 * 2**24), mesh) for text in texts]
    with pytest.raises(OverflowError, match=r"at most (4194304 entries|1048576 of a dimension)"):
        Exchanges(types)
    price, seconds = exchange_prices(types, np.array([0, 1]), np.array([1, 0]), UNIFORM)
    assert (price == -1).all()
    assert not len(seconds)


def test_the_plan_of_a_misaligned_entry_is_the_exchange_that_was_priced() -> None:
    """Where a search would find something cheaper, too: in 9 of these 150."""
    types = family((2, 3, 2), 12)
    matrix = rd.Oracle(types[0].mesh, SLOWER).matrix(types, types)
    alone = np.argwhere(matrix._exchanged & (matrix._via < 0)).tolist()
    for row, column in random.Random(5).sample(alone, 150):
        assert matrix.plan(row, column).seconds == matrix.seconds[row, column]


@pytest.mark.parametrize("seed", range(repetitions(10, 30)))
def test_a_cost_is_that_of_the_plan(seed: int) -> None:
    src, dst = random_pair(random.Random(seed).choice)
    for profile in (None, UNEQUAL, "mpi-cluster", "dgx-h100"):
        plan = rd.plan(src, dst, profile=profile)
        assert rd.cost(src, dst, profile=profile) == rd.Cost(
            plan.seconds,
            plan.received_bytes,
            plan.peak_tile_bytes,
            plan.num_collectives,
            plan.live_bytes,
            plan.latencies,
        )


@pytest.mark.parametrize("seed", range(repetitions(5, 1000)))
def test_the_terms_of_a_plan_are_its_price_under_any_profile(seed: int) -> None:
    rng = random.Random(seed)
    src, dst = random_pair(rng.choice)
    half = rd.Profile("half as fast", rd.Link(2e-6, 5e10))
    for name in ("default", "mpi-cluster", "dgx-h100", "a100-cloud"):
        plan = rd.plan(src, dst, profile=name)
        assert plan.seconds_under(name) == plan.seconds
        on_another = rd.Plan.from_json(plan.to_json())
        assert plan.seconds_under(half) == 2 * on_another.seconds_under("default")


@pytest.mark.parametrize("profile", [None, UNEQUAL], ids=["uniform", "unequal"])
@pytest.mark.parametrize("limit", [None, 2**18])
def test_the_plan_of_an_entry_is_what_was_priced_and_it_runs(
    profile: rd.Profile | None, limit: int | None
) -> None:
    types = family((2, 4, 2), 64)
    matrix = rd.Oracle(types[0].mesh, profile, limit).matrix(types, types)
    hopping = np.argwhere(matrix._via >= 0).tolist()
    assert hopping
    rng = random.Random(1)
    both = rng.sample(hopping, 40) + [rng.choices(range(len(types)), k=2) for _ in range(40)]
    for at, (row, column) in enumerate(both):
        if not np.isfinite(matrix.seconds[row, column]):
            continue
        plan = matrix.plan(row, column)
        assert (plan.src, plan.dst) == (types[row], types[column])
        assert plan.seconds == matrix.seconds[row, column]
        ends = max(plan.src.tile_bytes, plan.dst.tile_bytes)
        assert plan.peak_tile_bytes <= (limit or ends)
        rd.check(plan)
        if at % 8 == 0:
            verify_runs(plan)


def test_prices_grow_with_bytes() -> None:
    for profile in (UNIFORM, UNEQUAL):
        found = [
            rd.Oracle(types[0].mesh, profile).cost_matrix(types, types)
            for types in (
                family((2, 4, 2), 64, "bf16"),
                family((2, 4, 2), 64),
                family((2, 4, 2), 128),
                family((2, 4, 2), 256),
            )
        ]
        for small, large in pairwise(found):
            assert (small <= large).all()


@pytest.mark.parametrize(("axes", "side"), [((2, 4, 2), 64), ((2, 3, 2), 48)])
def test_names_and_the_order_of_axes_do_not_matter(axes: tuple[int, ...], side: int) -> None:
    types = family(axes, side)
    expected = rd.Oracle(types[0].mesh, UNEQUAL).cost_matrix(types, types)
    for names in (("p", "q", "a"), ("a", "b", "c")):
        new = dict(zip("cba", names, strict=True))  # a, which is slow, is called otherwise
        sizes = types[0].mesh.sizes
        mesh = rd.Mesh([(new[old], sizes[old]) for old in "cba"])
        slow = rd.Profile("slow", UNEQUAL.link, axes=((new["a"], UNEQUAL.axes[0][1]),))
        renamed = [
            rd.ArrayType(mesh, "f32", t.shape, [[new[d.axis] for d in dim] for dim in t.dims])
            for t in types
        ]
        assert (rd.Oracle(mesh, slow).cost_matrix(renamed, renamed) == expected).all()


@pytest.mark.parametrize("seed", range(repetitions(10, 40)))
def test_names_do_not_matter_to_any_pair(seed: int) -> None:
    src, dst = random_pair(random.Random(seed).choice)
    names = [name for name, _ in src.mesh.axes]
    new = dict(zip(names, reversed(names), strict=True))
    mesh = rd.Mesh([(new[name], size) for name, size in src.mesh.axes])

    def renamed(t: rd.ArrayType) -> rd.ArrayType:
        def digit(d: object) -> str:
            text = str(d)
            return text if text.startswith("_") else new[text[0]] + text[1:]

        dims = [[digit(f) for f in dim] for dim in t.dims]
        return rd.ArrayType(mesh, t.dtype, t.shape, dims, map(digit, t.partial), t.reduction)

    assert rd.cost(renamed(src), renamed(dst)) == rd.cost(src, dst)


def test_equal_types_are_asked_once() -> None:
    mesh = rd.Mesh(x=2, y=4)
    oracle = rd.Oracle(mesh)
    for _ in range(64):  # the layers of a model
        src, dst = (rd.ArrayType.parse(t, mesh) for t in ("f32[8{x}, 8]", "f32[8, 8{x,_1}]"))
        oracle.cost(src, dst)
    assert (oracle.stats.misses, oracle.stats.hits) == (1, 63)


def test_the_memo_is_bounded() -> None:
    types = family((2, 2, 2), 64)
    oracle = rd.Oracle(types[0].mesh, capacity=10)
    for t in types[:30]:
        oracle.cost(types[0], t)
    assert oracle.stats.remembered == 10


def test_threads_get_the_same_answers() -> None:
    types = family((2, 2, 2), 64)[:24]
    oracle = rd.Oracle(types[0].mesh, capacity=50)  # so that entries come and go
    expected = [[rd.Oracle(a.mesh).cost(a, b) for b in types] for a in types]
    found: list[object] = []

    def ask() -> None:
        found.append([[oracle.cost(a, b) for b in types] for a in types])
        found.append(oracle.cost_matrix(types, types).tobytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(answer == expected for answer in found if isinstance(answer, list))
    assert len({answer for answer in found if isinstance(answer, bytes)}) == 1


def test_bad_questions_say_what_is_wrong() -> None:
    mesh = rd.Mesh(x=2)
    oracle = rd.Oracle(mesh, memory_limit=16)
    here, whole, other = (
        rd.ArrayType.parse(text, m)
        for text, m in (("f32[8{x}]", mesh), ("f32[8]", mesh), ("f32[8{x}]", rd.Mesh(x=4)))
    )
    for ask in (oracle.cost, oracle.plan, oracle.explain):
        with pytest.raises(rd.LayoutError, match="types on its mesh, x=2"):
            ask(other, other)
        with pytest.raises(rd.InfeasibleError, match="at least 32 bytes") as error:
            ask(here, whole)
        assert error.value.least_bytes == 32
    with pytest.raises(rd.LayoutError, match="one shape"):
        oracle.cost_matrix([here], [rd.ArrayType.parse("f32[16]", mesh)])
    with pytest.raises(rd.LayoutError, match="as many sources as targets; got 1 and 2"):
        oracle.cost_vector([here], [here, here])
    with pytest.raises(rd.RedistribError, match="known: auto"):
        oracle.cost_matrix([here], [here], strategy="magic")
    assert oracle.cost_matrix([here], [whole]).tolist() == [[np.inf]]
    assert oracle.cost_matrix([], [here]).shape == (0, 1)
    assert rd.cost_matrix([], []).shape == (0, 0)
    with pytest.raises(rd.InfeasibleError):
        oracle.matrix([here], [whole]).plan(0, 0)


def test_the_examples_of_the_documentation_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "oracle.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 8
    assert failed == 0


def test_a_gather_goes_over_the_slow_axis_first_and_an_all_to_all_over_each_alone() -> None:
    mesh = rd.Mesh(a=2, b=4)
    node = rd.Profile("node", rd.Link(1e-6, 1e9), levels=(Level(4, rd.Link(1e-6, 1e11)),))
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("f32[4096{a}, 4096{b}]", "f32[4096, 4096]"))
    plan = rd.plan(src, dst, profile=node)
    assert [(s.collective, [d.axis for d in s.axes]) for s in plan.steps] == [
        ("all_gather", ["a"]),
        ("all_gather", ["b"]),
    ]
    assert plan.traffic[0].received_bytes == src.tile_bytes
    uniform = rd.plan(src, dst)
    assert len(uniform.steps) == 1
    assert plan.received_bytes == uniform.received_bytes
    reduced = rd.plan(
        *(rd.ArrayType.parse(t, mesh) for t in ("f32[4096] sum{a,b}", "f32[4096{a,b}]")),
        profile=node,
    )
    assert [[d.axis for d in s.axes] for s in reduced.steps] == [["b"], ["a"]]


def test_a_matrix_has_no_plan_of_a_type_that_does_not_fit() -> None:
    mesh = rd.Mesh(x=4)
    types = [rd.ArrayType.parse(text, mesh) for text in ("f32[4]", "f32[4{x}]")]
    matrix = rd.Oracle(mesh, memory_limit=8).matrix(types, types)
    assert matrix.seconds.tolist() == [[np.inf, np.inf], [np.inf, 0.0]]
    assert matrix.plan(1, 1).steps == ()
    with pytest.raises(rd.InfeasibleError):
        matrix.plan(0, 0)


def test_a_matrix_of_few_types_has_single_prices_with_little_effort_too() -> None:
    mesh = rd.Mesh(x=5, y=5, z=2)
    texts = "i8[1, 120, 24{z}, 16] sum{x}", "i8[1, 120{y}, 24, 16] max{x,z}"
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    oracle = rd.Oracle(mesh, "tpu-v5p", effort="fast")
    assert oracle.cost_matrix([src], [dst]) == oracle.cost(src, dst).seconds
    several = [src, dst, *(rd.ArrayType.parse(t, mesh) for t in ("i8[1, 120, 24, 16]",))]
    closed, alone = (oracle.cost_matrix(several, several, closed=c) for c in (True, False))
    assert (closed <= alone).all()
