"""The cases of test_trees.py, run in one process with 16 virtual devices."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from redistrib.backends import simulator
from redistrib.backends.jax import between, internals
from redistrib.backends.jax.host_copies import Array, Key, host_copies
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import numpy_dtype
from redistrib.types.tile import same_bits
from tests.models.random_moves import Case, random_case
from tests.worker import Cases

case = Cases()
DEVICES = jax.devices()


def stacked(t: AnyType) -> NamedSharding:
    """Where the tiles of a type are; that they differ nobody asks."""
    mesh = jax.sharding.Mesh([DEVICES[n] for n in t.mesh.ids], "d")
    return NamedSharding(mesh, P("d") if t.tile_shape else P())


def run_one_program(seed: int) -> None:
    """A random move by one program: the simulator's tiles."""
    found = random_case(seed, ranks=16)
    plan, wanted = found.plan, simulator.run_model(found.plan, scattered(found))
    held = reduced(found)
    arrays = {}
    for name in plan.src:
        end = stacked(plan.source_type(name))
        read = Array(name, made=False)
        tiles = [jax.device_put(held[read, d.id], d) for d in end.mesh.devices.flat]
        arrays[read] = internals.global_array(
            tiles[0].shape, tiles[0].dtype, weak_type=False, sharding=end, tiles=tiles
        )
    for move in plan.moves:
        t = plan.dst[move.target]
        sources = {read: arrays[read].sharding for read in between.inputs_of(move)}
        result = between.Result(stacked(t), numpy_dtype(t.dtype))
        run = between.between(plan, [move], sources, {move.target: result}, most=64)
        made = Array(move.target, made=True)
        (arrays[made],) = run(arrays)
        for device, tile in zip(t.mesh.ids, internals.shards(arrays[made]), strict=True):
            assert same_bits(np.asarray(tile), wanted[device][move.target]), (seed, move.target)


def scattered(found: Case) -> simulator.models.Tiles:
    return simulator.scatter_model(found.arrays, found.plan.src)


def reduced(found: Case) -> dict[Key, np.ndarray]:
    """The tiles of the sources, with partial sums reduced."""
    tiles = scattered(found)
    for name, reduction in found.plan.reductions.items():
        ids = reduction.src.mesh.ids
        done = simulator.run(reduction, [tiles[n][name] for n in ids])
        for device, tile in zip(ids, done, strict=True):
            tiles[device][name] = tile
    return {
        (Array(name, made=False), device): np.ascontiguousarray(tile)
        for device, own in tiles.items()
        for name, tile in own.items()
    }


@case
def random_moves_by_copies_in_memory() -> None:
    for seed in range(100):
        found = random_case(seed, ranks=16)
        plan, wanted = found.plan, simulator.run_model(found.plan, scattered(found))
        tiles = reduced(found)
        for move in plan.moves:
            tiles |= host_copies(plan, [move]).run(tiles)
            for device in plan.dst[move.target].mesh.ids:
                own = wanted[device][move.target]
                tile = tiles[Array(move.target, made=True), device]
                assert same_bits(tile, own), (seed, move.target)


@case
def random_moves_by_one_program() -> None:
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(between, "in_memory", lambda _: False)
        for seed in range(8):
            run_one_program(seed)


if __name__ == "__main__":
    case.main()
