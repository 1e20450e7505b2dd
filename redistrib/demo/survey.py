"""A seeded survey of reshardings on jax, and the programs that are compared on it.

    >>> pair = pairs(8)[0]
    >>> pair.mesh, pair.shape, pair.src, pair.dst
    ((2, 4), (1024, 1024), (('b', 'a'), ()), (('a', 'b'), ()))

800 pairs of whole-axis specs on 8, 12 and 16 devices, and for each the program that XLA's
partitioner makes of the identity between two shardings beside ours, in one piece or in chunks.
Tests, benchmarks and figures of the README all ask this one survey.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.choose import plan as plan_pair
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

DTYPES = ("f32", "bf16", "i8", "bool", "c64")
MESHES = {
    8: ((2, 4), (4, 2), (2, 2, 2)),
    12: ((3, 4), (4, 3), (2, 6), (6, 2), (2, 2, 3), (3, 2, 2), (2, 3, 2)),
    16: ((2, 8), (8, 2), (4, 4), (2, 2, 4), (2, 2, 2, 2)),
}
COUNTS = {8: 200, 12: 200, 16: 400}
CHUNKS = 8

Spec = tuple[tuple[str, ...], ...]
"""Axes per dimension, major to minor."""
Figures = dict[str, Any]
SMALL_MESHES = (
    ((2, 2, 2), (8, 8, 8)),
    ((2, 4, 2), (16, 16)),
    ((2, 3, 2), (12, 12, 12)),
    ((2, 3, 2), (6, 6, 6)),
    ((2, 3, 5), (30, 30)),
    ((4, 6, 2), (48, 48)),
    ((4, 3, 2), (24, 24)),
    ((8, 3, 2), (48, 48)),
)
"""Axis sizes and shapes whose pairs of whole-axis layouts are few enough to try all."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A resharding of one array between two specs on a mesh with axes a, b, c, ..."""

    mesh: tuple[int, ...]
    shape: tuple[int, ...]
    src: Spec
    dst: Spec
    dtype: str = "f32"

    @property
    def axes(self) -> dict[str, int]:
        """The axes of the mesh."""
        return dict(zip("abcdef", self.mesh, strict=False))


def pairs(devices: int, count: int | None = None) -> list[Pair]:
    """The survey's pairs on so many devices; the first `count` of them."""
    rng = random.Random(devices)  # noqa: S311
    result = []
    for number in range(COUNTS[devices]):
        mesh = MESHES[devices][number % len(MESHES[devices])]
        rank = rng.choice((2, 3, 4))
        src, dst = (_random_spec(rng, len(mesh), rank) for _ in range(2))
        while src == dst:
            dst = _random_spec(rng, len(mesh), rank)
        result.append(Pair(mesh, shape(devices, rank), src, dst))
    return result[:count]


def crashing() -> list[Pair]:
    """Pairs on which XLA's compiler (jaxlib 0.10.2) divides by zero."""
    stated = (
        ((2, 2, 4), "c a - b", "a - b c"),
        ((4, 4, 2), "c a - b", "a - b c"),
        ((2, 2, 4, 4), "b c - da", "d a c b"),
    )
    result = []
    for mesh, *texts in stated:
        src, dst = specs(*texts)
        result.append(Pair(mesh, (32, 32, 32, 32), src, dst))
    return result


def specs(*texts: str) -> list[Spec]:
    """Specs as texts: the axes of each dimension, or - for none."""
    return [tuple(tuple(entry.strip("-")) for entry in text.split()) for text in texts]


def shape(devices: int, rank: int) -> tuple[int, ...]:
    """A shape of about 4 MiB of f32 that every spec divides."""
    if devices == 12:
        return {2: (1152, 1152), 3: (96, 96, 96), 4: (48, 24, 24, 48)}[rank]
    return {2: (1024, 1024), 3: (64, 128, 128), 4: (32, 32, 32, 32)}[rank]


def _random_spec(rng: random.Random, axes: int, rank: int) -> Spec:
    dims: list[list[str]] = [[] for _ in range(rank)]
    for axis in rng.sample("abcdef"[:axes], axes):
        place = rng.randrange(rank + 1)
        if place < rank:
            dims[place].append(axis)
    return tuple(map(tuple, dims))


def program_of(pair: Pair, program: str, devices: Sequence[Any]) -> tuple[Plan, Any] | None:
    """The plan of a pair and one of its programs, a jax.jit function; None if it has no chunks."""
    import jax
    from jax.sharding import NamedSharding

    from redistrib.backends import jax as rjax
    from redistrib.backends.jax import shardings

    plan_mesh = Mesh(pair.axes)
    src, dst = (ArrayType(plan_mesh, pair.dtype, pair.shape, spec) for spec in (pair.src, pair.dst))
    plan = plan_pair(src, dst)
    grid = np.array(devices[: plan_mesh.num_devices]).reshape(pair.mesh)
    mesh = jax.sharding.Mesh(grid, tuple(pair.axes))
    ends = [NamedSharding(mesh, shardings.partition_spec(t)) for t in (src, dst)]
    platform = devices[0].platform
    moved: Any
    match program:
        case "xla":

            def moved(x: Any) -> Any:
                return x

        case "chunked" if rjax.chunk_dim(plan, CHUNKS) is None:
            return None
        case _:
            tile = (
                rjax.chunked_program(plan, chunks=CHUNKS, platform=platform)
                if program == "chunked"
                else rjax.tile_program(plan, platform=platform)
            )
            moved = jax.shard_map(
                tile, mesh=mesh, in_specs=ends[0].spec, out_specs=ends[1].spec, check_vma=False
            )
    return plan, jax.jit(moved, in_shardings=ends[0], out_shardings=ends[1])


def figures(pair: Pair, program: str, devices: Sequence[Any], run: bool = True) -> Figures:
    """One program for a pair, compiled for some devices and, if it can, run and verified.

    Sizes in bytes per device: `received` and `bound`, `buffer` (the largest array in the program),
    `temp`, and the two ends `source` and `target`. Empty if the program does not exist.
    """
    import jax

    from redistrib.interop.hlo_traffic import hlo_traffic

    built = program_of(pair, program, devices)
    if built is None:
        return {}
    plan, jitted = built
    src, dst = plan.src, plan.dst
    abstract: Any = jax.ShapeDtypeStruct  # untyped in jax
    compiled = jitted.lower(abstract(pair.shape, src.numpy_dtype)).compile()
    memory = compiled.memory_analysis()
    traffic = hlo_traffic(compiled.as_text())
    result: Figures = {
        "received": traffic.received_bytes,
        "bound": plan.lower_bound_bytes,
        "collectives": traffic.counts,
        "buffer": traffic.largest_buffer_bytes,
        "temp": memory.temp_size_in_bytes,
        "source": src.tile_bytes,
        "target": dst.tile_bytes,
    }
    if run:
        used = devices[: src.mesh.num_devices]
        raw = np.random.default_rng(0).integers(0, 256, src.size * src.itemsize, np.uint8)
        if pair.dtype == "bool":
            raw &= 1
        array = raw.view(src.numpy_dtype).reshape(pair.shape)
        x = jax.make_array_from_single_device_arrays(
            pair.shape,
            compiled.input_shardings[0][0],
            [jax.device_put(array[np.ix_(*src.tile(n))], device) for n, device in enumerate(used)],
        )
        tiles = {shard.device: np.asarray(shard.data) for shard in compiled(x).addressable_shards}
        result["exact"] = all(
            tiles[device].tobytes() == array[np.ix_(*dst.tile(n))].tobytes()
            for n, device in enumerate(used)
        )
    return result


def pair_of(entry: Mapping[str, Any]) -> Pair:
    """The inverse of `dataclasses.asdict`, from JSON."""
    src, dst = (tuple(map(tuple, entry[key])) for key in ("src", "dst"))
    return Pair(tuple(entry["mesh"]), tuple(entry["shape"]), src, dst, entry["dtype"])
