"""Committed strided datatypes, and what a send or receive takes for a strided array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.mpi.lifetime import alive
from redistrib.backends.mpi.requests import Message

Tile = NDArray[Any]


def address_of(tile: Tile) -> int:
    """Where the first element of a tile lies."""
    address: int = tile.__array_interface__["data"][0]
    return address


def places_of(tiles: Iterable[Tile | None]) -> list[Any]:
    """Where tiles lie: addresses and strides."""
    return [None if tile is None else (address_of(tile), tile.strides) for tile in tiles]


class Datatypes:
    """Committed strided datatypes, made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], MPI.Datatype] = {}
        self.open = True

    def message(self, part: Tile) -> Message:
        """What a send or receive takes for the elements of a strided array."""
        address = address_of(part)
        if part.flags.c_contiguous:
            return [MPI.buffer.fromaddress(address, part.nbytes), part.nbytes, MPI.BYTE]
        datatype = self.strided(part)
        # The size only passes a check: what is read and written is up to the datatype.
        return [MPI.buffer.fromaddress(address, datatype.extent), 1, datatype]

    def strided(self, part: Tile) -> MPI.Datatype:
        """The datatype of a strided array, relative to its first element."""
        key = part.shape, part.strides, part.itemsize
        if key not in self._made:
            self._made[key] = _strided(*key).Commit()
        return self._made[key]

    def free(self) -> None:
        """Release them; what is under way with one of them keeps it. Nothing after Finalize."""
        if alive():
            for datatype in self._made.values():
                datatype.Free()
        self._made.clear()
        self.open = False

    def __del__(self) -> None:
        self.free()


def _strided(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> MPI.Datatype:
    run = itemsize
    levels = [(n, s) for n, s in zip(shape, strides, strict=True) if n > 1]
    while levels and levels[-1][1] == run:
        run *= levels.pop()[0]
    if not levels:
        return MPI.BYTE.Create_contiguous(run)
    count, stride = levels.pop()
    datatype = MPI.BYTE.Create_hvector(count, run, stride)
    for count, stride in reversed(levels):
        inner, datatype = datatype, datatype.Create_hvector(count, 1, stride)
        inner.Free()
    return datatype
