"""Element types as torch has them; their names are numpy's, but no ml_dtypes is needed.

>>> torch_dtype("bf16"), short_name(torch.float8_e5m2)
(torch.bfloat16, 'f8e5m2')
"""

from __future__ import annotations

from typing import Any

import torch

from redistrib.types.dtypes import dtype_name, long_name

Dtype = Any

SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""Signed integers of the same bits: torch can do more with them."""
SMALL_FLOATS = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})


def torch_dtype(name: str) -> Dtype:
    """The torch dtype of a short name."""
    return getattr(torch, long_name(name))


def short_name(dtype: Dtype) -> str:
    """The short name of a torch dtype. Raises LayoutError for one that types do not have."""
    return dtype_name(str(dtype).removeprefix("torch."))


def identity(dtype: Dtype, reduction: str) -> Any:
    """The value that a reduction (sum, prod, max, min) ignores, as `types.reduction` has it.

    >>> identity(torch.int8, "max"), identity(torch.bfloat16, "min"), identity(torch.bool, "prod")
    (-128, inf, True)
    """
    if reduction == "prod":
        return True if dtype == torch.bool else 1
    if reduction == "sum":  # -0.0, since +0.0 turns an addend of -0.0 into +0.0
        if dtype.is_complex:
            return complex(-0.0, -0.0)
        return -0.0 if dtype.is_floating_point else 0
    lowest = reduction == "max"
    if dtype == torch.bool:
        return not lowest
    if dtype.is_complex:
        infinity = float("-inf") if lowest else float("inf")
        return complex(infinity, infinity)
    if dtype.is_floating_point and dtype != torch.float8_e4m3fn:
        return float("-inf") if lowest else float("inf")
    # f8e4m3fn has no infinity: its largest number takes that place.
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return limits.min if lowest else limits.max


def as_bits(tensor: Any) -> Any:
    """The tensor, or a view of it as integers if torch has no indexing of its dtype.

    >>> as_bits(torch.zeros(2, dtype=torch.uint32)).dtype
    torch.int32
    """
    if tensor.dtype in SMALL_FLOATS:
        return tensor.view(torch.uint8)
    return tensor.view(SIGNED.get(tensor.dtype, tensor.dtype))
