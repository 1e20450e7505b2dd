"""What a method under MPI moves, two types and the tiles of this rank; methods timed in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from mpi4py import MPI

import redistrib as rd

ROUNDS = 25


class CannotError(Exception):
    """A library that is not here, or cannot do this job."""


@dataclass(slots=True)
class Job:
    """Two types, and this rank's tiles."""

    comm: MPI.Intracomm
    src: rd.ArrayType
    dst: rd.ArrayType
    tile: np.ndarray
    out: np.ndarray

    def boxes(self, sending: bool) -> list[tuple[slice, ...]]:
        """Per peer what this rank has for it, or gets from it; one box each in these jobs."""
        mine, theirs = (self.src, self.dst) if sending else (self.dst, self.src)
        indices = mine.tile(self.comm.rank)
        result = []
        for peer in range(self.comm.size):
            box = []
            for held, wanted in zip(indices, theirs.tile(peer), strict=True):
                places = np.flatnonzero(np.isin(held, wanted, assume_unique=True))
                assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
                box.append(
                    slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
                )
            result.append(tuple(box))
        return result

    def runs(self, sending: bool) -> int:
        """The most contiguous runs of a piece on one side."""
        width = (self.tile if sending else self.out).shape[-1]
        rows, columns = (
            [box[axis].stop - box[axis].start for box in self.boxes(sending) if nonempty(box)]
            for axis in (0, 1)
        )
        return max(n if m < width else 1 for n, m in zip(rows, columns, strict=True))


def subarray(array: np.ndarray, box: tuple[slice, ...]) -> MPI.Datatype:
    sizes = list(array.shape)
    sub, start = [s.stop - s.start for s in box], [s.start for s in box]
    for values in (sizes, sub, start):
        values[-1] *= array.itemsize
    return MPI.BYTE.Create_subarray(sizes, sub, start).Commit()


def nonempty(box: tuple[slice, ...]) -> bool:
    return all(s.stop > s.start for s in box)


def timed(comm: MPI.Intracomm, calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Medians of the seconds of the slowest rank, and of the CPU seconds of all.

    The calls take turns, in another order each time; the first round is not counted.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name in random.Random(number).sample(list(calls), len(calls)):
            comm.Barrier()
            wall, work = time.perf_counter(), time.process_time()
            calls[name]()
            wall, work = time.perf_counter() - wall, time.process_time() - work
            if number:
                seconds[name].append((comm.allreduce(wall, MPI.MAX), comm.allreduce(work)))
    return {name: [median(column) for column in zip(*seconds[name], strict=True)] for name in calls}
