"""The cases that ranks run, by name, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from redistrib.backends.torch.dtypes import torch_dtype
from redistrib.types.dtypes import dtype_name

CASES: dict[str, Callable[..., None]] = {}


def case(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function known by its name."""
    CASES[function.__name__] = function
    return function


def to_torch(tile: Any) -> torch.Tensor:
    """A numpy tile of any dtype, ml_dtypes included, as a tensor of its own memory."""
    array = np.array(tile, order="C")
    dtype = torch_dtype(dtype_name(array.dtype))
    if not array.size:
        return torch.empty(array.shape, dtype=dtype)
    flat = torch.from_numpy(array.reshape(-1).view(np.uint8).copy())
    return flat.view(dtype).view(array.shape)


def same_bits(tensor: torch.Tensor, tile: Any) -> bool:
    """Whether a tensor has the shape and the bits of a numpy tile."""
    expected = to_torch(tile)
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        return False
    if not tensor.numel():
        return True
    bits = [t.reshape(-1).contiguous().view(torch.uint8) for t in (tensor, expected)]
    return bool(torch.equal(*bits))


def rank() -> int:
    return int(dist.get_rank())


def ranks() -> int:
    return int(dist.get_world_size())
