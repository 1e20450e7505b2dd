"""The cases of test_jax_laws.py, run in one process with 16 virtual devices.

The law: what plain jax runs, `reshard` and `optimize` run with the same values, shardings, devices,
dtypes and weak types, or refuse before anything is lost.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout
from jax.lax import with_sharding_constraint
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.backends.jax import arrays
from redistrib.interop.hlo_traffic import hlo_traffic
from redistrib.types.named_sharding import type_of
from redistrib.types.tile import same_bits
from tests.worker import Cases

case = Cases()
DEVICES = np.array(jax.devices())
KINDS = (AxisType.Auto, AxisType.Explicit)


def mesh_of(kind: AxisType = AxisType.Auto, devices: Any = DEVICES, **axes: int) -> Mesh:
    sizes = [*axes.values()]
    chosen = devices[: int(np.prod(sizes))].reshape(sizes)
    return Mesh(chosen, tuple(axes), axis_types=(kind,) * len(axes))


def on(mesh: Mesh, *spec: Any) -> NamedSharding:
    return NamedSharding(mesh, P(*spec))


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def assert_same(ours: Any, plain: Any, *, layouts: bool = True) -> None:
    """Two trees of arrays with the same bits, dtypes, weak types, devices and shardings."""
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert jax.typeof(a).weak_type == jax.typeof(b).weak_type
        assert a.sharding.device_set == b.sharding.device_set
        if layouts:
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim), (a.sharding, b.sharding)
            assert a.sharding.memory_kind == b.sharding.memory_kind
        keys = jnp.issubdtype(a.dtype, jax.dtypes.extended)
        bits = [np.asarray(jax.random.key_data(x) if keys else x) for x in (a, b)]
        assert same_bits(*bits)


@case
def an_array_twice_in_a_donated_tree_moves_once_and_is_given_up() -> None:
    mesh = mesh_of(x=4, y=2)
    source, target, other = on(mesh, "x", "y"), on(mesh, "y", "x"), on(mesh, None, "x")
    array = numbers(16, 16)
    for ends in ((target, target), (target, other), (target, source), (source, source)):
        x = jax.device_put(array, source)
        moved = rjax.reshard(
            {"embed": x, "head": x}, {"embed": ends[0], "head": ends[1]}, donate=True
        )
        wanted = {"embed": jax.device_put(array, ends[0]), "head": jax.device_put(array, ends[1])}
        assert_same(moved, wanted)
        assert x.is_deleted() == (source not in ends)
    # One that has no data any more is refused before another is given up.
    x, gone = (jax.device_put(array, source) for _ in range(2))
    gone.delete()
    with pytest.raises(rd.BackendError, match=r"at \[1\]: .* this one is deleted"):
        rjax.reshard([x, gone], target, donate=True)
    assert_same(x, jax.device_put(array, source))
    # Two arrays that are views of the same buffers.
    x = jax.device_put(array, source)
    y = rjax.reshard(x, on(mesh_of(a=4, b=2), "a", "b"))
    moved = rjax.reshard([x, y], [target, other], donate=True)
    assert_same(moved, [jax.device_put(array, end) for end in (target, other)])


@case
def where_the_target_has_other_devices_or_another_mesh_of_the_same_names() -> None:
    array = numbers(16, 16)
    for kind in KINDS:
        source = mesh_of(kind, x=2, y=4)
        x = jax.device_put(array, on(source, "x", "y"))
        batch = jax.device_put(np.stack([array] * 4), on(source, None, "x", "y"))
        for mesh in (
            mesh_of(kind, x=4, y=2),
            mesh_of(kind, DEVICES[[0, 1, 3, 2, 6, 7, 5, 4]], x=2, y=4),
            mesh_of(kind, DEVICES[8:], x=2, y=4),
        ):
            target = on(mesh, "y", "x")

            def ours(x: jax.Array, target: NamedSharding = target) -> jax.Array:
                return rjax.reshard(x, target)

            def plain(x: jax.Array, target: NamedSharding = target) -> jax.Array:
                return jax.device_put(x, target)

            for run in (
                lambda f, x=x: f(x),
                lambda f, x=x: jax.jvp(f, (x,), (x,)),
                lambda f, x=x: jax.vjp(f, x)[0],
                lambda f, x=x, end=target: jax.vjp(f, x)[1](jax.device_put(x, end)),
                lambda f, x=x: jax.checkpoint(f)(x),
            ):
                assert_same(run(ours), run(plain))
            batched = on(mesh, None, "y", "x")
            assert_same(jax.vmap(ours)(batch), jax.device_put(batch, batched))


@case
def small_and_large_arrays_go_to_other_devices() -> None:
    """The small by `device_put`, the large by copies of pieces; both give up what is donated."""
    source, there = mesh_of(x=2, y=4), mesh_of(devices=DEVICES[8:], x=4, y=2)
    end = on(there, "y", "x")
    for limit in (arrays.PUT, -1):
        arrays.array_program.cache_clear()
        with patch.object(arrays, "PUT", limit):
            for dtype in (jnp.float32, jnp.bfloat16, jnp.int4, jnp.bool_):
                x = jax.device_put(jnp.asarray(numbers(16, 16) % 5, dtype), on(source, "x", "y"))
                wanted = jax.device_put(x, end)
                moved = rjax.reshard(x, end, donate=dtype == jnp.bfloat16)
                assert_same(moved, wanted)
                assert x.is_deleted() == (dtype == jnp.bfloat16)
    arrays.array_program.cache_clear()


@case
def what_is_asked_for_is_no_transfer_that_a_guard_forbids() -> None:
    x = jax.device_put(numbers(16, 16), on(mesh_of(x=2, y=4), "x", "y"))
    targets = [
        on(mesh_of(devices=devices, x=4, y=2), "y", "x")
        for devices in (DEVICES, DEVICES[[0, 1, 3, 2, 6, 7, 5, 4]], DEVICES[8:])
    ]
    with jax.transfer_guard("disallow"):
        moved = [rjax.reshard(x, end) for end in targets]
        trees = [rjax.reshard_tree([x], end)[0] for end in targets]
        wanted = [jax.device_put(x, end) for end in targets]
    assert_same([moved, trees], [wanted, wanted])


@case
def gradients_go_back_to_the_devices_they_came_from() -> None:
    array = numbers(16, 16)
    source, there = mesh_of(x=2, y=4), mesh_of(devices=DEVICES[8:], x=4, y=2)
    x = jax.device_put(array, on(source, "x", "y"))

    def loss(x: jax.Array, move: Callable[..., jax.Array]) -> jax.Array:
        return (jnp.sin(move(x, on(there, "y", "x"))) ** 2).sum()

    ours, plain = (jax.grad(loss)(x, move) for move in (rjax.reshard, jax.device_put))
    assert_same(ours, plain)
    jacobian = jax.jacrev(lambda x: rjax.reshard(x, on(there, "y", "x"))[0, :2])(x)
    assert jacobian.sharding.device_set == x.sharding.device_set
    assert same_bits(np.asarray(jacobian), np.eye(256, dtype=np.float32)[:2].reshape(2, 16, 16))


@case
def inside_jit_the_devices_are_those_of_the_target() -> None:
    array = numbers(16, 16)
    for kind in KINDS:
        x = jax.device_put(array, on(mesh_of(kind, x=2, y=4), "x", "y"))
        turned = on(mesh_of(kind, DEVICES[7::-1], x=2, y=4), "y", "x")
        with pytest.raises(ValueError, match="incompatible devices"):
            jax.jit(lambda x, target=turned: rjax.reshard(x, target))(x)
    # Another mesh of the same devices is planned when XLA compiles.
    target = on(mesh_of(AxisType.Explicit, x=4, y=2), "y", "x")
    moved = jax.jit(lambda x: rjax.reshard(x, target))
    assert_same(moved(x), jax.device_put(array, target))
    ends = [type_of(x.shape, x.dtype, end) for end in (x.sharding, target)]
    received = hlo_traffic(moved.lower(x).compile().as_text()).received_bytes
    assert received == rd.plan(*ends).received_bytes


@case
def meshes_with_axes_of_both_kinds() -> None:
    mesh = Mesh(DEVICES[:8].reshape(4, 2), ("x", "y"), axis_types=KINDS[::-1])
    x, target = jax.device_put(numbers(16, 16), on(mesh, "x")), on(mesh, None, "x")

    def program(move: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.jit(jax.value_and_grad(lambda x: (move(x * 2, target) % 5).sum()))

    assert_same(program(rjax.reshard)(x), program(jax.sharding.reshard)(x))


@case
def weak_types_stay_weak() -> None:
    for kind in KINDS:
        mesh = mesh_of(kind, x=4, y=2)
        rate = jax.device_put(jnp.asarray(0.5), on(mesh))
        spread = jax.jit(lambda: jax.lax.broadcast(0.5, (8, 8)), out_shardings=on(mesh, "x", "y"))()
        assert (rate.weak_type, spread.weak_type) == (True, True)
        for there in (
            mesh,
            mesh_of(kind, z=8),
            mesh_of(kind, DEVICES[7::-1], x=4, y=2),
            mesh_of(kind, DEVICES[8:], z=4),
        ):
            axis = there.axis_names[-1]
            assert_same(rjax.reshard(rate, on(there)), jax.device_put(rate, on(there)))
            target = on(there, axis)
            assert_same(rjax.reshard(spread, target), jax.device_put(spread, target))
        traced = jax.jit(lambda x, mesh=mesh: rjax.reshard(x, on(mesh, "y")))
        assert traced(spread).weak_type
        step = jax.ShapeDtypeStruct((8,), jnp.bfloat16)
        assert (
            jax.eval_shape(lambda r, s: r * s, rjax.reshard(rate, on(mesh)), step).dtype
            == step.dtype
        )


@case
def memory_of_another_kind_is_refused_or_left_to_jax() -> None:
    mesh = mesh_of(x=4, y=2)
    x = jax.device_put(numbers(16, 16), on(mesh, "x", "y"))
    host = on(mesh, "y", "x").with_memory_kind("pinned_host")
    for move in (rjax.reshard, lambda x, s: jax.jit(lambda x: rjax.reshard(x, s)).lower(x)):
        with pytest.raises(rd.LayoutError, match="memory"):
            move(x, host)
    on_host = jax.device_put(x, host)
    with pytest.raises(rd.LayoutError, match="memory"):
        rjax.reshard(on_host, on(mesh, "x"))
    assert_same(rjax.reshard(x, host, fallback="xla"), on_host)
    back = rjax.reshard(on_host, on(mesh, "x"), fallback="xla")
    assert_same(back, jax.device_put(x, on(mesh, "x")))


@case
def whatever_the_target_xla_takes_over_where_it_is_asked_to() -> None:
    some = P.UNCONSTRAINED
    for kind in KINDS:
        mesh = mesh_of(kind, x=4, y=2)
        x = jax.device_put(numbers(16, 16), on(mesh, "x", "y"))
        targets = [on(mesh, "y", "x"), on(mesh_of(kind, a=2, b=4), "b", "a")]
        if kind == AxisType.Auto:
            targets.append(on(mesh, some, "x"))
        for target in targets:
            for limit in (None, 1):

                def move(x: jax.Array, s: Any = target, limit: Any = limit) -> jax.Array:
                    return rjax.reshard(x, s, memory_limit=limit, fallback="xla")

                with warnings.catch_warnings(action="ignore"):
                    for moved in (move(x), jax.jit(move)(x)):
                        assert same_bits(np.asarray(moved), numbers(16, 16))
                    lay_out = with_sharding_constraint
                    if kind == AxisType.Explicit:
                        lay_out = jax.sharding.reshard
                    assert_same(moved, jax.jit(lambda x, s=target, f=lay_out: f(x, s))(x))


@case
def targets_that_are_one_device_or_a_layout_in_memory() -> None:
    mesh = mesh_of(x=4, y=2)
    x = jax.device_put(numbers(16, 16), on(mesh, "x", "y"))
    columns_first = Format(Layout((1, 0)), on(mesh, "y", "x"))
    for target in (jax.sharding.SingleDeviceSharding(DEVICES[3]), DEVICES[3], columns_first):
        for fallback in ("error", "xla"):
            ours, plain = rjax.reshard([x], target, fallback=fallback), jax.device_put([x], target)
            assert_same(ours, plain)
            assert ours[0].format == plain[0].format


@case
def targets_in_jit_that_are_one_device_or_a_layout_in_memory() -> None:
    """A program stays on its devices, else jax says so; an order in memory is beside the plan."""
    alone = jax.device_put(numbers(16, 16), DEVICES[3])
    one = jax.sharding.SingleDeviceSharding(DEVICES[3])
    for target in (one, DEVICES[3], Format(Layout((1, 0)), one)):
        ours = jax.jit(lambda x, target=target: rjax.reshard(x + 1, target))(alone)
        ordered = target if isinstance(target, Format) else one  # jax takes no device here
        plain = jax.jit(lambda x, t=ordered: with_sharding_constraint(x + 1, t))(alone)
        assert_same(ours, plain)
        assert ours.format == plain.format
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = mesh_of(x=4, y=2, kind=kind)
        x, end = jax.device_put(numbers(16, 16), on(mesh, "x", "y")), on(mesh, "y", "x")
        columns_first = Format(Layout((1, 0)), end)
        move = jax.jit(lambda x, target=columns_first: rjax.reshard(x, target))
        assert_same(move(x), jax.device_put(x, end))
        assert "layout_constraint" in str(jax.make_jaxpr(move)(x))
        moved, back = jax.vjp(lambda x, target=columns_first: rjax.reshard(x, target), x)
        assert_same(back(moved)[0], x, layouts=False)
        for fallback in ("error", "xla"):
            with pytest.raises(ValueError, match="incompatible devices"):
                jax.jit(lambda x, how=fallback: rjax.reshard(x, one, fallback=how))(x)
            rows = jax.vmap(lambda x, how=fallback: rjax.reshard(x, one, fallback=how))(x)
            assert rows.devices() == {DEVICES[3]}
            assert same_bits(np.asarray(rows), np.asarray(x))


@case
def errors_inside_jit_are_ours() -> None:
    mesh = mesh_of(x=4, y=2)
    x, target = jax.device_put(numbers(16, 16), on(mesh, "x", "y")), on(mesh, "y", "x")
    limited = jax.jit(lambda x: rjax.reshard(x + 1, target, memory_limit=100))
    with pytest.raises(rd.InfeasibleError, match="the memory limit is 100") as caught:
        limited(x)
    assert caught.value.memory_limit == 100
    nine = jax.device_put(numbers(9, 16), on(mesh, None, "x"))

    def from_uneven(x: jax.Array) -> jax.Array:
        rows = with_sharding_constraint(x, on(mesh, "y"))
        return rjax.reshard(rows, on(mesh, None, "x"))

    with pytest.raises(rd.LayoutError, match=r"9.* with product 2"):
        jax.jit(from_uneven)(nine)


@case
def leaves_that_jax_takes() -> None:
    for kind in KINDS:
        mesh = mesh_of(kind, x=4, y=2)
        target = on(mesh, "y")
        keys = jax.device_put(jax.random.split(jax.random.key(0), 8), on(mesh, "x"))
        tree: list[Any] = [numbers(8, 4), keys]
        for name in ("int4", "uint2", "float8_e4m3b11fnuz", "float4_e2m1fn"):
            x = jnp.arange(64).reshape(8, 8) % 2
            tree.append(jax.device_put(x.astype(name), on(mesh, "x", "y")))
        assert_same(rjax.reshard(tree, target), jax.device_put(tree, target))
        numbers_of_python = {"step": 3, "rate": 0.5, "count": np.int64(7)}
        wanted = jax.device_put(numbers_of_python, on(mesh))
        assert_same(rjax.reshard(numbers_of_python, on(mesh)), wanted)
        moved = jax.jit(lambda tree, target=target: rjax.reshard(tree, target))(tree[1:])
        assert_same(moved, jax.device_put(tree[1:], target))
        there = on(mesh_of(kind, DEVICES[8:], z=4), "z")
        some = tree[:3] + tree[4:5]
        assert_same(rjax.reshard(some, there), jax.device_put(some, there))
        with pytest.raises(rd.LayoutError, match=r"at \[0\]: .*with product 2"):
            rjax.reshard([np.zeros(9)], on(mesh, "y"))


@case
def arrays_that_a_function_closes_over() -> None:
    for kind in KINDS:
        mesh, flat = mesh_of(kind, x=4, y=2), mesh_of(kind, z=8)
        y = jax.device_put(numbers(16, 16), on(mesh, "y", "x"))
        for weights in (
            jnp.asarray(numbers(16, 16)),
            numbers(16, 16),
            jax.device_put(numbers(16, 16), on(mesh, "x", "y")),
        ):
            for target in (on(mesh, "y", "x"), on(flat, "z")):
                moved = jax.jit(lambda y, w=weights, s=target: (rjax.reshard(w, s), y + 1))(y)
                assert_same(moved[0], jax.device_put(weights, target))

        def loss(y: jax.Array, w: Any = weights, end: NamedSharding = y.sharding) -> jax.Array:
            return (rjax.reshard(w, end) * y).sum()

        assert same_bits(np.asarray(jax.jit(jax.grad(loss))(y)), numbers(16, 16))
    end = y.sharding
    # More than the programs that are let run at once.
    many = jax.jit(lambda y: sum(rjax.reshard(weights, end) for _ in range(20)) + y)
    assert same_bits(np.asarray(many(y)), 21 * numbers(16, 16))


@case
def programs_that_do_the_same_have_one_key_in_the_compilation_cache() -> None:
    mesh = mesh_of(x=4, y=2)
    x, target = jax.device_put(numbers(16, 16, 16), on(mesh, "x", "y")), on(mesh, "y", "x")
    hits: list[str] = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
    )

    def run(limit: int | None) -> int:
        # Hits of a program that this process has forgotten.
        jax.clear_caches()
        before = len(hits)
        moved = jax.jit(lambda x: rjax.reshard(x + 1, target, memory_limit=limit))(x)
        assert same_bits(np.asarray(moved), numbers(16, 16, 16) + 1)
        return len(hits) - before

    settings = {
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
        "jax_remove_custom_partitioning_ptr_from_cache_key": True,
    }
    with tempfile.TemporaryDirectory() as place:
        try:
            for name, value in {**settings, "jax_compilation_cache_dir": place}.items():
                jax.config.update(name, value)
            assert run(None) == 0
            assert run(None) > 0
            assert run(1024) == 0  # other options are another program
            assert run(1024) > 0
            assert len([*Path(place).iterdir()]) >= 2
        finally:
            jax.config.update("jax_compilation_cache_dir", None)


if __name__ == "__main__":
    case.main()
