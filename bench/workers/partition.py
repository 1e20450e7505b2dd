"""XLA's resharding, compiled only:  python -m bench.workers.partition

XLA_FLAGS gives the number of devices.

The answer lists the collectives of the compiled program in order: kind, the mesh axes that data
crosses, the size of a group, and the bytes that the worst device receives.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from bench.workers.protocol import Figures, UnsupportedError, serve
from bench.workloads import parse_types
from redistrib.backends.jax import shardings
from redistrib.interop.hlo_traffic import hlo_traffic, replica_groups

COLLECTIVE = re.compile(
    r" (all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute)(?:-start)?\("
)
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?\s*)*)\}")


def prepare(workload: Figures) -> tuple[Figures, None]:
    """Compile the identity between two shardings, and read its collectives."""
    src, dst = parse_types(workload)
    sizes = tuple(size for _, size in src.mesh.axes)
    names = [name for name, _ in src.mesh.axes]
    mesh = Mesh(np.array(jax.devices()[: src.mesh.num_devices]).reshape(sizes), names)
    ends = [NamedSharding(mesh, shardings.partition_spec(t)) for t in (src, dst)]
    jitted = jax.jit(lambda x: x, in_shardings=ends[0], out_shardings=ends[1])
    abstract: Any = jax.ShapeDtypeStruct
    text = jitted.lower(abstract(src.shape, src.numpy_dtype)).compile().as_text() or ""
    collectives: list[Figures] = []
    for line in text.splitlines():
        if match := COLLECTIVE.search(line):
            alone = f"HloModule m, num_partitions={src.mesh.num_devices}\n"
            alone += f"ENTRY %main () -> f32[] {{\n{line}\n}}\n"
            size, crossed = _group(match[1], line, sizes)
            collectives.append(
                {
                    "kind": match[1],
                    "axes": [names[number] for number in crossed],
                    "group": size,
                    "received_bytes": hlo_traffic(alone).received_bytes,
                }
            )
    total = sum(collective["received_bytes"] for collective in collectives)
    if total != hlo_traffic(text).received_bytes:
        raise UnsupportedError("the collectives are not all in straight-line code")
    return {"collectives": collectives}, None


def _group(kind: str, line: str, sizes: tuple[int, ...]) -> tuple[int, list[int]]:
    """The largest group's size, and the axes on which the coordinates within a group differ."""
    devices = int(np.prod(sizes))
    if kind == "collective-permute":
        pairs = PAIRS.search(line)
        assert pairs is not None
        groups: list[tuple[int, ...]] = [
            (int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1]) if a != b
        ]
        size = 2
    else:
        groups = [tuple(group) for group in replica_groups(line, devices)]
        size = max(map(len, groups))
    crossed = set()
    for group in groups:
        coordinates = np.array(np.unravel_index(group, sizes))
        crossed |= set(np.flatnonzero((coordinates != coordinates[:, :1]).any(axis=1)).tolist())
    return size, sorted(crossed)


if __name__ == "__main__":
    serve(prepare)
