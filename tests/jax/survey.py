"""A seeded survey of reshardings on jax: our programs beside those of XLA, by HLO and bit for bit.

`python -m tests.jax.survey` reads pairs from stdin, one JSON object a line, and writes a line for
each program: its figures, and whether every shard is what the type says. XLA's compiler divides by
zero on some pairs and takes the process with it, so `survey` runs this in processes of its own and
goes on after the pair that crashed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import redistrib as rd

ROOT = Path(__file__).parents[2]
DTYPES = ("f32", "bf16", "i8", "bool", "c64")
MESHES = {
    8: ((2, 4), (4, 2), (2, 2, 2)),
    12: ((3, 4), (4, 3), (2, 6), (6, 2), (2, 2, 3), (3, 2, 2), (2, 3, 2)),
    16: ((2, 8), (8, 2), (4, 4), (2, 2, 4), (2, 2, 2, 2)),
}
COUNTS = {8: 200, 12: 200, 16: 400}
CHUNKS = 8
SCALARS = 4096
"""Bytes that starts of boxes and the like may take beside the tiles."""

Spec = tuple[tuple[str, ...], ...]
"""Axes per dimension, major to minor."""
Figures = dict[str, Any]


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
    rng = random.Random(devices)
    found = []
    for number in range(COUNTS[devices]):
        mesh = MESHES[devices][number % len(MESHES[devices])]
        rank = rng.choice((2, 3, 4))
        src, dst = (_random_spec(rng, len(mesh), rank) for _ in range(2))
        while src == dst:
            dst = _random_spec(rng, len(mesh), rank)
        found.append(Pair(mesh, shape(devices, rank), src, dst))
    return found[:count]


def crashing() -> list[Pair]:
    """Pairs on which XLA's compiler (jaxlib 0.10.2) divides by zero."""
    return [
        Pair((2, 2, 4), (32, 32, 32, 32), *specs("c a - b", "a - b c")),
        Pair((4, 4, 2), (32, 32, 32, 32), *specs("c a - b", "a - b c")),
        Pair((2, 2, 4, 4), (32, 32, 32, 32), *specs("b c - da", "d a c b")),
    ]


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


def survey(work: Iterable[tuple[Pair, str]], timeout: float = 600) -> Iterator[Figures]:
    """The figures of each program, in order; {"crashed": signal} where the process was lost.

    A program is "ours", "chunked" (ours in CHUNKS chunks) or "xla".
    """
    left = list(work)
    while left:
        text = "".join(json.dumps([asdict(pair), program]) + "\n" for pair, program in left)
        run = subprocess.run(
            [sys.executable, "-m", "tests.jax.survey"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        found = [json.loads(line) for line in run.stdout.splitlines()]
        yield from found
        left = left[len(found) :]
        if run.returncode > 0 or (left and not run.returncode):
            raise RuntimeError(run.stderr[-4000:])
        if left:
            yield {"crashed": -run.returncode}
            left = left[1:]


def check(work: Sequence[Pair], ratios: dict[str, list[float]] | None = None) -> Counter[str]:
    """Run all programs for these pairs, and check what must hold of each; counts of what was seen.

    `ratios` collects received bytes over the bound, of ours and of XLA's.
    """
    counts: Counter[str] = Counter()
    programs = ("ours", "chunked", "xla")
    results = survey([(pair, program) for pair in work for program in programs])
    for pair in work:
        ours, chunked, xla = (next(results) for _ in programs)
        largest = max(ours["source"], ours["target"])
        assert ours["exact"], pair
        assert ours["buffer"] <= largest, (pair, ours)
        assert ours["temp"] <= 2 * largest + SCALARS, (pair, ours)
        counts["pairs"] += 1
        if chunked:
            assert chunked["exact"], pair
            assert chunked["received"] == ours["received"], (pair, chunked)
            # XLA on CPU widens narrow floats where they are sliced and updated, so both ends of a
            # loop are copied, as integers.
            copies = ours["source"] + ours["target"] if pair.dtype == "bf16" else 0
            assert chunked["temp"] <= copies + 0.3 * largest + SCALARS, (pair, chunked)
            counts["in chunks"] += 1
        if "crashed" in xla:
            counts["XLA crashed"] += 1
            continue
        assert ours["received"] <= xla["received"], (pair, ours, xla)
        counts["XLA's buffer above both tiles"] += xla["buffer"] > largest
        counts["XLA's temp above 2 tiles"] += xla["temp"] > 2 * largest
        counts["XLA receives more"] += xla["received"] > ours["received"]
        if ratios is not None and ours["bound"]:
            for name, found in (("ours", ours), ("xla", xla)):
                ratios.setdefault(name, []).append(found["received"] / ours["bound"])
    return counts


def program_of(pair: Pair, program: str, devices: Sequence[Any]) -> tuple[rd.Plan, Any] | None:
    """The plan of a pair and one of its programs, a jax.jit function; None if it has no chunks."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding

    from redistrib.backends import jax as rjax
    from redistrib.backends.jax import shardings

    own = rd.Mesh(pair.axes)
    src, dst = (rd.ArrayType(own, pair.dtype, pair.shape, spec) for spec in (pair.src, pair.dst))
    plan = rd.plan(src, dst)
    grid = np.array(devices[: own.num_devices]).reshape(pair.mesh)
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
    import numpy as np

    from redistrib.interop.hlo_traffic import hlo_traffic

    found = program_of(pair, program, devices)
    if found is None:
        return {}
    plan, jitted = found
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


def main() -> None:
    """Answer the pairs on stdin, on virtual CPU devices."""
    work = [(pair_of(entry), program) for entry, program in map(json.loads, sys.stdin)]
    count = max(prod(pair.mesh) for pair, _ in work)
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    for pair, program in work:
        sys.stdout.write(json.dumps(figures(pair, program, jax.devices())) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
