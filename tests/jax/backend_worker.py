"""The cases of test_backend.py, run in one process with 12 virtual devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.backends import simulator
from redistrib.backends.jax import shardings
from redistrib.interop.hlo_traffic import hlo_traffic
from redistrib.synth.plan.collectives import AllGather, AllToAll, DynamicSlice, Exchange, Move
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.digits import DeviceDigit, IndexDigit
from redistrib.types.tile import same_bits, tile_of
from tests.corruptions import accepted_plans
from tests.random_plans import expected_tiles, random_plans, random_tiles
from tests.repetitions import repetitions
from tests.worker import Cases

case = Cases()


def types(mesh: rd.Mesh, src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


def direct(mesh: rd.Mesh, src: str, dst: str) -> rd.Plan:
    a, b = types(mesh, src, dst)
    return make_plan(a, b, "direct", [exchange_traffic(a, b).exchange])


def jax_mesh(mesh: rd.Mesh) -> jax.sharding.Mesh:
    names, sizes = tuple(dict(mesh.axes)), tuple(dict(mesh.axes).values())
    devices = jax.devices()[: mesh.num_devices]
    return jax.sharding.Mesh(np.array(devices).reshape(sizes), names)


def put(array: np.ndarray, mesh: jax.sharding.Mesh, *spec: object) -> jax.Array:
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))


@case
def random_plans_equal_the_simulator() -> None:
    seen: Counter[str] = Counter()
    for devices, few, many in ((8, 12, 24), (12, 10, 24), (6, 8, 16), (2, 3, 6)):
        for number, plan in enumerate(random_plans(devices, devices, repetitions(few, many))):
            expected = expected_tiles(plan, number)
            found = rjax.run(plan, random_tiles(plan, number))
            for position, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
                assert same_bits(ours, theirs), (str(plan.src), str(plan.dst), position)
            axes = shardings.named_axes(plan.src.mesh)
            for step in plan.steps:
                seen[step.collective] += 1
                seen["routing table"] += isinstance(step, Exchange) and bool(step.tables)
                seen["groups"] += any(shardings.covering(d, axes) is None for d in step.axes)
    assert len(seen) == 11, seen  # nine collectives and two special paths
    assert min(seen.values()) > 0, seen


@case
def programs_in_chunks_equal_the_simulator() -> None:
    seen: Counter[str] = Counter()
    for devices, few, many in ((8, 30, 48), (6, 20, 32)):
        for number, plan in enumerate(random_plans(devices, devices, repetitions(few, many))):
            if rjax.chunk_dim(plan, 2) is None:
                continue
            mesh = jax_mesh(plan.src.mesh)
            narrow = plan.src.dtype in ("bf16", "f8e4m3fn")  # lowered otherwise on CPU
            platform = "tpu" if number % 2 and not narrow else "cpu"
            program = rjax.chunked_program(plan, chunks=2, platform=platform)
            mapped = jax.shard_map(
                lambda stacked, program=program: program(stacked[0])[None],
                mesh=mesh,
                in_specs=P(mesh.axis_names),
                out_specs=P(mesh.axis_names),
                check_vma=False,
            )
            with rjax.dtypes_of(plan.src):
                found = np.asarray(jax.jit(mapped)(np.stack(random_tiles(plan, number))))
            for ours, theirs in zip(found, expected_tiles(plan, number), strict=True):
                # XLA's sums of narrow floats start at 0, which loses the sign of a zero.
                equal = plan.src.partial and np.array_equal(ours, theirs)
                assert same_bits(ours, theirs) or equal, (str(plan.src), str(plan.dst))
            seen.update(step.collective for step in plan.steps)
            seen[platform] += 1
            seen["narrow floats"] += narrow
    assert seen["narrow floats"] > 0, seen
    assert seen["tpu"] > 4, seen
    assert {"reduce_scatter", "all_to_all", "all_gather"} <= set(seen), seen


@case
def every_dtype_moves_bit_for_bit() -> None:
    names = "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 f32 f64 c64 c128 bf16 f8e4m3fn f8e5m2"
    for dtype in names.split():
        plan = direct(rd.Mesh(x=2, y=2), f"{dtype}[8{{x}}, 8{{y}}]", f"{dtype}[8{{y}}, 8]")
        # All bit patterns, NaNs with payloads and negative zeros included.
        size = 64 * plan.src.itemsize
        raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
        array = raw.view(plan.src.numpy_dtype).reshape(8, 8)
        found = rjax.run(plan, [tile_of(array, plan.src, position) for position in range(4)])
        for position, tile in enumerate(found):
            assert same_bits(tile, tile_of(array, plan.dst, position)), dtype


@case
def layouts_without_a_partition_spec_run() -> None:
    for mesh, src, dst in (
        (rd.Mesh(p=4), "f32[64{_4,p}, 3]", "f32[64{p}, 3]"),
        (rd.Mesh(p=4), "i32[64{_4,p}]", "i32[64{_2,p}]"),
        (rd.Mesh(x=6), "i32[12{x}]", "i32[12{_2,x}]"),
        (rd.Mesh(x=2, y=3), "f32[12{x}, 6{y}]", "f32[12{y}, 6{x}]"),
        (rd.Mesh(f=2, t=4), "bf16[16{f}, 24{_3,t}]", "bf16[16, 24{f,t}]"),
    ):
        plan = direct(mesh, src, dst)
        array = np.arange(plan.src.size).astype(plan.src.numpy_dtype).reshape(plan.src.shape)
        assert same_bits(rjax.run_array(plan, array), array), (src, dst)


@case
def plans_to_other_devices_run() -> None:
    here, there = rd.Mesh(x=4), rd.Mesh({"y": 2, "z": 3}, devices=[9, 3, 5, 4, 7, 2])
    for src, dst in (
        ("bf16[12{x}, 6]", "bf16[12{_3,y}, 6{z}]"),
        ("f32[4{x}, 6, 5]", "f32[4, 6{y}, 5]"),
        ("i64[24] sum{x}", "i64[24{z,y}]"),
        ("f32[0, 4{x}]", "f32[0, 4]"),
        ("c128[]", "c128[]"),
    ):
        plan = rd.plan((src, here), (dst, there))
        array = np.arange(plan.src.size).astype(plan.src.numpy_dtype).reshape(plan.src.shape)
        assert same_bits(rjax.run_array(plan, array), array), (src, dst)


@case
def zero_sizes_and_single_devices_run() -> None:
    for mesh, src, dst in (
        (rd.Mesh(x=2), "f32[0, 4{x}]", "f32[0, 4]"),
        (rd.Mesh(), "f32[3, 4]", "f32[3, 4]"),
        (rd.Mesh(x=1, y=2), "f32[4{x,y}]", "f32[4{x}]"),
        (rd.Mesh(x=2), "f32[]", "f32[]"),
    ):
        plan = direct(mesh, src, dst)
        array = np.arange(plan.src.size, dtype=np.float32).reshape(plan.src.shape)
        assert same_bits(rjax.run_array(plan, array), array), (src, dst)


@case
def compiled_programs_move_what_the_plan_says() -> None:
    mesh = rd.Mesh(x=2, y=4)
    x, y = DeviceDigit("x", 1, 2), DeviceDigit("y", 1, 4)
    minor = DeviceDigit("y", 2, 2)
    for dtype, src, steps in (
        ("f32", "[16{x}, 8{y}]", [AllToAll((Move(y, IndexDigit(1, 1, 4), IndexDigit(0, 2, 4)),))]),
        ("bf16", "[16{x}, 8{y}]", [AllGather(((y, IndexDigit(1, 1, 4)),))]),
        ("f32", "[16{y}, 8]", [DynamicSlice(((x, IndexDigit(1, 1, 2)),))]),
        ("f32", "[16{y}, 8]", [AllGather(((minor, IndexDigit(0, 2, 2)),))]),
        ("f32", "[16{y}, 8]", [AllToAll((Move(minor, IndexDigit(0, 2, 2), IndexDigit(1, 1, 2)),))]),
    ):
        t = rd.ArrayType.parse(dtype + src, mesh)
        plan = make_plan(t, steps[0].apply(t), "test", steps)
        try:
            target = shardings.partition_spec(plan.dst)
        except rd.LayoutError:
            target = None
        program = rjax.compile(plan, jax_mesh(mesh))
        array = np.arange(t.size).astype(t.numpy_dtype).reshape(t.shape)
        given = put(array, jax_mesh(mesh), *shardings.partition_spec(t))
        compiled = program.lower(given).compile()
        traffic = hlo_traffic(compiled.as_text())
        assert traffic.received_bytes == plan.received_bytes, (src, steps)
        moved = program(given)
        assert same_bits(np.asarray(moved), array)
        if target is not None:
            assert moved.sharding.is_equivalent_to(NamedSharding(jax_mesh(mesh), target), 2)
        for shard in moved.addressable_shards:
            expected = array[np.ix_(*plan.dst.tile(shard.device.id))]
            assert same_bits(np.asarray(shard.data), expected)


@case
def accepted_corruptions_run_as_they_say() -> None:
    """What the checker accepts of changed plans: right tiles, and the traffic that it states."""
    counted = 0
    for devices, few, many in ((8, 4, 150), (6, 3, 80)):
        for number, plan in enumerate(accepted_plans(devices, repetitions(few, many))):
            expected = expected_tiles(plan, number)
            found = rjax.run(plan, random_tiles(plan, number))
            for ours, theirs in zip(found, expected, strict=True):
                assert same_bits(ours, theirs), (str(plan.src), str(plan.dst))
            # Rounds of an exchange carry boxes of one size, so those are compared elsewhere.
            if any(isinstance(step, Exchange) for step in plan.steps) or plan.src.dtype == "bf16":
                continue
            mesh = jax_mesh(plan.src.mesh)
            try:
                spec = shardings.partition_spec(plan.src)
                program = rjax.compile(plan, mesh)
            except rd.LayoutError:
                continue  # jax has no name for an end
            array = np.zeros(plan.src.shape, plan.src.numpy_dtype)
            text = program.lower(put(array, mesh, *spec)).compile().as_text()
            assert hlo_traffic(text).received_bytes == plan.received_bytes, plan.to_json()
            counted += 1
    assert counted


@case
def an_exchange_takes_the_least_rounds() -> None:
    plan = direct(rd.Mesh(x=2, y=4), "f32[16{x}, 16{y}]", "f32[16{y}, 16{x}]")
    compiled = rjax.compile(plan, jax_mesh(plan.src.mesh)).lower(
        jax.ShapeDtypeStruct(plan.src.shape, np.float32)
    )
    traffic = hlo_traffic(compiled.compile().as_text())
    assert traffic.counts == {"collective-permute": 2}
    assert traffic.received_bytes == plan.lower_bound_bytes


@case
def the_tile_program_runs_in_a_users_shard_map() -> None:
    plan = direct(rd.Mesh(x=2, y=4), "f32[16{x}, 16{y}]", "f32[16{y}, 16{x}]")
    mesh = jax.make_mesh((2, 4), ("x", "y"))
    program = rjax.tile_program(plan)
    doubled = jax.jit(
        jax.shard_map(
            lambda tile: 2 * program(tile + 1),
            mesh=mesh,
            in_specs=P("x", "y"),
            out_specs=P("y", "x"),
            check_vma=False,
        )
    )
    array = np.arange(256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(np.asarray(doubled(put(array, mesh, "x", "y"))), 2 * (array + 1))


@case
def a_target_may_name_the_same_devices_in_another_order() -> None:
    mesh = rd.Mesh(x=4)
    for other, text in (
        (rd.Mesh({"z": 2, "y": 2}, devices=[0, 2, 1, 3]), "i32[8{y,z}]"),  # nothing moves
        (rd.Mesh({"z": 2, "y": 2}, devices=[0, 2, 1, 3]), "i32[8{y}]"),
    ):
        plan = rd.plan(rd.ArrayType.parse("i32[8{x}]", mesh), rd.ArrayType.parse(text, other))
        array = np.arange(8, dtype=np.int32)
        tiles = [tile_of(array, plan.src, position) for position in range(4)]
        for ours, theirs in zip(rjax.run(plan, tiles), simulator.run(plan, tiles), strict=True):
            assert same_bits(ours, theirs)
        assert same_bits(rjax.run_array(plan, array), array)


@case
def devices_are_calibrated() -> None:
    found = rjax.calibrate(rd.Mesh(x=2), tiles=(1 << 12, 1 << 22), count=12, rounds=2)
    assert 1e6 < found.link.bandwidth < 1e12
    assert found.exchange == "rounds"
    assert "12 moves of tiles up to 4" in found.source


@case
def bad_input_is_one_clear_error() -> None:
    mesh = rd.Mesh(x=2, y=4)
    plan = direct(mesh, "f32[16{x}, 16{y}]", "f32[16{y}, 16{x}]")
    cyclic = direct(mesh, "f32[16{_2,x}]", "f32[16{x}]")
    summed = plan.src.replace(partial=())
    summed = rd.ArrayType.parse("f32[16] sum{x}", mesh)
    tiles = [np.zeros((8, 4), np.float32)] * 8
    jmesh = jax_mesh(mesh)
    program = rjax.compile(plan, jmesh)
    other = NamedSharding(jax.make_mesh((8,), ("z",)), P("z"))
    reordered = direct(rd.Mesh({"x": 2}, devices=[1, 0]), "f32[4{x}]", "f32[4]")
    crossing = rd.plan(
        rd.ArrayType.parse("f32[8{x}]", rd.Mesh(x=4)), rd.ArrayType.parse("f32[8{y}]", rd.Mesh(y=2))
    )
    for error, message, call in (
        (
            rd.LayoutError,
            "the axes of the plan, x=2,y=4; got z=8",
            lambda: rjax.compile(plan, other.mesh),
        ),
        (rd.LayoutError, "no local factor before an axis", lambda: rjax.compile(cyclic, jmesh)),
        (
            rd.LayoutError,
            "a spec fits its mesh; .* Unreduced axes",
            lambda: rjax.compile(make_plan(summed, summed, "test", []), jmesh),
        ),
        (
            rd.LayoutError,
            r"the devices of the plan, \[1, 0\]; got \[0, 1\]",
            lambda: rjax.compile(reordered, jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])),
        ),
        (
            rd.LayoutError,
            "a program has one list of devices",
            lambda: rjax.compile_stacked(crossing),
        ),
        (rd.BackendError, "8 tiles of shape", lambda: rjax.run(plan, tiles[1:])),
        (
            rd.BackendError,
            r"got 8 of \[4, 8\] float32",
            lambda: rjax.run(plan, [t.T for t in tiles]),
        ),
        (rd.BackendError, r"got shape \[8, 32\]", lambda: program(np.zeros((8, 32), np.float32))),
        (
            rd.BackendError,
            "got shape .* dtype int32",
            lambda: program(np.zeros((16, 16), np.int32)),
        ),
        (rd.BackendError, "needs 100 devices; jax has 12", lambda: rjax.virtual_devices(100)),
        (
            rd.BackendError,
            "device 0 holds other data",
            lambda: rjax.run_array(
                replace(plan, dst=rd.ArrayType.parse("f32[16{x}, 16{y}]", mesh)),
                np.arange(256, dtype=np.float32).reshape(16, 16),
            ),
        ),
        (rd.BackendError, "has shape", lambda: rjax.run_array(plan, np.zeros((4, 4), np.float32))),
    ):
        with pytest.raises(error, match=message):
            call()


if __name__ == "__main__":
    case.main()
