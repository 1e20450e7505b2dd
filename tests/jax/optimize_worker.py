"""The cases of test_optimize.py, run in one process with 16 virtual devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import with_sharding_constraint
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.interop.hlo_traffic import HloTraffic, hlo_traffic
from redistrib.types.named_sharding import type_of
from redistrib.types.tile import same_bits
from tests.worker import Cases

case = Cases()
DEVICES = np.array(jax.devices())
MESH = Mesh(DEVICES[:8].reshape(4, 2), ("x", "y"))
# The pair of jax#21562: XLA gathers the whole array on each device.
SOURCE, TARGET = NamedSharding(MESH, P("y", None, "x")), NamedSharding(MESH, P(None, ("x", "y")))
WHOLE = 16**3 * 4


def given(sharding: NamedSharding = SOURCE) -> jax.Array:
    array = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    return jax.device_put(array, sharding)


def compare(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[HloTraffic, ...]:
    """Traffic of XLA's program and of ours, which have the same results."""
    programs = [jax.jit(function), rjax.optimize(function, **options)]
    compiled = [program.lower(*args).compile() for program in programs]
    theirs, ours = (jax.tree.leaves(found(*args)) for found in compiled)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)
    xla, found = (hlo_traffic(program.as_text()) for program in compiled)
    return xla, found


def bound(source: NamedSharding = SOURCE, target: NamedSharding = TARGET) -> int:
    x = jax.ShapeDtypeStruct((16, 16, 16), np.float32)
    types = [type_of(x.shape, x.dtype, s) for s in (source, target)]
    return rd.plan(*types).received_bytes


@case
def the_public_report_of_dimensions_that_swap_axes() -> None:
    # jax#21562 = xla#15207.
    xla, ours = compare(lambda x: jnp.cos(with_sharding_constraint(jnp.sin(x), TARGET)), given())
    assert xla.largest_buffer_bytes == WHOLE
    assert ours.largest_buffer_bytes == WHOLE // 8
    assert ours.received_bytes == bound() < xla.received_bytes


@case
def the_public_report_of_a_parameter_between_two_layouts() -> None:
    # jax#18591: a parameter that is sharded over all devices, and used sharded over some.
    mesh = Mesh(DEVICES.reshape(4, 4), ("a", "b"))
    weights = jax.device_put(
        np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32),
        NamedSharding(mesh, P(("a", "b"))),
    )
    used = NamedSharding(mesh, P(None, "a"))

    def layer(weights: jax.Array) -> jax.Array:
        return with_sharding_constraint(2 * weights, used) + 1

    xla, ours = compare(layer, weights)
    assert xla.largest_buffer_bytes == weights.nbytes
    assert ours.largest_buffer_bytes == weights.nbytes // 4
    assert ours.received_bytes < xla.received_bytes


@case
def training_steps_loops_and_branches() -> None:
    def there(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(jnp.sin(x), TARGET)

    def back(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(jnp.cos(x), SOURCE)

    def step(w: jax.Array, x: jax.Array) -> Any:
        return jax.value_and_grad(lambda w: (jax.checkpoint(there)(x * w) ** 2).sum())(w)

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (back(there(c)), None), x, None, length=3)[0]

    def looped(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 3, lambda _, c: back(there(c)), x)

    def branched(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0, 0] > 0, there, lambda x: with_sharding_constraint(x, TARGET), x)

    both = bound() + bound(TARGET, SOURCE)
    reduced = 2 * 4  # the scalar loss is summed over all devices
    for function, args, least in (
        (step, (given(), given()), both + reduced),
        (scanned, (given(),), 3 * both),
        (looped, (given(),), 3 * both),
        (branched, (given(),), 2 * bound()),  # each branch is counted
        (jax.jit(there, inline=False), (given(),), bound()),
        (jax.grad(lambda x: (there(x) ** 2).sum()), (given(),), both),
    ):
        xla, ours = compare(function, *args)
        assert ours.received_bytes <= 1.05 * least < xla.received_bytes, function
        assert ours.largest_buffer_bytes < WHOLE, function


@case
def functions_with_their_own_derivatives() -> None:
    @jax.custom_jvp
    def f(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(jnp.sin(x), TARGET)

    f.defjvps(lambda t, _, x: with_sharding_constraint(t * jnp.cos(x), TARGET))

    @jax.custom_vjp
    def g(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(jnp.sin(x), TARGET)

    def forward(x: jax.Array) -> Any:
        return g(x), x

    def backward(x: jax.Array, ct: jax.Array) -> Any:
        return (with_sharding_constraint(ct, SOURCE) * jnp.cos(x),)

    g.defvjp(forward, backward)
    for function in (f, g):
        xla, ours = compare(lambda x, function=function: function(x), given())
        assert ours.received_bytes == bound() < xla.received_bytes
        gradient = jax.grad(lambda x, function=function: (function(x) ** 2).sum())
        xla, ours = compare(gradient, given())
        assert ours.received_bytes <= bound() + bound(TARGET, SOURCE) < xla.received_bytes


@case
def explicit_reshards() -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Explicit,) * 2, devices=DEVICES[:8])

    def moved(x: jax.Array) -> jax.Array:
        return jnp.cos(jax.sharding.reshard(jnp.sin(x), TARGET.spec))

    with jax.set_mesh(mesh):
        x = given(NamedSharding(mesh, SOURCE.spec))
        xla, ours = compare(moved, x)
        assert ours.received_bytes == bound() < xla.received_bytes
        xla, ours = compare(jax.grad(lambda x: (moved(x) ** 2).sum()), x)
        assert ours.received_bytes == bound() + bound(TARGET, SOURCE) < xla.received_bytes


@case
def arguments_that_are_no_arrays() -> None:
    @rjax.optimize(static_argnames="power", strategy="collectives")
    def f(x: jax.Array, scale: dict[str, Any], *, power: int) -> Any:
        return {"out": with_sharding_constraint(x**power, TARGET) * scale["by"], "power": power}

    found = f(given(), {"by": 2.0, "none": None}, power=3)
    wanted = np.asarray(given()) ** 3 * 2
    np.testing.assert_allclose(np.asarray(found["out"]), wanted, rtol=1e-6)
    assert found["power"] == 3
    assert found["out"].sharding.is_equivalent_to(TARGET, 3)
    nested = jax.jit(f, static_argnames="power")(given(), {"by": 2.0}, power=3)
    assert same_bits(np.asarray(nested["out"]), np.asarray(found["out"]))


@case
def what_cannot_be_planned_stays_with_xla() -> None:
    rows = NamedSharding(MESH, P("x"))
    nine = jax.device_put(np.ones((9, 8), np.float32), NamedSharding(MESH, P(None, "y")))
    program = rjax.optimize(lambda x: with_sharding_constraint(2 * x, rows))
    with pytest.warns(UserWarning, match="XLA redistributes this one: .* 9.t0. with product 4"):
        moved = program(nine)
    assert same_bits(np.asarray(moved), np.full((9, 8), 2, np.float32))
    limited = rjax.optimize(lambda x: with_sharding_constraint(2 * x, TARGET), memory_limit=1)
    with pytest.warns(UserWarning, match="the memory limit is 1"):
        limited(given())


@case
def tiles_in_a_shard_map_are_left_alone() -> None:
    def per_tile(x: jax.Array) -> jax.Array:
        whole = with_sharding_constraint(x, TARGET)
        return jax.shard_map(
            lambda tile: jax.lax.psum(tile, "x"),
            mesh=MESH,
            in_specs=P(None, "x"),
            out_specs=P(),
        )(whole)

    _, ours = compare(per_tile, given())
    assert ours.num_collectives > 0


@case
def what_a_program_will_do_is_explained_before_it_runs() -> None:
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("x", "y"), axis_types=(kind,) * 2)
        source, target = (
            NamedSharding(mesh, P("y", None, "x")),
            NamedSharding(mesh, P(None, ("x", "y"))),
        )
        x = jax.device_put(jnp.zeros((16, 16, 16)), source)
        move = (
            jax.sharding.reshard if kind == AxisType.Explicit else jax.lax.with_sharding_constraint
        )
        plan = rd.plan(*(type_of(x.shape, x.dtype, end) for end in (source, target)))

        def there_and_back(
            x: jax.Array, move: Any = move, ends: Any = (source, target)
        ) -> jax.Array:
            return move(move(move(x, ends[1]) * 2, ends[0]) + 1, ends[1])

        found = rjax.explain(there_and_back, x)
        assert sum(count for _, count in found.plans) == 3
        assert found.ours.received_bytes == sum(p.received_bytes * n for p, n in found.plans)
        assert found.ours.received_bytes < found.xla.received_bytes
        one = rjax.explain(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=source), target)
        assert one.plans == ((plan, 1),)
        assert one.ours.received_bytes == plan.received_bytes < one.xla.received_bytes
        assert f"received {plan.received_bytes} B" in str(one)
    other = NamedSharding(Mesh(np.array(jax.devices()[8:]), "z"), P("z"))
    assert rjax.explain(x, other).xla is None
    assert rjax.explain(lambda x: x + 1, x).plans == ()
    with pytest.raises(rd.BackendError, match="an array and a sharding, or a function"):
        rjax.explain(3, other)


if __name__ == "__main__":
    case.main()
