"""The simulator against the definition of a type: each device holds `array[np.ix_(*tile)]`."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.tables import RoutingTable, permute_table
from redistrib.types.digits import parse_device_digit as device
from redistrib.types.digits import parse_index_digit as index
from tests.problems import (
    array_of,
    expected_tiles,
    random_mesh,
    random_shape,
    random_type,
    random_walk,
)
from tests.repetitions import repetitions

UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
X4 = rd.Mesh(x=4)
XY = rd.Mesh(x=2, y=4)


def placed(*texts: str) -> tuple:
    """Placements written `x:(1)2 0:(1)2`."""
    split = [text.split() for text in texts]
    return tuple((device(d), index(i)) for d, i in split)


def moves(*texts: str) -> tuple:
    """Moves written `x:(1)2 0:(1)2 1:(1)2`."""
    split = [text.split() for text in texts]
    return tuple(c.Move(device(d), index(a), index(b)) for d, a, b in split)


def routes(*texts: str) -> tuple:
    """Routes written `x:(1)2 y:(1)2`."""
    split = [text.split() for text in texts]
    return tuple((device(a), device(b)) for a, b in split)


def reduced_tiles(tiles: Sequence[np.ndarray], t: rd.ArrayType) -> list[np.ndarray]:
    """Per device, the addends of all devices that differ from it in partial digits, reduced."""
    groups: dict[tuple, list[np.ndarray]] = {}
    keys = []
    for position, tile in enumerate(tiles):
        # The coordinates, with the partial digits taken out, name the group.
        key = dict(t.mesh.coordinates(position))
        for digit in t.partial:
            weight = t.mesh.axis_size(digit.axis) // digit.end
            key[digit.axis] -= t.digit_coordinate(digit, position) * weight
        keys.append(tuple(key.values()))
        groups.setdefault(keys[-1], []).append(tile)
    combine = UFUNCS[t.reduction or "sum"]
    return [functools.reduce(combine, groups[key]) for key in keys]


def check_tiles(tiles: Sequence[np.ndarray], array: np.ndarray, t: rd.ArrayType) -> None:
    assert len(tiles) == t.mesh.num_devices
    assert all(tile.dtype == t.numpy_dtype and tile.shape == t.tile_shape for tile in tiles)
    pairs = zip(reduced_tiles(tiles, t), expected_tiles(array, t), strict=True)
    for position, (got, want) in enumerate(pairs):
        np.testing.assert_array_equal(got, want, err_msg=f"device {position} of {t}")


def check_plan(plan: Plan, array: np.ndarray) -> None:
    """Run a plan, check every tile, and compare what was counted with what the plan says."""
    tiles = simulator.scatter(array, plan.src)
    check_tiles(tiles, array, plan.src)
    result = simulator.run(plan, tiles)
    check_tiles(result, array, plan.dst)
    np.testing.assert_array_equal(simulator.gather(result, plan.dst), array)
    check_figures(plan)


def check_figures(plan: Plan) -> None:
    measured = simulator.measure(plan)
    assert measured.received_bytes_per_step == tuple(t.received_bytes for t in plan.traffic)
    assert measured.sent_bytes_per_step == tuple(t.sent_bytes for t in plan.traffic)
    assert measured.live_bytes_per_step == plan.live_bytes_per_step
    assert measured.received_bytes == plan.received_bytes
    assert measured.sent_bytes == plan.sent_bytes
    assert measured.live_bytes == plan.live_bytes
    assert measured.peak_tile_bytes == plan.peak_tile_bytes


STEPS = {
    "slice": (XY, "i32[8, 8]", c.DynamicSlice(placed("y:(1)4 1:(1)4")), "i32[8, 8{y}]", 0),
    "slice below, two at once": (
        XY,
        "i32[8{x}, 16]",
        c.DynamicSlice(placed("y:(2)2 1:(2)2", "y:(1)2 1:(4)2")),
        "i32[8{x}, 16{_2,y:(2)2,y:(1)2}]",
        0,
    ),
    "gather in the middle of a dimension": (
        XY,
        "i32[16{y:(1)2,x,y:(2)2}, 3]",
        c.AllGather(placed("x:(1)2 0:(2)2")),
        "i32[16{y:(1)2,_2,y:(2)2}, 3]",
        24,
    ),
    "gather in another order": (
        XY,
        "i32[8{x}, 8{y}]",
        c.AllGather(placed("y:(1)4 1:(1)4", "x:(1)2 0:(1)2")),
        "i32[8, 8]",
        224,
    ),
    "gather the middle of an axis": (
        rd.Mesh(x=12, y=2),
        "i32[24{x}, 2{y}]",
        c.AllGather(placed("x:(2)2 0:(2)2")),
        "i32[24{x:(1)2,_2,x:(4)3}, 2{y}]",
        8,
    ),
    "all_to_all": (
        XY,
        "i32[8{y}, 8]",
        c.AllToAll(moves("y:(1)4 0:(1)4 1:(1)4")),
        "i32[8, 8{y}]",
        48,
    ),
    "all_to_all, two at once, within a dimension": (
        XY,
        "i32[32{x,_2,y:(1)2}, 8]",
        c.AllToAll(moves("x:(1)2 0:(1)2 0:(2)2", "y:(1)2 0:(4)2 1:(4)2")),
        "i32[32{_2,x}, 8{_4,y:(1)2}]",
        192,
    ),
    "permute swaps two axes": (
        rd.Mesh(x=2, y=2),
        "i32[4{x}, 4{y}]",
        c.CollectivePermute(routes("x:(1)2 y:(1)2", "y:(1)2 x:(1)2")),
        "i32[4{y}, 4{x}]",
        16,
    ),
    "permute turns three, one of them free": (
        rd.Mesh(x=2, y=2, z=2),
        "i32[4{x}, 4{y}]",
        c.CollectivePermute(routes("x:(1)2 y:(1)2", "y:(1)2 z:(1)2", "z:(1)2 x:(1)2")),
        "i32[4{y}, 4{z}]",
        16,
    ),
    "permute that moves nothing": (
        XY,
        "i32[4{x}]",
        c.CollectivePermute(routes("x:(1)2 x:(1)2")),
        "i32[4{x}]",
        0,
    ),
    "reduce_scatter": (
        XY,
        "i32[8{x}, 8] sum{y}",
        c.ReduceScatter(placed("y:(1)4 1:(2)4")),
        "i32[8{x}, 8{_2,y}]",
        96,
    ),
    "reduce_scatter of a part": (
        XY,
        "i32[8{x}, 8] sum{y}",
        c.ReduceScatter(placed("y:(2)2 0:(2)2")),
        "i32[8{x,y:(2)2}, 8] sum{y:(1)2}",
        64,
    ),
    "all_reduce": (XY, "i32[8{x}] sum{y}", c.AllReduce((device("y:(1)4"),)), "i32[8{x}]", 24),
    "all_reduce of five elements by four devices": (
        XY,
        "i32[5] sum{y}",
        c.AllReduce((device("y:(1)4"),)),
        "i32[5]",
        36,
    ),
    "replicated to partial": (
        XY,
        "i32[8{x}]",
        c.ReplicatedToPartial((device("y:(1)2"),), "sum"),
        "i32[8{x}] sum{y:(1)2}",
        0,
    ),
    "sharded to partial": (
        XY,
        "i32[8{_2,y}, 2{x}]",
        c.ShardedToPartial(placed("y:(1)4 0:(2)4"), "sum"),
        "i32[8, 2{x}] sum{y}",
        0,
    ),
    "exchange of axes": (
        XY,
        "i32[8{x}, 8{y}]",
        c.Exchange(placed("y:(1)4 0:(1)4")),
        "i32[8{y}, 8]",
        64,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_by_hand(name: str) -> None:
    mesh, src, step, dst, received = STEPS[name]
    before, after = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    plan = make_plan(before, after, "test", [step])
    check_plan(plan, array_of(random.Random(0), before))
    assert simulator.measure(plan).received_bytes == received


def test_table_permute() -> None:
    mesh = rd.Mesh(x=4, y=6)
    before, after = (rd.ArrayType.parse(t, mesh) for t in ("i32[24{x,y}, 2]", "i32[24{y,x}, 2]"))
    table = permute_table(before, after)
    plan = make_plan(before, after, "test", [c.CollectivePermute((), table)])
    check_plan(plan, array_of(random.Random(0), before))
    assert plan.received_bytes == 8


@pytest.mark.parametrize("dtype", ["bool", "i8", "u8", "i64", "f16", "f32", "bf16", "f8e4m3fn"])
@pytest.mark.parametrize("reduction", UFUNCS)
def test_reductions_and_identities(dtype: str, reduction: str) -> None:
    src = rd.ArrayType(XY, dtype, (4, 6), [("x",), ()])
    axes = (device("y:(1)4"),)
    steps = {
        c.AllReduce(axes): (src, c.ReplicatedToPartial(axes, reduction)),
        c.ReduceScatter(placed("y:(1)2 1:(1)2", "y:(2)2 0:(2)2")): (
            rd.ArrayType(XY, dtype, (4, 6), [("x", "y:(2)2"), ("y:(1)2",)]),
            c.ShardedToPartial(placed("y:(1)2 1:(1)2", "y:(2)2 0:(2)2"), reduction),
        ),
    }
    array = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(src.numpy_dtype)
    for reduce, (before, expand) in steps.items():
        check_plan(make_plan(before, before, "test", [expand, reduce]), array)
    # Addends that all matter: the result is that of numpy, and not that of one device.
    partial = src.replace(partial=axes, reduction=reduction)
    rng = np.random.default_rng(1)
    tiles = [rng.integers(0, 2, (2, 6)).astype(src.numpy_dtype) for _ in range(8)]
    result = simulator.run(make_plan(partial, src, "test", [c.AllReduce(axes)]), tiles)
    for position in range(8):
        group = tiles[position // 4 * 4 : position // 4 * 4 + 4]
        want = functools.reduce(UFUNCS[reduction], group)
        np.testing.assert_array_equal(result[position], want)


def test_tiles_are_the_tiles_of_the_type_for_random_pairs() -> None:
    for seed in range(repetitions(150, 400)):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        shape = random_shape(rng, mesh)
        src, dst = random_type(rng, mesh, shape), random_type(rng, mesh, shape)
        check_plan(rd.plan(src, dst), array_of(rng, src))


def test_random_walks_over_all_collectives() -> None:
    seen = set()
    for seed in range(repetitions(200, 600)):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        src = random_type(rng, mesh, random_shape(rng, mesh), "i64", None)
        plan = random_walk(rng, src, 4)
        seen |= {step.collective for step in plan.steps}
        check_plan(plan, array_of(rng, src))
    assert len(seen) == 9


def test_measure_counts_a_large_plan_without_its_data() -> None:
    src, dst = (
        rd.ArrayType.parse(text, XY)
        for text in ("bf16[1048576{x}, 1048576{y}]", "bf16[1048576{y}, 1048576{x}]")
    )
    check_figures(rd.plan(src, dst))


def test_measure_counts_what_the_steps_do_and_not_what_the_plan_says() -> None:
    src, dst = (rd.ArrayType.parse(text, XY) for text in ("i32[8{x}, 8{y}]", "i32[8, 8{x}]"))
    plan = rd.plan(src, dst)
    honest = simulator.measure(plan)
    lying = Plan(src, dst, "test", plan.steps, plan.types, (), 0.0, 0)
    assert simulator.measure(lying) == honest
    assert honest.received_bytes > 0


def test_degenerate_types() -> None:
    cases = [
        (rd.Mesh(), "i32[]", "i32[]"),
        (rd.Mesh(), "i32[3, 4]", "i32[3, 4]"),
        (XY, "i32[]", "i32[]"),
        (XY, "i32[0, 8{x}]", "i32[0, 8{y}]"),
        (XY, "i32[1, 8{x}]", "i32[1, 8]"),
        (rd.Mesh(x=1, y=2, z=1), "i32[2{z}, 2{y}]", "i32[2{y}, 2{x}]"),
        (
            rd.Mesh([(f"a{i}", 2) for i in range(12)]),
            f"i32[4096{{{','.join(f'a{i}' for i in range(12))}}}]",
            f"i32[4096{{{','.join(f'a{i}' for i in reversed(range(12)))}}}]",
        ),
    ]
    for mesh, *texts in cases:
        src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
        check_plan(rd.plan(src, dst), array_of(random.Random(0), src))


def test_a_wrong_step_gives_wrong_data() -> None:
    mesh = rd.Mesh(x=2, y=2)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("i32[4{x}, 4{y}]", "i32[4{y}, 4{x}]"))
    wrong = c.CollectivePermute(routes("x:(1)2 x:(1)2", "y:(1)2 y:(1)2"))
    plan = Plan(src, dst, "test", (wrong,), (src, dst), (), 0.0, 0)
    array = array_of(random.Random(0), src)
    result = simulator.run(plan, simulator.scatter(array, src))
    with pytest.raises(AssertionError):
        check_tiles(result, array, dst)


def test_an_exchange_that_asks_the_wrong_device() -> None:
    src, dst = (rd.ArrayType.parse(t, X4) for t in ("i32[4{x:(1)2}]", "i32[4]"))
    table = RoutingTable(
        (device("x:(1)4"),), (device("x:(1)2"),), tuple(((0, 0), (1, 1)) for _ in range(4))
    )
    plan = Plan(src, dst, "test", (c.Exchange((), (), (table,)),), (src, dst), (), 0.0, 0)
    with pytest.raises(
        rd.BackendError, match=r"asks a device for an element of .* not in its tile"
    ):
        simulator.run(plan, simulator.scatter(np.arange(4, dtype=np.int32), src))


def test_results_do_not_share_memory() -> None:
    array = np.arange(4, dtype=np.int32)
    src, dst = (rd.ArrayType.parse(t, X4) for t in ("i32[4{x}]", "i32[4]"))
    for plan in (rd.plan(src, dst), rd.plan(dst, src), rd.plan(src, src), rd.plan(dst, dst)):
        tiles = simulator.scatter(array, plan.src)
        result = simulator.run(plan, tiles)
        result[0][...] = -1
        check_tiles(tiles, array, plan.src)
        for got, want in zip(result[1:], expected_tiles(array, plan.dst)[1:], strict=True):
            np.testing.assert_array_equal(got, want)


F = rd.ArrayType.parse("f32[8{x}, 4]", XY)


def zeros(count: int, shape: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    return [np.zeros(shape, dtype) for _ in range(count)]


BAD_TILES = {
    "too few": (zeros(7, (4, 4)), "one tile for each of the 8 devices of its mesh; got 7"),
    "shape": (
        [*zeros(3, (4, 4)), *zeros(5, (4, 2))],
        r"shape \[4, 4\] and dtype float32; device 3 was given shape \[4, 2\] and dtype float32",
    ),
    "dtype": (
        [*zeros(7, (4, 4)), *zeros(1, (4, 4), "float64")],
        "device 7 was given shape .* and dtype float64",
    ),
}


@pytest.mark.parametrize("name", BAD_TILES)
def test_wrong_tiles_are_refused(name: str) -> None:
    tiles, message = BAD_TILES[name]
    with pytest.raises(rd.BackendError, match=message):
        simulator.run(rd.plan(F, F), tiles)
    with pytest.raises(rd.BackendError, match=message):
        simulator.gather(tiles, F)


def test_a_wrong_array_is_refused() -> None:
    message = r"has shape \[8, 4\] and dtype float32; got shape \[4, 8\] and dtype float64"
    with pytest.raises(rd.BackendError, match=message) as caught:
        simulator.scatter(np.zeros((4, 8)), F)
    assert caught.value.shape == (4, 8)


def test_replicas_that_disagree_are_refused() -> None:
    tiles = simulator.scatter(np.full((8, 4), np.nan, np.float32), F)
    assert np.isnan(simulator.gather(tiles, F)).all()
    tiles[2][0, 1] = 3
    with pytest.raises(rd.BackendError, match=r"replicas of f32\[8\{x\}, 4\] .* device 2 do not"):
        simulator.gather(tiles, F)


@pytest.mark.parametrize(
    "dtype", ["f8e5m2", "f8e4m3fn", "bf16", "f16", "f64", "c64", "bool", "u64"]
)
@pytest.mark.parametrize("strategy", ["collectives", "direct"])
def test_every_dtype_arrives_bit_for_bit_through_partial_sums_too(
    dtype: str, strategy: str
) -> None:
    mesh = rd.Mesh(x=2, y=4)
    for texts in (
        ("[8{x}, 8{y}]", "[8{y}, 8{x}]"),
        ("[8{x}, 8] sum{y}", "[8, 8{y}]"),
        ("[8{x}, 8]", "[8, 8{x}] sum{y}"),
        ("[6] sum{x}", "[6]"),
    ):
        src, dst = (rd.ArrayType.parse(dtype + text, mesh) for text in texts)
        array = np.zeros(src.shape, src.numpy_dtype)
        if array.dtype.kind not in "bu":
            array = -array  # -0.0 is lost where it is added to +0.0
        plan = rd.plan(src, dst, strategy=strategy)
        found = simulator.gather(simulator.run(plan, simulator.scatter(array, src)), dst)
        assert found.tobytes() == array.tobytes()
