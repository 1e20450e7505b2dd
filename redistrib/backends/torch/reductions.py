"""Combining two addends on one device, for every dtype, as numpy combines them.

torch has no arithmetic on some dtypes: unsigned integers are combined as the signed ones of the
same bits, floats of one byte in f32, rounded after each addend, and complex numbers are compared by
their real parts, then by their imaginary ones.

>>> combined(torch.tensor([200], dtype=torch.uint16), torch.tensor([7], dtype=torch.uint16), "max")
tensor([200], dtype=torch.uint16)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from redistrib.backends.torch.dtypes import SIGNED, SMALL_FLOATS

Tensor = Any

_OPERATIONS: dict[str, Any] = {
    "sum": torch.add,
    "prod": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
}
# On bool, as in numpy.
_BOOL_OPERATIONS: dict[str, Any] = {
    "sum": torch.logical_or,
    "max": torch.logical_or,
    "prod": torch.logical_and,
    "min": torch.logical_and,
}


def combined(a: Tensor, b: Tensor, reduction: str, out: Tensor | None = None) -> Tensor:
    """The reduction of two tensors of one shape and dtype, in `out`, which may be one of them."""
    dtype = a.dtype
    out = torch.empty(a.shape, dtype=dtype, device=a.device) if out is None else out
    if dtype == torch.bool:
        return _BOOL_OPERATIONS[reduction](a, b, out=out)
    if dtype in SMALL_FLOATS:
        return out.copy_(_OPERATIONS[reduction](a.to(torch.float32), b.to(torch.float32)))
    if dtype in SIGNED:
        a, b = a.view(SIGNED[dtype]), b.view(SIGNED[dtype])
        _unsigned(a, b, out.view(SIGNED[dtype]), reduction)
        return out
    if dtype.is_complex and reduction in ("max", "min"):
        return out.copy_(torch.where(_precedes(b, a, reduction), b, a))
    return _OPERATIONS[reduction](a, b, out=out)


def reduced(pieces: Sequence[Tensor], reduction: str, out: Tensor | None = None) -> Tensor:
    """The reduction of at least two tensors, from the first on, in `out`."""
    first, second, *others = pieces
    result = combined(first, second, reduction, out)
    for piece in others:
        combined(result, piece, reduction, result)
    return result


def _unsigned(a: Tensor, b: Tensor, out: Tensor, reduction: str) -> None:
    """As signed integers of the same bits; to compare them, the first bit is flipped."""
    if reduction in ("sum", "prod"):
        _OPERATIONS[reduction](a, b, out=out)
        return
    flip = torch.iinfo(a.dtype).min
    out.copy_(_OPERATIONS[reduction](a ^ flip, b ^ flip) ^ flip)


def _precedes(b: Tensor, a: Tensor, reduction: str) -> Tensor:
    """Where b is to be taken: it is greater (or less), or no number while a is one."""
    greater = (b.real > a.real) | ((b.real == a.real) & (b.imag > a.imag))
    less = (b.real < a.real) | ((b.real == a.real) & (b.imag < a.imag))
    chosen = greater if reduction == "max" else less
    return ~torch.isnan(a) & (chosen | torch.isnan(b))
