"""Element types that jax has and types have not: moved as integers of the same size.

A redistribution copies elements, so a tile of `float8_e4m3b11fnuz` moves as `uint8` of the same
bits, and one of `int4`, which a byte holds in memory, as `int8` of the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.dtypes import dtype_name

Program = Callable[[Any], Any]


def carrier(dtype: Any) -> np.dtype[Any]:
    """The dtype that an array of this dtype is planned and moved as; its own where types have it.

    >>> carrier(jnp.bfloat16), carrier(jnp.int4), carrier(jnp.float8_e4m3b11fnuz)
    (dtype(bfloat16), dtype('int8'), dtype('uint8'))
    """
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        raise LayoutError(f"types have no elements of dtype {dtype}", dtype=dtype)
    numpy_type: np.dtype[Any] = np.dtype(dtype)
    try:
        dtype_name(numpy_type)
    except LayoutError:
        if numpy_type.itemsize != 1:
            raise
        return np.dtype(np.int8 if jnp.issubdtype(numpy_type, jnp.signedinteger) else np.uint8)
    return numpy_type


def carried(program: Program, dtype: Any) -> Program:
    """A program of tiles, or of arrays, of the carrier as one of this dtype."""
    if carrier(dtype) == dtype:
        return program
    return lambda x: decoded(program(encoded(x)), dtype)


def encoded(x: Any) -> Any:
    """An array as one of its carrier."""
    moved = carrier(x.dtype)
    if moved == x.dtype:
        return x
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jax.lax.convert_element_type(x, moved)
    if jnp.finfo(x.dtype).bits < 8:  # bits of a nibble, then a number of a byte
        return jax.lax.bitcast_convert_type(x, jnp.uint4).astype(moved)
    return jax.lax.bitcast_convert_type(x, moved)


def decoded(x: Any, dtype: Any) -> Any:
    """The inverse of `encoded` for an array of this dtype."""
    if x.dtype == dtype:
        return x
    if jnp.issubdtype(dtype, jnp.integer):
        return jax.lax.convert_element_type(x, dtype)
    if jnp.finfo(dtype).bits < 8:
        return jax.lax.bitcast_convert_type(x.astype(jnp.uint4), dtype)
    return jax.lax.bitcast_convert_type(x, dtype)
