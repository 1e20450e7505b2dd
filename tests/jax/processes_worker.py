"""One of several processes of a jax program: `python -m tests.jax.processes_worker PORT COUNT ID`.

Every process checks the shards that it holds, and what the compiled programs receive.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.interop.hlo_traffic import hlo_traffic
from redistrib.types.named_sharding import type_of

ARRAY = np.arange(48 * 24 * 8, dtype=np.float32).reshape(48, 24, 8)


def made(sharding: NamedSharding, dtype: Any = ARRAY.dtype) -> jax.Array:
    array = ARRAY.astype(dtype)
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: array[index], dtype=dtype
    )


def check(moved: jax.Array, array: np.ndarray, target: NamedSharding) -> None:
    assert moved.sharding.is_equivalent_to(target, moved.ndim)
    for shard in moved.addressable_shards:
        assert np.array_equal(np.asarray(shard.data), array[shard.index])


def main() -> None:
    port, count, number = map(int, sys.argv[1:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", count, number)
    devices = np.array(jax.devices())
    assert len(devices) == count * len(jax.local_devices())
    to_other_devices(devices)
    if len(devices) == 8:
        in_one_set_of(devices)
    print("done", flush=True)
    lose_one(devices)


def in_one_set_of(devices: np.ndarray) -> None:
    for kind in (AxisType.Auto, AxisType.Explicit):
        # x crosses the processes in one mesh, y in the other.
        across = Mesh(devices.reshape(2, 4), ("x", "y"), axis_types=(kind,) * 2)
        inside = Mesh(devices.reshape(2, 4).T, ("x", "y"), axis_types=(kind,) * 2)
        for mesh in (across, inside):
            x, target = (
                made(NamedSharding(mesh, P("x", "y"))),
                NamedSharding(mesh, P("y", None, "x")),
            )
            check(rjax.reshard(x, target), ARRAY, target)
            traced = jax.jit(lambda x, target=target: rjax.reshard(x + 1, target))
            check(traced(x), ARRAY + 1, target)
            ends = [type_of(x.shape, x.dtype, end) for end in (x.sharding, target)]
            received = hlo_traffic(traced.lower(x).compile().as_text()).received_bytes
            assert received == rd.plan(*ends).received_bytes
            gradient = jax.jit(jax.grad(lambda x, f=traced: (f(x) ** 2).sum()))(x)
            check(gradient, 2 * (ARRAY + 1), gradient.sharding)
        x, target = made(NamedSharding(across, P("x"))), NamedSharding(inside, P(None, "x", "y"))
        check(rjax.reshard({"leaf": x}, target)["leaf"], ARRAY, target)

    tall = Mesh(devices.reshape(4, 2), ("x", "y"))
    x, target = (
        made(NamedSharding(tall, P("y", None, "x"))),
        NamedSharding(tall, P(None, ("x", "y"))),
    )
    step = rjax.optimize(lambda x: jax.lax.with_sharding_constraint(jnp.square(x), target) + 1)
    check(step(x), ARRAY**2 + 1, target)
    assert hlo_traffic(step.lower(x).compile().as_text()).largest_buffer_bytes == ARRAY.nbytes // 8

    # Orders that are no digits of each other: a ring, a snake, a rotation, two swapped.
    orders = (
        [0, 1, 3, 2, 6, 7, 5, 4],
        [0, 1, 2, 3, 7, 6, 5, 4],
        [1, 2, 3, 4, 5, 6, 7, 0],
        [0, 2, 1, 3, 4, 5, 6, 7],
    )
    for order, kind in zip(orders, (AxisType.Auto, AxisType.Explicit) * 2, strict=True):
        ring = Mesh(devices[order].reshape(4, 2), ("x", "y"), axis_types=(kind,) * 2)
        for spec in (P("y", None, "x"), P()):
            target = NamedSharding(ring, spec)
            check(rjax.reshard(x, target), ARRAY, target)
        check(rjax.reshard(rjax.reshard(x, target), x.sharding), ARRAY, x.sharding)

    # What every process has a copy of.
    state = {"count": jax.numpy.int32(7), "step": 7, "rate": np.full(4, 7)}
    for found in jax.tree.leaves(rjax.reshard(state, NamedSharding(tall, P()))):
        check(found, np.full(found.shape, 7), NamedSharding(tall, P()))


def to_other_devices(devices: np.ndarray) -> None:
    """Between devices of one process and another, and of all; also where a process has no part."""
    half = len(devices) // 2
    chosen = (devices[:2], devices[-2:], devices[::2], devices[half - 1 : half + 1])
    kinds = (AxisType.Auto, AxisType.Explicit) * 2
    for n, (there, kind) in enumerate(zip(chosen, kinds, strict=True)):
        ends = [Mesh(ids, "z", axis_types=(kind,)) for ids in (chosen[n - 1], there)]
        if not any(d.process_index == jax.process_index() for e in ends for d in e.devices.flat):
            continue
        for dtype, spec in ((np.float32, P("z")), (jnp.bfloat16, P())):
            x, target = (
                made(NamedSharding(ends[0], P(None, "z")), dtype),
                NamedSharding(ends[1], spec),
            )
            check(rjax.reshard(x, target), ARRAY.astype(dtype), target)

    # A tree of arrays on all of these, in which every process takes part; within a budget.
    ends = [Mesh(ids, "z") for ids in chosen]
    tree = {n: made(NamedSharding(end, P(None, "z"))) for n, end in enumerate(ends)}
    targets = {n: NamedSharding(ends[n - 1], P("z")) for n in tree}
    moved = rjax.reshard_tree(tree, targets, memory_budget=8 * ARRAY.nbytes, donate=True)
    for n, x in moved.items():
        check(x, ARRAY, targets[n])
    whole = Mesh(devices.reshape(2, -1), ("x", "y"))
    for target in (NamedSharding(whole, P("x", "y")), NamedSharding(whole, P("y"))):
        for n, x in rjax.reshard_tree(moved, target).items():
            check(x, ARRAY, target)
            moved[n] = x


def lose_one(devices: np.ndarray) -> None:
    """The last process ends; the first, which sends to it, hears of it. No process returns."""
    ends = [NamedSharding(Mesh(ids, "z"), P("z")) for ids in (devices[:2], devices[-2:])]
    if jax.process_index() == 0:
        with pytest.raises(Exception, match="Gloo"):  # no hang
            rjax.reshard(made(ends[0]), ends[1])
        print("heard", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
