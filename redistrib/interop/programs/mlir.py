"""What the texts of MLIR programs have in common: element and tensor types."""

from __future__ import annotations

from collections.abc import Sequence

_ELEMENTS = {
    "bool": "i1",
    **{f"u{bits}": f"ui{bits}" for bits in (8, 16, 32, 64)},
    "c64": "complex<f32>",
    "c128": "complex<f64>",
    "f8e4m3fn": "f8E4M3FN",
    "f8e5m2": "f8E5M2",
}


def element_type(dtype: str) -> str:
    """The element type of a dtype given by its short name."""
    return _ELEMENTS.get(dtype, dtype)


def tensor_type(shape: Sequence[int], dtype: str) -> str:
    """The type of a tensor.

    >>> tensor_type((4, 8), "f32"), tensor_type((), "c64")
    ('tensor<4x8xf32>', 'tensor<complex<f32>>')
    """
    return f"tensor<{'x'.join([*map(str, shape), element_type(dtype)])}>"
