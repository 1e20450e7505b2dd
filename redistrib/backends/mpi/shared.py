"""Target tiles in memory that the ranks of a node share.

What a rank has for another of its node it copies straight into that rank's tile: one copy, where a
message through shared memory takes two. An empty message then says that it is there. The memory is
a file of the system's memory without a name, so it goes with the last array that looks into it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.datatypes import Tile
from redistrib.errors import BackendError

MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share


class SharedTiles:
    """A tile for each rank of a node, which all of them can write.

    `ranks` are those of the node by their numbers in the communicator, `shapes` their tiles. A call
    writes into a tile once its owner has entered the call; the owner reads it after the notice of
    every rank that writes there.

    Raises BackendError where the node has no room for the tile of this rank.
    """

    def __init__(
        self,
        node: MPI.Comm,
        ranks: Sequence[int],
        shapes: Mapping[int, tuple[int, ...] | None],
        dtype: np.dtype[Any],
    ) -> None:
        self.ranks = frozenset(ranks)
        self.tiles: dict[int, Tile] = {}
        self._node, self._dtype = node, dtype
        self._shapes = {rank: shape for rank in ranks if (shape := shapes[rank]) is not None}
        self._rank = ranks[node.rank]
        self._file: int | None = None
        own_shape = self._shapes.get(self._rank)
        size = 0 if own_shape is None else prod(own_shape) * dtype.itemsize
        if not size:
            return
        try:
            # Without a name, so that nothing is left of it if this process dies.
            self._file = os.open(MEMORY, os.O_TMPFILE | os.O_RDWR, 0o600)
            # All pages at once: to touch one for which there is no room would end the process.
            os.posix_fallocate(self._file, 0, size)
        except (OSError, AttributeError) as error:
            self.close()
            free = f"{_free_bytes()} are left" if MEMORY.is_dir() else "there is none"
            raise BackendError(
                f"a shared tile takes {size} bytes of {MEMORY}; {free} ({error})", bytes=size
            ) from error

    def connect(self) -> None:
        """Map the tiles of all ranks. Collective on the node; raises BackendError."""
        files = self._node.allgather((self._rank, self._path()))
        for rank, path in files:
            shape = self._shapes.get(rank)
            if shape is None:
                continue
            if path is None:
                self.tiles[rank] = np.empty(shape, self._dtype)
                continue
            try:
                with Path(path).open("r+b") as file:
                    self.tiles[rank] = np.ndarray(shape, self._dtype, mmap.mmap(file.fileno(), 0))
            except OSError as error:
                raise BackendError(
                    f"ranks {self._rank} and {rank} share no memory: {error}", rank=rank
                ) from error

    def _path(self) -> str | None:
        """How the other processes of this node find the file; None where there is none."""
        return None if self._file is None else f"/proc/{os.getpid()}/fd/{self._file}"

    def close(self) -> None:
        """Close the file, once all ranks of the node are connected: mapped, it stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


def _free_bytes() -> int:
    status = os.statvfs(MEMORY)
    return status.f_bavail * status.f_frsize
