"""What a redistribution is told beside its types; `Redistribution` says what each option is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from redistrib.backends.mpi.checks import Index, Ranks, check_timeout
from redistrib.errors import BackendError
from redistrib.types.array_type import ArrayType

Check = Literal["all", "peers", "none"]

SCRATCH = 7 << 18
"""Scratch unless another is asked for; the default is an eleventh of a tile more."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a redistribution; `str` says what is not as by default."""

    src_ranks: Ranks = None
    dst_ranks: Ranks = None
    src_index: Index = None
    dst_index: Index = None
    dtype: DTypeLike | None = None
    scratch: int | None = None
    timeout: float | None = None
    shared: bool = False
    fuse: bool = True
    check: Check = "peers"
    op: Callable[..., Any] | None = None
    accumulate: DTypeLike | None = None

    def timeout_checked(self) -> float | None:
        """The timeout in seconds, or None. Raises BackendError for what is neither."""
        return check_timeout(self.timeout)

    def check_with(self, src: ArrayType, dst: ArrayType) -> None:
        """Raise BackendError for what is no option, or none of these types."""
        if not self.fuse and (src.uneven or dst.uneven):
            raise BackendError(f"steps run one by one of even types; got {src} and {dst}")
        if not self.fuse and (self.op is not None or self.accumulate is not None):
            raise BackendError("op and accumulate are of one reduction; fuse=False has steps")
        if self.check not in ("all", "peers", "none"):
            raise BackendError(
                f"check is 'all', 'peers' or 'none'; got {self.check!r}", check=self.check
            )

    def scratch_of(self, src: ArrayType, dst: ArrayType, dtype: np.dtype[Any]) -> int:
        """Bytes of scratch. Raises BackendError for less than one."""
        if self.scratch is None:
            return SCRATCH + max(src.tile_size, dst.tile_size) * dtype.itemsize // 11
        if self.scratch < 1:
            raise BackendError(
                f"scratch is at least 1 byte; got {self.scratch}", scratch=self.scratch
            )
        return self.scratch

    def __str__(self) -> str:
        text = f" with check={self.check!r}" * (self.check != "peers")
        text += " into shared tiles" * self.shared + " step by step" * (not self.fuse)
        return text + ("" if self.timeout is None else f" with a timeout of {self.timeout:g} s")
