"""The reductions of partial arrays: their names, what combines two addends, what adds nothing.

An array that is partial over an axis of 4 is 4 addends; under `max` it is their maximum, and a
device that has nothing to add holds the identity of the maximum, -inf in a float dtype.

>>> REDUCTIONS
('sum', 'prod', 'max', 'min')
>>> UFUNCS["max"](2, 3), identity(np.dtype("float32"), "max")
(np.int64(3), np.float32(-inf))
"""

from __future__ import annotations

from typing import Any

import numpy as np

REDUCTIONS = ("sum", "prod", "max", "min")
UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def identity(dtype: np.dtype[Any], reduction: str | None) -> Any:
    """The value that a reduction (sum, prod, max, min) ignores, in a dtype.

    >>> identity(np.dtype("int8"), "max"), identity(np.dtype("float32"), "min")
    (np.int8(-128), np.float32(inf))
    """
    if reduction == "prod":
        return dtype.type(1)
    if reduction == "sum":  # -0.0, since +0.0 turns an addend of -0.0 into +0.0
        return dtype.type(complex(-0.0, -0.0) if dtype.kind == "c" else -0.0)
    lowest = reduction == "max"
    if dtype.kind == "b":
        return dtype.type(not lowest)
    if dtype.kind in "iu":
        return dtype.type(np.iinfo(dtype).min if lowest else np.iinfo(dtype).max)
    infinity = -np.inf if lowest else np.inf
    if dtype.kind == "c":
        return dtype.type(complex(infinity, infinity))
    value = dtype.type(infinity)
    if not np.isnan(value):
        return value
    # f8e4m3fn has no infinity: its largest number takes that place.
    import ml_dtypes

    limits: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return dtype.type(limits.min if lowest else limits.max)
