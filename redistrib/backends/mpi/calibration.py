"""Latency and bandwidth between ranks, measured with the exchanges that plans are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.errors import BackendError
from redistrib.synth.plan.profile import Link, Profile
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

TILES = tuple(1 << power for power in range(10, 25, 2))
"""Bytes of the tiles that are exchanged: 1 KiB to 16 MiB."""


def calibrate(
    mesh: Mesh,
    comm: MPI.Intracomm,
    name: str = "calibrated",
    tiles: Sequence[int] = TILES,
    repeat: int = 9,
) -> Profile:
    """The profile of this machine: a link for each axis of a mesh, over ranks as its positions.

    Along each axis, tiles of several sizes are exchanged between all its positions, in all its
    groups at once; a line through the median times gives latency and bandwidth (bytes that a rank
    receives a second). The link of the profile is that of the slowest axis. Collective; the same
    profile on every rank. Raises BackendError unless there is one rank for each position, and more
    than one: a rank alone has no link to measure.
    """
    if mesh.num_devices < 2:
        raise BackendError(
            f"a link is measured between two ranks or more; got a mesh of {mesh.num_devices} and "
            f"{comm.size} ranks: mpiexec -n 8 redistrib calibrate ...",
            ranks=comm.size,
        )
    links = []
    for axis, size in mesh.axes:
        if size > 1:
            points = list(_points(mesh, axis, size, comm, tiles, repeat))
            links.append((axis, _line(points)))
    slowest = Link(max(link.latency for _, link in links), min(link.bandwidth for _, link in links))
    return Profile(name, slowest, tuple(links) if len(links) > 1 else (), exchange="call")


def _points(
    mesh: Mesh, axis: str, size: int, comm: MPI.Intracomm, tiles: Sequence[int], repeat: int
) -> Iterator[tuple[int, float]]:
    """Bytes that a rank receives in an all_to_all along an axis, and its median seconds."""
    for tile_bytes in tiles:
        columns = size * max(1, tile_bytes // size)
        src, dst = (
            ArrayType.parse(text, mesh)
            for text in (f"u8[{size}{{{axis}}}, {columns}]", f"u8[{size}, {columns}{{{axis}}}]")
        )
        tile, out = np.zeros(src.tile_shape, np.uint8), np.empty(dst.tile_shape, np.uint8)
        times = []
        with Redistribution(src, dst, comm, strategy="direct") as redistribution:
            for number in range(repeat + 2):
                comm.Barrier()
                start = time.perf_counter()
                redistribution(tile, out)
                spent = comm.allreduce(time.perf_counter() - start, MPI.MAX)
                if number >= 2:
                    times.append(spent)
        yield dst.tile_bytes // size * (size - 1), median(times)


def _line(points: Sequence[tuple[int, float]]) -> Link:
    """Latency and bandwidth of the line that is nearest to the times, relatively.

    >>> _line([(1000, 2e-6), (2000, 3e-6)])
    Link(latency=1e-06, bandwidth=1000000000.0)
    """
    received, seconds = (np.array(column, float) for column in zip(*points, strict=True))
    # Each equation is divided by its time, so that small messages count as much as large ones.
    equations = np.stack([1 / seconds, received / seconds], axis=1)
    latency, per_byte = np.linalg.lstsq(equations, np.ones(len(points)), rcond=None)[0]
    if latency <= 0:
        latency = float(seconds.min())
    if per_byte <= 0:
        per_byte = float((seconds / received).min())
    return Link(float(f"{latency:.4g}"), float(f"{1 / per_byte:.4g}"))


def to_toml(profile: Profile, comment: str) -> str:
    """The text of a profile as `Profile.load` reads it."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f'name = "{profile.name}"', f'exchange = "{profile.exchange}"', *_link(profile.link)]
    for axis, link in profile.axes:
        lines += ["", f'[axes."{axis}"]', *_link(link)]
    return "\n".join(lines) + "\n"


def _link(link: Link) -> list[str]:
    return [f"latency = {link.latency!r}  # s", f"bandwidth = {link.bandwidth!r}  # bytes/s"]
