"""What a method of bench.mpi_worker moves: two types, and the tiles of this rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

import redistrib as rd


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
        own = mine.tile(self.comm.rank)
        found = []
        for peer in range(self.comm.size):
            box = []
            for held, wanted in zip(own, theirs.tile(peer), strict=True):
                at = np.flatnonzero(np.isin(held, wanted, assume_unique=True))
                assert len(at) == 0 or at[-1] - at[0] + 1 == len(at)
                box.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
            found.append(tuple(box))
        return found

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
