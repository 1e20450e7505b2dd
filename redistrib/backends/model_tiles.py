"""What a transfer of a model does to one device's tiles, with numpy: for every transport.

Of a tile of 2 rows of 4, the view with offset 1 and the run (2, stride 4) is the second column:

>>> tile = np.arange(8).reshape(2, 4)
>>> strided(tile, 1, [(2, 4)]).tolist()
[1, 5]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from redistrib.models.transfers import Transfer
from redistrib.types.dtypes import numpy_dtype
from redistrib.types.reduction import identity

Array = NDArray[Any]


def packed(transfer: Transfer, tile: Array) -> Array:
    """The elements of a source tile as they cross: each once, in the dtype of the wire."""
    view = transfer.view
    values = strided(tile, view.source_offset, [(n, s) for n, _, s in view.runs if s])
    wire = transfer.dtypes.index(transfer.wire)
    for dtype in transfer.dtypes[: wire + 1]:
        values = values.astype(numpy_dtype(dtype), copy=False)
    return np.array(values)


def put(transfer: Transfer, tile: Array, values: Array) -> None:
    """Write what has crossed into a target tile, through the casts that are left."""
    view = transfer.view
    wire = transfer.dtypes.index(transfer.wire)
    for dtype in transfer.dtypes[wire + 1 :]:
        values = values.astype(numpy_dtype(dtype))
    written = strided(tile, view.target_offset, [(n, t) for n, t, _ in view.runs])
    written[...] = values.reshape([n if s else 1 for n, _, s in view.runs])


def fill(transfer: Transfer, tile: Array) -> None:
    """Write zeros, or the identity of a reduction."""
    view = transfer.view
    written = strided(tile, view.target_offset, [(n, t) for n, t, _ in view.runs])
    written[...] = identity(tile.dtype, transfer.reduction) if transfer.reduction else 0


def strided(tile: Array, offset: int, runs: Sequence[tuple[int, int]]) -> Array:
    """Elements of a contiguous tile from an offset on, by (count, stride) runs; a view."""
    flat = tile.reshape(-1)[offset:]
    return as_strided(flat, [n for n, _ in runs], [stride * flat.itemsize for _, stride in runs])
