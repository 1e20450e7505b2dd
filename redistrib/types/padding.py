"""Uneven types as even types of a padded array, where both ends of a move are such.

`f32[10{x}:ceil, 8]` on x=4 is `f32[12{x}, 8]` without the rows 10 and 11: tiles of 3, 3, 3 and 1
rows are the first rows of tiles of 3. Two types whose padded sizes agree are ends of an even move:

>>> from redistrib.types.mesh import Mesh
>>> mesh = Mesh(x=4)
>>> src, dst = (ArrayType.parse(text, mesh) for text in ("f32[10{x}:ceil, 8]", "f32[10, 8{x}]"))
>>> sizes = common_padding(src, dst)
>>> sizes, str(padded(src, sizes)), str(padded(dst, sizes))
((12, 8), 'f32[12{x}, 8]', 'f32[12, 8{x}]')

Law: a tile of the uneven type is the corner of the padded tile, since indices ascend in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from redistrib.types.array_type import ArrayType
from redistrib.types.uneven import Ceil, padded_size


def common_padding(src: ArrayType, dst: ArrayType) -> tuple[int, ...] | None:
    """The shape that both types of one array can be padded to; None where there is none.

    A dimension that only one of them shards may be padded as that one wants it.
    """
    shape = []
    for dim, n in enumerate(src.shape):
        wanted = {_padded(t, dim) for t in (src, dst) if t.dims[dim]} or {n}
        size = wanted.pop()
        if wanted or size is None:
            return None
        shape.append(size)
    return tuple(shape)


def _padded(t: ArrayType, dim: int) -> int | None:
    """What a sharded dimension is padded to; None for blocks that no padding makes equal."""
    rule = dict(t.uneven).get(dim)
    if rule is None:
        return t.shape[dim]
    return padded_size(t.shape[dim], t.dims[dim]) if isinstance(rule, Ceil) else None


def padded(t: ArrayType, shape: Sequence[int]) -> ArrayType:
    """The even type of the array padded to a shape, one that `common_padding` gives."""
    return ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction or "sum")
