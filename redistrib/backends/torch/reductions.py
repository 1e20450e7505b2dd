"""Combining two addends on one device, for every dtype, as numpy combines them.

torch has no arithmetic on some dtypes: unsigned integers are combined as the signed ones of the
same bits, floats of one byte in f32, rounded after each addend, and complex numbers are compared by
their real parts, then by their imaginary ones.

>>> combined(torch.tensor([200], dtype=torch.uint16), torch.tensor([7], dtype=torch.uint16), "max")
tensor([200], dtype=torch.uint16)
"""

from __future__ import annotations

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


def combined(a: Tensor, b: Tensor, reduction: str) -> Tensor:
    """The reduction of two tensors of one shape and dtype, written into the first."""
    dtype = a.dtype
    if dtype == torch.bool:
        return _BOOL_OPERATIONS[reduction](a, b, out=a)
    if dtype in SMALL_FLOATS:
        whole = _OPERATIONS[reduction](a.to(torch.float32), b.to(torch.float32))
        return a.copy_(whole)
    if dtype in SIGNED:
        return _unsigned(a.view(SIGNED[dtype]), b.view(SIGNED[dtype]), reduction).view(dtype)
    if dtype.is_complex and reduction in ("max", "min"):
        return a.copy_(torch.where(_precedes(b, a, reduction), b, a))
    return _OPERATIONS[reduction](a, b, out=a)


def reduced(pieces: Tensor, reduction: str) -> Tensor:
    """The reduction of `[k, *piece]` over its leading dimension, from the first on."""
    result = pieces[0].clone()
    for piece in pieces[1:]:
        combined(result, piece, reduction)
    return result


def _unsigned(a: Tensor, b: Tensor, reduction: str) -> Tensor:
    """As signed integers of the same bits; to compare them, the first bit is flipped."""
    if reduction in ("sum", "prod"):
        return _OPERATIONS[reduction](a, b, out=a)
    flip = torch.iinfo(a.dtype).min
    return a.copy_(_OPERATIONS[reduction](a ^ flip, b ^ flip) ^ flip)


def _precedes(b: Tensor, a: Tensor, reduction: str) -> Tensor:
    """Where b is to be taken: it is greater (or less), or no number while a is one."""
    greater = (b.real > a.real) | ((b.real == a.real) & (b.imag > a.imag))
    less = (b.real < a.real) | ((b.real == a.real) & (b.imag < a.imag))
    chosen = greater if reduction == "max" else less
    return ~torch.isnan(a) & (chosen | torch.isnan(b))
