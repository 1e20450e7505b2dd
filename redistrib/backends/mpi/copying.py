"""Copies between strided arrays, whose elements are opaque bytes.

numpy takes as long for each innermost run as for about 100 bytes more, so a short run that both
sides have is one element: of block-cyclic float64 from blocks of 2 to blocks of 8, 16 bytes each,
which is copied eleven times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from redistrib.backends.mpi.datatypes import Tile

SHORT_RUN = 128
"""Bytes of a run up to which it is copied faster as one element."""


def opaque(tiles: Iterable[Tile | None]) -> list[Tile | None]:
    """Arrays whose elements are opaque bytes of the same size, whatever their strides."""
    return [None if tile is None else tile.view(_element(tile.itemsize)) for tile in tiles]


def by_runs(a: Tile, b: Tile) -> tuple[Tile, Tile]:
    """Two opaque arrays of one shape, with their innermost runs as elements if these are short.

    >>> whole, part = np.zeros((2, 8), "u8"), np.ones((2, 2), "u8")
    >>> [array.shape for array in by_runs(whole[:, :2], part)]
    [(2,), (2,)]
    >>> copy(whole[:, :2], part); whole.tolist()
    [[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    """
    size = a.itemsize
    if a.ndim < 2 or a.strides[-1] != size or b.strides[-1] != size:
        return a, b
    run = size * a.shape[-1]
    if not size < run <= SHORT_RUN:
        return a, b
    return a.view(_element(run))[..., 0], b.view(_element(run))[..., 0]


def copy(target: Tile, source: Tile) -> None:
    """Put the elements of an array into another of its shape."""
    target, source = by_runs(target, source)
    target[...] = source


def _element(size: int) -> np.dtype[np.generic]:
    """The dtype of opaque elements of so many bytes that numpy copies fastest."""
    return np.dtype({1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}.get(size, f"V{size}"))
