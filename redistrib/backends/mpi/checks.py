"""What a program gives, checked: types, ranks of a mesh, the element type, tiles, results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.layouts import Subarray
from redistrib.errors import BackendError, LayoutError
from redistrib.text import brief
from redistrib.types.array_type import ArrayType

Ranks = Sequence[int] | None
Index = slice | tuple[slice, ...] | None
C_ORDER, F_ORDER, NO_ORDER = range(3)
MOST_WORK: Any = 1_000_000
"""Steps in which numpy is to find out whether two arrays share an element."""


def usable_timeout(timeout: Any) -> float | None:
    """A timeout in seconds; None for what is none, which is told once the ranks can agree."""
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    return float(timeout) if number and timeout > 0 else None


def check_timeout(timeout: Any) -> float | None:
    """A timeout in seconds, or None. Raises BackendError for what is neither."""
    seconds = usable_timeout(timeout)
    if seconds is None and timeout is not None:
        raise BackendError(
            f"timeout is a number of seconds above 0, or None; got {timeout!r}", timeout=timeout
        )
    return seconds


def element_type(src: ArrayType, dst: ArrayType, dtype: DTypeLike | None) -> np.dtype[Any]:
    """The dtype of the tiles. Raises BackendError where it cannot be that of these types."""
    if dtype is None:
        return src.numpy_dtype
    element = np.dtype(dtype)
    if element.hasobject:
        raise BackendError(
            f"elements are bytes without references; got dtype {element}", dtype=element
        )
    if element.itemsize == 0 or element.subdtype is not None:
        raise BackendError(
            f"elements are of at least one byte, and no arrays; got dtype {element}", dtype=element
        )
    if (src.partial or dst.partial) and element != src.numpy_dtype:
        raise BackendError(
            f"a reduction is over the types' dtype, {src.numpy_dtype}; got {element}", dtype=element
        )
    return element


def check_ends(
    src: ArrayType, dst: ArrayType, subarrays: Sequence[Subarray | None] = (None, None)
) -> None:
    """Raise LayoutError unless an exchange can lead from one end to the other."""
    shapes = [
        t.shape if part is None else tuple(high - low for low, high in part)
        for t, part in zip((src, dst), subarrays, strict=True)
    ]
    if shapes[0] != shapes[1] or src.dtype != dst.dtype:
        parts = "" if subarrays == (None, None) else f", sub-arrays of {shapes[0]} and {shapes[1]}"
        raise LayoutError(
            f"source and target have one shape and dtype; got {src} and {dst}{parts}",
            src=src,
            dst=dst,
        )
    if dst.partial:
        raise LayoutError(
            f"between two sets of ranks, or sub-arrays, the target is not partial; got {dst}",
            dst=dst,
        )


def subarray_of(t: ArrayType, index: Index, name: str) -> Subarray | None:
    """The part of an array that an index names; None for all of it.

    >>> from redistrib.types.mesh import Mesh
    >>> t = ArrayType.parse("f32[8{x}, 3]", Mesh(x=2))
    >>> subarray_of(t, np.s_[-2:], "src_index"), subarray_of(t, np.s_[:, :9], "src_index")
    (((6, 8), (0, 3)), None)

    Raises BackendError for what is no slice of step 1 per dimension.
    """
    if index is None:
        return None
    slices: Any = index if isinstance(index, tuple) else (index,)
    if len(slices) > len(t.shape) or not all(
        isinstance(part, slice) and part.step in (None, 1) for part in slices
    ):
        raise BackendError(
            f"{name} is a slice of step 1 per dimension of {t}, at most; got {brief(index)}",
            index=index,
        )
    full = tuple((0, n) for n in t.shape)
    named = tuple(part.indices(n)[:2] for part, n in zip(slices, t.shape, strict=False))
    bounds = tuple((low, max(low, high)) for low, high in named) + full[len(slices) :]
    return None if bounds == full else bounds


def ranks_of(
    src: ArrayType, dst: ArrayType, src_ranks: Ranks, dst_ranks: Ranks, size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Per position of either mesh the rank that has it: the one named, or its device id.

    Raises BackendError unless each position has a rank of its own, one of `size`.
    """
    ordered = src.mesh.devices is not None or dst.mesh.devices is not None
    named = src_ranks is not None or dst_ranks is not None
    if src.mesh == dst.mesh and not ordered and not named and size != src.mesh.num_devices:
        raise BackendError(
            f"the mesh {src.mesh} has {src.mesh.num_devices} positions, one for each rank; "
            f"the communicator has {size} ranks",
            size=size,
        )
    return _checked(src_ranks, src, size), _checked(dst_ranks, dst, size)


def _checked(chosen: Ranks, t: ArrayType, size: int) -> tuple[int, ...]:
    """The ranks of a mesh, one for each position."""
    ranks = t.mesh.ids if chosen is None else tuple(int(rank) for rank in chosen)
    if len(ranks) != t.mesh.num_devices or len(set(ranks)) != len(ranks):
        raise BackendError(
            f"each of the {t.mesh.num_devices} positions of {t.mesh} has a rank of its own; "
            f"got {list(ranks)}",
            ranks=ranks,
        )
    if min(ranks) < 0 or max(ranks) >= size:
        raise BackendError(
            f"the ranks of {t.mesh} are 0 to {size - 1}, those of the communicator; "
            f"got {list(ranks)}",
            ranks=ranks,
        )
    return ranks


def check_tile(
    tile: Any, t: ArrayType, shape: tuple[int, ...] | None, dtype: np.dtype[Any], name: str
) -> None:
    """Raise BackendError unless a buffer is this rank's tile of a type; it has none of no shape."""
    if shape is None:
        if tile is not None:
            raise BackendError(f"{name} is None on a rank that has no tile of {t}")
        return
    if hasattr(tile, "__cuda_array_interface__"):
        raise BackendError(
            f"{name} is in the memory of the host; got {type(tile).__name__} on a GPU: copy it, or "
            "use the jax or torch backend, which move what is on devices"
        )
    if type(tile) not in (np.ndarray, np.memmap):
        kind = type(tile).__name__
        also = "; of a subclass, what is more than the data would be lost"
        raise BackendError(
            f"{name} is a numpy array; got {kind}{also * isinstance(tile, np.ndarray)}"
        )
    if tile.shape != shape or tile.dtype != dtype:
        raise BackendError(
            f"{name} is a tile of {t}, of shape {list(shape)} and dtype {dtype}; "
            f"got shape {list(tile.shape)} and dtype {tile.dtype}",
            shape=tile.shape,
            dtype=tile.dtype,
        )


def check_given(
    tiles: Sequence[Tile | None],
    outs: Sequence[Tile | None],
    ends: Sequence[tuple[ArrayType, tuple[int, ...] | None]],
    dtype: np.dtype[Any],
    *,
    in_place: bool,
) -> None:
    """Check tiles and the outs among the results; `ends`: types with this rank's shapes."""
    for tile, out in zip(tiles, outs, strict=True):
        check_tile(tile, *ends[0], dtype, "tile")
        if out is not None:
            check_tile(out, *ends[1], dtype, "out")
    check_results(tiles, outs, in_place=in_place)


def check_results(
    tiles: Sequence[Tile | None], outs: Sequence[Tile | None], *, in_place: bool = False
) -> None:
    """Raise BackendError unless each result may be written while the tiles are read.

    in_place: a result may be its tile.
    """
    results = [out for out in outs if out is not None]
    for out in results:
        if not out.flags.writeable:
            raise BackendError("out is writeable; got a read-only array")
        if out.size and any(
            n > 1 and stride == 0 for n, stride in zip(out.shape, out.strides, strict=True)
        ):
            raise BackendError("out has memory for each element; got an array that repeats some")
        if any(
            tile is not None and _overlap(out, tile)
            for tile, result in zip(tiles, outs, strict=True)
            if not (in_place and tile is out is result)
        ):
            raise BackendError("out shares no memory with a tile")
    if any(_overlap(a, b) for a, b in combinations(results, 2)):
        raise BackendError("outs share no memory with one another")


def _overlap(a: Tile, b: Tile) -> bool:
    """Whether two arrays share an element; where that is hard to say, whether their bounds do."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=MOST_WORK)
    except np.exceptions.TooHardError:
        return True


def memory_order(arrays: Iterable[Tile | None]) -> int:
    """The vote of a rank on the order in which tiles are seen; the least of all ranks holds.

    F_ORDER if all its arrays are F-ordered and no C order serves them as well, NO_ORDER if either
    does (one dimension, no arrays), C_ORDER for any other strides.
    """
    present = [array for array in arrays if array is not None]
    if all(array.flags.c_contiguous and array.flags.f_contiguous for array in present):
        return NO_ORDER
    return F_ORDER if all(array.flags.f_contiguous for array in present) else C_ORDER
