"""Elements as they cross a wire in fewer bytes than they have, where the caller wants that.

`bf16` rounds to nearest: a normal number changes by at most 2^-8 of itself, and beyond the range of
bf16 it becomes infinite. `int8` has a scale for each 256 elements that cross after each other, the
largest magnitude among them over 127: each changes by at most 1/253 of that largest; f16 and bf16,
which are rounded back to their own dtype, by twice as much, since what they were is of that dtype
too. A block with an infinity or a NaN, or beyond what a float32 holds, comes out as NaN. Integers,
and elements that are as narrow already, cross as they are.

>>> wire = wire_of("int8")
>>> sent = wire.encoded(np.array([1.0, -0.25, 127.0], "f4"))
>>> sent.nbytes, wire.decoded(sent, 3, np.dtype("f4")).tolist()
(7, [1.0, 0.0, 127.0])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError
from redistrib.text import brief
from redistrib.types.dtypes import dtype_name, itemsize, numpy_dtype

Array = NDArray[Any]
Bytes = NDArray[np.uint8]

BLOCK = 256
"""Elements that share a scale."""
ROUNDED = {"bf16": ("f32", "f64"), "int8": ("f16", "bf16", "f32", "f64"), "": ()}
"""By format, the dtypes whose elements are rounded to it."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A format on the wire; "" is none: every element crosses in its own dtype."""

    format: str = ""

    def size(self, elements: int, dtype: str) -> int:
        """Bytes of so many elements of a dtype."""
        if dtype not in ROUNDED[self.format]:
            return elements * itemsize(dtype)
        return elements + 4 * -(-elements // BLOCK) if self.format == "int8" else 2 * elements

    def encoded(self, values: Array) -> Bytes:
        """Elements as bytes; of what crosses as it is, the same memory."""
        flat = values.reshape(-1)
        if not self.format or dtype_name(values.dtype) not in ROUNDED[self.format]:
            return flat.view(np.uint8)
        if self.format == "bf16":
            with np.errstate(over="ignore"):
                return flat.astype(numpy_dtype("bf16")).view(np.uint8)
        blocks = -(-flat.size // BLOCK)
        padded = np.zeros((blocks, BLOCK), np.float32)
        with np.errstate(all="ignore"):
            padded.reshape(-1)[: flat.size] = flat
            scale = np.abs(padded).max(axis=1, initial=0) / np.float32(127)
            steps = np.rint(padded / np.where(scale > 0, scale, 1)[:, None])
            rounded = np.nan_to_num(np.clip(steps, -127, 127)).astype(np.int8)
        return np.concatenate(
            [scale.view(np.uint8), rounded.reshape(-1)[: flat.size].view(np.uint8)]
        )

    def decoded(self, sent: Bytes, elements: int, dtype: np.dtype[Any]) -> Array:
        """The elements in bytes, of this dtype."""
        if not self.format or dtype_name(dtype) not in ROUNDED[self.format]:
            return sent.view(dtype)
        if self.format == "bf16":
            return sent.view(numpy_dtype("bf16")).astype(dtype)
        scales = 4 * -(-elements // BLOCK)
        scale = np.repeat(sent[:scales].copy().view(np.float32), BLOCK)[:elements]
        with np.errstate(all="ignore"):
            values = sent[scales:].view(np.int8) * np.where(np.isfinite(scale), scale, np.nan)
            return values.astype(dtype)


def wire_of(name: object) -> Wire:
    """The format of a name, None for none. Raises BackendError for any other."""
    if name is None or (isinstance(name, str) and name in ROUNDED):
        return Wire(name or "")
    raise BackendError(f"wire_dtype is 'bf16', 'int8' or None; got {brief(name)}", wire_dtype=name)
