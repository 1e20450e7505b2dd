"""How addends become one: by which operation, in which dtype, and what may be in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from redistrib.backends.mpi.datatypes import Tile
from redistrib.errors import BackendError
from redistrib.types.array_type import ArrayType
from redistrib.types.reduction import UFUNCS


@dataclass(frozen=True, slots=True)
class Adding:
    """How addends are taken together, in rank order.

    op: in place of the reduction of their type. accumulate: the dtype in between, if another.
    """

    op: Callable[..., Any] | None = None
    accumulate: np.dtype[Any] | None = None

    @property
    def custom(self) -> bool:
        """Whether a caller gave an operation or a dtype: one step then reduces from end to end."""
        return self.op is not None or self.accumulate is not None

    def reduce(self, part: Tile, addends: Iterable[Tile], reduction: str) -> None:
        """Put what the addends come to into an array, which may be the first of them or the second.

        reduction: that of the addends' type, which need not be the source's: a plan of products
        may pass through sums.

        >>> part, addends = np.zeros(2, "f2"), [np.array([n, 2048], "f2") for n in (1, 1, 1)]
        >>> Adding(accumulate=np.dtype("f4")).reduce(part, addends, "sum"); part
        array([3.000e+00, 6.144e+03], dtype=float16)
        """
        op = UFUNCS[reduction] if self.op is None else self.op
        first, *remaining = addends
        wide = self.accumulate is not None
        total: Any = first.astype(self.accumulate) if wide else first
        if not (wide or isinstance(op, np.ufunc)):
            total = first.copy()  # an operation of the caller may write into what it gets
        # As on an accelerator, an overflow is a value and no error.
        with np.errstate(all="ignore"):
            for addend in remaining:
                value = addend.astype(self.accumulate) if wide else addend
                into = total if wide else part
                if isinstance(op, np.ufunc):
                    op(total, value, out=into)
                else:
                    into[...] = op(total, value)
                total = into
            if total is not part:
                part[...] = total.astype(part.dtype, copy=False)

    def __str__(self) -> str:
        name = getattr(self.op, "__name__", type(self.op).__name__)
        wide = "" if self.accumulate is None else f" accumulated in {self.accumulate}"
        return f" by {name}" * (self.op is not None) + wide


def adding(
    src: ArrayType, dst: ArrayType, op: Callable[..., Any] | None, accumulate: DTypeLike | None
) -> Adding:
    """How a redistribution reduces. Raises BackendError for what it cannot do."""
    if op is None and accumulate is None:
        return Adding()
    if not src.partial or dst.partial:
        raise BackendError(
            f"op and accumulate are of a reduction, from a partial type to one that is not; "
            f"got {src} -> {dst}",
            src=src,
            dst=dst,
        )
    operation: Any = op
    binary = (
        (operation.nin, operation.nout) == (2, 1)
        if isinstance(operation, np.ufunc)
        else callable(operation)
    )
    if op is not None and not binary:
        raise BackendError(f"op takes two arrays and gives one; got {op!r}", op=op)
    wide = None if accumulate is None else np.dtype(accumulate)
    if wide is not None and wide.kind not in "iufc":
        raise BackendError(f"accumulate is a dtype of numbers; got {wide}", accumulate=wide)
    return Adding(op, wide)


def all_reduces(src: ArrayType, dst: ArrayType) -> bool:
    """Whether each device gets the reduction of the very tile that it has an addend of.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=2)
    >>> src = ArrayType.parse("f32[8{x}] sum{y}", mesh)
    >>> [all_reduces(src, ArrayType.parse(t, mesh)) for t in ("f32[8{x}]", "f32[8{y}]")]
    [True, False]
    """
    return bool(src.partial) and src.mesh == dst.mesh and dst == _reduced(src)


def _reduced(t: ArrayType) -> ArrayType:
    """The type of what the addends of one come to."""
    return ArrayType(t.mesh, t.dtype, t.shape, t.dims, uneven=dict(t.uneven) or None)
