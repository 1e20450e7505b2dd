"""What the texts of MLIR programs have in common: element and tensor types."""

from __future__ import annotations

import re
from collections.abc import Sequence

Tensor = tuple[tuple[int, ...], str]
"""Global shape and dtype, by its short name."""

_ELEMENTS = {
    "bool": "i1",
    **{f"u{bits}": f"ui{bits}" for bits in (8, 16, 32, 64)},
    "c64": "complex<f32>",
    "c128": "complex<f64>",
    "f8e4m3fn": "f8E4M3FN",
    "f8e5m2": "f8E5M2",
}
_DTYPES = {element: dtype for dtype, element in _ELEMENTS.items()}
_TENSOR = re.compile(r"tensor<((?:\d{1,18}x)*)(complex<f\d+>|[a-zA-Z]\w*)>")


def element_type(dtype: str) -> str:
    """The element type of a dtype given by its short name."""
    return _ELEMENTS.get(dtype, dtype)


def tensor_type(shape: Sequence[int], dtype: str) -> str:
    """The type of a tensor.

    >>> tensor_type((4, 8), "f32"), tensor_type((), "c64")
    ('tensor<4x8xf32>', 'tensor<complex<f32>>')
    """
    return f"tensor<{'x'.join([*map(str, shape), element_type(dtype)])}>"


def read_tensors(text: str) -> list[Tensor]:
    """The tensors of static shape in a list of types.

    >>> read_tensors("(tensor<4x8xf32>, tensor<i1>) -> tensor<2xcomplex<f32>>")
    [((4, 8), 'f32'), ((), 'bool'), ((2,), 'c64')]
    """
    return [
        (tuple(int(n) for n in match[1].split("x")[:-1]), _DTYPES.get(match[2], match[2]))
        for match in _TENSOR.finditer(text)
    ]
