"""Element types: their short names, sizes and numpy equivalents.

>>> dtype_name("s8"), long_name("bf16"), itemsize("c64"), numpy_dtype("f16")
('i8', 'bfloat16', 8, dtype('float16'))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from redistrib.errors import BackendError, LayoutError
from redistrib.text import brief

# short name -> (bytes per element, numpy name); the last three live in ml_dtypes
_DTYPES = {
    "bool": (1, "bool"),
    "i8": (1, "int8"),
    "i16": (2, "int16"),
    "i32": (4, "int32"),
    "i64": (8, "int64"),
    "u8": (1, "uint8"),
    "u16": (2, "uint16"),
    "u32": (4, "uint32"),
    "u64": (8, "uint64"),
    "f16": (2, "float16"),
    "f32": (4, "float32"),
    "f64": (8, "float64"),
    "c64": (8, "complex64"),
    "c128": (16, "complex128"),
    "bf16": (2, "bfloat16"),
    "f8e4m3fn": (1, "float8_e4m3fn"),
    "f8e5m2": (1, "float8_e5m2"),
}
_ML_DTYPES = frozenset({"bf16", "f8e4m3fn", "f8e5m2"})
_ALIASES = {
    **{name: name for name in _DTYPES},
    **{numpy_name: name for name, (_, numpy_name) in _DTYPES.items()},
    **{f"s{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    "pred": "bool",
}


def dtype_name(dtype: object) -> str:
    """The short name of a dtype given by short, HLO or numpy name, or as a numpy dtype.

    >>> dtype_name("float32"), dtype_name("s8"), dtype_name(np.dtype("complex64"))
    ('f32', 'i8', 'c64')

    Raises LayoutError for an unknown dtype, listing the known ones; of numpy's, those in the byte
    order of the machine are known.
    """
    if isinstance(dtype, str):
        name = str(dtype)
    elif isinstance(dtype, (np.dtype, type)) or hasattr(dtype, "dtype"):
        name = _numpy_name(dtype)
    else:
        name = ""
    if name in _ALIASES:
        return _ALIASES[name]
    raise LayoutError(f"unknown dtype {brief(dtype)}; known: {', '.join(_DTYPES)}", dtype=dtype)


def _numpy_name(dtype: object) -> str:
    """The name of a numpy dtype, class or scalar; none for what is of another byte order."""
    try:
        numpy_type = np.dtype(dtype)  # type: ignore[call-overload]
        return str(numpy_type.name) if numpy_type.isnative else ""
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError):
        return ""


def long_name(name: str) -> str:
    """The numpy name of a dtype given by its short name.

    >>> long_name("bf16")
    'bfloat16'
    """
    return _DTYPES[name][1]


def itemsize(name: str) -> int:
    """Bytes per element of a dtype given by its short name."""
    return _DTYPES[name][0]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a short name. Raises BackendError where it needs a missing ml_dtypes."""
    numpy_name = _DTYPES[name][1]
    if name not in _ML_DTYPES:
        return np.dtype(numpy_name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise BackendError(
            f"dtype {name} needs the package ml_dtypes (pip install redistrib[dtypes])", dtype=name
        ) from error
    numpy_type: np.dtype[Any] = np.dtype(getattr(ml_dtypes, numpy_name))
    return numpy_type


def exact_integers(name: str) -> int:
    """The integers from 0 to below this one are exact in a dtype.

    >>> [exact_integers(name) for name in ("bool", "i8", "f16", "bf16", "f8e5m2")]
    [2, 128, 2048, 256, 8]
    """
    dtype = numpy_dtype(name)
    if dtype.kind == "b":
        return 2
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max) + 1
    if dtype.kind in "fc" and name not in _ML_DTYPES:
        return 1 << (int(np.finfo(dtype).nmant) + 1)
    import ml_dtypes

    limits: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return 1 << (int(limits.nmant) + 1)


def is_small_float(name: str) -> bool:
    """Whether a dtype is a float that numpy does not have, which platforms may store as another.

    >>> [is_small_float(name) for name in ("bf16", "f8e5m2", "f16", "u8")]
    [True, True, False, False]
    """
    return name in _ML_DTYPES
